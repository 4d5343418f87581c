"""A build that is not finished: its folder `OUT.partial`, and the journal by which the same command goes on with it.

OUT.partial/progress.jsonl      the settings, then a line for every shard that is whole and on disk
OUT.partial/shards/             what will be moved to OUT at the end
OUT.partial/building-…/         where a running build's processes write; what is whole moves from there to shards/

A shard is used again if its text is still the same, byte for byte, and its files have the sha256 of the journal. So it
does not matter how a build ended, nor what happened to the corpus since: the result has the bytes of a fresh build.

    with Journal.open(Path("shards"), settings, overwrite=False) as journal:
        ...
        journal.finish(names)
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bertwright.data.partition import PackedWork
from bertwright.data.shards import Counts
from bertwright.errors import BertwrightError
from bertwright.files import clear_dead, flush, put_in_place, sha256_of

_NAME = "progress.jsonl"
_FORMAT = {"format": "bertwright-build", "version": 1}
_logger = logging.getLogger(__name__)


class Built(NamedTuple):
    """What is left to say of a shard once its files are written."""

    split: str
    """`train` or `held_out`."""
    number: int
    """Counted from 0 within the split."""
    text_sha256: str
    """Of its documents."""
    text_bytes: int
    """Of its documents, as UTF-8."""
    characters: int
    """Of its documents."""
    counts: Counts
    """What it holds."""
    files: dict[str, dict[str, Any]]
    """`bytes` and `sha256` of its files, by name."""


class Journal:
    """The folder of an unfinished build, which one process at a time may hold open; see `open`."""

    def __init__(self, folder: Path, out: Path, lock: BinaryIO) -> None:
        self.folder = folder
        self.shards = folder / "shards"
        """What is whole; it becomes `out`."""
        self.staging = folder
        """Where the files of new shards are to be written."""
        self._out = out
        self._lock = lock
        self._known: dict[tuple[str, int], Built] = {}
        self._done = self._reused = 0
        self._useless = False

    @classmethod
    @contextmanager
    def open(cls, out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[Journal]:
        """Go on with an unfinished build, or begin one.

        When the block fails, the folder stays if there is a whole shard in it; the log tells where.

        Args:
            out: the folder that is to be made.
            settings: plain JSON values that decide its bytes, apart from the corpus.
            overwrite: begin anew where an unfinished build had other settings.

        Raises:
            BertwrightError: another process is building there, other settings were used, or it holds something else.
        """
        folder = out.with_name(f"{out.name}.partial")
        out.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(out)
        if folder.exists() and not (folder / _NAME).exists() and any(folder.iterdir()):
            fix = "move it away, or choose another --out"
            raise BertwrightError("something else is where unfinished shards would lie", where=folder, fix=fix)
        folder.mkdir(exist_ok=True)
        with (folder / _NAME).open("ab+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                fix = "wait for it, or choose another --out"
                raise BertwrightError("another process is building these shards", where=folder, fix=fix) from None
            journal = cls(folder, out, lock)
            journal._begin(settings, overwrite=overwrite)
            try:
                yield journal
            except BaseException:
                journal._leave()
                raise

    def find(self, work: PackedWork) -> Built | None:
        """Return what an earlier build made of this work, if it is whole and the text is the same."""
        built = self._known.get((work.split, work.number))
        if built is None or built.text_sha256 != work.sha256:
            return None
        for name, record in built.files.items():
            path = self.shards / name
            if not path.is_file() or sha256_of(path) != record["sha256"]:
                return None
        return built

    def add(self, built: Built, *, reused: bool) -> None:
        """Take a shard whose files lie in `staging`, or one that `find` returned."""
        self._done += 1
        if reused:
            self._reused += 1
            return
        for name in built.files:
            flush(self.staging / name)
            (self.staging / name).replace(self.shards / name)
        flush(self.shards)
        self._write(built._asdict() | {"counts": asdict(built.counts)})

    @contextmanager
    def useless_if_refused(self) -> Iterator[None]:
        """Keep nothing if the block raises a `BertwrightError`: other settings are needed."""
        try:
            yield
        except BertwrightError:
            self._useless = True
            raise

    def finish(self, names: Collection[str]) -> None:
        """Move the shards to their place and remove everything else.

        Args:
            names: of the files that belong there.
        """
        if len(self._known) > self._reused:
            changed = len(self._known) - self._reused
            _logger.info("%d of the shards that were there were built again: their text or files have changed", changed)
        for path in self.shards.iterdir():
            if path.name not in names:
                path.unlink()
        put_in_place(self.shards, self._out)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        header = _FORMAT | {"settings": json.loads(json.dumps(settings))}
        saved, end = self._read()
        if saved is not None and saved != header:
            if not overwrite:
                raise _other_settings(saved, header, self.folder)
            saved = None
        if saved is None:
            self._known, end = {}, 0
        self._lock.truncate(end)  # also of a line that was being written
        if not end:
            self._write(header)
        for left in self.folder.iterdir():
            if left.is_dir() and left != self.shards:
                shutil.rmtree(left, ignore_errors=True)
        self.shards.mkdir(exist_ok=True)
        whole = {name for built in self._known.values() for name in built.files}
        for path in self.shards.iterdir():
            if path.name not in whole:
                path.unlink()
        self.staging = Path(tempfile.mkdtemp(prefix="building-", dir=self.folder))
        if self._known:
            _logger.info("going on with %d shards that lie in %s", len(self._known), self.folder)

    def _read(self) -> tuple[dict[str, Any] | None, int]:
        """Return the first line, and where the last whole line ends."""
        header, end = None, 0
        self._lock.seek(0)
        for line in self._lock:
            try:
                values = json.loads(line) if line.endswith(b"\n") else None
                if values is None:
                    break
                if header is None:
                    header = values
                else:
                    built = Built(**values | {"counts": Counts(**values["counts"])})
                    self._known[built.split, built.number] = built
            except (ValueError, TypeError, KeyError):
                header = {} if header is None else header  # no journal at all
                break
            end += len(line)
        return header, end

    def _write(self, values: Mapping[str, Any]) -> None:
        self._lock.write(json.dumps(values).encode() + b"\n")
        self._lock.flush()
        flush(self.folder / _NAME)

    def _leave(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        kept = max(self._done, len(self._known))
        if self._useless or not kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self.folder.exists():
            where = f"{kept:,} shards are kept in {self.folder}"
            _logger.warning("%s: the same command goes on from there; remove the folder if you will not need it", where)


def _other_settings(saved: Mapping[str, Any], header: Mapping[str, Any], folder: Path) -> BertwrightError:
    if {name: saved.get(name) for name in _FORMAT} != _FORMAT:
        found = saved.get("format"), saved.get("version")
        what = f"the unfinished shards here are of another format: {found[0]} version {found[1]}"
    else:
        before, now = saved.get("settings", {}), header["settings"]
        names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        changes = "; ".join(f"{name} was {before.get(name)!r}, now it is {now.get(name)!r}" for name in names)
        what = f"a build with other settings was interrupted here: {changes}"
    fix = "repeat the first command's settings to go on, or add --overwrite to start anew"
    return BertwrightError(what, where=folder, fix=fix)
