"""A question to a model in one line, under the names, with the calls and the keys, of Hugging Face's pipelines.

    classify = pipeline("text-classification", "run/model")
    classify("a charming journey")                            # [{'label': '1', 'score': 0.97}]
    classify(["a charming journey", "bleak"], top_k=None)     # every label of each, likeliest first
    for answer in classify(line for line in open("million.txt")): ...    # read as answers are taken
    pipeline("question-answering", "run/qa")(question="Who came?", context="Ada came.")

The numbers are those of `Predictor.predict` and `Embedder`, which do the work. One thing gives one answer, a list gives
a list, and anything else that can be looped over gives an iterator.

Differs: transformers answers some lists of one as if they were that one; here a list is always answered by a list. As
there, a lone text is classified into a list of one label, and a lone list of words tagged into a list of one answer.
Names are found word by word, as with its `aggregation_strategy="first"`. Texts too long are cut and counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from bertwright.config import PoolingMode
from bertwright.embedding import Embedder
from bertwright.errors import BertwrightError, nearest
from bertwright.predict import Predictor
from bertwright.tasks import ClassifyTask, Example, QATask, Task

CHUNK_SIZE = 256
"""Things read ahead of an iterator and answered together, unless said otherwise."""

TopK = int | None | Literal["best"]
"""How many answers: a list of so many, or of all with None; `best` is the best one itself and no list."""


class Pipeline:
    """One kind of question to one model; made by `pipeline`.

    Args:
        name: one of `PIPELINES`.
        engine: the model that answers.
        options: what every call takes unless it says otherwise.

    Raises:
        BertwrightError: the model cannot answer this kind of question, or there is no such option.
    """

    def __init__(self, name: str, engine: Predictor | Embedder, **options: Any) -> None:
        self.name = name
        self.engine = engine
        self._kind = PIPELINES[name]
        if isinstance(engine, Predictor):
            _require_able(name, engine)
        self.options = self._kind.options | self._checked(options)

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Answer one thing, a list of things, or an iterable of them.

        Args:
            inputs: a text, a pair of texts as a tuple, or a mapping with Hugging Face's keys gives one answer; a list,
                an array or a column of these gives a list; another iterable gives an iterator, which reads
                `chunk_size` things at a time and forgets them.
            options: those of the kind of question (`top_k`, `pooling`, `is_split_into_words`), and `chunk_size`;
                `question` and `context` stand in for the inputs of question answering.

        Raises:
            BertwrightError: an input is none of this kind; it is named by its number.
        """
        alone = isinstance(inputs, str) and self.name == "text-classification" and "top_k" not in options
        if self.name == "question-answering" and inputs is None:
            inputs = _questions(options.pop("question", None), options.pop("context", None))
        options = self.options | self._checked(options)
        chunk_size = options.pop("chunk_size")
        if hasattr(inputs, "columns"):  # a loop over a table yields the names of its columns
            raise BertwrightError("expected texts, not a whole table", fix="give one column, such as table['text']")
        if hasattr(inputs, "tolist"):  # an array, or a column of a table
            inputs = inputs.tolist()
        if isinstance(inputs, str | Mapping | tuple):  # a tuple is a pair
            [answer] = self._kind.answer(self.engine, [inputs], 1, **options)
            return [answer] if alone else answer
        if isinstance(inputs, list):
            if inputs and options.get("is_split_into_words") and all(isinstance(word, str) for word in inputs):
                inputs = [inputs]
            return self._kind.answer(self.engine, inputs, 1, **options)
        try:
            stream = iter(inputs)
        except TypeError:
            raise BertwrightError(f"expected a text, a list or an iterable of texts, not {inputs!r:.60}") from None
        return self._stream(stream, chunk_size, options)

    def _stream(self, inputs: Iterator[Any], chunk_size: int, options: Mapping[str, Any]) -> Iterator[Any]:
        first = 1
        while chunk := list(islice(inputs, chunk_size)):
            yield from self._kind.answer(self.engine, chunk, first, **options)
            first += len(chunk)

    def _checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        known = self._kind.options
        for name in options:
            if name not in known:
                what = f"{self.name} has no option {name!r}{nearest(name, known)}"
                raise BertwrightError(what, fix=f"its options are: {', '.join(sorted(known))}")
        size = options.get("chunk_size", CHUNK_SIZE)
        if not isinstance(size, int) or size < 1:
            raise BertwrightError(f"chunk_size must be a whole number of at least 1, not {size!r}")
        return dict(options)


