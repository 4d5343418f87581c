"""The rows of `metrics.jsonl` once more, where others look at them: TensorBoard, MLflow, Weights & Biases.

    [board] = open_boards(["tensorboard"], Path("run"), {})
    board.log({"kind": "train", "step": 10, "mlm_loss": 9.1})     # the scalar train/mlm_loss
    board.close()

Each is one class with four methods and a line in `BOARDS`. What TensorBoard showed after the last checkpoint it drops
when a run is resumed. The other two cannot take back what they were told: there a resumed run, which repeats these
steps bit for bit, leaves them out.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any, ClassVar, Protocol, runtime_checkable

from bertwright.errors import BertwrightError
from bertwright.files import explain_os_errors
from bertwright.json_values import read_json

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


@runtime_checkable
class Board(Protocol):
    """Where rows also go. Made with a folder of its own inside the run folder, and all that the run is made from."""

    def forget_after(self, step: int) -> None:
        """Hear that a run goes on from a step: rows after it will come again."""
        ...

    def log(self, row: Row) -> None:
        """Take the numbers of a row, as `KIND/NAME`."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Hear that no more rows will come, for now or for ever."""
        ...


class TensorBoard:
    """Writes event files, into a folder that the first row creates.

    Args:
        folder: what `tensorboard --logdir` is given.

    Raises:
        BertwrightError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, _config: Mapping[str, Any] | None = None) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise _not_installed("TensorBoard", "track", "--tensorboard") from None
        self.folder = folder
        self._make_writer = SummaryWriter
        self._first_step: int | None = None
        self._writer: SummaryWriter | None = None

    def forget_after(self, step: int) -> None:
        """Have TensorBoard drop what was logged after a step: a resumed run will log it again."""
        self._first_step = step + 1

    def log(self, row: Row) -> None:
        """Write a row's numbers, as `KIND/NAME`."""
        with explain_os_errors(self.folder):
            if self._writer is None:
                self._writer = self._make_writer(str(self.folder), purge_step=self._first_step)
            for name, value in _numbers(row).items():
                self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def close(self, *, failed: bool = False) -> None:
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()


class _Lasting:
    """A board that keeps what it was told: it is told every step once, however often the run is resumed.

    A small file in its folder knows the run's id there, and the last step of which it has every row.
    """

    title: ClassVar[str]

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.config = config or {}
        self._state_file = folder / "bertwright.json"
        self._state: dict[str, Any] = {}
        self._step = 0

    def forget_after(self, step: int) -> None:
        """Forget nothing."""

    def log(self, row: Row) -> None:
        """Pass on a row's numbers, unless an earlier attempt did.

        Raises:
            BertwrightError: it does not take the first row; of later ones the log says so, and training goes on.
        """
        if not self._state:
            self._begin()
        if row["step"] <= self._state["step"]:
            return
        if row["step"] > self._step:
            self._settle()
        self._step = row["step"]
        try:
            self._tell(_numbers(row), row["step"])
        except Exception as error:  # of a server, say: no reason to stop a run of days
            log.warning("%s did not take the row of step %d (%s)", self.title, row["step"], _first_line(error))

    def close(self, *, failed: bool = False) -> None:
        """Finish the run there."""
        if self._state:
            self._settle()
            self._finish(failed)

    def _begin(self) -> None:
        with explain_os_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        saved = read_json(self._state_file) if self._state_file.exists() else {}
        where = self._where()
        known = saved if saved.get("where") == where else {}  # elsewhere nothing is known of this run
        try:
            number = self._start(where, known.get("id"))
        except BertwrightError:
            raise
        except Exception as error:
            what = f"{self.title} does not take this run: {_first_line(error)}"
            raise BertwrightError(what, where=where, fix=f"mend that, or leave out {self.flag}") from error
        self._state = {"where": where, "id": number, "step": known.get("step", 0)}
        self._settle()

    def _settle(self) -> None:
        """Note that all rows so far are there."""
        self._state["step"] = max(self._state["step"], self._step)
        with explain_os_errors(self._state_file):
            temporary = self._state_file.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._state) + "\n", encoding="utf-8")
            temporary.replace(self._state_file)

    @property
    def flag(self) -> str:
        """Return what turns it on."""
        return f"--{type(self).__name__.lower()}"

    def _where(self) -> str:
        raise NotImplementedError

    def _start(self, where: str, known: str | None) -> str:
        """Begin a run there, or go on with a known one; return its id."""
        raise NotImplementedError

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def _finish(self, failed: bool) -> None:
        raise NotImplementedError


