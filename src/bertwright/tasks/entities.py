"""Tags of words, the stretches of words they mean, and scores of these: `conlleval`'s rules.

    chunks(["B-PER", "I-PER", "O", "B-LOC"])                # [(0, 2, 'PER'), (3, 4, 'LOC')]
    tags_of([(0, 2, "PER"), (3, 4, "LOC")], 4, "bioes")     # ['B-PER', 'E-PER', 'O', 'S-LOC']
    entity_scores([{(0, 2, "PER")}], [{(0, 2, "PER")}])     # {'precision': 1.0, 'recall': 1.0, 'f1': 1.0}

A chunk is (its first word, the word after its last one, its label), words counted from 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bertwright.errors import BertwrightError

Scheme = Literal["iob1", "iob2", "bioes", "bmes", "plain"]
"""How tags tell where a chunk begins and ends.

`iob2` B- on its first word, I- on the others; `iob1` I- on all, B- only right after a chunk of the same label; `bioes`
also E- on the last word and S- on a lone one; `bmes` the same with M- for I-; `plain` bare labels, each word its own.
"""

Chunk = tuple[int, int, str]

# Other letters of the same meaning: M of BMES, L and U of BILOU; a bracket is a chunk of one word.
_MEANINGS = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "L": "E", "U": "S", "[": "[", "]": "]"}
_LETTERS: dict[Scheme, tuple[str, str, str, str]] = {  # first, inner, last, and only word
    "iob2": ("B", "I", "I", "B"),
    "bioes": ("B", "I", "E", "S"),
    "bmes": ("B", "M", "E", "S"),
}


def is_chunk_tag(tag: str) -> bool:
    """Return whether a tag is O, or one that says where an entity begins, goes on or ends, such as B-PER."""
    return tag == "O" or (len(tag) > 2 and tag[1] == "-" and tag[0] in _MEANINGS)


def chunks(tags: Sequence[str]) -> list[Chunk]:
    """Return the chunks that tags mean, in order; every sequence of legal tags means some.

    Legal are O, and B I E S, M (read as I), L (E), U (S), [ and ] (one word each), followed by `-` and a label. A chunk
    that the rules do not begin, as an I- after a bracket, is none; one that they begin inside another ends that.

    Differs: conlleval of 2004 knows no S-, and joins E- and B- of one label; here its ports are followed. It counts a
    chunk that a bracket begins inside another of its label, and then takes only one of both for right.

    Raises:
        BertwrightError: a tag is illegal.
    """
    return _chunks(tags, None)


def detect_scheme(sequences: Iterable[Sequence[str]]) -> Scheme:
    """Return how the tags of some sentences are written.

    Any M- makes them `bmes`; any E-, S-, L-, U- or bracket `bioes`; bare labels only, `plain`. Of B- and I-, chunks are
    looked at that follow no other of their label: if more of them begin with I- than with B-, it is `iob1`. Where
    nothing tells (nothing but O), it is `iob2`.

    Raises:
        BertwrightError: a tag is empty, or illegal among others that are legal.
    """
    sentences = list(sequences)
    tags = {tag for sentence in sentences for tag in sentence}
    letters = {tag[0] for tag in tags if tag != "O" and is_chunk_tag(tag)}
    if not letters and tags - {"O", ""}:
        for place, sentence in enumerate(sentences):
            if "" in sentence:
                raise _illegal("", list(sentence).index(""), place)
        return "plain"
    found = [(sentence, _chunks(sentence, place)) for place, sentence in enumerate(sentences)]
    if "M" in letters:
        return "bmes"
    if letters - {"B", "I"}:
        return "bioes"
    firsts: Counter[str] = Counter()
    for sentence, each in found:
        ends = {(end, label) for _, end, label in each}
        firsts.update(sentence[start][0] for start, _, label in each if (start, label) not in ends)
    return "iob1" if firsts["I"] > firsts["B"] else "iob2"


def tags_of(found: Iterable[Chunk], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of a sentence; `chunks` undoes it, but for `plain`, where neighbours cannot be told apart.

    Args:
        found: chunks in any order, none sharing a word with another.
        length: how many words the sentence has.
        scheme: how to write them.

    Raises:
        BertwrightError: a chunk is empty, lies outside of the sentence, or on another.
    """
    tags, before = ["O"] * length, (0, "")
    for start, end, label in sorted(found):
        if not before[0] <= start < end <= length:
            raise BertwrightError(
                f"the chunk {(start, end, label)!r} is empty, overlaps another or leaves the {length} words"
            )
        if scheme == "plain":
            tags[start:end] = [label] * (end - start)
        elif scheme == "iob1":
            tags[start:end] = [f"I-{label}"] * (end - start)
            if before == (start, label):
                tags[start] = f"B-{label}"
        else:
            first, inner, last, only = _LETTERS[scheme]
            letters = [first, *[inner] * (end - start - 2), last] if end - start > 1 else [only]
            tags[start:end] = [f"{letter}-{label}" for letter in letters]
        before = (end, label)
    return tags


def entity_scores(
    gold: Sequence[Collection[tuple[Hashable, ...]]], predicted: Sequence[Collection[tuple[Hashable, ...]]]
) -> dict[str, float]:
    """Return `precision`, `recall` and `f1` of the entities of all sentences together, between 0 and 1.

    Args:
        gold: by sentence, what there is: tuples of a place, of whatever form, and a label; one counts once.
        predicted: by sentence, what was found, in the same form; only what is equal is right.

    Returns:
        The three scores; a share of nothing is 0, as in conlleval.
    """
    return _count(gold, predicted).total.shares()