def pipeline(
    task: str,
    model: str | Path | Predictor,
    *,
    device: torch.device | str | None = None,
    batch_tokens: int | None = None,
    **options: Any,
) -> Pipeline:
    """Load a model and return what answers one kind of question with it.

    Args:
        task: one of `PIPELINES`, or of `ALIASES`.
        model: a model folder, fine-tuned here or with Hugging Face's library, a name on the hub, or a predictor that
            is loaded already.
        device: where to run; a GPU if there is one unless given.
        batch_tokens: most tokens of a batch.
        options: those of the calls, for every call.

    Raises:
        BertwrightError: there is no such kind of question (the nearest is named), the model cannot answer it, or there
            is no such option.
    """
    name = ALIASES.get(task, task)
    if name not in PIPELINES:
        what = f"unknown pipeline {name!r}{nearest(name, [*PIPELINES, *ALIASES])}"
        raise BertwrightError(what, fix=f"use one of: {', '.join(PIPELINES)}")
    if isinstance(model, Predictor):
        if device is not None or batch_tokens is not None:
            raise BertwrightError("a predictor has its device and its batch_tokens already", fix="leave them out here")
        embeds = name == "feature-extraction"
        engine = Embedder(model.model, model.wordpiece, batch_tokens=model.batch_tokens) if embeds else model
        return Pipeline(name, engine, **options)
    given = {} if batch_tokens is None else {"batch_tokens": batch_tokens}
    load: Callable[..., Predictor | Embedder] = Embedder.load if name == "feature-extraction" else Predictor.load
    return Pipeline(name, load(model, device=device, **given), **options)


# One function for each kind of question: the model, what is asked, the number of the first thing in messages, options.


def _classify(predictor: Predictor, inputs: Sequence[Any], first: int, *, top_k: TopK = "best") -> list[Any]:
    task = predictor.require_task()
    assert isinstance(task, ClassifyTask)
    _require_top_k(top_k, None, "best")
    examples = _examples(task, inputs, first)
    if not examples:
        return []
    features = task.encode(examples, predictor.wordpiece, predictor.max_length)
    rows = task.probabilities(predictor.logits(features), features).tolist()
    named = [[{"label": label, "score": score} for label, score in zip(task.labels, row, strict=True)] for row in rows]
    best = [sorted(each, key=lambda answer: -answer["score"]) for each in named]
    return [each[0] for each in best] if top_k == "best" else [each[:top_k] for each in best]


def _answer_questions(predictor: Predictor, inputs: Sequence[Any], first: int, *, top_k: TopK = 1) -> list[Any]:
    task = predictor.require_task()
    assert isinstance(task, QATask)
    _require_top_k(top_k)
    examples = _examples(task, inputs, first)
    assert isinstance(top_k, int)
    if top_k == 1:
        return predictor.predict_examples(examples)
    features = task.encode(examples, predictor.wordpiece, predictor.max_length)
    return task.n_best(predictor.logits(features), features, examples, top_k)


def _tag(
    predictor: Predictor,
    inputs: Sequence[Any],
    first: int,
    *,
    is_split_into_words: bool = False,
    aggregation_strategy: str = "first",
) -> list[Any]:
    if aggregation_strategy != "first":
        what = f"aggregation_strategy {aggregation_strategy!r} is not supported: a word has one tag, its first piece's"
        raise BertwrightError(what, fix="leave it out, or say 'first'")
    for number, given in enumerate(inputs, start=first):
        if is_split_into_words and isinstance(given, str):
            raise BertwrightError(f"expected a list of words, not {given!r:.60}", where=f"text {number:,}")
    examples = _examples(predictor.require_task(), inputs, first)
    return [answer["entities"] for answer in predictor.predict_examples(examples)]


def _predict(predictor: Predictor, inputs: Sequence[Any], first: int) -> list[Any]:
    return predictor.predict_examples(_examples(predictor.require_task(), inputs, first))


def _fill(predictor: Predictor, inputs: Sequence[Any], first: int, *, top_k: TopK = 5) -> list[Any]:
    _require_top_k(top_k)
    assert isinstance(top_k, int)
    return predictor.fill_many(_texts(inputs, first), top_k)


def _next_sentence(predictor: Predictor, inputs: Sequence[Any], first: int) -> list[Any]:
    pairs = ClassifyTask(text_pair_column="text_pair")  # which knows the ways to write a pair
    examples = _examples(pairs, inputs, first)
    return predictor.next_sentences([(example.text, example.text_pair or "") for example in examples])


