"""Where in a text its tokens come from, of many texts at once: enough to tell which tokens are of one word.

ids, lengths, places = flat_places_of_many(wordpiece, ["使用 BERT", "unaffable"])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertwright.text.lookup import Found
from bertwright.text.wordpiece import WordPiece, batches


def flat_places_of_many(wordpiece: WordPiece, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `WordPiece.flat_ids_of_many` does, and the place of a character that each token comes from (int64).

    Pieces of a word may all have the place of its first character. Places count the characters of all texts end to end,
    with one more after each text.
    """
    parts, start = [], 0
    for batch in batches(texts):
        found = wordpiece.by_character.find(batch)
        parts.append((found.ids, found.lengths, _places(wordpiece, found) + start))
        start += len(found.joined)
    ids, lengths, places = map(np.concatenate, zip(*parts, strict=True))
    return ids, lengths, places


def _places(wordpiece: WordPiece, found: Found) -> np.ndarray:
    places = np.repeat(np.arange(found.counts.size), found.counts)
    # Almost every chunk is one word, and begins with it. Of the others, only the offsets tell where words begin.
    words = np.append(0, np.cumsum(~wordpiece.goes_on[found.ids]))
    starts, ends = found.chunks.T
    last = np.cumsum(found.counts)[starts]
    first = last - found.counts[starts]
    initials = [found.joined[start] for start in starts.tolist()]
    silent = {initial for initial in set(initials) if not wordpiece.rules.spelling(initial)}
    is_odd = (words[last] - words[first] > 1) | np.array([initial in silent for initial in initials], dtype=bool)
    for number in np.flatnonzero(is_odd).tolist():
        offsets = wordpiece.chunk_offsets[found.joined[starts[number] : ends[number]]]
        places[first[number] : last[number]] = [starts[number] + begin for begin, _ in offsets]
    return places
