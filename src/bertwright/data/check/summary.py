"""What was counted of a corpus, as figures by name and as a list of what to do."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bertwright.data.check.duplicates import SIMILAR, Pair
from bertwright.data.check.leaks import Sought, Text
from bertwright.data.check.part import Part
from bertwright.data.check.state import Reader, State
from bertwright.text.characters import KINDS, SCRIPTS

SHOWN = 5
"""Of each thing that is named: pairs, lines, texts."""
SHOWN_WORDS = 10

_DAMAGED, _STRAY = ("mojibake", "replacement", "half_surrogate"), ("control", "private", "invisible")
_MOSTLY_SINGLE = 0.5
_REPEATED_SHARE, _REPEATED_FEWEST = 0.01, 5
_LINE_WIDTH = 20
"""A repeated line that is worth a word is so wide; a Chinese character is two wide."""
_UNKNOWN_SHARE = 0.01
_PIECES_PER_WORD = 2.0
_MIXED_SHARE = 0.05
_STRAY_SHARE = 0.001


@dataclass(frozen=True)
class CorpusCheck:
    """What was found."""

    facts: dict[str, Any]
    """Figures by name, as JSON values."""
    findings: list[dict[str, Any]]
    """What to do, most urgent first: `what`, and the figures that belong to it."""

    @property
    def problems(self) -> int:
        """Places that cannot be read."""
        return int(self.facts["problems"]["count"])

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**self.facts, "findings": self.findings}


def summarize(
    reader: Reader,
    state: State,
    against: Sequence[str],
    texts: Sequence[Text],
    sought: Sought | None,
    *,
    max_length: int,
    spelled: bool,
) -> CorpusCheck:
    """Return what was found.

    Args:
        reader: how reading went.
        state: what was counted.
        against: names of the files whose texts were sought.
        texts: that were sought.
        sought: likewise.
        max_length: of the examples that were counted.
        spelled: whether there was a vocabulary.
    """
    facts = {
        **_reading(reader),
        **_sizes(state.total, reader),
        "next_sentence": _pairs(state.total, max_length, spelled=spelled),
        **_characters(state.total, reader),
        "duplicates": _duplicates(state, reader),
        "repeated_lines": [
            {"line": printable(line), "documents": count} for line, count in state.lines.top(SHOWN, fewest=3)
        ],
        "repeated_lines_missed": state.lines.missed,
    }
    if spelled:
        facts["vocabulary"] = _vocabulary(state)
    if sought:
        facts["against"] = [_leaks(number, name, texts, sought, state, reader) for number, name in enumerate(against)]
    return CorpusCheck(facts, list(_findings(facts)))


def _reading(reader: Reader) -> dict[str, Any]:
    return {
        "files": {
            "count": len(reader.files),
            "bytes": reader.bytes,
            "encodings": dict(reader.encodings.most_common()),
            "with_byte_order_mark": reader.marked,
        },
        "problems": {
            "count": reader.num_problems,
            "shown": [{"where": each.where, "what": each.what} for each in reader.problems],
        },
    }


def _sizes(total: Part, reader: Reader) -> dict[str, Any]:
    return {
        "documents": {
            "count": total.documents,
            "empty": reader.empty,
            "single_sentence": total.single_sentence_documents,
            "cut": reader.cut,
            "characters": total.characters,
            "longest": {"characters": total.longest[0], "where": reader.place(*total.longest[1:])},
            "characters_histogram": _buckets(total.document_characters),
            "sentences_histogram": _buckets(total.document_sentences),
        },
        "sentences": {
            "count": total.sentences,
            "mean_length": _ratio(total.units, total.sentences),
            "of_characters": 2 * total.single_characters > total.units,
            "length_histogram": _buckets(total.sentence_units),
        },
    }


def _pairs(total: Part, max_length: int, *, spelled: bool) -> dict[str, Any]:
    return {
        "possible": total.documents > 1 and total.single_sentence_documents < total.documents,
        "random_next": _ratio(total.random_next, total.examples),
        "examples": total.examples,
        "max_length": max_length,
        "tokens": total.tokens,
        "is_estimate": not spelled,
    }


def printable(text: str) -> str:
    r"""Return a text that a screen can show: what it cannot is spelled as `\u0007`."""
    return "".join(map(_printable, text.replace("\n", " ")))


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return " " if unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()


def _buckets(counts: Any) -> dict[str, int]:
    last = max([place for place, count in enumerate(counts) if count], default=-1)
    return {
        f"{1 << place}-{(2 << place) - 1}" if place else "1": int(count)
        for place, count in enumerate(counts[: last + 1])
    }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


def _characters(total: Part, reader: Reader) -> dict[str, Any]:
    counts = dict(zip(KINDS, total.kinds.tolist(), strict=True))
    shown = sum(counts.values()) - counts["space"]
    ranked = sorted(((kind, count) for kind, count in counts.items() if count and kind != "space"), key=lambda e: -e[1])
    return {
        "characters": {kind: _ratio(count, shown) for kind, count in ranked},
        "chinese": {"simplified_documents": total.simplified, "traditional_documents": total.traditional},
        "doubtful": {
            kind: {
                "count": doubt.count,
                "documents": doubt.documents,
                "where": reader.place(doubt.file, doubt.row),
                "example": printable(doubt.example),
            }
            for kind, doubt in sorted(total.doubts.items())
        },
    }


def _duplicates(state: State, reader: Reader) -> dict[str, Any]:
    found = state.fingerprints.duplicates(SHOWN)

    def named(pair: Pair) -> dict[str, Any]:
        similarity = round(pair.similarity, 2)
        return {"first": reader.place(*pair.first), "second": reader.place(*pair.second), "similarity": similarity}

    return {
        "compared": found.compared,
        "is_sample": found.is_sample,
        "exact": found.exact,
        "exact_share": _ratio(found.exact, found.compared),
        "near": found.near,
        "near_share": _ratio(found.near, found.compared),
        "similar_from": SIMILAR,
        "exact_pairs": [named(pair) for pair in found.exact_pairs],
        "near_pairs": [named(pair) for pair in found.near_pairs],
    }


def _vocabulary(state: State) -> dict[str, Any]:
    total, scripts = state.total, state.total.pieces.to_json()
    spoken = [each for script, each in scripts.items() if script in (*SCRIPTS, "digits")]
    words, pieces = (sum(each[name] for each in spoken) for name in ("words", "pieces"))
    ranked = sorted(total.pieces.unknown_characters.items(), key=lambda item: (-item[1], item[0]))
    return {
        "tokens": total.tokens,
        "unknown_tokens": total.unknown_tokens,
        "unknown_share": _ratio(total.unknown_tokens, total.tokens),
        "pieces_per_word": _ratio(pieces, words),
        "scripts": {
            script: {
                **each,
                "pieces_per_word": _ratio(each["pieces"], each["words"]),
                "unknown_share": _ratio(each["unknown"], each["words"]),
            }
            for script, each in scripts.items()
        },
        "unknown_characters": [{"character": printable(char), "count": count} for char, count in ranked[:SHOWN_WORDS]],
        "split_words": [
            {"word": printable(word), "count": count} for word, count in state.split_words.top(SHOWN_WORDS, fewest=2)
        ],
        "split_words_missed": state.split_words.missed,
    }


def _leaks(
    number: int, name: str, texts: Sequence[Text], sought: Sought, state: State, reader: Reader
) -> dict[str, Any]:
    own = [place for place, text in enumerate(texts) if text.file == number]
    judged = [place for place in own if sought.sizes[place]]
    found = [place for place in judged if place in state.leaks]
    return {
        "file": name,
        "texts": len(own),
        "too_short": len(own) - len(judged),
        "found": len(found),
        "found_share": _ratio(len(found), len(judged)),
        "shown": [
            {
                "text": printable(texts[place].text[:60]),
                "where": texts[place].where,
                "in_corpus": reader.place(*state.leaks[place]),
                "run": int(sought.sizes[place]),
            }
            for place in found[:SHOWN]
        ],
    }


def _findings(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    documents, pairs, copies = facts["documents"], facts["next_sentence"], facts["duplicates"]
    count = documents["count"]
    if facts["problems"]["count"]:
        yield {"what": "unreadable", "count": facts["problems"]["count"]}
    if not count:
        yield {"what": "no_text"}
        return
    for each in facts.get("against", []):
        if each["found"]:
            judged = each["texts"] - each["too_short"]
            yield {"what": "leak", "file": each["file"], "found": each["found"], "judged": judged}
        elif each["texts"] == each["too_short"]:
            yield {"what": "too_short", "file": each["file"]}
    if documents["cut"]:
        yield {"what": "cut", "count": documents["cut"]}
    if count == 1:
        yield {"what": "one_document"}
    elif not pairs["possible"]:
        yield {"what": "no_pairs"}
    elif (share := documents["single_sentence"] / count) > _MOSTLY_SINGLE:
        yield {"what": "mostly_single", "share": round(share, 4), "random": pairs["random_next"]}
    for kind in ("exact", "near"):
        if copies[kind]:
            yield {"what": f"{kind}_copies", "count": copies[kind], "share": copies[f"{kind}_share"]}
    for each in facts["repeated_lines"]:
        if each["documents"] >= max(_REPEATED_FEWEST, _REPEATED_SHARE * count) and _width(each["line"]) >= _LINE_WIDTH:
            yield {"what": "repeated_line", "line": each["line"], "share": _ratio(each["documents"], count)}
            break
    for what, kinds in (("damaged", _DAMAGED), ("stray", _STRAY)):
        found = [facts["doubtful"][kind] for kind in kinds if kind in facts["doubtful"]]
        if sum(each["documents"] for each in found) > _STRAY_SHARE * count:
            yield {"what": what, "count": sum(each["count"] for each in found)}
    forms = list(facts["chinese"].values())
    if min(forms) > _MIXED_SHARE * count:
        yield {"what": "mixed_chinese", "simplified": forms[0], "traditional": forms[1]}
    if vocabulary := facts.get("vocabulary"):
        if vocabulary["unknown_share"] > _UNKNOWN_SHARE:
            yield {"what": "unknown", "share": vocabulary["unknown_share"]}
        if vocabulary["pieces_per_word"] > _PIECES_PER_WORD:
            yield {"what": "fragmented", "pieces": vocabulary["pieces_per_word"]}


def _width(text: str) -> int:
    return sum(1 if char.isascii() else 2 for char in text)
