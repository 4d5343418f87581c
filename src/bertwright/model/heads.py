"""What is put on top of the encoder: one small module per question. Paper: 3.1, 4 and figure 4.

A head says which rows it reads (`rows`), or that it reads what is pooled (`pooled`), and turns them into logits. The
encoder's last layer is computed on those rows alone, unless a BiLSTM between them reads all of it (`bilstm`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model.layers import ACTIVATIONS, BiLSTM, LayerNorm, Linear
from bertwright.model.ops import dropout, linear_cross_entropy


class Head(nn.Module):
    """The contract of a head."""

    pooled: bool = False
    """Whether it reads one vector for each sequence from the pooler; which row that is, the encoder knows."""

    def __init__(self) -> None:
        super().__init__()
        self.bilstm: BiLSTM | None = None
        """What the last hidden states pass through before this head or the pooler reads them. Paper: 5.1."""

    def rows(self, batch: Batch) -> Int[Tensor, "R"]:
        """Return the rows of the batch that this head reads where it is not `pooled`, int64."""
        return batch.first_rows

    def initialise(self, generator: torch.Generator) -> None:
        """Draw those weights that are not drawn as the encoder's are."""
        if self.bilstm is not None:
            self.bilstm.initialise(generator)


class LayersHead(Head):
    """A head that reads what several layers say of every token: `forward` takes states [N, L, H] and the batch."""

    layers: tuple[int, ...] = ()
    """Which layers' outputs: 0 for the embeddings, then 1, 2, ..."""


class MaskedLMHead(Head):
    """Predict the token that stood on each masked row; the decoder is the word embedding itself. Paper: 3.1, task 1.

    From left to right it predicts the token after each row named.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder_weight: Tensor = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.decoder_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def rows(self, batch: Batch) -> Int[Tensor, "M"]:
        """Return the rows to predict at."""
        return batch.targets["masked_rows"]

    def forward(self, hidden: Float[Tensor, "M H"]) -> Float[Tensor, "M V"]:
        """Return a logit per vocabulary entry, fp32."""
        x = self._transformed(hidden)
        return F.linear(x, self.decoder_weight.to(x.dtype), self.decoder_bias.to(x.dtype)).float()

    def loss(
        self, hidden: Float[Tensor, "M H"], labels: Int[Tensor, "M"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "M"], Bool[Tensor, "M"]]:
        """Return the summed cross-entropy, that of each row, and whether its answer is right; no logits are kept."""
        return linear_cross_entropy(self._transformed(hidden), self.decoder_weight, self.decoder_bias, labels)

    def _transformed(self, hidden: Tensor) -> Tensor:
        x: Tensor = self.norm(self.activation(self.transform(hidden)))
        return x


class NextSentenceHead(Head):
    """Tell whether segment B follows segment A (0) or is random (1). Paper: 3.1, task 2."""

    pooled = True

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.classifier = Linear(config.hidden_size, 2)

    def forward(self, hidden: Float[Tensor, "B H"]) -> Float[Tensor, "B 2"]:
        """Return two logits per sequence, fp32."""
        logits: Tensor = self.classifier(hidden)
        return logits.float()


class ClassificationHead(Head):
    """One logit per class from the pooled vector. Paper: 4.1."""

    pooled = True

    def __init__(self, config: BertConfig, num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.dropout_prob = config.hidden_dropout_prob
        self.classifier = Linear(config.hidden_size, num_labels)

    def forward(self, hidden: Float[Tensor, "B H"]) -> Float[Tensor, "B K"]:
        """Return a logit per class, fp32."""
        logits: Tensor = self.classifier(dropout(hidden, self.dropout_prob, self.training))
        return logits.float()


class ChoiceHead(ClassificationHead):
    """One score per choice from the pooled vector; every choice is a sequence of its own. Paper: 4.4."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config, num_labels=1)


class TokenClassificationHead(Head):
    """One logit per class from every token, or from those rows that the batch names. Paper: 5.3."""

    def __init__(self, config: BertConfig, num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.dropout_prob = config.hidden_dropout_prob
        self.classifier = Linear(config.hidden_size, num_labels)

    def rows(self, batch: Batch) -> Int[Tensor, "R"]:
        """Return `targets["token_rows"]` where the batch has them, else every row."""
        return batch.targets.get("token_rows", torch.arange(batch.num_tokens, device=batch.input_ids.device))

    def forward(self, hidden: Float[Tensor, "R H"]) -> Float[Tensor, "R K"]:
        """Return a logit per class, fp32."""
        logits: Tensor = self.classifier(dropout(hidden, self.dropout_prob, self.training))
        return logits.float()


class SpanHead(Head):
    """A start and an end logit for every token. Paper: 4.2 and 4.3."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.classifier = Linear(config.hidden_size, 2)

    def rows(self, batch: Batch) -> Int[Tensor, "N"]:
        """Return every row."""
        return torch.arange(batch.num_tokens, device=batch.input_ids.device)

    def forward(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N 2"]:
        """Return the logits of being the answer's first and last token, fp32."""
        logits: Tensor = self.classifier(hidden)
        return logits.float()
