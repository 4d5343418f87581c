"""A tag for every word, or the names in a text, from the first piece of each word. Paper: 5.3, CoNLL-2003.

    task = TagTask()
    task = task.learn(task.read(Path("train.txt")))      # the files that `tagged_files` describes
    task.labels                                          # ('O', 'B-LOC', 'I-LOC', ...)
    Predictor(model, wordpiece, task).predict(["EU rejects German call"])
    # [{'entities': [{'entity_group': 'ORG', 'score': 0.99, 'word': 'EU', 'start': 0, 'end': 2}, ...], 'tags': [...]}]

Every word has a tag of its own, whatever becomes of it in the vocabulary: one of which no piece is left counts as
[UNK]. A text longer than the model's input is looked at through windows cut between words; each word is tagged once, in
the window that shows most of its surroundings. Scores compare stretches of characters, as conlleval compares those of
words.

Paper: 5.3; with `document_context`, "the maximal document context provided by the data". Differs: google-research/bert
has no code for it; tags are taken one by one, without a CRF, as in the paper.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.messages import Problem
from bertwright.model.feature_heads import FeatureTaggingHead
from bertwright.model.heads import Head, TokenClassificationHead
from bertwright.options import TagOptions
from bertwright.tasks.base import Example, Feature, Logits, Prediction, Task, log_truncated, require_label
from bertwright.tasks.entities import chunks, detect_scheme, entity_details, entity_scores, is_chunk_tag, tags_of
from bertwright.tasks.losses import tagging_loss
from bertwright.tasks.metrics import classification_details, classification_scores
from bertwright.tasks.tagged_files import read_tagged
from bertwright.tasks.words import (
    Entity,
    Place,
    are_characters,
    checked_words,
    chunks_of,
    join_words,
    lines_of,
    split_characters,
    split_words,
    words_of,
)
from bertwright.text.wordpiece import WordPiece

_WRITTEN = {"B": "BSI", "I": "IMB", "E": "ELI", "S": "SUBI"}
"""The letters of a tag under which a model may know it, the best one first."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TagTask(TagOptions, Task):
    """A tag for every word; words whose tags belong together are an entity, unless the tags are `plain`."""

    name: ClassVar[str] = "tag"
    reads_text_files: ClassVar[bool] = True

    labels: tuple[str, ...] = ()
    """The tags in the order of the logits; empty until `learn` has seen the training examples."""
    characters: bool = False
    """Whether every character of raw text is a word, 2008 being four; `learn` finds it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.labels)) != len(self.labels):
            raise BertwrightError(f"labels must differ from each other: {', '.join(self.labels)}")
        if self.stride < 0:
            raise BertwrightError(f"stride must not be negative, as {self.stride} is")
        if self.lstm_layers < 0 or self.lstm_size < 2 or self.lstm_size % 2:
            what = f"lstm_layers must not be negative and lstm_size a positive even number, not {self.lstm_layers}"
            raise BertwrightError(f"{what} and {self.lstm_size}")
        if self.bilstm and self.features != "none":
            raise BertwrightError("features have a BiLSTM of their own", fix="use lstm_layers instead of bilstm")

    @property
    def head_name(self) -> str:
        """Key of the head: another one for features, which is no head of Hugging Face's."""
        return "tag" if self.features == "none" else "features"

    @property
    def plain(self) -> bool:
        """Whether tags mark no entities."""
        return self.scheme == "plain"

    @property
    def best_by(self) -> str:
        """The score by which fine-tuning chooses."""
        return "accuracy" if self.plain else "f1"

    def read(self, path: Path, *, labelled: bool = True) -> list[Example]:
        """Read a file that `tagged_files` describes; a label that training has not seen is refused."""
        found = read_tagged(path, self, labelled=labelled, known=self.labels)
        examples = [replace(each, words=each.words or self._split(each.text)) for each in found]
        if labelled:
            for example in examples:
                self._target(example)
            if inside := sum(chunks_of(example)[1] for example in examples):
                what = "%s: %d entities begin or end inside a word; training takes whole words, scores what is written"
                _log.warning(what, path, inside)
        return examples

    def learn(self, examples: Sequence[Example]) -> TagTask:
        """Return the task with the tags of every label in the training examples, sorted, `O` first.

        Where all their words are single characters, some of them Chinese, those of raw text are so from now on.

        Raises:
            BertwrightError: there is nothing to tell apart.
        """
        labels = sorted({entity.label for example in examples for entity in require_label(example)})
        if len(labels) < (2 if self.plain else 1):
            where = examples[0].where.rpartition(", ")[0] if examples and examples[0].where else None
            found = f"every word has the tag {labels[0]!r}" if labels else "there is not one entity in it"
            fix = f"look whether the right column was read: --tag-column is {self.tag_column}"
            raise BertwrightError(f"{found}: there is nothing to learn", where=where, fix=fix)
        letters = "BI" if self.scheme == "iob2" else "BIES"
        tags = labels if self.plain else ["O", *(f"{letter}-{label}" for label in labels for letter in letters)]
        return replace(self, labels=tuple(tags), characters=are_characters(examples))

    def example(self, given: Any, *, where: str | None = None) -> Example:
        """Make an example of a text, or of a list of words; also under the keys `text` or `tokens`."""
        if isinstance(given, Mapping) and len(given) == 1:
            given = given.get("text", given.get("tokens"))
        if isinstance(given, str) and given.strip():
            return Example(given, words=self._split(given), where=where)
        if isinstance(given, list | tuple):
            text, words = join_words(checked_words(given, where))
            return Example(text, words=words, where=where)
        found = (
            "the text is empty" if isinstance(given, str) else f"expected a text or a list of words, not {given!r:.60}"
        )
        raise BertwrightError(found, where=where)

    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn each example into windows of [CLS] words [SEP], each word tagged in one of them; mostly into one."""
        room = max_length - 2
        if room < 1:
            raise BertwrightError(f"max_length {max_length} leaves no room for a word", fix="give at least 3")
        texts = [[example.text[start:end] for start, end in words_of(example)] for example in examples]
        distinct = list({word: None for words in texts for word in words})
        found = wordpiece.ids_of_many(distinct) if distinct else []
        ids_of = {word: ids or [wordpiece.unk_id] for word, ids in zip(distinct, found, strict=True)}
        features = []
        for index, (example, words) in enumerate(zip(examples, texts, strict=True)):
            target = self._target(example)
            pieces = [ids_of[word][:room] for word in words]
            sizes = [len(ids) for ids in pieces]
            starts = [0, *accumulate(sizes)]
            for first, after, own in word_windows(sizes, room, self.stride):
                ids = [number for word in pieces[first:after] for number in word]
                features.append(
                    Feature(
                        [wordpiece.cls_id, *ids, wordpiece.sep_id],
                        [0] * (len(ids) + 2),
                        None if target is None else [target[word] for word in own],
                        index,
                        truncated=any(len(ids_of[word]) > room for word in words[first:after]),
                        rows=[1 + starts[word] - starts[first] for word in own],
                        way_back=own,
                    )
                )
        log_truncated(features, max_length)
        return features

    def targets(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return `labels`: the tag of each word, as its place among the task's labels."""
        return {"labels": torch.tensor([label for feature in features for label in feature.target], dtype=torch.int64)}

    def head(self, config: BertConfig) -> Head:
        """Return dropout and a linear layer on the first piece of each word, or what `features` asks for."""
        assert self.labels, "learn the labels first"
        if self.features != "none":
            shape = {"lstm_layers": self.lstm_layers, "lstm_size": self.lstm_size}
            return FeatureTaggingHead(config, len(self.labels), features=self.features, **shape)
        return TokenClassificationHead(config, len(self.labels))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of words."""
        return {"loss": batch.targets["labels"].shape[0]}

    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Sum cross-entropy and right tags over the words."""
        return tagging_loss(logits, batch.targets["labels"])

    def decode(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> list[Prediction]:
        """Return the `tags` of each example's words, the likeliest ones, and the `entities` that they make.

        An entity has `entity_group`, `score` (the mean probability of its words' tags), `word` (to the letter),
        `start` and `end`. With `plain` tags every word is one. With `document_context` none goes on in the next line.
        """
        starts = [0, *accumulate(len(words_of(example)) for example in examples)]
        places = [starts[feature.example_index] + word for feature in features for word in feature.way_back]
        assert sorted(places) == list(range(starts[-1])), "every word is tagged once"
        if not places:
            return [{"entities": [], "tags": []} for _ in examples]
        order = torch.tensor(places).argsort()
        scores, tags = (each[order].tolist() for each in torch.cat(list(logits)).float().softmax(-1).max(-1))
        return [
            self._answer(example, tags[first:after], scores[first:after])
            for example, first, after in zip(examples, starts, starts[1:], strict=False)
        ]

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Return `precision`, `recall` and `f1` of entities, and the `accuracy` of tags; `plain`: that and `macro_f1`.

        An entity is right if its characters and its label are: these are conlleval's numbers.
        """
        gold, predicted = self._tags(predictions, examples)
        if self.plain:
            scores = classification_scores(gold, predicted, sorted({*gold, *predicted}))
            return {name: scores[name] for name in ("accuracy", "macro_f1")}
        right = sum(one == other for one, other in zip(gold, predicted, strict=True))
        return {**entity_scores(*self._entities(predictions, examples)), "accuracy": right / len(gold)}

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the scores `per_class` and the `counts` of entities; of `plain` tags also the `confusion` matrix."""
        if self.plain:
            gold, predicted = self._tags(predictions, examples)
            return classification_details(gold, predicted, sorted({*gold, *predicted}))
        return entity_details(*self._entities(predictions, examples))

    def degenerate(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> str | None:
        """Say so if no entity is found rightly though there are some, or all words have one tag."""
        gold, predicted = self._tags(predictions, examples)
        if len(set(gold)) > 1 and len(set(predicted)) == 1 and (self.plain or predicted[0] != "O"):
            return Problem("problem_one_tag", tag=predicted[0])
        missed = sum(len(example.label) for example in examples)
        if missed and not self.plain and self.score(predictions, examples)["f1"] == 0:
            return Problem("problem_no_entity", count=missed)
        return None

    def gold(self, example: Example) -> Any:
        """Return the entities as predictions have them, without scores; of `plain` tags, the tags."""
        if example.label is None or self.plain:
            return None if example.label is None else [entity.label for entity in example.label]
        return [
            {"entity_group": label, "word": example.text[start:end], "start": start, "end": end}
            for start, end, label in example.label
        ]

    def answers(self, example: Example) -> list[str]:
        """Return the label of each entity, or of each word."""
        return [entity.label for entity in example.label or ()]

    def marks(self, feature: Feature) -> dict[int, str]:
        """Return the tag of each word at its first piece."""
        return {row: self.labels[tag] for row, tag in zip(feature.rows or (), feature.target or (), strict=False)}

    def error(self, prediction: Prediction, example: Example) -> float:
        """Return how many entities are wrong, and how many were missed; of `plain` tags, how many are wrong."""
        gold, predicted = (set(each[0]) for each in self._entities([prediction], [example]))
        return float(len(gold - predicted) if self.plain else len(gold ^ predicted))

    def config_keys(self) -> dict[str, Any]:
        """Return `id2label` and `label2id`."""
        ids = {label: index for index, label in enumerate(self.labels)}
        return {"id2label": {str(index): label for label, index in ids.items()}, "label2id": ids}

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The place among the labels of each tag that there can be, such as E-PER of BILOU's L-PER."""
        ids = {label: index for index, label in enumerate(self.labels)}
        if self.plain:
            return ids
        kinds = {label[2:] for label in self.labels if label != "O" and is_chunk_tag(label)}
        for kind in kinds:
            for letter, others in _WRITTEN.items():
                known = [ids[f"{other}-{kind}"] for other in others if f"{other}-{kind}" in ids]
                ids |= {f"{letter}-{kind}": known[0]} if known else {}
        return ids

    @cached_property
    def _as_chunks(self) -> tuple[str, ...]:
        """The labels, and O for those that say nothing of entities, as a model made elsewhere may have."""
        return tuple(label if is_chunk_tag(label) else "O" for label in self.labels)

    def _split(self, text: str) -> tuple[Place, ...]:
        """Return the words of raw text."""
        return split_characters(text) if self.characters else split_words(text)

    def _target(self, example: Example) -> list[int] | None:
        """Return the place among the labels of each word's tag; None if they are unknown."""
        if example.label is None or not self.labels:
            return None
        tags = tags_of(chunks_of(example)[0], len(words_of(example)), self.scheme)
        try:
            return [self._ids[tag] for tag in tags]
        except KeyError as error:
            tag = str(error.args[0])
            raise BertwrightError(
                f"unknown tag {tag!r}{nearest(tag, self.labels)}; the model knows {', '.join(self.labels)}",
                where=example.where,
                fix="mend it, or train again on a file that has this label",
            ) from None

    def _answer(self, example: Example, tags: Sequence[int], scores: Sequence[float]) -> Prediction:
        words, named = words_of(example), [self.labels[tag] for tag in tags]
        if self.plain:
            found = [(place, place + 1, tag) for place, tag in enumerate(named)]
        else:
            lines = lines_of(example) if self.document_context else [(0, len(words))]
            found = [
                (line + first, line + after, label)
                for line, end in lines
                for first, after, label in chunks([self._as_chunks[tag] for tag in tags[line:end]])
            ]
        entities = []
        for first, after, label in found:
            start, end, score = words[first][0], words[after - 1][1], sum(scores[first:after]) / (after - first)
            each = {"entity_group": label, "score": score, "word": example.text[start:end], "start": start, "end": end}
            entities.append(each)
        return {"entities": entities, "tags": named}

    def _tags(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> tuple[list[str], list[str]]:
        """Return the right and the predicted tag of every word."""
        gold = []
        for example in examples:
            require_label(example)
            tags = tags_of(chunks_of(example)[0], len(words_of(example)), self.scheme)
            gold += [self.labels[self._ids[tag]] if tag in self._ids else tag for tag in tags]
        return gold, [tag for prediction in predictions for tag in prediction["tags"]]

    def _entities(
        self, predictions: Sequence[Prediction], examples: Sequence[Example]
    ) -> tuple[list[tuple[Entity, ...]], list[tuple[Entity, ...]]]:
        """Return the right and the predicted entities of each example."""
        predicted = [
            tuple(Entity(each["start"], each["end"], each["entity_group"]) for each in prediction["entities"])
            for prediction in predictions
        ]
        return [require_label(example) for example in examples], predicted


def word_windows(sizes: Sequence[int], room: int, stride: int) -> list[tuple[int, int, list[int]]]:
    """Return windows of whole words over a text.

    Args:
        sizes: tokens of each word, between 1 and `room`.
        room: tokens that a window holds at most.
        stride: tokens that two neighbouring windows share at most.

    Returns:
        Of each window its first word, the word after its last one, and those of which it shows the most context: the
        larger number of tokens on the side that has fewer. Each word is in the latter list of one window.

    Raises:
        BertwrightError: several windows are needed, and they would share all that they hold.
    """
    starts, ends = [0, *accumulate(sizes)][:-1], list(accumulate(sizes))
    if not sizes or ends[-1] <= room:
        return [(0, len(sizes), list(range(len(sizes))))] if sizes else []
    if stride >= room:
        what = f"stride {stride} is too large: windows hold {room} tokens of a long text"
        raise BertwrightError(what, fix=f"use --stride {room // 2}, or a larger max_length")
    bounds: list[tuple[int, int]] = []
    first = after = 0
    while after < len(sizes):
        after = bisect_right(ends, starts[first] + room)
        bounds.append((first, after))
        if after < len(sizes):  # the next window holds this word, and of what is before it no more than it may
            least = max(starts[after] - stride, ends[after] - room)
            first = max(bisect_left(starts, least), first + 1)
    best, owner = [-1] * len(sizes), [0] * len(sizes)
    for number, (first, after) in enumerate(bounds):
        for word in range(first, after):
            context = min(starts[word] - starts[first], ends[after - 1] - ends[word])
            if context > best[word]:
                best[word], owner[word] = context, number
    own: list[list[int]] = [[] for _ in bounds]
    for word, number in enumerate(owner):
        own[number].append(word)
    return [(*bound, words) for bound, words in zip(bounds, own, strict=True) if words]


def adopt(labels: Sequence[str]) -> TagTask:
    """Return the task of a model made elsewhere, by what its outputs are called, in their order.

    Labels in any order and scheme will do; those that mark no entity among others that do, such as `[CLS]` or `X`,
    are tags like O.
    """
    marking = [label for label in labels if label != "O" and is_chunk_tag(label)]
    if not marking:
        return TagTask(labels=tuple(labels), scheme="plain")
    ends = detect_scheme([[label] for label in marking]) in ("bioes", "bmes")
    return TagTask(labels=tuple(labels), scheme="bioes" if ends else "iob2")
