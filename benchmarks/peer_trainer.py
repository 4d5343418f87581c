"""The peer of `finetune_sets.py`: the same encoder, examples and dials in Hugging Face's `Trainer`.

    peer = Peer(split, chosen, Path("all-MiniLM-L6-v2"))
    seconds = peer.train(seed=0)                            # Trainer's own train_runtime
    predictions = peer.predict(split.scored["dev"])         # what `Task.score` takes

Texts are encoded and answers are read off as in Hugging Face's example scripts (run_glue, run_swag, run_ner, run_qa):
the fast tokenizer; batches padded to their longest input; tags at the first piece of a word; of a context, windows of
`max_length` tokens that share 128; of the 20 best first and 20 best last tokens the best pair, at most 30 tokens. What
is not a dial of the set is `TrainingArguments`' own default, but for what would take time: nothing is saved or shown.
"""

from __future__ import annotations

import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertwright.tasks import (
    ChoiceTask,
    ClassifyTask,
    Example,
    Feature,
    Prediction,
    QATask,
    RegressTask,
    TagTask,
    Task,
)
from bertwright.tasks.entities import tags_of
from bertwright.tasks.words import chunks_of, words_of
from finetune_data import FineTuningSet, Split

IGNORED = -100
"""The label of a token that has none."""
BEST = 20
"""First and last tokens of an answer that are tried."""
ENCODED_AT_ONCE = 1_000
"""Examples that the tokenizer is given in one call; what it returns of them takes memory."""

Row = dict[str, Any]
"""One input of the model, as a collator takes it."""


class Form(ABC):
    """How a kind of task looks to `transformers`.

    Args:
        task: ours, with its labels.
        tokenizer: the fast one of `transformers`.
        max_length: longest input, tokens.
    """

    model: str
    """Name of the class that loads the model."""
    collator = "DataCollatorWithPadding"
    """Name of the class that lays rows together."""

    def __init__(self, task: Any, tokenizer: Any, max_length: int) -> None:
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length

    @property
    def options(self) -> dict[str, Any]:
        """What the model has to be told."""
        return {}

    @abstractmethod
    def rows(self, examples: Sequence[Example], *, labelled: bool) -> tuple[list[Row], list[Any]]:
        """Encode examples; return the model's inputs, and of each what `predictions` needs to find its way back."""

    @abstractmethod
    def predictions(self, logits: Any, ways_back: list[Any], examples: Sequence[Example]) -> list[Prediction]:
        """Read the answers off the model's output."""

    def encode(self, *texts: Any, **options: Any) -> Any:
        """Call the tokenizer."""
        return self.tokenizer(*texts, max_length=self.max_length, **{"truncation": True, **options})


class Sequences(Form):
    """A label or a number for a text or a pair of texts."""

    model = "AutoModelForSequenceClassification"

    @property
    def options(self) -> dict[str, Any]:
        """The number of labels, or that it is a number."""
        if isinstance(self.task, RegressTask):
            return {"num_labels": 1, "problem_type": "regression"}
        return {"num_labels": len(self.task.labels)}

    def rows(self, examples: Sequence[Example], *, labelled: bool) -> tuple[list[Row], list[Any]]:
        """Encode each example as one row."""
        texts: list[Any] = [[example.text for example in examples]]
        if self.task.text_pair_column is not None:
            texts.append([example.text_pair for example in examples])
        rows = _rows_of(self.encode(*texts))
        if labelled:
            for row, example in zip(rows, examples, strict=True):
                row["labels"] = self._label(example)
        return rows, list(range(len(rows)))

    def _label(self, example: Example) -> Any:
        return example.label if isinstance(self.task, RegressTask) else self.task.labels.index(example.label)

    def predictions(self, logits: Any, ways_back: list[Any], examples: Sequence[Example]) -> list[Prediction]:
        """Take the likeliest label, or the number."""
        if isinstance(self.task, RegressTask):
            return [{"score": float(number)} for number in logits.reshape(-1)]
        return [{"label": self.task.labels[place]} for place in logits.argmax(-1).tolist()]


