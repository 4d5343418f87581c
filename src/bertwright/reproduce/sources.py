"""The tasks that an experiment scores on, found in a folder: GLUE's, SQuAD 1.1, CoNLL-2003, and QNLI-like pairs.

    found, missing = find_tasks(Path("tasks"), ["MRPC", "QNLI", "SQuAD"])
    found["MRPC"].examples(Path("work")).train[0].text

Folders are found by their names whatever the case and hyphens. Where QNLI has no training file and SQuAD is there, the
pairs that `pairs_of_questions` makes stand in for it, under a name of their own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bertwright.errors import BertwrightError, nearest
from bertwright.files import sha256_of
from bertwright.reproduce.question_pairs import COLUMNS, write_pairs
from bertwright.tasks import ClassifyTask, Example, QATask, TagTask, Task
from bertwright.tasks.glue_files import GLUE_TASKS, GlueFiles, glue_files, tidy_file

LIKE_QNLI = "QNLI-like"
"""What the pairs made from SQuAD are called: they are not QNLI."""
_PACKED = ("", ".xz", ".gz", ".zst")
_OTHERS: dict[str, tuple[Task, int, tuple[str, ...], tuple[str, ...]]] = {
    "SQuAD": (QATask(), 384, ("train-v1.1.json",), ("dev-v1.1.json",)),
    "CoNLL-2003": (
        TagTask(document_context=True), 256, ("train.txt", "eng.train"), ("valid.txt", "dev.txt", "eng.testa"),
    ),
}  # fmt: skip
"""Tasks beside GLUE: what reads them, their longest input in tokens, and names of their training and dev files."""
_METRICS = {"SQuAD": "f1", "CoNLL-2003": "f1"}

KNOWN_TASKS: dict[str, str] = {
    **{next(iter(spec.dev_files)): spec.metrics[0] for spec in GLUE_TASKS.values()},
    **_METRICS,
}
"""Every task that can be scored on, with the score that counts."""


class Examples(NamedTuple):
    """What a task is trained and scored on."""

    train: list[Example]
    dev: list[Example]
    source: dict[str, Any]
    """What a run folder says of where they are from."""


@dataclass(frozen=True)
class Found:
    """A task of which the files are there."""

    name: str
    """One of `KNOWN_TASKS`."""
    title: str
    """As tables have it; another one than `name` where other data stand in."""
    task: Task
    """What reads and scores it."""
    train: Path
    """File that training examples are read, or made, from."""
    dev: Path
    """Likewise of dev examples."""
    longest: int
    """Longest input, tokens, where the encoder takes that much."""
    glue: GlueFiles | None = None
    """Of a task of GLUE: what lies in its folder."""

    def identity(self) -> dict[str, str]:
        """Return what the files are known by."""
        return {"title": self.title, "train_sha256": sha256_of(self.train), "dev_sha256": sha256_of(self.dev)}

    def examples(self, work: Path, *, most_train: int = 0, most_dev: int = 0) -> Examples:
        """Read or make the examples, and draw some of them.

        Args:
            work: folder for files made on the way.
            most_train: training examples at most, drawn once and for all; 0: all.
            most_dev: dev examples likewise.
        """
        paths = {}
        for split, path in (("train", self.train), ("dev", self.dev)):
            if self.title == LIKE_QNLI:
                paths[split] = write_pairs(path, work / f"{LIKE_QNLI}-{split}.tsv")
            else:
                paths[split] = path if self.glue is None else tidy_file(self.glue, path, out=work)
        train = self.task.read(paths["train"])
        dev = draw(self.task.learn(train).read(paths["dev"]), most_dev)
        train = draw(train, most_train)
        source: dict[str, Any] = {"train_examples": len(train), "dev_examples": len(dev)}
        for split, path in paths.items():
            source |= {f"{split}_file": str(path), f"{split}_sha256": sha256_of(path)}
        return Examples(train, dev, source)


def find_tasks(folder: Path, names: Sequence[str]) -> tuple[dict[str, Found], dict[str, str]]:
    """Look for tasks in a folder that holds a folder for each.

    Returns:
        Those that are there, by name, and for each other one what was looked for.

    Raises:
        BertwrightError: a name is unknown, or none of the tasks is there.
    """
    for name in names:
        if name not in KNOWN_TASKS:
            what = f"unknown task {name!r}{nearest(name, KNOWN_TASKS)}"
            raise BertwrightError(what, fix=f"use some of: {', '.join(KNOWN_TASKS)}")
    glue = {next(iter(each.dev)): each for each in glue_files(folder, some=False).values()}
    found: dict[str, Found] = {}
    missing: dict[str, str] = {}
    for name in names:
        here = _of_glue(name, glue[name]) if name in glue else _of_others(folder, name)
        if name == "QNLI" and isinstance(here, str) and isinstance(squad := _of_others(folder, "SQuAD"), Found):
            task = ClassifyTask(text_column=COLUMNS[0], text_pair_column=COLUMNS[1], label_column=COLUMNS[2])
            here = replace(squad, name=name, title=LIKE_QNLI, task=task, longest=128)
        if isinstance(here, Found):
            found[name] = here
        else:
            missing[name] = here
    if names and not found:
        wanted = "".join(f"\n    {name}: {what}" for name, what in missing.items())
        raise BertwrightError(f"no task is here; these files were looked for:{wanted}", where=folder,
                              fix="name the folder that holds the folders MRPC, SST-2, SQuAD ...")  # fmt: skip
    return found, missing


def draw(examples: Sequence[Example], count: int) -> list[Example]:
    """Return `count` of the examples, the same ones every time, in the order of the file; all if 0 or fewer."""
    if not count or count >= len(examples):
        return list(examples)
    return [examples[place] for place in sorted(random.Random(0).sample(range(len(examples)), count))]


def _of_glue(name: str, files: GlueFiles) -> Found | str:
    lacking = [each for each in files.missing if "mismatched" not in each]
    if lacking:
        return ", ".join(lacking)
    return Found(name, name, files.spec.task, files.train, files.dev[name], 128, files)


def _of_others(folder: Path, name: str) -> Found | str:
    task, longest, *wanted = _OTHERS[name]
    homes = [path for path in sorted(folder.iterdir()) if path.is_dir() and _plain(path.name) == _plain(name)]
    home = homes[0] if homes else folder / name
    files = [next((home / f"{leaf}{packed}" for leaf in leaves for packed in _PACKED
                   if (home / f"{leaf}{packed}").is_file()), None) for leaves in wanted]  # fmt: skip
    lacking = [f"{home.name}/{leaves[0]}" for leaves, file in zip(wanted, files, strict=True) if file is None]
    train, dev = files
    return ", ".join(lacking) if train is None or dev is None else Found(name, name, task, train, dev, longest)


def fitted(task: Task, max_length: int) -> Task:
    """Return a task whose windows over long texts share no more than a third of an input's tokens."""
    stride: int | None = getattr(task, "stride", None)
    changes: Mapping[str, Any] = {} if stride is None else {"stride": min(stride, max_length // 3)}
    return replace(task, **changes)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
