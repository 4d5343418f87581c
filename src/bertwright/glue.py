"""GLUE in one call: every task fine-tuned, scored as the leaderboard does, and answered for submission. Paper: 4.1.

    report = run_glue(Path("glue_data"), Path("run/model"), Path("glue"), config=FinetuneConfig(epochs=3))
    report["dev"]["score"]  # the mean over tasks
    # glue/glue.json, glue/submission.zip, glue/CoLA/model ...

Differs: google-research/bert leaves WNLI out, whose dev contradicts its train; here it counts, as it does on the
leaderboard, and the mean without it stands beside.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from bertwright.config import FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.evaluation import evaluate
from bertwright.files import new_file, sha256_of
from bertwright.json_values import read_json, to_dict
from bertwright.predict import Predictor
from bertwright.tasks import Prediction
from bertwright.tasks.glue_files import GLUE_TASKS, GlueFiles, GlueTask, glue_files, glue_task, read_test, tidy_file
from bertwright.training.checkpoint import MAY_CHANGE, OnEvent
from bertwright.training.finetune import finetune

_log = logging.getLogger(__name__)

REPORT_FILE = "glue.json"
"""Scores of every task that is done; what `run_glue` returns."""
SUBMISSION_FILE = "submission.zip"
"""What the leaderboard takes."""
SUBMISSION_NAMES = tuple(name for spec in GLUE_TASKS.values() for name in spec.test)
"""Files that the leaderboard wants, without `.tsv`."""


class Trained(Protocol):
    """What fine-tuning leaves behind: one run's result, or that of the best of several."""

    @property
    def model(self) -> Path:
        """The model folder."""
        ...


TrainOne = Callable[..., Trained]
"""Fine-tunes one task, as `finetune` does: task, config, and by keyword train, dev, init, out, resume, on_event."""


def run_glue(
    folder: Path,
    init: Path,
    out: Path,
    *,
    tasks: Sequence[str] | None = None,
    config: FinetuneConfig = FinetuneConfig(),
    options: Mapping[str, Any] | None = None,
    train_one: TrainOne = finetune,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
) -> dict[str, Any]:
    """Fine-tune, score and answer the tasks of GLUE, one after the other.

    Args:
        folder: has a folder for each task, as downloaded.
        init: the model folder to start each task from, or a name on the hub.
        out: for a run folder each task, `glue.json`, and answers to the test sets in `submission` and
            `submission.zip`.
        tasks: names of those to run; by default all of which the files are there.
        config: every dial, the same for all tasks.
        options: more arguments for `train_one`, such as a grid.
        train_one: fine-tunes one task.
        resume: go on with what is in `out`: tasks that are done are not trained again.
        on_event: told of every row of training and every message.

    Returns:
        What `glue.json` holds: `init`; `dev`, from `glue_average`; `tasks` by name with `score`, `scores` by dev file,
        `model` and what it was `made_from`; `submission` with its `files` and those `missing`.

    Raises:
        TrainingInterrupted: a signal came; what was done is saved.
        BertwrightError: a file is missing or not as the task needs it, or `out` is another run's.
    """
    chosen = _chosen(glue_files(folder), tasks)
    report = _open_report(out, str(init), resume=resume)
    for number, (name, files) in enumerate(chosen.items(), start=1):
        train = tidy_file(files, files.train, out=out / "data")
        devs = {key: tidy_file(files, path, out=out / "data") for key, path in files.dev.items()}
        made_from = _made_from(config, options or {}, train, devs)
        if _is_done(report, name, made_from, out):
            on_event({"kind": "message", "text": f"{name}: done before"})
        else:
            on_event({"kind": "message", "text": f"{name}: task {number} of {len(chosen)}"})
            paths = {"train": train, "dev": next(iter(devs.values())), "init": init, "out": out / name}
            model = train_one(
                files.spec.task, config, **paths, resume=resume, on_event=on_event, **(options or {})
            ).model
            scores = {key: evaluate(model, dev).scores for key, dev in devs.items()}
            folder_name = str(model.relative_to(out) if model.is_relative_to(out) else model.resolve())
            entry = {"score": task_score(files.spec, scores), "scores": scores, "model": folder_name}
            report["tasks"][name] = entry | {"made_from": made_from, "test_sha256": {}}
        every = {key: scores for task in report["tasks"].values() for key, scores in task["scores"].items()}
        report["dev"] = glue_average(every)
        _save(report, out)
        shutil.rmtree(out / name / "checkpoints", ignore_errors=True)  # done: nothing goes on from there
        _answer_tests(report, files, out)
    _write_submission(report, out)
    return report


