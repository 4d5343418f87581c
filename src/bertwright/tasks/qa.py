"""Extractive question answering: the part of a context that answers a question, or none. SQuAD's and CMRC 2018's task.

    task = QATask()
    task = task.learn(task.read(Path("train-v1.1.json")))
    Predictor(model, wordpiece, task).predict([("Who did it?", "Wilhelm Tell did.")])
    # [{'score': 0.98, 'start': 0, 'end': 12, 'answer': 'Wilhelm Tell'}]

A context longer than the input is looked at through windows that overlap. A window teaches the first right answer that
the context holds, or [CLS] if the window does not show all of it. In answering, the best pair of a first and a last
token counts, by the sum of their logits, over all windows; an answer begins only in that window which shows most of its
first token's surroundings. `QATask()` as it stands answers with any `BertForQuestionAnswering` of Hugging Face's; a
model that was trained on SQuAD 2.0 wants `QATask(impossible=True)`.

Paper: 4.2 and 4.3. Differs: google-research/bert run_squad.py tries the 20 best first and the 20 best last tokens, here
every pair is tried; it may cut characters off a token of the answer, here `context[start:end]` is whole tokens; its
`doc_stride` is how far windows are apart, `stride` is what they share.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.messages import Problem
from bertwright.model.heads import Head, SpanHead
from bertwright.options import AnswerRules, QAOptions
from bertwright.tasks.answer_scores import answer_scores, best_threshold
from bertwright.tasks.base import (
    Example,
    Feature,
    Logits,
    Prediction,
    Task,
    by_example,
    log_truncated,
    require_label,
    texts_given,
)
from bertwright.tasks.losses import span_loss
from bertwright.tasks.qa_files import read_questions
from bertwright.tasks.qa_spans import Spans, Window, find_spans, most_context
from bertwright.text.encoding import Segment, assemble, window_starts
from bertwright.text.wordpiece import WordPiece

_log = logging.getLogger(__name__)
_TOKENS_AROUND = 4
"""[CLS], two [SEP], and the one token that a window must show beyond those it shares."""


@dataclass(frozen=True, kw_only=True)
class QATask(QAOptions, Task):
    """The part of a context that answers a question, or with `impossible` the answer that there is none."""

    name: ClassVar[str] = "qa"
    usual_length: ClassVar[int] = 384

    impossible: bool = False
    """Whether a question may have no answer in its context; `learn` sees it in the training examples."""
    null_threshold: float = 0.0
    """By how much the logits of [CLS] must exceed the best answer's to answer nothing; `calibrate` sets it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("stride", 0), ("max_question_length", 1), ("max_answer_length", 1)):
            if getattr(self, name) < least:
                raise BertwrightError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.rules not in get_args(AnswerRules):
            raise BertwrightError(f"rules must be one of {', '.join(get_args(AnswerRules))}, not {self.rules!r}")
        if not math.isfinite(self.null_threshold):
            raise BertwrightError(f"null_threshold must be a finite number, not {self.null_threshold!r}")

    @property
    def head_name(self) -> str:
        """Key of the head."""
        return "span"

    @property
    def best_by(self) -> str:
        """The score by which fine-tuning chooses."""
        return "f1"

    def read(self, path: Path, *, labelled: bool = True) -> list[Example]:
        """Read the JSON of SQuAD, CMRC 2018 or DRCD, or rows from JSON Lines or Parquet; see `qa_files`.

        Raises:
            BertwrightError: also if no answer to a question stands in its context.
        """
        examples = read_questions(path, labelled=labelled)
        lost = [each for each in examples if each.label and all(answer.start < 0 for answer in each.label)]
        if lost:
            several = f", as there are for {len(lost):,} questions" if len(lost) > 1 else ""
            what = f"no answer stands in the context, such as {lost[0].label[0].text!r:.60}{several}"
            named = "" if lost[0].id is None else f", id {lost[0].id}"
            fix = "quote the context to the letter, or take the question out"
            raise BertwrightError(what, where=f"{lost[0].where}{named}", fix=fix)
        return examples

    def learn(self, examples: Sequence[Example]) -> QATask:
        """Return the task with whether questions may have no answer.

        Raises:
            BertwrightError: none has one.
        """
        labels = [require_label(example) for example in examples]
        if not any(labels):
            raise BertwrightError("no question has an answer: there is nothing to learn",
                                  fix="train on a file whose questions have `answers`")  # fmt: skip
        return replace(self, impossible=not all(labels))

    def example(self, given: Any, *, where: str | None = None) -> Example:
        """Make an example of a question and a context, or of `{"question": ..., "context": ...}`."""
        question, context = texts_given(given, ("question", "context"), where=where)
        if context is None:
            fix = 'give a pair, or {"question": ..., "context": ...}'
            raise BertwrightError("this model answers a question about a context", where=where, fix=fix)
        return Example(question, context, where=where)

    def typed(self, words: Sequence[str]) -> list[Any]:
        """Return questions and their contexts, by turns."""
        if len(words) % 2:
            raise BertwrightError(f"expected a question and its context by turns, found {len(words)} texts")
        return list(zip(words[::2], words[1::2], strict=True))

    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn each example into windows over its context, [CLS] question [SEP] context [SEP].

        Raises:
            BertwrightError: no window fits beside a question, or an answer has no token.
        """
        limit = self._question_limit(max_length)
        contexts: dict[str, _Context] = {}
        features: list[Feature] = []
        cut = long = unseen = 0
        for index, example in enumerate(examples):
            assert example.text_pair is not None
            if example.text_pair not in contexts:
                contexts[example.text_pair] = _Context.of(wordpiece.encode(example.text_pair).parts[0][0])
            context = contexts[example.text_pair]
            question = wordpiece.encode(example.text).parts[0][0]
            span = None if example.label is None else context.tokens_of_answer(example)
            made = self._windows(question, min(len(question.ids), limit), context, span, wordpiece, max_length)
            features += [replace(feature, example_index=index) for feature in made]
            cut += made[0].truncated
            if span:
                long += span[1] - span[0] >= self.max_answer_length
                unseen += all(feature.target == (0, 0) for feature in made)
        if limit < self.max_question_length:
            log_truncated(features, max_length)
            cut = 0
        for count, what, most in (
            (cut, "%d of %d questions were longer than %d tokens and were cut", limit),
            (
                long,
                "%d of %d answers are longer than max_answer_length, %d, and cannot be given",
                self.max_answer_length,
            ),
            (unseen, "%d of %d answers are in no window as a whole (max_length %d), and are not learnt", max_length),
        ):
            if count:
                _log.warning(what, count, len(examples), most)
        return features

    def targets(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return `starts` and `ends`: the answer's first and last token in each feature, 0 for [CLS]."""
        places = torch.tensor([feature.target for feature in features])
        return {"starts": places[:, 0].clone(), "ends": places[:, 1].clone()}

    def head(self, config: BertConfig) -> Head:
        """Return a linear layer with two outputs on every token."""
        return SpanHead(config)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of windows."""
        return {"loss": batch.num_sequences}

    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Sum half the cross-entropies of first and last token, and the windows where both are right."""
        return span_loss(logits, batch.cu_seqlens, batch.targets["starts"], batch.targets["ends"])

    def decode(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> list[Prediction]:
        """Return the best `answer` to each question, `context[start:end]`, and its probability, `score`.

        Of the pairs of a first and a last token of the context, at most `max_answer_length` tokens, the one with the
        greatest sum of logits is the answer. With `impossible` it is empty, from 0 to 0, if the least sum of [CLS]'s
        logits, over windows, exceeds that by more than `null_threshold`.

        The score is the product of two softmaxes, over first and over last tokens: of all windows together, and of
        [CLS] in the window where its sum is least. Of a single window it is that of Hugging Face's pipeline. It is 0
        where there is nothing to quote.
        """
        return [ranked[0] for ranked in self.n_best(logits, features, examples, 1)]

    def n_best(
        self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example], top_k: int
    ) -> list[list[Prediction]]:
        """Return the best answers to each question, as `decode` gives the first of them.

        Args:
            logits: as of `decode`.
            features: as of `decode`.
            examples: as of `decode`.
            top_k: answers to each, at most; they do not overlap, and no two have the same text.
        """
        if top_k < 1:
            raise BertwrightError(f"top_k must be at least 1, not {top_k}")
        found = self._all_spans(logits, features)
        return [self._ranked(spans, examples[index].text_pair or "", top_k) for index, spans in found]

    def calibrate(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> QATask:
        """Return the task with the threshold for answering nothing under which F1 on the dev examples is highest."""
        if not self.impossible:
            return self
        differences, answers = {}, {}
        for index, spans in self._all_spans(logits, features):
            best, start, end = spans.best()
            answers[str(index)] = (examples[index].text_pair or "")[start:end]
            differences[str(index)] = float(np.nan_to_num(spans.null - best, nan=0.0, posinf=1e30, neginf=-1e30))
        gold = {str(index): self.gold(example) or [] for index, example in enumerate(examples)}
        return replace(self, null_threshold=best_threshold(differences, answers, gold, rules=self.rules)[0])

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Return `exact` and `f1`, and where some questions have no answer these of both kinds; see `answer_scores`."""
        answers = {str(number): prediction["answer"] for number, prediction in enumerate(predictions)}
        gold = {str(number): [one.text for one in require_label(each)] for number, each in enumerate(examples)}
        return answer_scores(answers, gold, rules=self.rules)

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return how many questions there are, how many have no right answer, and how many were given none."""
        return {
            "questions": len(examples),
            "unanswerable": sum(example.label == () for example in examples),
            "given_no_answer": sum(not prediction["answer"] for prediction in predictions),
            "null_threshold": self.null_threshold if self.impossible else None,
        }

    def degenerate(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> str | None:
        """Say so if all answers are empty or the same though the right ones are not, or hardly any is right."""
        answers = {prediction["answer"] for prediction in predictions}
        answerable = sum(bool(example.label) for example in examples)
        if answers == {""} and answerable:
            return Problem("problem_no_answer", answerable=answerable, count=len(examples))
        if len(answers) == 1 and len({example.label and example.label[0].text for example in examples}) > 1:
            return Problem("problem_one_answer", answer=answers.pop()[:60])
        if (f1 := self.score(predictions, examples)["f1"]) < 0.05:
            return Problem("problem_low_f1", f1=f1)
        return None

    def error(self, prediction: Prediction, example: Example) -> float:
        """Return what the answer lacks of an F1 of 1."""
        return 1.0 - self.score([prediction], [example])["f1"]

    def gold(self, example: Example) -> Any:
        """Return the texts of the right answers; an empty list if there is none, None if unknown."""
        return None if example.label is None else [answer.text for answer in example.label]

    def answers(self, example: Example) -> list[str]:
        """Return whether there is an answer: the answers themselves do not recur."""
        return [] if example.label is None else ["an answer" if example.label else "no answer"]

    def marks(self, feature: Feature) -> dict[int, str]:
        """Return where the answer begins and ends; both at [CLS] if it is not in the window."""
        if feature.target is None:
            return {}
        start, end = feature.target
        return {start: "start+end"} if start == end else {start: "start", end: "end"}

    def _question_limit(self, max_length: int) -> int:
        """Return how many tokens of a question stay, so that windows can share `stride` tokens and show new ones."""
        limit = min(self.max_question_length, max_length - _TOKENS_AROUND - self.stride)
        if limit < 1:
            smaller = (max_length - _TOKENS_AROUND) // 4
            fix = f"use --max-length {self.stride + _TOKENS_AROUND + 1} or more" + (
                f", or --stride {smaller}" if smaller >= 0 else ""
            )
            what = f"max_length {max_length} has no room for a question and windows that share {self.stride} tokens"
            raise BertwrightError(what, fix=fix)
        return limit

    def _windows(
        self,
        question: Segment,
        kept: int,
        context: _Context,
        span: tuple[int, int] | tuple[()] | None,
        wordpiece: WordPiece,
        max_length: int,
    ) -> list[Feature]:
        """Return the features of the first example: windows over the context, each behind the `kept` first tokens."""
        length, room = len(context.offsets), max_length - 3 - kept
        starts = window_starts(length, room, self.stride)
        owner = most_context(starts, room, length) if len(starts) > 1 else None
        cut = kept < len(question.ids)
        features = []
        for number, start in enumerate(starts):
            end = min(start + room, length)
            parts = ((question, 0, kept), (context.segment, start, end))
            encoding = assemble(parts, wordpiece.cls_id, wordpiece.sep_id, truncated=cut)
            first_row = kept + 2
            target = None if span is None else (0, 0)
            if span and start <= span[0] and span[1] < end:
                target = (first_row + span[0] - start, first_row + span[1] - start)
            may_start = None if owner is None else owner[start:end] == number
            window = Window(first_row, context.offsets[start:end], may_start)
            features.append(
                Feature(encoding.input_ids, encoding.token_type_ids, target, 0, truncated=cut, way_back=window)
            )
        return features

    def _all_spans(self, logits: Logits, features: Sequence[Feature]) -> Iterator[tuple[int, Spans]]:
        for index, places in by_example(features):
            rows = [logits[place].double().numpy() for place in places]
            yield index, find_spans(rows, [features[place].way_back for place in places], self.max_answer_length)

    def _ranked(self, spans: Spans, context: str, top_k: int) -> list[Prediction]:
        """Return the best answers; the empty one has its place among them."""
        answers: list[Prediction] = []
        none_yet, seen = self.impossible, set()
        while len(answers) < top_k:
            best, start, end = spans.best()
            if none_yet and spans.null - best > self.null_threshold:
                none_yet = False
                answers.append({"score": spans.probability(spans.null), "start": 0, "end": 0, "answer": ""})
                continue
            if best == -np.inf:
                break
            if (answer := context[start:end]) not in seen:
                seen.add(answer)
                answers.append({"score": spans.probability(best), "start": start, "end": end, "answer": answer})
            if len(answers) < top_k:
                spans.remove(start, end)
        return answers or [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]


class _Context(NamedTuple):
    """A context, which several questions may share."""

    segment: Segment
    offsets: np.ndarray
    """Start and end of each token, characters; not kept in the segment, where they are tuples."""

    @classmethod
    def of(cls, segment: Segment) -> _Context:
        return cls(segment, np.array(segment.find_offsets(segment.text), dtype=np.int32).reshape(-1, 2))

    def tokens_of_answer(self, example: Example) -> tuple[int, int] | tuple[()]:
        """Return the first and the last token of the first right answer that the context holds; () if there is none.

        Raises:
            BertwrightError: the answer has no token.
        """
        for text, start, end in example.label:
            if start < 0:
                continue
            first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
            last = int(np.searchsorted(self.offsets[:, 0], end, side="left")) - 1
            if first > last:
                what, fix = f"there is no token in the answer {text!r:.60}", "take the question out"
                raise BertwrightError(what, where=example.where, fix=fix)
            return first, last
        return ()
