"""A head on the outputs of several layers, for an encoder that is not trained: the feature-based approach. Paper: 5.3.

head = FeatureTaggingHead(config, num_labels=9, features="concat-last-4", lstm_layers=2, lstm_size=768)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model.heads import LayersHead
from bertwright.model.layers import BiLSTM, Linear
from bertwright.model.ops import dropout
from bertwright.options import FeatureMix


def layers_of(features: FeatureMix, num_hidden_layers: int) -> tuple[int, ...]:
    """Return the layers that a way of taking features reads: 0 for the embeddings, L for the last one."""
    last = num_hidden_layers
    match features:
        case "embeddings":
            return (0,)
        case "second-to-last":
            return (last - 1,)
        case "last":
            return (last,)
        case "sum-all" | "weighted-sum-all":
            return tuple(range(1, last + 1))
        case _:
            return tuple(range(max(1, last - 3), last + 1))


class FeatureTaggingHead(LayersHead):
    """Mix the outputs of some layers, run a BiLSTM over each sequence, and give every wanted row a logit per class.

    Args:
        config: of the encoder.
        num_labels: K.
        features: which layers, and how they are mixed.
        lstm_layers: of the BiLSTM; 0 for none.
        lstm_size: of its output, both directions together.
    """

    def __init__(
        self, config: BertConfig, num_labels: int, *, features: FeatureMix, lstm_layers: int, lstm_size: int
    ) -> None:
        super().__init__()
        self.layers = layers_of(features, config.num_hidden_layers)
        self.concatenates = features.startswith("concat")
        self.dropout_prob = config.hidden_dropout_prob
        width = config.hidden_size * (len(self.layers) if self.concatenates else 1)
        self.weights = nn.Parameter(torch.zeros(len(self.layers))) if features.startswith("weighted") else None
        self.lstm = BiLSTM(width, lstm_size, lstm_layers) if lstm_layers else None
        self.classifier = Linear(lstm_size if lstm_layers else width, num_labels)

    def rows(self, batch: Batch) -> Int[Tensor, "R"]:
        """Return `targets["token_rows"]` where the batch has them, else every row."""
        return batch.targets.get("token_rows", torch.arange(batch.num_tokens, device=batch.input_ids.device))

    def forward(self, states: Float[Tensor, "N L H"], batch: Batch) -> Float[Tensor, "R K"]:
        """Return a logit per class of every row in `rows`, fp32."""
        mixed = self._mixed(states.float())
        if self.lstm is not None:
            mixed = self.lstm(dropout(mixed, self.dropout_prob, self.training), batch.cu_seqlens)
        mixed = mixed.index_select(0, self.rows(batch))
        logits: Tensor = self.classifier(dropout(mixed, self.dropout_prob, self.training))
        return logits.float()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the BiLSTM's weights as torch does, uniformly, and start from the plain sum of the layers."""
        if self.weights is not None:
            nn.init.zeros_(self.weights)
        if self.lstm is not None:
            self.lstm.initialise(generator)

    def _mixed(self, states: Float[Tensor, "N L H"]) -> Float[Tensor, "N W"]:
        if self.concatenates:
            return states.flatten(1)
        if self.weights is not None:
            return torch.einsum("nlh,l->nh", states, self.weights.softmax(0) * len(self.layers))
        return states.sum(1)
