"""Scores of answers quoted from a passage, by the rules of the published scripts of SQuAD and of CMRC 2018.

    answer_scores({"q1": "the Seine"}, {"q1": ["Seine", "Seine river"]})     # {'exact': 1.0, 'f1': 1.0}
    answer_scores({"q1": "巴黎。"}, {"q1": ["巴黎"]}, rules="cmrc")           # {'exact': 1.0, 'f1': 1.0}

A question without gold answers is unanswerable: right is the empty answer, and no other. DRCD is scored by the rules of
CMRC 2018. Differs: the scripts print percent; `evaluate-v2.0.py` leaves a question without prediction out of its means.
"""

from __future__ import annotations

import logging
import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher

from bertwright.errors import BertwrightError
from bertwright.options import AnswerRules

_log = logging.getLogger(__name__)

_DELETED_IN_ENGLISH = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:an?|the)\b")

# CMRC's list has only one of the two halves of many pairs, and lacks the ASCII comma, full stop, brackets and quotes.
# It has a double ellipsis as *one* entry, with which no single character compares equal: ellipses stay.
_DELETED_IN_CHINESE = str.maketrans("", "", "-:_*^/\\~`+=" + "，。：？！；、·－～" + "“”’《》「」『』（）")
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def answer_scores(
    predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]], *, rules: AnswerRules = "squad"
) -> dict[str, float]:
    """Return the mean scores over all questions, between 0 and 1; of several gold answers, the best one counts.

    A question that nobody answered counts 0, an answer that nobody asked for counts nothing; a warning gives their
    numbers.

    Args:
        predictions: an answer by question id; empty for `there is none`.
        gold: the right answers by question id; none if the passage holds none.
        rules: whose script counts.

    Returns:
        `exact` and `f1`; where some questions are unanswerable also `unanswerable_accuracy`, and `answerable_exact`
        and `answerable_f1` if there are others.
    """
    each = _scores_by_question(predictions, gold, rules)
    with_answer = [each[key] for key, answers in gold.items() if answers]
    without = [each[key] for key, answers in gold.items() if not answers]
    scores = {"exact": _mean(each.values(), 0), "f1": _mean(each.values(), 1)}
    if without and with_answer:
        scores |= {"answerable_exact": _mean(with_answer, 0), "answerable_f1": _mean(with_answer, 1)}
    if without:
        scores["unanswerable_accuracy"] = _mean(without, 0)
    return scores


def best_threshold(
    null_minus_best: Mapping[str, float],
    answers: Mapping[str, str],
    gold: Mapping[str, Sequence[str]],
    *,
    rules: AnswerRules = "squad",
) -> tuple[float, float, float]:
    """Find how much better `no answer` must score than the best answer for the empty one to be given.

    Differs: of equal differences, `evaluate-v2.0.py` may count some on either side, which no threshold can do; its
    threshold for `all empty` is 0, which is right for probabilities only; and a lone article is the same as an empty
    answer in its scores, and not in its search.

    Args:
        null_minus_best: score of `no answer` minus that of the best answer, by question id.
        answers: the best answer that is not empty, by question id.
        gold: the right answers by question id; none if the passage holds none.
        rules: whose script counts.

    Returns:
        The threshold of the highest F1 (the empty answer is for differences *greater* than it; of several, the
        smallest, a finite number), and F1 and exact match at it, between 0 and 1.
    """
    given = {key: answer for key, answer in answers.items() if key in null_minus_best}
    each = _scores_by_question(given, gold, rules)
    known = sorted((null_minus_best[key], key) for key in gold if key in given)
    if not known:
        raise BertwrightError("no question has both an answer and a difference of scores")
    if not all(math.isfinite(difference) for difference, _ in known):
        raise BertwrightError("a difference of scores is not a finite number")
    if_empty = {key: _SCORES[rules]("", gold[key]) for _, key in known}
    exact, f1 = (math.fsum(column) for column in zip(*if_empty.values(), strict=True))
    best = (f1, exact, math.nextafter(known[0][0], -math.inf))
    for place, (difference, key) in enumerate(known):
        exact, f1 = exact + each[key][0] - if_empty[key][0], f1 + each[key][1] - if_empty[key][1]
        splits_no_tie = place + 1 == len(known) or known[place + 1][0] > difference
        if splits_no_tie and f1 > best[0]:
            best = (f1, exact, difference)
    return best[2], best[0] / len(gold), best[1] / len(gold)