def _embed(embedder: Embedder, inputs: Sequence[Any], first: int, *, pooling: Any = None) -> list[Any]:
    texts = _texts(inputs, first)
    if not texts:
        return []
    if pooling is not None:
        if pooling not in get_args(PoolingMode):
            known = get_args(PoolingMode)
            raise BertwrightError(
                f"unknown pooling {pooling!r}{nearest(pooling, known)}", fix=f"use {', '.join(known)}"
            )
        pooled = replace(embedder.pooling, modes=(pooling,), dense=())
        vectors: list[Any] = Embedder(
            embedder.model, embedder.wordpiece, pooled, batch_tokens=embedder.batch_tokens
        ).embed(texts).tolist()  # fmt: skip
        return vectors
    found = embedder.embed_tokens(texts)
    ends = found.cu_seqlens.tolist()
    return [[found.vectors[start:end].tolist()] for start, end in pairwise(ends)]


@dataclass(frozen=True)
class _Kind:
    """A kind of question."""

    answer: Callable[..., list[Any]]
    task: str | None = None
    """Name of the task that the model must be fine-tuned for."""
    head: str | None = None
    """Or the head that it must have kept from pre-training."""

    @property
    def options(self) -> dict[str, Any]:
        """What a call can say, with its default."""
        parameters = inspect.signature(self.answer).parameters.values()
        own = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
        return own | {"chunk_size": CHUNK_SIZE}


PIPELINES: Mapping[str, _Kind] = {
    "feature-extraction": _Kind(_embed),
    "fill-mask": _Kind(_fill, head="mlm"),
    "multiple-choice": _Kind(_predict, task="choice"),
    "next-sentence": _Kind(_next_sentence, head="nsp"),
    "question-answering": _Kind(_answer_questions, task="qa"),
    "text-classification": _Kind(_classify, task="classify"),
    "text-regression": _Kind(_predict, task="regress"),
    "token-classification": _Kind(_tag, task="tag"),
}
"""Every kind of question by name."""

ALIASES: Mapping[str, str] = {"ner": "token-classification", "sentiment-analysis": "text-classification"}
"""Other names that Hugging Face has for them."""


def _require_able(name: str, predictor: Predictor) -> None:
    """Refuse a model that was not made for this, and say what it was made for."""
    kind, task, heads = PIPELINES[name], predictor.task, predictor.model.heads
    if kind.task is None and (kind.head is None or kind.head in heads):
        return
    if task is not None and task.name == kind.task:
        return
    able = [
        other
        for other, each in PIPELINES.items()
        if (each.task is not None and task is not None and each.task == task.name)
        or (each.task is None and (each.head is None or each.head in heads))
    ]
    if task is not None:
        found = f"this model was fine-tuned for {task.name!r}"
    else:
        found = f"this model was not fine-tuned (its heads: {', '.join(heads) or 'none'})"
    wanted = f"a model fine-tuned for {kind.task!r}" if kind.task else f"a pre-trained model with its {kind.head} head"
    raise BertwrightError(
        f"{found}; {name} needs {wanted}",
        fix=f"with this model use: {', '.join(reversed(able))}; or give another model",
    )


def _examples(task: Task, inputs: Iterable[Any], first: int) -> list[Example]:
    return [task.example(given, where=f"text {number:,}") for number, given in enumerate(inputs, start=first)]


def _texts(inputs: Iterable[Any], first: int) -> list[str]:
    """Return the inputs, each of which must be a text with something in it."""
    texts = list(inputs)
    for number, text in enumerate(texts, start=first):
        if not isinstance(text, str):
            raise BertwrightError(f"expected a text, not {text!r:.60}", where=f"text {number:,}")
        if not text.strip():
            raise BertwrightError("the text is empty", where=f"text {number:,}")
    return texts


def _questions(question: Any, context: Any) -> Any:
    """Lay questions beside their contexts; one of either may stand for all."""
    if question is None or context is None:
        raise BertwrightError("nothing is asked", fix="give question=... and context=..., or a mapping with both")
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    for name, given in (("question", question), ("context", context)):
        if not isinstance(given, str | Sequence):
            raise BertwrightError(f"{name} must be a text or a list of texts, not {given!r:.60}")
    count = len(context if isinstance(question, str) else question)
    questions, contexts = ([each] * count if isinstance(each, str) else list(each) for each in (question, context))
    if len(questions) != len(contexts):
        raise BertwrightError(f"{len(questions):,} questions, but {len(contexts):,} contexts", fix="give one of each")
    return [{"question": one, "context": other} for one, other in zip(questions, contexts, strict=True)]


def _require_top_k(top_k: TopK, *others: TopK) -> None:
    if top_k not in others and not (isinstance(top_k, int) and top_k >= 1):
        also = ", or None for all" if None in others else ""
        raise BertwrightError(f"top_k must be a whole number of at least 1{also}, not {top_k!r}")
