"""The nine tasks of GLUE and its diagnostic set as data: their files, columns, labels and official scores.

    files = glue_files(Path("glue_data"))["MRPC"]
    train = tidy_file(files, files.train, out=Path("run/data"))    # a file that GLUE_TASKS["MRPC"].task reads

Folders are found by their names whatever the case and hyphens: `SST-2`, `sst2`. Paper: 4.1. Differs: the official files
are read as they are downloaded; where rows of a labelled file cannot be used, a copy without them is written and their
number said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bertwright.errors import BertwrightError, nearest
from bertwright.files import new_file
from bertwright.tasks.base import Example
from bertwright.tasks.regression import RegressTask
from bertwright.tasks.sentence import ClassifyTask
from bertwright.tasks.tables import read_table
from bertwright.text.corpus import read_lines

_log = logging.getLogger(__name__)

MOST_LEFT_OUT = 0.01
"""Share of a file's rows that may be unusable; beyond it the file is taken for another one."""


@dataclass(frozen=True)
class HiddenFile:
    """A test file; the leaderboard keeps its answers to itself."""

    rows: int
    """How many rows the official one has."""
    places: tuple[str, ...]
    """Where it may lie, as `folder/file`; the first that is there counts."""


@dataclass(frozen=True)
class GlueTask:
    """One of the nine tasks."""

    name: str
    """As the leaderboard spells it."""
    task: ClassifyTask | RegressTask
    """What reads its labelled files."""
    labels: tuple[str, ...]
    """What its label may be; empty where it is a number."""
    test: Mapping[str, HiddenFile]
    """Test files by the name under which answers are submitted."""
    metrics: tuple[str, ...] = ("accuracy",)
    """The official scores, by their name in `Task.score`; their mean is the score of the task."""
    train: tuple[str, ...] = ("train.tsv",)
    """Names of the training file; the first that is there counts."""
    dev: Mapping[str, str] = field(default_factory=dict)
    """Dev files by the name under which they are scored, training choosing by the first; empty: dev.tsv alone."""
    index_column: str = "index"
    """Column of a test file that numbers its rows."""
    flawed: bool = False
    """Whether the official files have rows that nobody can use."""

    @property
    def dev_files(self) -> dict[str, str]:
        """Dev files by the name under which they are scored."""
        return dict(self.dev) or {self.name: "dev.tsv"}

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns of the texts, in test files too."""
        pair = self.task.text_pair_column
        return (self.task.text_column, *([] if pair is None else [pair]))


def _test(name: str, rows: int) -> dict[str, HiddenFile]:
    return {name: HiddenFile(rows, (f"{name}/test.tsv",))}


def _pairs(first: str, second: str, label: str = "label") -> ClassifyTask:
    return ClassifyTask(text_column=first, text_pair_column=second, label_column=label)


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_NO_HEADER = ("source", "label", "mark", "sentence")
_AX = tuple(f"{folder}/diagnostic.tsv" for folder in ("AX", "diagnostic", "MNLI"))
_MNLI_TEST = {
    "MNLI-m": HiddenFile(9_796, ("MNLI/test_matched.tsv",)),
    "MNLI-mm": HiddenFile(9_847, ("MNLI/test_mismatched.tsv",)),
    "AX": HiddenFile(1_104, _AX),  # the diagnostic set is answered by MNLI's model
}
_SENTENCES = ("sentence1", "sentence2")

_ALL = (
    GlueTask(
        "CoLA",
        ClassifyTask(text_column="sentence", columns=_NO_HEADER, metric="mcc"),
        _BINARY,
        _test("CoLA", 1_063),
        ("mcc",),
    ),
    GlueTask("SST-2", ClassifyTask(text_column="sentence"), _BINARY, _test("SST-2", 1_821)),
    GlueTask(
        "MRPC",
        _pairs("#1 String", "#2 String", "Quality"),
        _BINARY,
        _test("MRPC", 1_725),
        ("accuracy", "f1"),
        train=("train.tsv", "msr_paraphrase_train.txt"),
    ),
    GlueTask(
        "STS-B",
        RegressTask(text_column="sentence1", text_pair_column="sentence2", label_column="score"),
        (),
        _test("STS-B", 1_379),
        ("pearson", "spearman"),
    ),
    GlueTask(
        "QQP",
        _pairs("question1", "question2", "is_duplicate"),
        _BINARY,
        _test("QQP", 390_965),
        ("accuracy", "f1"),
        index_column="id",
        flawed=True,
    ),
    GlueTask(
        "MNLI",
        _pairs(*_SENTENCES, "gold_label"),
        ("contradiction", "entailment", "neutral"),
        _MNLI_TEST,
        dev={"MNLI-m": "dev_matched.tsv", "MNLI-mm": "dev_mismatched.tsv"},
        flawed=True,
    ),
    GlueTask("QNLI", _pairs("question", "sentence"), _ENTAILMENT, _test("QNLI", 5_463)),
    GlueTask("RTE", _pairs(*_SENTENCES), _ENTAILMENT, _test("RTE", 3_000)),
    GlueTask("WNLI", _pairs(*_SENTENCES), _BINARY, _test("WNLI", 146)),
)

GLUE_TASKS: dict[str, GlueTask] = {each.name: each for each in _ALL}
"""The tasks by name, in the order of the leaderboard's columns."""