def _scores_by_question(
    predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]], rules: AnswerRules
) -> dict[str, tuple[float, float]]:
    """Return exact match and F1 of every question."""
    if not gold:
        raise BertwrightError("there is no question to score")
    if missing := len(gold.keys() - predictions.keys()):
        _log.warning("%d of %d questions have no prediction; each counts 0", missing, len(gold))
    if unknown := len(predictions.keys() - gold.keys()):
        _log.warning("%d of %d predictions are for questions that nobody asked", unknown, len(predictions))
    score = _SCORES[rules]
    return {key: score(predictions[key], right) if key in predictions else (0.0, 0.0) for key, right in gold.items()}


def _mean(scores: Iterable[tuple[float, float]], column: int) -> float:
    chosen = [score[column] for score in scores]
    return math.fsum(chosen) / len(chosen)


def _squad_scores(prediction: str, gold: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 of words. An answer of which nothing is left is as good as none, on both sides."""
    found = _english_words(prediction)
    right = [words for words in map(_english_words, gold) if words] or [[]]
    return float(found in right), max(_overlap(found, words) for words in right)


def _english_words(text: str) -> list[str]:
    """Return lower-case words, without ASCII punctuation and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_DELETED_IN_ENGLISH)).split()


def _overlap(found: list[str], right: list[str]) -> float:
    """Return the F1 of two bags of words."""
    if not found or not right:
        return float(found == right)
    return _f1((Counter(found) & Counter(right)).total(), len(found), len(right))


def _cmrc_scores(prediction: str, gold: Sequence[str]) -> tuple[float, float]:
    """Return exact match, and the F1 of the longest run of segments in common.

    An answer of nothing but deleted punctuation may be exact, and its F1 is 0, as in the script.
    """
    if not gold:
        return (float(not prediction.strip()),) * 2
    found = _without_punctuation(prediction)
    right = [_without_punctuation(answer) for answer in gold]
    return float(found in right), max(_longest_run(_segments(found), _segments(text)) for text in right)


_SCORES = {"squad": _squad_scores, "cmrc": _cmrc_scores}


def _without_punctuation(text: str) -> str:
    return text.lower().strip().translate(_DELETED_IN_CHINESE)


def _longest_run(found: list[str], right: list[str]) -> float:
    same = SequenceMatcher(None, found, right, autojunk=False).find_longest_match().size
    return _f1(same, len(found), len(right))


def _f1(same: int, num_found: int, num_right: int) -> float:
    if not same:
        return 0.0
    precision, recall = same / num_found, same / num_right
    return 2 * precision * recall / (precision + recall)


def _segments(text: str) -> list[str]:
    """Return Chinese characters one by one, and what is between them in NLTK's words.

    Differs: the script has NLTK find sentences first, with a trained model; of lower-case text it finds hardly any.
    """
    parts = filter(None, _CHINESE.split(text))
    return [segment for part in parts for segment in ([part] if _CHINESE.match(part) else _nltk_words(part))]


# What NLTK 3.10's word_tokenize does to lower-case text in which CMRC's punctuation is gone. The order matters.
_NLTK_STEPS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«‘„])", r" \1 "),
        (r'^"', " `` "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?<!\w)'(?=\w)(?!(?:[dmnst]|ll|re|ve)\b)", "' "),
        (r"(?<=[^.])\.([])}>\"' »]*)\s*$", r" . \1 "),
        (r",(\D)", r" , \1"),
        (r",$", " , "),
        (r"(\.{2,}|[;@#$%&?!\u2012-\u2015])", r" \1 "),
        (r"([^'])' ", r"\1 ' "),
        (r"([][(){}<>])", r" \1 "),
        (r"\Z", " "),
        (r"(»|'')", r" \1 "),
        (r'"', " '' "),
        (r"\s+", " "),
        (r"([^' ])('[dms]?) ", r"\1 \2 "),
        (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        (r"\b(can(?=not)|d(?='ye)|(?:gim|lem)(?=me))(not|'ye|me)\b", r" \1 \2 "),
        (r"\b(gon(?=na)|got(?=ta)|more(?='n)|wan(?=na\s))(na|ta|'n)\b", r" \1 \2 "),
        (r" ('t)(is|was)\b", r" \1 \2 "),
    )
]


def _nltk_words(text: str) -> list[str]:
    for pattern, replacement in _NLTK_STEPS:
        text = pattern.sub(replacement, text)
    return text.split()
