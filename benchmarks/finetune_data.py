"""The data sets of `finetune_sets.py`: where their files are, our task for them, and the dials both sides train with.

    chosen = SETS["mrpc"]
    (split,) = chosen.read(common.SHARED, Path("work"))     # a training set and what is scored, once or fold by fold
    split.train[0].text, chosen.lr, chosen.epochs

The dials are ordinary ones for small encoders: a learning rate of 1e-4 where there is little data, 5e-5 where there is
much or where a high one is known to spoil runs. Nobody has searched for better ones, for either side.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bertwright.tasks import ChoiceTask, ClassifyTask, Example, QATask, TagTask, Task
from bertwright.tasks.glue_files import glue_files, glue_task, tidy_file

NUM_FOLDS = 5
"""Of cross-validation, and of a file that is split in train and dev: a fifth is dev."""


@dataclass(frozen=True)
class Split:
    """What one training sees, and what it is scored on."""

    task: Task
    """With the labels of the training examples."""
    train: Sequence[Example]
    """Trained on."""
    scored: Mapping[str, Sequence[Example]]
    """Scored on after training, by name; `dev` is always there."""


Reader = Callable[[Task, Path, Path], list[Split]]
"""Given the task, the folder of shared data, and a folder for files made on the way."""


@dataclass(frozen=True, kw_only=True)
class FineTuningSet:
    """A data set and how it is trained on, by both sides."""

    title: str
    """As people call it."""
    task: Task
    """Ours: it reads the files and scores both sides' answers."""
    reader: Reader = field(repr=False)
    """Makes the splits."""
    metrics: tuple[str, ...]
    """Those of `Task.score` that the set is known by."""
    epochs: int = 3
    """Passes over the training examples."""
    lr: float = 1e-4
    """Peak learning rate."""
    batch_size: int = 32
    """Examples in a step; of questions, windows."""
    max_length: int = 128
    """Longest input, tokens."""
    language: str = "en"
    """Which of the two encoders it starts from."""

    def read(self, data: Path, work: Path, *, limit: int = 0) -> list[Split]:
        """Return the splits, each of at most `limit` examples, drawn once and for all; 0: all."""
        splits = self.reader(self.task, data, work)
        if not limit:
            return splits
        return [
            replace(
                split,
                train=draw(split.train, limit),
                scored={name: draw(examples, limit) for name, examples in split.scored.items()},
            )
            for split in splits
        ]

    def dials(self) -> dict[str, Any]:
        """Return what both sides train with, as JSON values."""
        names = ("epochs", "lr", "batch_size", "max_length")
        return {name: getattr(self, name) for name in names}


def draw(examples: Sequence[Example], count: int) -> list[Example]:
    """Return `count` of the examples, the same ones every time, in the order of the file; all if there are fewer."""
    places = sorted(random.Random(0).sample(range(len(examples)), min(count, len(examples))))
    return [examples[place] for place in places]


def _glue(name: str) -> Reader:
    def read(task: Task, data: Path, work: Path) -> list[Split]:
        files = glue_files(data / "tasks" / "en")[name]
        if files.missing:
            raise SystemExit(f"{name}: not there: {', '.join(files.missing)}")
        (dev,) = files.dev.values()
        examples = task.read(tidy_file(files, files.train, out=work))
        return [Split(task.learn(examples), examples, {"dev": task.read(tidy_file(files, dev, out=work))})]

    return read


def _files(folder: str, train: str, *, first: int | None = None, **scored: str) -> Reader:
    def read(task: Task, data: Path, work: Path) -> list[Split]:
        home = data / "tasks" / folder
        examples = task.read(home / train)[:first]
        return [Split(task.learn(examples), examples, {name: task.read(home / file) for name, file in scored.items()})]

    return read