class Choices(Form):
    """The best of several endings."""

    model = "AutoModelForMultipleChoice"
    collator = "DataCollatorForMultipleChoice"

    def rows(self, examples: Sequence[Example], *, labelled: bool) -> tuple[list[Row], list[Any]]:
        """Encode each example as one row with a list for every ending. The collator wants a label even in tests."""
        rows = []
        for example in examples:
            row = dict(self.encode([example.text] * len(example.choices), list(example.choices)))
            rows.append({**row, "labels": example.label if labelled else 0})
        return rows, list(range(len(rows)))

    def predictions(self, logits: Any, ways_back: list[Any], examples: Sequence[Example]) -> list[Prediction]:
        """Take the likeliest ending."""
        return [{"choice": place} for place in logits.argmax(-1).tolist()]


class Tags(Form):
    """A tag for every word."""

    model = "AutoModelForTokenClassification"
    collator = "DataCollatorForTokenClassification"

    @property
    def options(self) -> dict[str, Any]:
        """The number of tags."""
        return {"num_labels": len(self.task.labels)}

    def rows(self, examples: Sequence[Example], *, labelled: bool) -> tuple[list[Row], list[Any]]:
        """Encode each sentence as one row; `ways_back` says where the first piece of each word is, if it is there."""
        words = [[example.text[start:end] for start, end in words_of(example)] for example in examples]
        encoded = self.encode(words, is_split_into_words=True)
        rows, ways_back = _rows_of(encoded), []
        for number, (row, example) in enumerate(zip(rows, examples, strict=True)):
            first: dict[int, int] = {}
            for place, word in enumerate(encoded.word_ids(number)):
                if word is not None:
                    first.setdefault(word, place)
            ways_back.append(first)
            if labelled:
                tags = tags_of(chunks_of(example)[0], len(words[number]), self.task.scheme)
                row["labels"] = [IGNORED] * len(row["input_ids"])
                for word, place in first.items():
                    row["labels"][place] = self.task.labels.index(tags[word])
        return rows, ways_back

    def predictions(self, logits: Any, ways_back: list[Any], examples: Sequence[Example]) -> list[Prediction]:
        """Take the likeliest tag of each word, O for a word that was cut off; our task makes entities of them."""
        found, features = [], []
        outside = np.eye(len(self.task.labels), dtype=np.float32)[self.task.labels.index("O")]
        for index, (own, first) in enumerate(zip(logits, ways_back, strict=True)):
            count = len(words_of(examples[index]))
            rows = [own[first[word]] if word in first else outside for word in range(count)]
            found.append(torch.from_numpy(np.stack(rows)))
            features.append(Feature([], [], None, index, way_back=list(range(count))))
        return list(self.task.decode(found, features, examples))


