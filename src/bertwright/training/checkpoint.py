"""The run folder: configuration, metrics, and checkpoints from which a run continues bit for bit.

with RunFolder.create(Path("run"), {"train": {...}}, resume=False) as run:
    run.save(step, tensors, {"position": 12_800}, keep=2)
    state = run.load_newest()

A checkpoint is a folder `checkpoints/step-00001000` holding `state.safetensors`, `state.json` and `manifest.json` with
the sha256 of both. It is written beside its place, flushed to disk and renamed last: one that can be seen is whole.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import logging
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from bertwright.config import BertConfig, FinetuneConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.files import explain_os_errors, new_folder, sha256_of, sweep
from bertwright.json_values import read_json
from bertwright.tasks import get_task
from bertwright.training.board import BOARDS, Board, open_boards

log = logging.getLogger(__name__)

Event = dict[str, Any]
"""What happened: a row of `metrics.jsonl`, or `{"kind": "start" | "message" | "saved", ...}`."""
OnEvent = Callable[[Event], None]

MAY_CHANGE = frozenset(
    {
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
        "async_checkpoints",
        "on_save_error",
        "restarts",
        *BOARDS,
        "threads",
        "shard_weights",
        "data",
        "long_data",
        "train_file",
        "dev_file",
    }
)
"""Settings that a resumed run may change: they do not alter what is computed (`threads`, `shard_weights`: but for
rounding)."""

_ONCE = {"compile": "off", "whole_word": False}
"""What was so before there was a choice, of settings whose default is written as what it means in a run."""

SET_ASIDE = "degenerate-"
"""How the folders are called, inside a run folder, of attempts that came to nothing."""
_FILES = ("state.safetensors", "state.json")
"""What a checkpoint's manifest vouches for."""


@dataclass(frozen=True)
class State:
    """What a run continues from."""

    step: int
    """Optimizer steps taken."""
    tensors: dict[str, Tensor]
    """Weights and moments by name."""
    values: dict[str, Any]
    """Everything that is no tensor."""