def glue_average(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the mean over tasks as the leaderboard counts it.

    A task with two metrics counts with their mean, MNLI with the mean of matched and mismatched, the diagnostic set not
    at all.

    Args:
        scores: metrics by name, by task; MNLI's under `MNLI-m` and `MNLI-mm`.

    Returns:
        `score`, the mean of the `tasks` that are there (percent / 100); `score_without_wnli`, as in the paper; `tasks`,
        each one's score; `absent`, those without scores: with any, `score` is not the leaderboard's.

    Raises:
        BertwrightError: there is no task, an unknown one, or a metric is missing.
    """
    known = [name for spec in GLUE_TASKS.values() for name in spec.dev_files]
    for name in scores:
        if name not in known:
            raise BertwrightError(f"unknown name {name!r} among the scores", fix=f"use some of: {', '.join(known)}")
    each = {
        name: task_score(spec, scores)
        for name, spec in GLUE_TASKS.items()
        if all(dev in scores for dev in spec.dev_files)
    }
    if not each:
        raise BertwrightError("no task has scores: there is nothing to average")
    without = [score for name, score in each.items() if name != "WNLI"]
    return {
        "score": fmean(each.values()),
        "score_without_wnli": fmean(without) if without else None,
        "tasks": each,
        "absent": [name for name in GLUE_TASKS if name not in each],
    }


def task_score(spec: GlueTask, scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return a task's one score: the mean of its metrics, over all its dev files."""
    for name in spec.dev_files:
        for metric in spec.metrics:
            if metric not in scores[name]:
                raise BertwrightError(f"{name} has no {metric!r} among its scores")
    return fmean(scores[name][metric] for name in spec.dev_files for metric in spec.metrics)


def submission_value(spec: GlueTask, prediction: Prediction) -> str:
    """Return an answer in the leaderboard's words: a label, or a number between 0 and 5 with three decimals."""
    return str(prediction["label"]) if spec.labels else f"{min(max(prediction['score'], 0.0), 5.0):.3f}"


def _chosen(found: Mapping[str, GlueFiles], tasks: Sequence[str] | None) -> dict[str, GlueFiles]:
    if tasks is None:
        if lacking := [name for name, files in found.items() if files.missing]:
            missing = ", ".join(file for name in lacking for file in found[name].missing)
            _log.warning("%d of %d tasks are left out (%s): %s", len(lacking), len(found), ", ".join(lacking),
                         f"there is no {missing}")  # fmt: skip
        return {name: files for name, files in found.items() if not files.missing}
    if not tasks:
        raise BertwrightError("no task is named", fix=f"name some of: {', '.join(GLUE_TASKS)}")
    chosen = {(spec := glue_task(name)).name: found[spec.name] for name in tasks}
    for name, files in chosen.items():
        if files.missing:
            raise BertwrightError(f"{name} cannot be trained: there is no {', '.join(files.missing)}",
                                  where=files.train.parent.parent)  # fmt: skip
    return chosen


def _open_report(out: Path, init: str, *, resume: bool) -> dict[str, Any]:
    path = out / REPORT_FILE
    if not path.exists():
        return {"init": init, "dev": {}, "tasks": {}, "submission": {}}
    if not resume:
        raise BertwrightError("a run of GLUE is here already", where=out,
                              fix="add --resume to go on with it, or choose another --out")  # fmt: skip
    report = read_json(path)
    if not isinstance(report.get("tasks"), dict):
        raise BertwrightError("this is no report of a run of GLUE", where=path, fix="choose another --out")
    _require_same({"init": report.get("init")}, {"init": init}, path)
    return report


def _made_from(
    config: FinetuneConfig, options: Mapping[str, Any], train: Path, devs: Mapping[str, Path]
) -> dict[str, Any]:
    may_change = MAY_CHANGE - {"eval_every"}
    dials = {name: value for name, value in to_dict(config).items() if name not in may_change}
    made_from = dials | {
        "options": dict(options),
        "train_sha256": sha256_of(train),
        "dev_sha256": {name: sha256_of(path) for name, path in devs.items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(made_from, default=_plain_value))
    return plain


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _require_same(saved: Mapping[str, Any], given: Mapping[str, Any], where: Path) -> None:
    for key in sorted({*saved, *given}):
        if (before := saved.get(key)) != (now := given.get(key)):
            what = f"the run was made with {key} = {before!r}, this command says {now!r}"
            raise BertwrightError(what, where=where, fix="repeat the first command's settings, or choose another --out")


def _is_done(report: Mapping[str, Any], name: str, made_from: Mapping[str, Any], out: Path) -> bool:
    entry = report["tasks"].get(name)
    if entry is None or not (out / entry["model"] / "config.json").is_file():
        return False
    _require_same(entry["made_from"], made_from, out / REPORT_FILE)
    return True


def _answer_tests(report: dict[str, Any], files: GlueFiles, out: Path) -> None:
    """Answer a task's test files that are not answered yet."""
    entry = report["tasks"][files.spec.name]
    predictor: Predictor | None = None
    for key, path in files.test.items():
        target = out / "submission" / f"{key}.tsv"
        sha256 = sha256_of(path)
        if target.is_file() and entry["test_sha256"].get(key) == sha256:
            continue
        predictor = predictor or Predictor.load(out / entry["model"])
        indices, examples = read_test(files.spec, key, path)
        answers = [submission_value(files.spec, each) for each in predictor.predict_examples(examples)]
        rows = [f"{index}\t{answer}\n" for index, answer in zip(indices, answers, strict=True)]
        with new_file(target) as file:
            file.write(("index\tprediction\n" + "".join(rows)).encode())
        entry["test_sha256"][key] = sha256
        _save(report, out)


def _write_submission(report: dict[str, Any], out: Path) -> None:
    """Pack the answers to all test files; those that are missing are said."""
    answered = {name for task in report["tasks"].values() for name in task["test_sha256"]}
    files = [name for name in SUBMISSION_NAMES if name in answered and (out / "submission" / f"{name}.tsv").is_file()]
    missing = [name for name in SUBMISSION_NAMES if name not in files]
    if missing:
        _log.warning(
            "%s lacks %d of the %d files that the leaderboard wants, and it takes all or none: %s",
            out / SUBMISSION_FILE, len(missing), len(SUBMISSION_NAMES), ", ".join(f"{name}.tsv" for name in missing),
        )  # fmt: skip
    with new_file(out / SUBMISSION_FILE) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files:
            entry = zipfile.ZipInfo(f"{name}.tsv")  # of 1980: the same answers make the same file
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (out / "submission" / f"{name}.tsv").read_bytes())
    report["submission"] = {"files": files, "missing": missing}
    _save(report, out)


def _save(report: Mapping[str, Any], out: Path) -> None:
    with new_file(out / REPORT_FILE) as file:
        file.write((json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())
