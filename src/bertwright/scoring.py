"""Official scores of predictions in files, whoever made them: SQuAD, CMRC 2018, CoNLL, GLUE, and our own tasks.

    score_predictions("squad", Path("dev-v2.0.json"), Path("predictions.json"))   # {'exact': 0.787, 'f1': 0.818, ...}
    score_predictions("conll", None, Path("output.txt"))                          # word ... right predicted
    score_predictions("MRPC", Path("MRPC/dev.tsv"), Path("MRPC.tsv"))             # {'accuracy': 0.86, 'f1': 0.9}
    score_predictions("classify", Path("dev.csv"), Path("predictions.jsonl"), text_column="body")

Scores are shares between 0 and 1 (correlations: -1 and 1) under the names that `Task.score` gives them. Differs: the
scripts print percent, and count an answer that is missing in silence or not at all; here every question and row has to
have its prediction, unless `partial` is set. conlleval takes rows of `-DOCSTART-` for words; here they are none.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bertwright.errors import BertwrightError, nearest
from bertwright.json_values import read_json
from bertwright.options import AnswerRules, TagOptions
from bertwright.tasks import TASKS, ClassifyTask, Example, Prediction, Task, task_from_json
from bertwright.tasks.answer_scores import answer_scores, best_threshold
from bertwright.tasks.entities import conll_report
from bertwright.tasks.glue_files import GLUE_TASKS, GlueFiles, GlueTask, glue_task, tidy_file
from bertwright.tasks.qa_files import read_questions
from bertwright.tasks.records import json_lines
from bertwright.tasks.tables import read_table
from bertwright.tasks.tagged_files import read_columns
from bertwright.tasks.tagging import TagTask
from bertwright.tasks.words import words_of
from bertwright.text.corpus import read_lines

_log = logging.getLogger(__name__)

Row = tuple[str, dict[str, Any]]
"""Where a prediction is, and the prediction."""

_NEEDED: dict[str, tuple[str, type | tuple[type, ...], str]] = {
    "classify": ("label", str, "text"),
    "regress": ("score", (int, float), "a number"),
    "qa": ("answer", str, "text"),
    "choice": ("choice", int, "a whole number"),
    "tag": ("tags", list, "a list"),
}
"""The key of a prediction that counts, by task, and what it holds."""

_ASKED = ("id", "text", "text_pair")
"""Keys under which a prediction may tell what was asked."""


def kinds() -> tuple[str, ...]:
    """Return what `score_predictions` takes as `kind`."""
    return ("squad", "cmrc", "conll", *GLUE_TASKS, *TASKS)


def score_predictions(kind: str, data: Path | None, predictions: Path, **options: Any) -> dict[str, Any]:
    """Score a file of predictions.

    Args:
        kind: whose script counts, or the name of a task; one of `kinds()`.
            `squad`, `cmrc`: data as published; predictions a JSON object of answers by id, or our `.jsonl`.
            `conll`: a word a line, the predicted tag in the last column; the right one in the column before, or in the
            last column of `data` if that is given, which must have the same words.
            A task of GLUE: its dev file; predictions as the leaderboard takes them, `index` (the row, from 0) and
            `prediction`, or our `.jsonl`.
            A task of ours: a labelled file; predictions as `evaluate --out` and `predict` write them, in its order.
        data: the file with the right answers; only `conll` can do without.
        predictions: the file of answers.
        options: of `squad` and `cmrc`: `partial` (True: a question without an answer counts 0); of `squad`: `na_probs`
            (file of the probability of `no answer` by id) and `na_threshold` (above which the empty answer stands; 1);
            of `conll`: `token_column` and `tag_column` of `data`; of a task of ours: its fields, such as `text_column`.

    Returns:
        Scores by name; of `conll` also `counts` and `per_class`, see `tasks.entities.conll_report`.

    Raises:
        BertwrightError: an unknown kind or option; what is wrong with a file, with its row; ids or rows that do not
            belong together.
    """
    if kind == "conll":
        return _score_columns(data, predictions, **_known(kind, options))
    if data is None:
        raise BertwrightError(f"{kind} is scored against a file of right answers", fix="name it with --data")
    if rules := _RULES.get(kind):
        return _score_answers(rules, data, predictions, **_known(kind, options))
    if kind in TASKS:
        return _score_task(task_from_json({"name": kind, "options": options}), data, predictions)
    if (spec := _glue(kind)) is None:
        raise BertwrightError(f"nobody knows how to score {kind!r}{nearest(kind, kinds())}",
                              fix=f"use one of: {', '.join(kinds())}")  # fmt: skip
    _known(kind, options)
    return _score_glue(spec, data, predictions)


_RULES: dict[str, AnswerRules] = {"squad": "squad", "cmrc": "cmrc"}
_OPTIONS: dict[str, dict[str, tuple[type | tuple[type, ...], str]]] = {
    "squad": {
        "partial": (bool, "true or false"),
        "na_probs": ((str, Path), "the name of a file"),
        "na_threshold": ((int, float), "a number"),
    },
    "cmrc": {"partial": (bool, "true or false")},
    "conll": {"token_column": (int, "a whole number"), "tag_column": (int, "a whole number")},
}
"""What scoring can be told, by kind, and of what type it is."""


def _known(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    known = _OPTIONS.get(kind, {})
    if unknown := [name for name in options if name not in known]:
        what = f"scoring {kind} has no option {unknown[0]!r}{nearest(unknown[0], known)}"
        raise BertwrightError(what, fix=f"there is {', '.join(known)}" if known else "leave it out")
    for name, value in options.items():
        wanted, described = known[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise BertwrightError(f"{name} must be {described}, not {value!r:.40}")
    return options


def _glue(kind: str) -> GlueTask | None:
    try:
        return glue_task(kind)
    except BertwrightError:
        return None


# ---- answers by id


def _score_answers(
    rules: AnswerRules,
    data: Path,
    predictions: Path,
    *,
    partial: bool = False,
    na_probs: str | Path | None = None,
    na_threshold: float = 1.0,
) -> dict[str, float]:
    gold: dict[str, list[str]] = {}
    for example in read_questions(data):
        if example.id is None or example.id in gold:
            what = "a question has no id" if example.id is None else f"two questions have the id {example.id!r}"
            raise BertwrightError(what, where=example.where, fix="answers are told apart by it")
        gold[example.id] = [answer.text for answer in example.label]
    answers = _answers_by_id(predictions)
    _require_ids(gold, answers, predictions, "answer", partial=partial)
    if na_probs is None:
        return answer_scores(answers, gold, rules=rules)
    na_probs = Path(na_probs)
    doubts: dict[str, Any] = read_json(na_probs)
    for key, value in doubts.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BertwrightError(f"{key!r} must have a number, not {value!r:.40}", where=na_probs)
    _require_ids(answers, doubts, na_probs, "probability", partial=False)
    kept = {key: "" if doubts[key] > na_threshold else answer for key, answer in answers.items()}
    threshold, best_f1, _ = best_threshold(doubts, answers, gold, rules=rules)
    return answer_scores(kept, gold, rules=rules) | {"best_f1": best_f1, "best_f1_threshold": threshold}


def _answers_by_id(path: Path) -> dict[str, str]:
    if path.suffix != ".jsonl":
        given = read_json(path)
        for key, value in given.items():
            if not isinstance(value, str):
                what = f"the answer to {key!r} must be text, not {value!r:.40}"
                raise BertwrightError(what, where=path, fix='write answers by id: {"56be4db0": "Denver Broncos", ...}')
        return given
    answers: dict[str, str] = {}
    for where, row in json_lines(path):
        name = row.get("id")
        if not isinstance(name, str):
            raise BertwrightError(f"expected an 'id' that is text, not {name!r:.40}", where=where)
        if name in answers:
            raise BertwrightError(f"the id {name!r} was there before", where=where)
        answers[name] = str(_value(where, row, *_NEEDED["qa"]))
    return answers


def _require_ids(wanted: Mapping[str, Any], given: Mapping[str, Any], path: Path, what: str, *, partial: bool) -> None:
    unknown = [key for key in given if key not in wanted]
    missing = [key for key in wanted if key not in given]
    if unknown:
        found = f"{len(unknown):,} of {len(given):,} ids belong to no question, {unknown[0]!r} first"
        raise BertwrightError(found, where=path, fix="look whether the two files belong together")
    if missing and not partial:
        found = f"{len(missing):,} of {len(wanted):,} questions have no {what}, {missing[0]!r} first"
        raise BertwrightError(found, where=path, fix='write "" for no answer')


# ---- a word a line


class _Word(NamedTuple):
    where: str
    columns: list[str]


def _score_columns(
    data: Path | None, predictions: Path, *, token_column: int = 0, tag_column: int = -1
) -> dict[str, Any]:
    found = _sentences(predictions)
    if data is None:
        for each in (word for sentence in found for word in sentence):
            if len(each.columns) < 2:
                raise BertwrightError("expected at least two columns, the right tag and the predicted one",
                                      where=each.where, fix="name a file with the right tags: --data")  # fmt: skip
        return _report([[word.columns[-2] for word in each] for each in found], found, predictions)
    right = read_columns(data, TagOptions(token_column=token_column, tag_column=tag_column))
    for number, (one, other) in enumerate(zip(right, found, strict=False), start=1):
        for word, row, here in zip(one.words, one.rows, other, strict=False):
            token = "_".join(word.split())
            if token != "_".join(here.columns[0].split()) or len(here.columns) < 2:
                shown = " ".join(here.columns)
                what = f"expected {token!r:.40} and its tag, as in {data}, row {row:,}; found {shown!r:.60}"
                raise BertwrightError(what, where=here.where, fix="give the same words, each with its tag last")
        if len(one.words) != len(other):
            what = f"sentence {number:,} has {len(one.words)} words in {data}, and {len(other)} here"
            raise BertwrightError(what, where=other[0].where, fix="end sentences at the same blank lines")
    if len(right) != len(found):
        raise BertwrightError(f"{len(found):,} sentences; {data} has {len(right):,}", where=predictions,
                              fix="look whether the two files belong together")  # fmt: skip
    return _report([each.tags for each in right], found, predictions)


def _report(right: Sequence[Sequence[str]], found: Iterable[Sequence[_Word]], path: Path) -> dict[str, Any]:
    try:
        return conll_report(right, [[word.columns[-1] for word in each] for each in found])
    except BertwrightError as error:
        raise BertwrightError(error.what, where=path, fix=error.fix) from None


def _sentences(path: Path) -> list[list[_Word]]:
    """Read the columns of a file; a row that begins a document is no word."""
    sentences: list[list[_Word]] = [[]]
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.removesuffix("\n").split("\t" if "\t" in line else " ")
        columns = [field.strip(" ") for field in fields if field or "\t" in line]
        if not line.strip() or columns[0] == "-DOCSTART-":
            sentences.append([])
        else:
            sentences[-1].append(_Word(f"{path}, row {number:,}", columns))
    if not any(sentences):
        raise BertwrightError("the file has no words", where=path)
    return [sentence for sentence in sentences if sentence]


# ---- rows of a table


def _score_glue(spec: GlueTask, data: Path, predictions: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:  # for a copy without the rows that nobody can use
        examples = spec.task.read(tidy_file(GlueFiles(spec, data, {}), data, out=Path(folder)))
    if predictions.suffix == ".jsonl":
        rows = list(json_lines(predictions))
    else:
        table = read_table(predictions, {"index": "index", "prediction": "prediction"})
        rows = _in_order([(row.where, row.values["index"], row.values["prediction"]) for row in table], spec)
    _require_matching(rows, examples, predictions)
    answers: list[Prediction] = []
    for where, row in rows:
        value = _value(where, row, *_NEEDED[spec.task.name])
        if spec.labels and value not in spec.labels:
            what = f"{value!r:.40} is none of {spec.name}'s labels: {', '.join(spec.labels)}"
            raise BertwrightError(what, where=where)
        answers.append(row)
    task = replace(spec.task, labels=spec.labels) if isinstance(spec.task, ClassifyTask) else spec.task
    scores = task.score(answers, examples)
    return {name: scores[name] for name in spec.metrics}


def _in_order(given: Sequence[tuple[str, str, str]], spec: GlueTask) -> list[Row]:
    """Sort the rows of a submission by their index, which must count from 0 without a gap."""
    rows: dict[int, Row] = {}
    for where, index, text in given:
        if not index.strip().isdecimal() or int(index) >= len(given):
            what = f"the index must be a whole number from 0 to {len(given) - 1:,}, not {index!r:.40}"
            raise BertwrightError(what, where=where, fix="number the rows of the dev file from 0")
        if int(index) in rows:
            raise BertwrightError(f"the index {index} was there before ({rows[int(index)][0]})", where=where)
        rows[int(index)] = where, {"label": text.strip()} if spec.labels else {"score": _number(text, where)}
    return [rows[index] for index in sorted(rows)]


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BertwrightError(f"expected a number, not {text!r:.40}", where=where)
    return number


def _score_task(task: Task, data: Path, predictions: Path) -> dict[str, float]:
    examples, rows = task.read(data), list(json_lines(predictions))
    _require_matching(rows, examples, predictions)
    multi_label = isinstance(task, ClassifyTask) and task.multi_label
    needed = ("labels", list, "a list") if multi_label else _NEEDED.get(task.name)
    values = [] if needed is None else [_value(where, row, *needed) for where, row in rows]
    if isinstance(task, ClassifyTask):
        task = _with_labels(task, examples, values)
    elif needed is None:
        task = task.learn(examples)
    if isinstance(task, TagTask):
        for (where, _), example, tags in zip(rows, examples, values, strict=True):
            if len(tags) != (expected := len(words_of(example))):
                what = f"{len(tags)} tags for the {expected} words of {example.where}"
                raise BertwrightError(what, where=where, fix="look whether the two files belong together")
    try:
        return task.score([row for _, row in rows], examples)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the predictions are not as the task {task.name} makes them ({type(error).__name__}: {error})"
        raise BertwrightError(what, where=predictions, fix="bertwright evaluate MODEL --data FILE --out OUT") from None


def _with_labels(task: ClassifyTask, examples: Sequence[Example], predicted: Sequence[Any]) -> ClassifyTask:
    """Return the task with the labels of both sides: predictions may have some that the file lacks.

    Of two labels F1 is that of the last one, and a third that only predictions have leaves it so.
    """
    if task.multi_label:
        said = [Example("", label=tuple(map(str, labels))) for labels in predicted]
        labels = {label for each in (*examples, *said) for label in each.label}
    else:
        said = [Example("", label=label) for label in predicted]
        labels = {example.label for example in examples}
        if len(labels) == 2 and (strange := [label for label in predicted if label not in labels]):
            what = "%d of %d predictions are no label of the file, %r first; they are wrong"
            _log.warning(what, len(strange), len(predicted), strange[0])
            return task.learn(examples)
        labels |= set(predicted)
    return task.learn([*examples, *said]) if len(labels) > 1 else replace(task, labels=tuple(labels))


def _require_matching(rows: Sequence[Row], examples: Sequence[Example], path: Path) -> None:
    """Refuse predictions of other rows than the file's, as far as they tell what was asked."""
    if len(rows) != len(examples):
        raise BertwrightError(f"{len(rows):,} predictions for {len(examples):,} labelled rows", where=path,
                              fix="look whether the two files belong together")  # fmt: skip
    for (where, row), example in zip(rows, examples, strict=True):
        for key in _ASKED:
            expected = getattr(example, key)
            if key in row and row[key] != expected and (key, expected) != ("id", None):
                what = f"{key!r} is {row[key]!r:.60} here, and {expected!r:.60} in {example.where}"
                raise BertwrightError(what, where=where, fix="look whether the two files belong together")


def _value(where: str, row: Mapping[str, Any], key: str, kind: type | tuple[type, ...], described: str) -> Any:
    value = row.get(key)
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, kind) or isinstance(value, bool) or not finite:
        raise BertwrightError(f"a prediction has {described} under {key!r}, not {value!r:.40}", where=where)
    return value