class Questions(Form):
    """The part of a context that answers a question."""

    model = "AutoModelForQuestionAnswering"

    def rows(self, examples: Sequence[Example], *, labelled: bool) -> tuple[list[Row], list[Any]]:
        """Encode each question as a row for each window over its context; `ways_back` are example and offsets."""
        rows, ways_back = [], []
        for first in range(0, len(examples), ENCODED_AT_ONCE):
            part = examples[first : first + ENCODED_AT_ONCE]
            encoded = self.encode(
                [example.text.lstrip() for example in part],
                [example.text_pair for example in part],
                truncation="only_second",
                stride=self.task.stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
            for number, row in enumerate(_rows_of(encoded)):
                of_context = [sequence == 1 for sequence in encoded.sequence_ids(number)]
                if labelled:
                    start, end = _answer_tokens(part[owners[number]], offsets[number], of_context)
                    row |= {"start_positions": start, "end_positions": end}
                else:
                    kept = [pair if own else None for pair, own in zip(offsets[number], of_context, strict=True)]
                    ways_back.append((first + owners[number], kept))
                rows.append(row)
        return rows, ways_back

    def predictions(self, logits: Any, ways_back: list[Any], examples: Sequence[Example]) -> list[Prediction]:
        """Take the best pair of tokens over all windows of a question."""
        best: dict[int, tuple[float, int, int]] = {}
        for start, end, (index, offsets) in zip(*logits, ways_back, strict=True):
            for score, first, last in self._pairs(start, end, offsets):
                if index not in best or score > best[index][0]:
                    best[index] = (score, offsets[first][0], offsets[last][1])
        answers = []
        for index, example in enumerate(examples):
            _, first_char, end_char = best.get(index, (0.0, 0, 0))
            answers.append({"answer": (example.text_pair or "")[first_char:end_char]})
        return answers

    def _pairs(self, start: Any, end: Any, offsets: Sequence[Any]) -> Iterator[tuple[float, int, int]]:
        """Yield score, first and last token of every pair that can be an answer."""
        firsts, lasts = (np.argsort(each)[: -BEST - 1 : -1].tolist() for each in (start, end))
        for first in firsts:
            for last in lasts:
                inside = max(first, last) < len(offsets) and offsets[first] and offsets[last]
                if inside and first <= last < first + self.task.max_answer_length:
                    yield float(start[first] + end[last]), first, last


FORMS: dict[type[Task], type[Form]] = {
    ClassifyTask: Sequences,
    RegressTask: Sequences,
    ChoiceTask: Choices,
    TagTask: Tags,
    QATask: Questions,
}


class Peer:
    """The library's model and tokenizer for one split.

    Args:
        split: the examples.
        chosen: the dials.
        init: model folder of the encoder.
    """

    def __init__(self, split: Split, chosen: FineTuningSet, init: Path) -> None:
        from transformers import AutoTokenizer
        from transformers.utils.logging import set_verbosity

        set_verbosity(logging.ERROR)  # it lists the weights of the new head, and those of the old ones
        self.chosen, self.init = chosen, init
        self.tokenizer = AutoTokenizer.from_pretrained(init)
        self.form = FORMS[type(split.task)](split.task, self.tokenizer, chosen.max_length)
        self.train_rows, _ = self.form.rows(split.train, labelled=True)
        self.trainer: Any = None

    def train(self, seed: int, *, epochs: int, bf16: bool = False, padding: bool | str = True) -> float:
        """Train anew and return the seconds that `Trainer` reports."""
        import transformers

        length = self.chosen.max_length if padding == "max_length" else None
        transformers.set_seed(seed)
        model = getattr(transformers, self.form.model).from_pretrained(self.init, **self.form.options)
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                folder,
                seed=seed,
                use_cpu=True,
                bf16=bf16,
                num_train_epochs=epochs,
                per_device_train_batch_size=self.chosen.batch_size,
                per_device_eval_batch_size=self.chosen.batch_size,
                learning_rate=self.chosen.lr,
                warmup_steps=0.1,
                weight_decay=0.01,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            self.trainer = transformers.Trainer(
                model,
                arguments,
                train_dataset=self.train_rows,
                data_collator=getattr(transformers, self.form.collator)(
                    self.tokenizer, padding=padding, max_length=length
                ),
            )
            self.trainer.remove_callback(transformers.PrinterCallback)
            return float(self.trainer.train().metrics["train_runtime"])

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Answer with the model as the last training left it."""
        rows, ways_back = self.form.rows(examples, labelled=False)
        return self.form.predictions(self.trainer.predict(rows).predictions, ways_back, examples)


def _rows_of(encoded: Any) -> list[Row]:
    columns = list(encoded)
    return [dict(zip(columns, row, strict=True)) for row in zip(*(encoded[column] for column in columns), strict=True)]


def _answer_tokens(example: Example, offsets: Sequence[tuple[int, int]], of_context: Iterable[bool]) -> tuple[int, int]:
    """Return the first and the last token of the answer, or [CLS] twice if the window does not hold all of it."""
    answer = next((answer for answer in example.label if answer.start >= 0), None)
    places = [place for place, own in enumerate(of_context) if own]
    if answer is None or not places:
        return 0, 0
    start, end = answer.start, answer.start + len(answer.text)
    if offsets[places[0]][0] > start or offsets[places[-1]][1] < end:
        return 0, 0
    first = max(place for place in places if offsets[place][0] <= start)
    last = min(place for place in places if offsets[place][1] >= end)
    return first, last
