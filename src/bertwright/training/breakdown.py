"""Which tokens a model predicts well: its held-out loss and accuracy by length, by what was shown, by kind of token.

    breakdown = Breakdown(wordpiece, "mlm")
    breakdown.add(batch, objective(model, batch).tokens)
    breakdown.means()["shown/mask/mlm_accuracy"]    # of the tokens that were hidden

Each of these stands before `/mlm_loss`, `/mlm_accuracy` and `/mlm_tokens`, how many were predicted:

- `length/33-64`: in sequences of so many tokens, [CLS] and [SEP] included; the steps are 32, 64, 128, ...
- `shown/mask`, `shown/random`, `shown/unchanged`: what stood in the token's place. Not from left to right.
- `kind/word` (or its beginning), `kind/piece` (`##`), `kind/number`, `kind/punctuation`, `kind/chinese` (a
  character), `kind/other`: what the right answer is.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from jaxtyping import Int

from bertwright.batch import Batch, TokenScores
from bertwright.data.masking import MaskVocabulary
from bertwright.text.characters import SCRIPTS, kind_of
from bertwright.text.wordpiece import WordPiece
from bertwright.training.distributed import ALONE, Group

_ENDS = [32 * 2**number for number in range(12)]
LENGTHS = tuple(f"{end // 2 + 1 if number else 1}-{end}" for number, end in enumerate(_ENDS))
"""Lengths of sequences, tokens, from and to."""
SHOWN = ("mask", "random", "unchanged")
"""What stands in the place of a token that is to be predicted. Paper: 3.1, task 1."""
KINDS = ("word", "piece", "number", "punctuation", "chinese", "other")
"""Kinds of entries of a vocabulary."""
GROUPS = {"length": LENGTHS, "shown": SHOWN, "kind": KINDS}
"""Everything that predicted tokens are sorted by."""


class Breakdown:
    """Sums over predicted tokens, sorted in three ways; nobody divides before `means`, so that any split adds up.

    Args:
        wordpiece: the vocabulary.
        name: what the loss and the accuracy are called: `mlm`, or `ltr` from left to right, where all is shown.
    """

    def __init__(self, wordpiece: WordPiece, name: str) -> None:
        self.name = name
        self._mask_id = wordpiece.mask_id
        self._kinds = np.full(wordpiece.vocab_size, KINDS.index("other"))
        for number in MaskVocabulary.of(wordpiece).replacements.tolist():  # neither special nor [unused]
            self._kinds[number] = KINDS.index(token_kind(wordpiece.tokens[number]))
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, batch: Batch, tokens: TokenScores) -> None:
        """Sort the predicted tokens of a batch in host memory."""
        rows, labels = (batch.targets[name].numpy() for name in ("masked_rows", "masked_labels"))
        starts = batch.cu_seqlens.numpy()
        lengths = np.diff(starts)[np.searchsorted(starts, rows, side="right") - 1]
        self._sort("length", np.searchsorted(_ENDS, lengths), tokens)
        if self.name == "mlm":
            self._sort("shown", self._shown(batch.input_ids.numpy()[rows], labels), tokens)
        self._sort("kind", self._kinds[labels], tokens)

    def means(self, group: Group = ALONE) -> dict[str, float]:
        """Return losses, accuracies and numbers of tokens over all processes, where there are any, and start anew."""
        totals, found = group.total(self._sums), {}
        self._sums.clear()
        for name in (f"{sorting}/{member}" for sorting, members in GROUPS.items() for member in members):
            if count := int(totals.get(f"{name}/tokens", 0)):
                for what in ("loss", "accuracy"):
                    found[f"{name}/{self.name}_{what}"] = round(totals[f"{name}/{what}"] / count, 6)
                found[f"{name}/{self.name}_tokens"] = count
        return found

    def _shown(self, ids: Int[np.ndarray, "M"], labels: Int[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
        """Return places in `SHOWN`; a random token that happens to be the right one is unchanged."""
        return np.where(ids == self._mask_id, 0, np.where(ids == labels, 2, 1))

    def _sort(self, sorting: str, members: Int[np.ndarray, "M"], tokens: TokenScores) -> None:
        values = {"loss": tokens.losses, "accuracy": tokens.right, "tokens": torch.ones_like(tokens.losses)}
        for what, each in values.items():
            sums = np.bincount(members, weights=each.double().cpu().numpy(), minlength=len(GROUPS[sorting]))
            for member, total in zip(GROUPS[sorting], sums.tolist(), strict=True):
                self._sums[f"{sorting}/{member}/{what}"] += total


def token_kind(token: str) -> str:
    """Return the kind of an ordinary entry of a vocabulary, one of `KINDS`; letters decide before digits."""
    if token.startswith("##") and len(token) > 2:
        return "piece"
    kinds = {_punctuation_or(kind_of(char), char) for char in token}
    if "han" in kinds:
        return "chinese"
    if kinds & {*SCRIPTS}:
        return "word"
    if kinds == {"digits"}:
        return "number"
    return "punctuation" if kinds == {"punctuation"} else "other"


def _punctuation_or(kind: str, char: str) -> str:
    """Return a character's kind; ASCII's symbols are punctuation to BERT."""
    return "punctuation" if kind == "symbols" and char.isascii() else kind
