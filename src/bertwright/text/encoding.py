"""One input of the model, and how texts too long for it are cut or looked at through windows.

encoding = wordpiece.encode(question, passage, max_length=384)
windows = wordpiece.windows(question, passage, max_length=384, stride=128)
start, end = windows[1].offsets[200]
passage[start:end]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from bertwright.errors import BertwrightError

Truncation = Literal["longer_side", "longest_first", "only_first", "only_second"]
"""Which segment loses tokens, at its end, until a pair fits.

`longer_side`: whichever is longer, one by one, of equals B; google-research/bert `_truncate_seq_pair`. `longest_first`:
likewise, but of two that both have to give, A keeps half of the room, rounded down; the `tokenizers` package.
`only_first`, `only_second`: A alone, B alone.
"""


@dataclass(frozen=True)
class Segment:
    """A text and its tokens, none of them cut off yet."""

    text: str
    ids: list[int]
    find_offsets: Callable[[str], list[tuple[int, int]]] = field(repr=False)

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        """Start and end of each token in the text, characters; found when first asked for."""
        return self.find_offsets(self.text)


@dataclass(frozen=True)
class Encoding:
    """One model input: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`."""

    input_ids: list[int]
    """Vocabulary ids."""
    token_type_ids: list[int]
    """0 up to the first [SEP], 1 after it."""
    truncated: bool
    """Whether tokens were left out to fit."""
    parts: tuple[tuple[Segment, int, int], ...] = field(repr=False, compare=False)
    """The segments, and from which of their tokens to which they are in here."""

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        """Start and end of each token in its own text (a or b), characters; (0, 0) for [CLS] and [SEP]."""
        found = [(0, 0)]
        for segment, start, end in self.parts:
            found += [*segment.offsets[start:end], (0, 0)]
        return found


def assemble(parts: tuple[tuple[Segment, int, int], ...], cls_id: int, sep_id: int, *, truncated: bool) -> Encoding:
    """Put [CLS] and [SEP] around the chosen tokens of one or two segments."""
    input_ids, token_type_ids = [cls_id], [0]
    for number, (segment, start, end) in enumerate(parts):
        input_ids += [*segment.ids[start:end], sep_id]
        token_type_ids += [number] * (end - start + 1)
    return Encoding(input_ids, token_type_ids, truncated, parts)


def truncated_lengths(lengths: list[int], room: int, truncation: Truncation) -> list[int]:
    """Return how many tokens of each segment stay.

    Args:
        lengths: tokens of A, or of A and B.
        room: tokens that fit, [CLS] and [SEP] not counted.
        truncation: which segment gives.

    Raises:
        BertwrightError: an unknown way to truncate, or a segment that alone has to give would have nothing left.
    """
    possible = (
        get_args(Truncation) if len(lengths) > 1 else [name for name in get_args(Truncation) if "sec" not in name]
    )
    if truncation not in possible:
        raise BertwrightError(f"truncation must be one of {', '.join(possible)}, not {truncation!r}")
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    first, second = lengths
    if truncation in ("only_first", "only_second"):
        kept, cut = (second, first) if truncation == "only_first" else (first, second)
        if room < kept + (cut > 0):
            raise BertwrightError(
                f"the other segment alone has {kept:,} tokens and leaves no room with truncation {truncation!r}",
                fix="give a larger max_length, or truncation='longest_first'",
            )
        return [room - second, second] if truncation == "only_first" else [first, room - first]
    shorter = min(first, second)
    if 2 * shorter <= room:  # the longer one has more to give than it must
        return [min(first, room - shorter), shorter] if first > second else [shorter, room - shorter]
    half, odd = divmod(room, 2)
    if truncation == "longer_side" or first > second:
        return [half + odd, half]
    return [half, half + odd]


def window_starts(length: int, room: int, stride: int) -> list[int]:
    """Return where windows of `room` tokens begin, the neighbouring ones sharing `stride` of them.

    Raises:
        BertwrightError: no token of the text fits, or windows that share so much would never get anywhere.
    """
    if length and room < 1:
        raise BertwrightError(
            "max_length leaves no room for a token of the text", fix=f"give at least {1 - room} tokens more"
        )
    room = max(room, 1)
    if not 0 <= stride < room:
        raise BertwrightError(
            f"stride {stride} must lie between 0 and {room - 1}: a window holds {room} tokens of the text, "
            f"and neighbours share `stride` of them"
        )
    starts = [0]
    while starts[-1] + room < length:
        starts.append(starts[-1] + room - stride)
    return starts