def entity_details(
    gold: Sequence[Collection[tuple[Hashable, ...]]], predicted: Sequence[Collection[tuple[Hashable, ...]]]
) -> dict[str, Any]:
    """Return what lies behind `entity_scores`, as JSON values.

    Returns:
        `counts`: how many entities there are (`gold`), how many were found (`predicted`), and how many of these are
        `right`; `per_class`: by label, `precision`, `recall`, `f1`, `support` (as `gold`), `predicted` and `right`.
    """
    counts = _count(gold, predicted)
    each = {
        label: tally.shares() | {"support": tally.gold, "predicted": tally.predicted, "right": tally.right}
        for label, tally in sorted(counts.by_label.items())
    }
    total = counts.total
    return {"counts": {"gold": total.gold, "predicted": total.predicted, "right": total.right}, "per_class": each}


def conll_report(gold_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what conlleval counts and scores in the tags of some sentences.

    Returns:
        `tokens`, and how many of them have the right tag: `right_tokens`, `accuracy`; `precision`, `recall` and `f1`,
        between 0 and 1; `counts` and `per_class` of `entity_details`.

    Raises:
        BertwrightError: a tag is illegal, or the two sides have not the same sentences and words.
    """
    _same_sentences(gold_tags, predicted_tags)
    for place, (right, found) in enumerate(zip(gold_tags, predicted_tags, strict=True)):
        if len(right) != len(found):
            raise BertwrightError(
                f"sentence {place} (counted from 0) has {len(right)} words, and {len(found)} predictions"
            )
    pairs = [pair for sides in zip(gold_tags, predicted_tags, strict=True) for pair in zip(*sides, strict=True)]
    num_right = sum(right == found for right, found in pairs)
    gold, predicted = (
        [_chunks(tags, place) for place, tags in enumerate(side)] for side in (gold_tags, predicted_tags)
    )
    return {
        "tokens": len(pairs),
        "right_tokens": num_right,
        "accuracy": _share(num_right, len(pairs)),
        **entity_scores(gold, predicted),
        **entity_details(gold, predicted),
    }


def conll_text(report: dict[str, Any]) -> str:
    """Return a report of `conll_report` in the lines that conlleval prints, in percent."""
    counts = report["counts"]
    lines = [
        f"processed {report['tokens']} tokens with {counts['gold']} phrases; "
        f"found: {counts['predicted']} phrases; correct: {counts['right']}."
    ]
    if report["tokens"]:
        accuracy = 100 * report["right_tokens"] / report["tokens"]
        lines.append(f"accuracy: {accuracy:6.2f}%; {_percents(counts['right'], counts['predicted'], counts['gold'])}")
    for label, row in report["per_class"].items():
        percents = _percents(row["right"], row["predicted"], row["support"])
        lines.append(f"{label:>17}: {percents}  {row['predicted']}")
    return "\n".join(lines) + "\n"


def _percents(right: int, found: int, there: int) -> str:
    precision, recall = _share(100 * right, found), _share(100 * right, there)
    f1 = _share(2 * precision * recall, precision + recall)
    return f"precision: {precision:6.2f}%; recall: {recall:6.2f}%; FB1: {f1:6.2f}"


@dataclass
class _Tally:
    """How many entities there are, were found, and are right."""

    gold: int = 0
    predicted: int = 0
    right: int = 0

    def shares(self) -> dict[str, float]:
        precision, recall = _share(self.right, self.predicted), _share(self.right, self.gold)
        f1 = _share(2 * self.right, self.predicted + self.gold)
        return {"precision": precision, "recall": recall, "f1": f1}


@dataclass
class _Counts:
    total: _Tally = field(default_factory=_Tally)
    by_label: dict[str, _Tally] = field(default_factory=dict)


def _count(gold: Sequence[Collection[tuple[Any, ...]]], predicted: Sequence[Collection[tuple[Any, ...]]]) -> _Counts:
    _same_sentences(gold, predicted)
    counts = _Counts()
    for there, found in zip(map(set, gold), map(set, predicted), strict=True):
        for entity in there | found:
            for tally in (counts.total, counts.by_label.setdefault(str(entity[-1]), _Tally())):
                tally.gold += entity in there
                tally.predicted += entity in found
                tally.right += entity in there and entity in found
    return counts


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _same_sentences(gold: Sequence[object], predicted: Sequence[object]) -> None:
    if len(gold) != len(predicted):
        raise BertwrightError(f"there are {len(gold)} sentences, and predictions for {len(predicted)}")


def _chunks(tags: Sequence[str], sentence: int | None) -> list[Chunk]:
    found: list[Chunk] = []
    start, before, label = -1, "O", ""  # -1: in no chunk
    for place, tag in enumerate([*tags, "O"]):
        if not is_chunk_tag(tag):
            raise _illegal(tag, place, sentence)
        now, now_label = ("O", "") if tag == "O" else (_MEANINGS[tag[0]], tag[2:])
        begins = _begins(before, now, now_label != label)
        if start >= 0 and (begins or now == "O" or before in "ES[]"):
            found.append((start, place, label))
            start = -1
        if begins:
            start = place
        before, label = now, now_label
    return found


def _begins(before: str, now: str, other_label: bool) -> bool:
    """Return whether a chunk begins at a word, by its tag and the one before."""
    if now == "O":
        return False
    return now in "BS[]" or before in "OES" or other_label


def _illegal(tag: str, place: int, sentence: int | None) -> BertwrightError:
    where = f"of word {place}" + ("" if sentence is None else f" of sentence {sentence}") + " (counted from 0)"
    what = "is empty" if not tag else "is neither O nor B-, I-, M-, E-, L-, S- or U- with a label"
    return BertwrightError(f"the tag {tag!r} {where} {what}", fix="write e.g. B-PER, I-PER and O")
