"""Fine-tuning as scikit-learn's estimators: `fit`, `predict`, `score`, cross-validation, grid search, pickle.

    classifier = BertClassifier("bert-base-uncased", epochs=3).fit(texts, labels)
    classifier.predict(["a charming journey"])           # array([1]): labels keep the type they had
    cross_val_score(BertRegressor("run/model"), pairs, numbers, cv=5)
    BertTagger("run/model").fit([["Ada", "came"]], [["B-PER", "O"]])

As scikit-learn's users expect, all examples given to `fit` are trained on and the last weights are kept; what is held
out is up to cross-validation. With `dev_fraction`, that share of them is held out inside `fit` instead, the best epoch
is chosen by it, and probabilities are set right by it.

Differs: there is no `n_features_in_`, for a text has none; `sample_weight` is not supported.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from bertwright.config import FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.json_values import from_dict
from bertwright.model import machine
from bertwright.predict import Predictor
from bertwright.tasks import Example, Prediction, Task, get_task, save_fine_tuned
from bertwright.tasks.entities import Scheme, chunks, detect_scheme, tags_of
from bertwright.tasks.words import Entity
from bertwright.training.finetune import finetune_examples


class BertEstimator(BaseEstimator):  # type: ignore[misc]
    """What the three have in common: their arguments, and how they are saved.

    Args:
        init: the model folder to start from, or a name on the hub.
        epochs: passes over the examples.
        lr: peak learning rate.
        batch_size: examples in a step.
        max_length: longest input, tokens, with [CLS] and [SEP]; longer ones are cut and counted. 0: the usual one.
        dev_fraction: share of the examples that is not trained on, but chosen by; 0: none is, and the last weights
            are kept.
        seed: of the added layer, the order, dropout, and of what is held out.
        out: the run folder, new or empty, whose folder `model` any command of Bertwright takes; none is kept unless
            given, and the weights are in the estimator alone. Fits that run over and over, as in cross-validation,
            need it not given.
        config: more fields of `FinetuneConfig` by name.
        options: fields of the task by name, such as `{"windows": True}`.

    Attributes:
        predictor_: the fine-tuned model.
        scores_: its scores on what was held out; none where nothing was.
    """

    _task: str
    """Name of the task."""

    def __init__(
        self,
        init: str | Path,
        *,
        epochs: int = 3,
        lr: float = 3e-5,
        batch_size: int = 32,
        max_length: int = 0,
        dev_fraction: float = 0.0,
        seed: int = 0,
        out: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.init = init
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.max_length = max_length
        self.dev_fraction = dev_fraction
        self.seed = seed
        self.out = out
        self.config = config
        self.options = options

    def save(self, folder: str | Path) -> None:
        """Write a model folder that every command of Bertwright takes; replaced if it is there."""
        check_is_fitted(self)
        task, max_length = self.predictor_.require_task(), self.predictor_.max_length
        wordpiece = self.predictor_.wordpiece
        save_fine_tuned(self.predictor_.model, Path(folder), wordpiece=wordpiece, task=task, max_length=max_length)

    def _fit(self, task: Task, examples: list[Example], labels: Sequence[Collection[Any]]) -> None:
        """Train; the `labels` of each example are what its share is held out by."""
        dials = {name: getattr(self, name) for name in ("epochs", "lr", "batch_size", "max_length", "seed")}
        dials |= dict(self.config or {})
        config = from_dict(FinetuneConfig, {name: _plain(value) for name, value in dials.items()})
        held_out = _held_out(labels, self.dev_fraction, config.seed)
        train = [example for place, example in enumerate(examples) if place not in held_out]
        dev = [examples[place] for place in sorted(held_out)]
        with TemporaryDirectory(prefix="bertwright-") as scratch:
            out = Path(scratch) / "run" if self.out is None else Path(self.out)
            result = finetune_examples(task, config, train=train, dev=dev, init=self.init, out=out)
            self.predictor_ = Predictor.load(result.model)
            self.scores_ = result.scores

    def _new_task(self, **options: Any) -> Task:
        return from_dict(get_task(self._task), options | dict(self.options or {}))

    def _predict(self, examples: Sequence[Example]) -> list[Prediction]:
        predictions: list[Prediction] = self.predictor_.predict_examples(examples)
        return predictions

    def _examples(self, X: Any) -> list[Example]:
        """Return what the fitted model is asked."""
        check_is_fitted(self)
        return _labelled(self.predictor_.require_task(), _texts(X))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if (predictor := state.get("predictor_")) is not None:  # weights on a GPU would be of use on a GPU alone
            predictor = state["predictor_"] = copy.copy(predictor)
            if next(predictor.model.parameters()).device.type != "cpu":
                predictor.model = copy.deepcopy(predictor.model).cpu()
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__(state)
        if "predictor_" in state:
            self.predictor_.model.to(machine.prepare())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


class BertClassifier(ClassifierMixin, BertEstimator):  # type: ignore[misc]
    """One label of several for a text or a pair of texts; the arguments are those of `BertEstimator`.

    Attributes:
        classes_: the labels, sorted, of the type they were given in.
    """

    _task = "classify"

    def fit(self, X: Any, y: Any) -> BertClassifier:
        """Fine-tune.

        Args:
            X: texts: a list, an array or a column; or pairs of texts, as tuples or in two columns.
            y: a label for each, of any type that sorts.

        Raises:
            BertwrightError: an input is no text, X and y differ in length, or there is one label only.
        """
        texts, y = _texts(X), column_or_1d(y, warn=True)
        _require_same_length(texts, y)
        try:
            check_classification_targets(y)
            self.classes_, places = np.unique(y, return_inverse=True)
        except TypeError:
            raise BertwrightError("the labels have types that cannot be sorted together", where="y") from None
        names = [str(label) for label in self.classes_.tolist()]
        if len(names) < 2:
            raise BertwrightError(f"only {len(names)} class occurs in y: there is nothing to tell apart", where="y")
        if len(set(names)) < len(names):
            raise BertwrightError("two labels are written alike", where="y", fix="give labels of one type")
        task: Any = self._new_task(**_columns(texts))
        if task.multi_label:
            fix = "fine-tune ClassifyTask(multi_label=True) instead"
            raise BertwrightError("BertClassifier has one label for each text", where="options", fix=fix)
        self._fit(
            task, _labelled(task, texts, [names[place] for place in places]), [{place} for place in places.tolist()]
        )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each text."""
        found: np.ndarray = self.predict_proba(X).argmax(1)
        labels: np.ndarray = self.classes_[found]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return every label's probability for each text: float32 [texts, labels], in the order of `classes_`."""
        examples = self._examples(X)
        if not examples:
            return np.empty((0, len(self.classes_)), np.float32)
        task: Any = self.predictor_.require_task()
        features = task.encode(examples, self.predictor_.wordpiece, self.predictor_.max_length)
        found = task.probabilities(self.predictor_.logits(features), features).numpy()
        order = [task.labels.index(str(label)) for label in self.classes_.tolist()]
        rows: np.ndarray = found[:, order]
        return rows