NO_LABEL = "-"
"""What stands for a label on which those who were asked did not agree; such rows are counted in no score."""


@dataclass(frozen=True)
class GlueFiles:
    """What of a task lies in a folder."""

    spec: GlueTask
    """The task."""
    train: Path
    """Training file; where `missing` is not empty it may not exist."""
    dev: dict[str, Path]
    """Dev files by the name under which they are scored."""
    test: dict[str, Path] = field(default_factory=dict)
    """Test files that are there, by the name under which they are submitted."""
    missing: tuple[str, ...] = ()
    """Files that training needs and that are not there, as they were looked for."""


def glue_task(name: str) -> GlueTask:
    """Return a task by its name or that of a dev file (`MNLI-mm`), whatever their case and hyphens.

    Raises:
        BertwrightError: there is no such task.
    """
    for spec in GLUE_TASKS.values():
        if _plain(name) in map(_plain, (spec.name, *spec.dev_files)):
            return spec
    what = f"unknown GLUE task {name!r}{nearest(name, GLUE_TASKS)}"
    raise BertwrightError(what, fix=f"use some of: {', '.join(GLUE_TASKS)}")


def glue_files(folder: Path, *, some: bool = True) -> dict[str, GlueFiles]:
    """Find the files of every task in a folder that has one folder a task.

    Args:
        folder: the folder.
        some: whether one task at least must be there.

    Returns:
        All nine, those of which files are `missing` too.

    Raises:
        BertwrightError: not one task can be trained, though one must be there; what was looked for is listed.
    """
    if not folder.is_dir():
        raise BertwrightError("no such folder", where=folder, fix="name the folder that holds CoLA, SST-2, RTE ...")
    folders: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            folders.setdefault(_plain(path.name), []).append(path)
    for same in folders.values():
        if len(same) > 1 and _plain(same[0].name) in map(_plain, GLUE_TASKS):
            raise BertwrightError(f"{same[0].name} and {same[1].name} are folders of one task", where=folder,
                                  fix="take one of them away")  # fmt: skip
    found = {name: _files_of(spec, folder, folders) for name, spec in GLUE_TASKS.items()}
    if some and all(files.missing for files in found.values()):
        wanted = "".join(f"\n    {name}: {', '.join(files.missing)}" for name, files in found.items())
        what = f"no task of GLUE can be trained; these files were looked for and are not here:{wanted}"
        raise BertwrightError(what, where=folder, fix="name the folder that holds the folders CoLA, SST-2, RTE ...")
    return found


def _files_of(spec: GlueTask, root: Path, folders: Mapping[str, list[Path]]) -> GlueFiles:
    home = folders.get(_plain(spec.name), [root / spec.name])[0]
    train = next((home / name for name in spec.train if (home / name).is_file()), home / spec.train[0])
    dev = {name: home / file for name, file in spec.dev_files.items()}
    missing = [] if train.is_file() else [f"{home.name}/{' or '.join(spec.train)}"]
    missing += [f"{home.name}/{path.name}" for path in dev.values() if not path.is_file()]
    test: dict[str, Path] = {}
    for name, file in spec.test.items():
        for place in file.places:
            folder, _, leaf = place.partition("/")
            if (path := folders.get(_plain(folder), [root / folder])[0] / leaf).is_file():
                test.setdefault(name, path)
    return GlueFiles(spec, train, dev, test, tuple(missing))