class MLflow(_Lasting):
    """Writes to the server or store that `MLFLOW_TRACKING_URI` names, else to files in a folder of the run's own.

    Args:
        folder: for these files.
        config: becomes the run's parameters.

    Raises:
        BertwrightError: MLflow is not installed.
    """

    title = "MLflow"

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise _not_installed("MLflow", "mlflow", "--mlflow") from None
        super().__init__(folder, config)
        self._client_of = MlflowClient

    def _where(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or self.folder.resolve().as_uri()

    def _start(self, where: str, known: str | None) -> str:
        from mlflow.entities import Param

        with _file_store_allowed():
            self._client = self._client_of(tracking_uri=where)
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "bertwright"
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run: str = self._client.create_run(number, run_name=_name_of(self.folder)).info.run_id
        params = [Param(key, value[:6000]) for key, value in _flat(self.config)]
        for first in range(0, len(params), 100):  # as many as it takes at once
            self._client.log_batch(run, params=params[first : first + 100])
        return run

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time())
        metrics = [Metric(name, float(value), now, step) for name, value in numbers.items()]
        self._client.log_batch(self._state["id"], metrics=metrics)

    def _finish(self, failed: bool) -> None:
        self._client.set_terminated(self._state["id"], "FAILED" if failed else "FINISHED")


class WandB(_Lasting):
    """Writes to Weights & Biases as `WANDB_MODE` says, or offline where nobody is logged in; it never asks.

    Args:
        folder: for its files; what is written offline, `wandb sync` sends later.
        config: becomes the run's configuration.

    Raises:
        BertwrightError: wandb is not installed, or `WANDB_MODE` is `online` and nobody is logged in.
    """

    title = "Weights & Biases"

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        try:
            import wandb
        except ImportError:
            raise _not_installed("Weights & Biases", "wandb", "--wandb") from None
        super().__init__(folder, config)
        self._wandb = wandb
        wandb.setup(wandb.Settings(silent=True))
        mode = os.environ.get("WANDB_MODE")
        if mode in (None, "", "online"):
            logged_in = wandb.login(prompt=False, verify=False)
            if mode == "online" and not logged_in:
                fix = "type `wandb login`, or set WANDB_MODE=offline"
                raise BertwrightError("WANDB_MODE is online, but nobody is logged in to Weights & Biases", fix=fix)
            mode = "online" if logged_in else "offline"
        self._mode = mode

    def _where(self) -> str:
        return self._mode

    def _start(self, where: str, known: str | None) -> str:
        quiet: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True, "save_code": False}
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "bertwright",
            name=_name_of(self.folder),
            dir=str(self.folder.parent),
            config=dict(self.config),
            id=known,
            resume="allow" if known and where != "offline" else None,
            settings=self._wandb.Settings(**quiet, mode=where),
        )
        number: str = self._run.id
        return number

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def _finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


BOARDS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
"""By name, which is that of the flag and of the folder inside a run folder."""


def open_boards(names: Sequence[str], run: Path, config: Mapping[str, Any]) -> list[Board]:
    """Return those boards that are asked for; each writes nothing before its first row."""
    return [BOARDS[name](run / name, config) for name in names]


def boards_of(config: object) -> list[str]:
    """Return the names of the boards that a configuration turns on."""
    return [name for name in BOARDS if getattr(config, name, False)]


def _not_installed(title: str, extra: str, flag: str) -> BertwrightError:
    fix = f"pip install bertwright[{extra}], or leave out {flag}: metrics.jsonl holds the same figures"
    return BertwrightError(f"{title} is not installed", fix=fix)


def _numbers(row: Row) -> dict[str, float]:
    return {f"{row['kind']}/{name}": value for name, value in row.items() if name not in ("kind", "step")}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _name_of(folder: Path) -> str:
    """Return what a run is called there: the name of its run folder."""
    return folder.parent.resolve().name


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _file_store_allowed() -> Iterator[None]:
    """Have MLflow open a store of files, which it does not unless told that this is what is wanted."""
    name = "MLFLOW_ALLOW_FILE_STORE"
    before = os.environ.get(name)
    os.environ[name] = before or "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
