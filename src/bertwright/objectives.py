"""What pre-training minimises: masked or next tokens, and whether segment B follows A. Paper: 3.1, 5.1 and A.2.

An objective names its heads, counts what it will sum, and turns (model, batch) into losses and metrics that nobody has
divided yet; the loop divides by the counts over micro-batches and ranks.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F

from bertwright.batch import Batch, LossTerm, StepOutput, TokenScores
from bertwright.config import BertConfig, ObjectiveName
from bertwright.model.bert import Bert
from bertwright.model.heads import Head, MaskedLMHead, NextSentenceHead


@runtime_checkable
class Objective(Protocol):
    """What the training loop asks of an objective; a fine-tuning task is one too."""

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return fresh heads by name."""
        ...

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return, for each loss, how many things it will sum over this batch."""
        ...

    def __call__(self, model: Bert, batch: Batch) -> StepOutput:
        """Return summed losses and metrics of one batch."""
        ...


class MaskedLM:
    """Predict masked tokens from both sides. Paper: 3.1, task 1."""

    tokens: ClassVar[str] = "mlm"
    """What the loss and the accuracy of tokens are called."""

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return the masked-token head."""
        return {"mlm": MaskedLMHead(config)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of predicted tokens."""
        return {f"{self.tokens}_loss": batch.targets["masked_labels"].shape[0]}

    def __call__(self, model: Bert, batch: Batch) -> StepOutput:
        """Sum the cross-entropy of predicted tokens."""
        return self._token_loss(model, batch, model.hidden_for_heads(batch)["mlm"])

    def _token_loss(self, model: Bert, batch: Batch, hidden: torch.Tensor) -> StepOutput:
        head, labels = model.heads["mlm"], batch.targets["masked_labels"]
        assert isinstance(head, MaskedLMHead)
        total, losses, right = head.loss(hidden, labels)
        loss, accuracy = LossTerm(total, labels.shape[0]), LossTerm(right.sum().float(), labels.shape[0])
        each = TokenScores(losses, right)
        return StepOutput({f"{self.tokens}_loss": loss}, {f"{self.tokens}_accuracy": accuracy}, each)


class MaskedLMAndNextSentence(MaskedLM):
    """Mean masked-token loss plus mean next-sentence loss, from one pass. Paper: A.2."""

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return the token head and the next-sentence head."""
        return super().heads(config) | {"nsp": NextSentenceHead(config)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of predicted tokens and of sequences."""
        return super().counts(batch) | {"nsp_loss": batch.num_sequences}

    def __call__(self, model: Bert, batch: Batch) -> StepOutput:
        """Sum both losses."""
        hidden = model.hidden_for_heads(batch)
        output = self._token_loss(model, batch, hidden["mlm"])
        logits, labels = model.heads["nsp"](hidden["nsp"]), batch.targets["next_sentence_label"]
        output.losses["nsp_loss"] = LossTerm(F.cross_entropy(logits, labels, reduction="sum"), labels.shape[0])
        output.metrics["nsp_accuracy"] = LossTerm((logits.argmax(-1) == labels).sum().float(), labels.shape[0])
        return output


class LeftToRight(MaskedLM):
    """Predict every next token of a sequence from those before it, with masked LM's head. Paper: 5.1, "LTR & No NSP".

    The model is causal (`is_decoder`), nothing is masked, and `masked_rows` are all rows but each sequence's last.
    """

    tokens = "ltr"

    def _token_loss(self, model: Bert, batch: Batch, hidden: torch.Tensor) -> StepOutput:
        assert model.config.is_decoder, "to a model that reads both ways, the next token is no secret"
        return super()._token_loss(model, batch, hidden)


class LeftToRightAndNextSentence(LeftToRight, MaskedLMAndNextSentence):
    """Mean next-token loss plus mean next-sentence loss; the latter needs a model that pools the last token."""


OBJECTIVES: dict[ObjectiveName, type[Objective]] = {
    "mlm+nsp": MaskedLMAndNextSentence,
    "mlm": MaskedLM,
    "ltr": LeftToRight,
    "ltr+nsp": LeftToRightAndNextSentence,
}