def tidy_file(files: GlueFiles, path: Path, *, out: Path) -> Path:
    """Return a labelled file that the task reads: the file itself, or a copy of the rows that can be used.

    MRPC's `msr_paraphrase_train.txt` holds the dev pairs too; they are left out. Of QQP and MNLI, rows that lack a text
    or a label are left out, and their number is said.

    Args:
        files: of the task.
        path: its training file or one of its dev files.
        out: folder for the copy.

    Raises:
        BertwrightError: a row of another task is not whole, too many of these two are not, or a label is none of the
            task's.
    """
    spec, of_dev = files.spec, _dev_pairs(files) if path.suffix == ".txt" else set()
    rows = _rows(path)
    if spec.task.columns:
        kept, header = [], list(spec.task.columns)
    else:
        _, line, header = next(rows, (1, "", [""]))
        kept = [line]
    places = _places(spec, path, header)
    left_out, num_of_dev = [], 0
    for number, line, fields in rows:
        problem = _problem(spec, fields, places, len(header))
        if problem and not (spec.flawed and problem.lacking):
            raise BertwrightError(problem.what, where=f"{path}, row {number:,}", fix="download the file again")
        if problem:
            left_out.append(number)
        elif of_dev and _ids(header, fields) in of_dev:
            num_of_dev += 1
        else:
            kept.append(line)
    num_rows = len(kept) - (not spec.task.columns) + len(left_out) + num_of_dev
    if len(left_out) > MOST_LEFT_OUT * num_rows:
        what = f"{len(left_out):,} of {num_rows:,} rows lack a text or a label, row {left_out[0]:,} first"
        raise BertwrightError(what, where=path, fix="download the file again")
    if left_out:
        shown = ", ".join(f"{number:,}" for number in left_out[:5]) + (" ..." if len(left_out) > 5 else "")
        _log.warning("%s: %d of %d rows lack a text or a label and are left out (rows %s)",
                     path, len(left_out), num_rows, shown)  # fmt: skip
    if num_of_dev:
        _log.info("%s: %d pairs that are in dev are left out", path, num_of_dev)
    if path.suffix == ".tsv" and not left_out:
        return path
    with new_file(out / f"{spec.name}-{path.stem}.tsv") as copy:
        copy.write("".join(kept).encode())
    return out / f"{spec.name}-{path.stem}.tsv"


def read_test(spec: GlueTask, name: str, path: Path) -> tuple[list[str], list[Example]]:
    """Read a test file: each row's number, as the leaderboard wants it back, and what is asked.

    A text may be empty, as some of QQP's are: every row has to be answered.

    Args:
        spec: the task.
        name: under which the answers are submitted.
        path: the file.

    Raises:
        BertwrightError: a row is not whole, or two have one number.
    """
    columns = {"index": spec.index_column, **dict(zip(("text", "text_pair"), spec.text_columns, strict=False))}
    rows = read_table(path, columns, raw=("text", "text_pair"))
    seen: dict[str, str] = {}
    for row in rows:
        if (index := row.values["index"]) in seen:
            raise BertwrightError(f"the number {index} was there before ({seen[index]})", where=row.where)
        seen[index] = row.where
    if empty := sum(not all(str(row.values[key]).strip() for key in columns) for row in rows):
        _log.warning("%s: %d of %d rows have an empty text and are answered all the same", path, empty, len(rows))
    if len(rows) != (expected := spec.test[name].rows):
        _log.warning("%s: %d rows; the leaderboard wants %d answers", path, len(rows), expected)
    examples = [Example(row.values["text"], row.values.get("text_pair"), where=row.where) for row in rows]
    return list(seen), examples


@dataclass(frozen=True)
class _Problem:
    what: str
    lacking: bool = True
    """Whether the row lacks something; otherwise something is wrong with it."""


def _problem(spec: GlueTask, fields: list[str], places: Mapping[str, int], num_columns: int) -> _Problem | None:
    """Say why a row cannot be used, or None."""
    if len(fields) != num_columns:
        return _Problem(f"expected {num_columns} columns, found {len(fields)}", lacking=len(fields) < num_columns)
    for name, place in places.items():
        if not fields[place].strip():
            return _Problem(f"column {name!r} is empty")
    label = fields[places[spec.task.label_column]].strip()
    if spec.labels and label == NO_LABEL:
        return _Problem("those who were asked did not agree on a label")
    if spec.labels and label not in spec.labels:
        return _Problem(f"the label {label!r} is none of {spec.name}'s: {', '.join(spec.labels)}", lacking=False)
    return None


def _rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield number, line and fields of each line that is not blank."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip(" \n"):
            yield number, line, line.removesuffix("\n").split("\t")


def _places(spec: GlueTask, path: Path, header: list[str]) -> dict[str, int]:
    names = [name.strip() for name in header]
    for name in (wanted := (*spec.text_columns, spec.task.label_column)):
        if name not in names:
            what = f"no column {name!r}{nearest(name, names)}; there is {', '.join(map(repr, names))[:200]}"
            raise BertwrightError(what, where=path, fix=f"take {spec.name} as GLUE gives it out")
    return {name: names.index(name) for name in wanted}


_ID_COLUMNS = ("#1 ID", "#2 ID")


def _dev_pairs(files: GlueFiles) -> set[tuple[str, ...]]:
    """Return the ids of MRPC's dev pairs."""
    (path,) = files.dev.values()
    table = read_table(path, dict(zip(_ID_COLUMNS, _ID_COLUMNS, strict=True)))
    return {tuple(row.values.values()) for row in table}


def _ids(header: list[str], fields: list[str]) -> tuple[str, ...]:
    return tuple(fields[header.index(name)] for name in _ID_COLUMNS)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