class BertRegressor(RegressorMixin, BertEstimator):  # type: ignore[misc]
    """A number for a text or a pair of texts; the arguments are those of `BertEstimator`."""

    _task = "regress"

    def fit(self, X: Any, y: Any) -> BertRegressor:
        """Fine-tune.

        Args:
            X: texts: a list, an array or a column; or pairs of texts, as tuples or in two columns.
            y: a number for each.

        Raises:
            BertwrightError: an input is no text, X and y differ in length, or y holds something else than numbers.
        """
        texts, y = _texts(X), column_or_1d(y, warn=True)
        _require_same_length(texts, y)
        try:
            numbers = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise BertwrightError(f"expected numbers ({error})", where="y") from None
        for place in np.flatnonzero(~np.isfinite(numbers))[:1]:
            raise BertwrightError(f"expected a number, not {y[place]!r}", where=f"y[{place}]")
        task = self._new_task(**_columns(texts))
        self._fit(task, _labelled(task, texts, numbers.tolist()), [()] * len(texts))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the number of each text: float64 [texts]."""
        return np.array([each["score"] for each in self._predict(self._examples(X))], np.float64)


class BertTagger(BertEstimator):
    """A tag for every word; the arguments are those of `BertEstimator`.

    How tags are written is seen in `fit`: IOB1, IOB2, BIOES (BILOU is read as that), BMES, or plain ones that mark no
    entities, such as parts of speech.

    Attributes:
        scheme_: how they are written.
    """

    _task = "tag"

    def fit(self, X: Any, y: Any) -> BertTagger:
        """Fine-tune.

        Args:
            X: the words of each sentence.
            y: the tag of each word.

        Raises:
            BertwrightError: an input is no list of words or has another number of tags, or tags contradict each other.
        """
        sentences, tags = _word_lists(X, "X"), _word_lists(y, "y")
        _require_same_length(sentences, tags)
        try:
            forced = (self.options or {}).get("scheme") == "plain"
            self.scheme_: Scheme = "plain" if forced else detect_scheme(tags)
        except BertwrightError as error:
            fix = "write them like B-PER, I-PER and O; for tags of any form give options={'scheme': 'plain'}"
            raise BertwrightError(error.what, where="y", fix=fix) from None
        task = self._new_task(**({"scheme": "plain"} if self.scheme_ == "plain" else {}))
        examples = self._tagged(task, sentences, tags)
        self._fit(task, examples, [{entity.label for entity in example.label} for example in examples])
        return self

    def predict(self, X: Any) -> list[list[str]]:
        """Return the tag of each word of each sentence, written as those in `fit` were."""
        check_is_fitted(self)
        examples = _labelled(self.predictor_.require_task(), _word_lists(X, "X"))
        found = [list(each["tags"]) for each in self._predict(examples)]
        return found if self.scheme_ == "plain" else [tags_of(chunks(tags), len(tags), self.scheme_) for tags in found]

    def score(self, X: Any, y: Any) -> float:
        """Return F1 over entities, by the rules of `conlleval`; of plain tags, the share of right ones."""
        check_is_fitted(self)
        task = self.predictor_.require_task()
        sentences, tags = _word_lists(X, "X"), _word_lists(y, "y")
        _require_same_length(sentences, tags)
        examples = self._tagged(task, sentences, tags)
        return float(task.score(self._predict(examples), examples)[task.best_by])

    def _tagged(self, task: Task, sentences: list[list[str]], tags: list[list[str]]) -> list[Example]:
        """Return examples with the places of their entities, or of their words where tags are plain."""
        labels = []
        examples = _labelled(task, sentences)
        for place, (example, own) in enumerate(zip(examples, tags, strict=True)):
            words = example.words
            if len(words) != len(own):
                raise BertwrightError(f"{len(words)} words, but {len(own)} tags", where=f"X[{place}] and y[{place}]")
            found = [(n, n + 1, tag) for n, tag in enumerate(own)] if self.scheme_ == "plain" else chunks(own)
            labels.append(tuple(Entity(words[first][0], words[after - 1][1], label) for first, after, label in found))
        return [replace(example, label=label) for example, label in zip(examples, labels, strict=True)]


def _texts(X: Any) -> list[Any]:
    """Return texts, or pairs of texts as tuples, of whatever holds them."""
    what = "expected a list of texts, or of pairs of texts"
    if isinstance(X, str | bytes | Mapping):
        raise BertwrightError(f"{what}, not {X!r:.60}", where="X", fix="one text is a list too: ['a text']")
    try:
        array = np.asarray(X, dtype=object)
    except ValueError:
        raise BertwrightError(f"{what}; not all have the same form", where="X") from None
    if array.ndim == 2 and array.shape[1] in (1, 2):
        return [tuple(row) if len(row) == 2 else row[0] for row in array.tolist()]
    if array.ndim != 1:
        raise BertwrightError(f"{what}, not an array of shape {array.shape}", where="X")
    texts: list[Any] = array.tolist()
    return texts


def _word_lists(lists: Any, name: str) -> list[list[str]]:
    """Return the words, or the tags, of each sentence."""
    if isinstance(lists, str | Mapping) or not isinstance(lists, Iterable):
        raise BertwrightError(f"expected a list for each sentence, not {lists!r:.60}", where=name)
    found = [words.tolist() if isinstance(words, np.ndarray) else words for words in lists]
    for place, words in enumerate(found):
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise BertwrightError(f"expected a list of words, not {words!r:.60}", where=f"{name}[{place}]")
    return [[str(word) for word in words] for words in found]


def _labelled(task: Task, given: Sequence[Any], labels: Sequence[Any] | None = None) -> list[Example]:
    examples = [task.example(each, where=f"X[{place}]") for place, each in enumerate(given)]
    if labels is None:
        return examples
    return [replace(example, label=label) for example, label in zip(examples, labels, strict=True)]


def _columns(texts: Sequence[Any]) -> dict[str, Any]:
    """Return the option that tells pairs from texts."""
    return {"text_pair_column": "text_pair"} if texts and isinstance(texts[0], tuple) else {}


def _require_same_length(X: Sequence[Any], y: Any) -> None:
    if len(X) != len(y):
        raise BertwrightError(f"X has {len(X):,} examples, y has {len(y):,}")
    if not len(X):
        raise BertwrightError("there are no examples", where="X")


def _held_out(labels: Sequence[Collection[Any]], fraction: float, seed: int) -> set[int]:
    """Return which examples are held out: a like share for every label, and none that is a label's last one."""
    if not fraction:
        return set()
    if not 0 < fraction < 1:
        raise BertwrightError(f"dev_fraction must be 0 or lie between 0 and 1, not {fraction!r}")
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(labels)).tolist()
    order.sort(key=lambda place: sorted(labels[place]))
    left = Counter(label for own in labels for label in own)
    found: set[int] = set()
    due = 0.5
    for place in order:
        due += fraction
        if due >= 1 and all(left[label] > 1 for label in labels[place]) and len(found) < len(labels) - 1:
            found.add(place)
            left.subtract(labels[place])
            due -= 1
    if not found:
        raise BertwrightError(f"dev_fraction {fraction} of {len(labels):,} examples is none", fix="use 0, or more data")
    return found


def _plain(value: Any) -> Any:
    """Return a number of NumPy's, such as a grid holds, as Python's."""
    return value.item() if isinstance(value, np.generic) else value
