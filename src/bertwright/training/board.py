"""The rows of `metrics.jsonl` once more, as TensorBoard's scalars.

board = TensorBoard(Path("run/tensorboard"))
board.log({"kind": "train", "step": 10, "mlm_loss": 9.1})     # the scalar train/mlm_loss
board.close()
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.files import explain_os_errors


class TensorBoard:
    """Writes event files, into a folder that the first row creates.

    Args:
        folder: what `tensorboard --logdir` is given.

    Raises:
        BertwrightError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise BertwrightError(
                "TensorBoard is not installed",
                fix="pip install bertwright[track], or leave out --tensorboard: metrics.jsonl holds the same figures",
            ) from None
        self.folder = folder
        self._make_writer = SummaryWriter
        self._first_step: int | None = None
        self._writer: SummaryWriter | None = None

    def forget_after(self, step: int) -> None:
        """Have TensorBoard drop what was logged after a step: a resumed run will log it again."""
        self._first_step = step + 1

    def log(self, row: Mapping[str, Any]) -> None:
        """Write a row's numbers, as `KIND/NAME`."""
        with explain_os_errors(self.folder):
            if self._writer is None:
                self._writer = self._make_writer(str(self.folder), purge_step=self._first_step)
            for name, value in row.items():
                if name not in ("kind", "step"):
                    self._writer.add_scalar(f"{row['kind']}/{name}", value, row["step"])
            self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()
