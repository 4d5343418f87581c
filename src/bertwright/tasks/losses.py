"""What each kind of head is trained to make small: sums and counts, which nobody has divided yet. Paper: 4 and 5.3.

    step = classification_loss(logits, labels)
    step.losses["loss"].total / step.losses["loss"].count      # what torch's and Hugging Face's `mean` give

Every function returns one loss, `loss`, and where right and wrong can be told apart the number right, `accuracy`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bertwright.batch import LossTerm, StepOutput


def classification_loss(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B"]) -> StepOutput:
    """Return the cross-entropy of one label out of K."""
    total = F.cross_entropy(logits.float(), labels, reduction="sum")
    return _step(total, labels.numel(), (logits.detach().argmax(-1) == labels).sum(), labels.numel())


def multi_label_loss(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B K"]) -> StepOutput:
    """Return the binary cross-entropy of K labels, each there (1) or not (0); it counts B times K decisions."""
    total = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
    return _step(total, labels.numel(), ((logits.detach() > 0) == (labels > 0.5)).sum(), labels.numel())


def regression_loss(logits: Float[Tensor, "B 1"], labels: Float[Tensor, "B"]) -> StepOutput:
    """Return the squared error of one number."""
    total = F.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum")
    return StepOutput({"loss": LossTerm(total, labels.numel())}, {})


def choice_loss(logits: Float[Tensor, "C 1"], num_choices: Int[Tensor, "B"], labels: Int[Tensor, "B"]) -> StepOutput:
    """Return the cross-entropy of the right choice among each example's own.

    Args:
        logits: one score for every choice, those of an example next to each other.
        num_choices: how many choices each example has; they sum to C.
        labels: the right one's place among them.
    """
    scores = logits.float().squeeze(-1).split(num_choices.tolist())
    padded = torch.nn.utils.rnn.pad_sequence(list(scores), batch_first=True, padding_value=float("-inf"))
    return classification_loss(padded, labels)


def tagging_loss(logits: Float[Tensor, "R K"], labels: Int[Tensor, "R"]) -> StepOutput:
    """Return the cross-entropy of one tag out of K for every row."""
    return classification_loss(logits, labels)


def span_loss(
    logits: Float[Tensor, "N 2"], cu_seqlens: Int[Tensor, "B1"], starts: Int[Tensor, "B"], ends: Int[Tensor, "B"]
) -> StepOutput:
    """Return half the cross-entropies of a span's first and last token among the tokens of its sequence.

    Differs: in google-research/bert `run_squad.py` and in Hugging Face's model, padding competes with the tokens.

    Args:
        logits: of being the first, and of being the last token.
        cu_seqlens: where each sequence starts, and N at the end.
        starts: the first token's place in its sequence.
        ends: the last token's.
    """
    lengths = cu_seqlens.diff().tolist()
    padded = torch.nn.utils.rnn.pad_sequence(
        list(logits.float().split(lengths)), batch_first=True, padding_value=float("-inf")
    )
    first, last = (classification_loss(padded[..., side], places) for side, places in ((0, starts), (1, ends)))
    right = (padded.detach().argmax(1) == torch.stack([starts, ends], 1)).all(1).sum()
    return _step((first.losses["loss"].total + last.losses["loss"].total) / 2, starts.numel(), right, starts.numel())


def _step(total: Tensor, count: int, right: Tensor, of: int) -> StepOutput:
    return StepOutput({"loss": LossTerm(total, count)}, {"accuracy": LossTerm(right.float(), of)})