def _folds(folder: str, file: str, key: Callable[[Example], str], folds: Iterable[int]) -> Reader:
    """Split one file by the hash of what `key` returns, so that examples which share it stay together."""

    def read(task: Task, data: Path, work: Path) -> list[Split]:
        examples = task.read(data / "tasks" / folder / file)
        fold_of = [hashlib.sha256(key(example).encode()).digest()[0] % NUM_FOLDS for example in examples]
        splits = []
        for fold in folds:
            train = [example for example, own in zip(examples, fold_of, strict=True) if own != fold]
            dev = [example for example, own in zip(examples, fold_of, strict=True) if own == fold]
            splits.append(Split(task.learn(train), train, {"dev": dev}))
        return splits

    return read


def _of_glue(name: str, **dials: Any) -> FineTuningSet:
    spec = glue_task(name)
    return FineTuningSet(title=name, task=spec.task, reader=_glue(name), metrics=spec.metrics, **dials)


def _of_squad(title: str, *, epochs: int, first: int | None = None) -> FineTuningSet:
    reader = _files("en/SQuAD", "train-v1.1.json.xz", first=first, dev="dev-v1.1.json")
    metrics = ("exact", "f1")
    return FineTuningSet(title=title, task=QATask(), reader=reader, metrics=metrics, epochs=epochs, max_length=384)


_CODAH = ChoiceTask(
    text_column="prompt",
    choice_columns=("a", "b", "c", "d"),
    label_column="right",
    columns=("category", "prompt", "a", "b", "c", "d", "right"),
)
_AFQMC = ClassifyTask(text_pair_column="text_pair", columns=("text", "text_pair", "label"))

SETS: dict[str, FineTuningSet] = {
    "sst2": _of_glue("SST-2", lr=5e-5),
    "cola": _of_glue("CoLA", lr=5e-5, epochs=5),
    "mrpc": _of_glue("MRPC"),
    "rte": _of_glue("RTE", max_length=256),
    "stsb": _of_glue("STS-B"),
    "codah": FineTuningSet(
        title=f"CODAH, {NUM_FOLDS} folds",
        task=_CODAH,
        reader=_folds("en/CODAH", "full_data.tsv", lambda example: example.text, range(NUM_FOLDS)),
        metrics=("accuracy",),
        lr=5e-5,
        batch_size=16,
    ),
    "squad": _of_squad("SQuAD 1.1", epochs=2),
    "squad-small": _of_squad("SQuAD 1.1, 10,000 questions", first=10_000, epochs=3),
    "conll": FineTuningSet(
        title="CoNLL-2003",
        task=TagTask(),
        reader=_files("en/CoNLL-2003", "train.txt", dev="valid.txt", test="test.txt"),
        metrics=("f1",),
        max_length=256,
    ),
    "chnsenticorp": FineTuningSet(
        title="ChnSentiCorp",
        task=ClassifyTask(text_column="text_a"),
        reader=_files("zh/ChnSentiCorp", "train.tsv", dev="dev.tsv", test="test.tsv"),
        metrics=("accuracy",),
        max_length=256,
        language="zh",
    ),
    "afqmc": FineTuningSet(
        title="AFQMC",
        task=_AFQMC,
        reader=_files("zh/AFQMC", "train.txt", dev="dev.txt"),
        metrics=("accuracy",),
        language="zh",
    ),
    "msra": FineTuningSet(
        title="MSRA NER",
        task=TagTask(),
        reader=_files("zh/MSRA-NER", "train.txt.xz", dev="dev.txt"),
        metrics=("f1",),
        max_length=256,
        language="zh",
    ),
    "cmrc": FineTuningSet(
        title="CMRC 2018, own split of dev",
        task=QATask(rules="cmrc"),
        reader=_folds("zh/CMRC2018", "cmrc2018_dev.json", lambda example: example.text_pair or "", [0]),
        metrics=("exact", "f1"),
        epochs=5,
        max_length=384,
        language="zh",
    ),
}
"""By the name that the command line takes."""
