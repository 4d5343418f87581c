"""One example as a person wants to see it: its tokens, its segments, what is hidden and how, its label.

This is what `bertwright data show` colours.

    view = describe_example(ShardSet.open("shards"), 0)
    [token.shown for token in view.tokens if token.state == "mask"]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bertwright.config import MaskingConfig
from bertwright.data.masking import MaskVocabulary, mask_tokens
from bertwright.data.shards import ShardSet

TokenState = Literal["special", "plain", "mask", "random", "kept"]
"""[CLS] or [SEP] · not predicted · predicted and shown as [MASK] · as a random token · as itself.

A random token that happens to be the original counts as `kept`: nothing tells them apart."""


@dataclass(frozen=True)
class TokenView:
    """One token of an example."""

    shown: str
    """What the model sees."""
    original: str
    """What stood there, and is predicted unless the state is `special` or `plain`."""
    segment: int
    """0: A, 1: B."""
    state: TokenState
    """What masking did to it."""
    goes_on: bool = False
    """Whether it goes on with the word of the token before it; False everywhere if tokens are masked, not words."""


@dataclass(frozen=True)
class ExampleView:
    """One example, masked as it is in one epoch."""

    tokens: list[TokenView]
    """[CLS] A [SEP] B [SEP], or [CLS] A [SEP]."""
    text_a: str
    """Segment A as text."""
    text_b: str | None
    """Segment B as text; None in single-segment shards."""
    next_sentence_label: int | None
    """0: B follows A; 1: B is random; None in single-segment shards."""
    whole_word: str = ""
    """How the shards' words were found; empty if tokens are masked, not words."""


def describe_example(
    shards: ShardSet,
    index: int,
    masking: MaskingConfig | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    split: str = "train",
) -> ExampleView:
    """Return an example exactly as pre-training with this seed sees it in this epoch.

    Raises:
        BertwrightError: there is no such example, or the shards do not know the words that `masking` asks for.
    """
    masking = masking or MaskingConfig()
    examples = shards.split(split)
    masks_words = examples.masks_words(masking)
    raw = examples.example(index)
    wordpiece = shards.wordpiece
    input_ids = [wordpiece.cls_id, *raw.a.tolist(), wordpiece.sep_id]
    segments = [0] * len(input_ids)
    if raw.b is not None:
        input_ids += [*raw.b.tolist(), wordpiece.sep_id]
        segments += [1] * (len(raw.b) + 1)
    words = [np.append(part, False) for part in (raw.a_goes_on, raw.b_goes_on) if part is not None]
    goes_on = np.concatenate([[False], *words]) if masks_words else np.zeros(len(input_ids), dtype=bool)
    original = np.array(input_ids)
    vocabulary = MaskVocabulary.of(wordpiece)
    shown, rows, _ = mask_tokens(
        original,
        np.array([index]),
        np.array([epoch]),
        np.array([0, len(original)]),
        seed=seed,
        config=masking,
        vocabulary=vocabulary,
        goes_on=goes_on,
    )
    states: list[TokenState] = ["plain" if vocabulary.maskable[number] else "special" for number in input_ids]
    for row in rows.tolist():
        if shown[row] == vocabulary.mask_id:
            states[row] = "mask"
        else:
            states[row] = "kept" if shown[row] == original[row] else "random"
    names = wordpiece.tokens
    return ExampleView(
        tokens=[
            TokenView(shown=names[now], original=names[before], segment=segment, state=state, goes_on=joined)
            for now, before, segment, state, joined in zip(
                shown.tolist(), input_ids, segments, states, goes_on.tolist(), strict=True
            )
        ],
        text_a=wordpiece.decode(raw.a.tolist()),
        text_b=None if raw.b is None else wordpiece.decode(raw.b.tolist()),
        next_sentence_label=raw.next_sentence_label,
        whole_word=shards.manifest.config.whole_word if masks_words else "",
    )