class RunFolder:
    """A folder that one run writes at a time: open from `create` until the `with` block ends.

    Args:
        path: the folder.
        lock: an open file; whoever locks it may write.
        boards: where the rows of `metrics.jsonl` also go.
    """

    def __init__(self, path: Path, lock: IO[str], boards: Sequence[Board] = ()) -> None:
        self.path = path
        self._lock = lock
        self._boards = boards

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for board in self._boards:
            board.close(failed=error is not None)
        self._lock.close()

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, resume: bool, boards: Sequence[str] = ()) -> RunFolder:
        """Lock a run folder and write its `config.json` and `versions.json`.

        Args:
            path: new or empty, unless resumed.
            config: everything the run is made from, as JSON values.
            resume: go on with a run that is there; a folder without one starts from the beginning.
            boards: names of where rows also go, of `board.BOARDS`.

        Raises:
            BertwrightError: another process writes there, a run is there and `resume` is not set, it was made with
                another configuration, or a board is asked for and not installed.
        """
        opened = open_boards(boards, path, config)
        with explain_os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / "run.lock").open("w")
        run = cls(path, lock, opened)
        try:
            run._open(config, resume=resume)
        except BaseException:
            lock.close()
            raise
        return run

    def _open(self, config: Mapping[str, Any], *, resume: bool) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BertwrightError(
                "another process is training here", where=self.path, fix="wait for it, or choose another --out"
            ) from None
        saved = self.path / "config.json"
        if saved.exists():
            if not resume:
                raise BertwrightError(
                    "a run is here already",
                    where=self.path,
                    fix="add --resume to go on with it, or choose another --out",
                )
            as_saved = json.loads(json.dumps(config))  # tuples become lists
            _require_same(read_json(saved), as_saved, saved, _defaults(as_saved))
        else:
            self._require_empty()
            if resume:
                log.info("%s holds no run yet: starting from the beginning", self.path)
        for folder in (self.path, self.path / "checkpoints"):
            sweep(folder)
        self.write_json("config.json", config)
        self.write_json("versions.json", versions())

    def _require_empty(self) -> None:
        ours = {"run.lock", ".config.json.tmp", *BOARDS}
        names = (file.name for file in self.path.iterdir() if not file.name.startswith(SET_ASIDE))
        others = sorted(set(names) - ours)
        if others:
            raise BertwrightError(
                f"something else is here already ({others[0]})", where=self.path, fix="choose another --out"
            )

    def write_json(self, name: str, values: Any) -> None:
        """Write a JSON file into the folder, in one piece."""
        with explain_os_errors(self.path / name):
            temporary = self.path / f".{name}.tmp"
            temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            temporary.replace(self.path / name)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to `metrics.jsonl`, and tell the boards."""
        with explain_os_errors(self.path), (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for board in self._boards:
            board.log(row)

    def forget_after(self, step: int) -> None:
        """Drop the rows of `metrics.jsonl` that a resumed run will write again."""
        for board in self._boards:
            board.forget_after(step)
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        rows = path.read_bytes().splitlines(keepends=True)
        steps = [_step_of(row) for row in rows]
        if None in steps:
            log.warning("%s: %d rows were cut off or garbled and are dropped", path, steps.count(None))
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(
            b"".join(row for row, at in zip(rows, steps, strict=True) if at is not None and at <= step)
        )
        temporary.replace(path)

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], *, keep: int) -> None:
        """Write a checkpoint, then remove the oldest beyond `keep`.

        Raises:
            DiskFullError: there was no room; earlier checkpoints are intact.
        """
        folder_name = f"step-{step:08d}"
        with new_folder(self.path / "checkpoints" / folder_name) as folder:
            save_file(dict(tensors), folder / "state.safetensors")
            (folder / "state.json").write_text(json.dumps({"step": step, **values}), encoding="utf-8")
            hashes = {name: sha256_of(folder / name) for name in _FILES}
            (folder / "manifest.json").write_text(json.dumps({"sha256": hashes}, indent=2), encoding="utf-8")
        # Later ones can only be those that were damaged when this run resumed: they take no whole one's place.
        whole = [checkpoint for checkpoint in self._checkpoints() if checkpoint.name <= folder_name]
        for old in whole[:-keep]:
            shutil.rmtree(old, ignore_errors=True)

    def load_newest(self) -> State | None:
        """Return the newest checkpoint that is whole, or None where there is none; a damaged one is named in the log.

        Raises:
            BertwrightError: there are checkpoints, and none is whole.
        """
        checkpoints = self._checkpoints()
        for folder in reversed(checkpoints):
            damage = _damage(folder)
            if damage is None:
                if folder != checkpoints[-1]:
                    log.warning("going back to %s", folder)
                values = read_json(folder / "state.json")
                return State(values.pop("step"), load_file(folder / "state.safetensors"), values)
            log.warning("%s is damaged (%s)", folder, damage)
        if checkpoints:
            raise BertwrightError("every checkpoint is damaged", where=self.path, fix="start again in another --out")
        return None

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*"))


class Follower:
    """A run folder as processes see it that do not write it: nothing is there, and nothing is written.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_json(self, name: str, values: Any) -> None:
        """Leave it to the first process."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Leave it to the first process."""

    def forget_after(self, step: int) -> None:
        """Leave it to the first process."""

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], *, keep: int) -> None:
        """Leave it to the first process."""

    def load_newest(self) -> None:
        """Leave it to the first process."""


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    packages = ("bertwright", "torch", "numpy", "tokenizers", "safetensors")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _require_same(
    saved: Mapping[str, Any], given: Mapping[str, Any], where: Path, usual: Mapping[str, Any], prefix: str = ""
) -> None:
    # Fine-tuning keeps the weights of its best evaluation, so there it matters when one is made.
    may_change = MAY_CHANGE - {"eval_every"} if "epochs" in saved else MAY_CHANGE
    for key in sorted({*saved, *given} - may_change):
        default = usual.get(key)
        # A setting that came into being after the run began was at its default, in effect.
        before, now = saved.get(key, default), given.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            _require_same(before, now, where, default if isinstance(default, dict) else {}, f"{prefix}{key}.")
        elif before != now:
            raise BertwrightError(
                f"the run was made with {prefix}{key} = {before!r}, this command says {now!r}",
                where=where,
                fix="repeat the first command's settings with --resume, or choose another --out",
            )


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of everything in a run's configuration that has one, as JSON has them."""
    found = {"model": _defaults_of(BertConfig)}
    found["train"] = _defaults_of(FinetuneConfig if "task" in config else PretrainConfig) | _ONCE
    if "task" in config:
        name = config["task"].get("name")
        found["task"] = {"options": _defaults_of(None if name is None else get_task(name))}
    return dict(json.loads(json.dumps(found)))


def _defaults_of(kind: type[Any] | None) -> dict[str, Any]:
    fields = dataclasses.fields(kind) if kind is not None else ()
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def _step_of(row: bytes) -> int | None:
    """Return the step of a line of `metrics.jsonl`; None if the line is not whole."""
    try:
        step = json.loads(row)["step"] if row.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None


def _damage(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None."""
    try:
        hashes = read_json(folder / "manifest.json").get("sha256")
        if not isinstance(hashes, dict) or set(hashes) != set(_FILES):
            return "manifest.json does not name its files"
        for name, expected in hashes.items():
            if sha256_of(folder / name) != expected:
                return f"{name} does not have the sha256 it was saved with"
    except (BertwrightError, OSError) as error:
        return str(error)
    return None
