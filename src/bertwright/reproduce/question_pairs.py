"""Pairs like those of QNLI, from questions of SQuAD: does this sentence hold the answer to that question?

    pairs, left_out = pairs_of_questions(read_questions(Path("train-v1.1.json")))

As the authors of GLUE did, a question is paired with sentences of its paragraph, and pairs that share few words are
avoided. Here every question gives two pairs: the sentence that holds its answer, and of the others the one that shares
the most words with the question. So half of the pairs are entailment, and the same files always give the same pairs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bertwright.files import new_file
from bertwright.tasks.base import Example
from bertwright.tasks.qa_files import read_questions
from bertwright.text.sentences import split_sentences

COLUMNS = ("question", "sentence", "label")
"""Of the file that `write_pairs` writes, as in QNLI's own."""
_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A question and a sentence."""

    question: str
    sentence: str
    label: str
    """`entailment`: the sentence holds the answer; or `not_entailment`."""


def pairs_of_questions(questions: Sequence[Example]) -> tuple[list[Pair], int]:
    """Make two pairs of every question whose answer lies in one of several sentences.

    Args:
        questions: as `read_questions` reads them; of several right answers the first counts.

    Returns:
        The pairs, entailment first of each question, and how many questions were left out: their answer lies in no
        single sentence, or their paragraph has but one.
    """
    pairs: list[Pair] = []
    context, places = None, []
    for question in questions:
        if question.text_pair != context:  # neighbouring questions share their context
            context = question.text_pair
            places = _sentences(context or "")
        answer = next((each for each in question.label or () if each.start >= 0), None)
        holds = [place for place, (start, text) in enumerate(places)
                 if answer and start <= answer.start and answer.end <= start + len(text)]  # fmt: skip
        if not holds or len(places) < 2:
            continue
        words = _words(question.text)
        others = [place for place in range(len(places)) if place != holds[0]]
        closest = max(others, key=lambda place: (len(words & _words(places[place][1])), -place))
        pairs.append(Pair(question.text, places[holds[0]][1], "entailment"))
        pairs.append(Pair(question.text, places[closest][1], "not_entailment"))
    return pairs, len(questions) - len(pairs) // 2


def write_pairs(source: Path, target: Path) -> Path:
    """Make the pairs of a file of questions and write them as QNLI's files are: tab-separated, with a header."""
    questions = read_questions(source)
    pairs, left_out = pairs_of_questions(questions)
    _log.info("%s: %d pairs of %d questions; %d questions are left out, whose answer is in no one of several sentences",
              source, len(pairs), len(questions) - left_out, left_out)  # fmt: skip
    lines = ["\t".join(COLUMNS), *("\t".join(" ".join(part.split()) for part in pair) for pair in pairs)]
    with new_file(target) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return target


def _sentences(context: str) -> list[tuple[int, str]]:
    """Return where each sentence begins, and its text; none where the splitter has changed the text."""
    places, end = [], 0
    for sentence in split_sentences(context):
        start = context.find(sentence, end)
        if start < 0:
            return []
        places.append((start, sentence))
        end = start + len(sentence)
    return places


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
