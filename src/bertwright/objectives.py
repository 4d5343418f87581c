"""What pre-training minimises: masked tokens, and whether segment B follows segment A. Paper: 3.1 and A.2.

An objective names its heads, counts what it will sum, and turns (model, batch) into losses and metrics that nobody has
divided yet; the loop divides by the counts over micro-batches and ranks.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F

from bertwright.batch import Batch, LossTerm, StepOutput
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

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return the masked-token head."""
        return {"mlm": MaskedLMHead(config)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of masked tokens."""
        return {"mlm_loss": batch.targets["masked_labels"].shape[0]}

    def __call__(self, model: Bert, batch: Batch) -> StepOutput:
        """Sum the cross-entropy of masked tokens."""
        return _masked_lm(model, batch, model.hidden_for_heads(batch)["mlm"])


class MaskedLMAndNextSentence:
    """Mean masked-token loss plus mean next-sentence loss, from one pass. Paper: A.2."""

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return the masked-token and next-sentence heads."""
        return {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of masked tokens and of sequences."""
        return {"mlm_loss": batch.targets["masked_labels"].shape[0], "nsp_loss": batch.num_sequences}

    def __call__(self, model: Bert, batch: Batch) -> StepOutput:
        """Sum both losses."""
        hidden = model.hidden_for_heads(batch)
        output = _masked_lm(model, batch, hidden["mlm"])
        logits, labels = model.heads["nsp"](hidden["nsp"]), batch.targets["next_sentence_label"]
        output.losses["nsp_loss"] = LossTerm(F.cross_entropy(logits, labels, reduction="sum"), labels.shape[0])
        output.metrics["nsp_accuracy"] = LossTerm((logits.argmax(-1) == labels).sum().float(), labels.shape[0])
        return output


OBJECTIVES: dict[ObjectiveName, type[Objective]] = {"mlm+nsp": MaskedLMAndNextSentence, "mlm": MaskedLM}


def _masked_lm(model: Bert, batch: Batch, hidden: torch.Tensor) -> StepOutput:
    head, labels = model.heads["mlm"], batch.targets["masked_labels"]
    assert isinstance(head, MaskedLMHead)
    total, correct = head.loss(hidden, labels)
    count = labels.shape[0]
    return StepOutput({"mlm_loss": LossTerm(total, count)}, {"mlm_accuracy": LossTerm(correct.float(), count)})
