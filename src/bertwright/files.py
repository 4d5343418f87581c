"""Folders that appear whole or not at all.

with new_folder(Path("run/model")) as folder:
    (folder / "config.json").write_text("{}")
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bertwright.errors import BertwrightError, DiskFullError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends well, flush it to disk and put it at `path`.

    What stood at `path` is replaced in the last instant; when the block fails, it is untouched and the temporary
    folder is removed.

    Raises:
        DiskFullError: there was no room.
        BertwrightError: the place may not be written.
    """
    path = path.resolve()  # a link is followed, and "." has a name
    if path.is_mount():
        what = "this folder is a mount point and cannot be replaced as a whole"
        raise BertwrightError(what, where=path, fix=f"name a folder in it, such as {path / 'model'}")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(made: Path, path: Path) -> None:
    """Flush a folder to disk and move it to `path`; what stood there is replaced in the last instant."""
    for file in made.rglob("*"):
        if file.is_file():
            flush(file)
    flush(made)
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(replaced)
    made.rename(path)
    flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to; when the block ends well, it is flushed to disk and stands at `path`.

    Raises:
        DiskFullError: there was no room.
        BertwrightError: the place may not be written.
    """
    if path.is_dir():
        raise BertwrightError("a folder is in the way of a file", where=path, fix="choose another --out")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def clear_dead(path: Path) -> None:
    """Remove what a process that was killed while it made the same folder left behind.

    Killed in the instant between moving the old folder aside and the new one in, it leaves the old one aside: that is
    put back.
    """
    for left in list(path.parent.glob(f".{glob.escape(path.name)}.*.*")):
        *_, pid, kind = left.name.split(".")
        if not pid.isdecimal() or kind not in ("tmp", "old") or _is_alive(int(pid)):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a forbidden place and a file in the way into errors that say what to do."""
    try:
        yield
    except Exception as error:
        number = _errno_of(error)
        if number in _FULL:
            raise DiskFullError(
                "the disk is full; what was saved before is intact",
                where=path,
                fix="free some space and run the same command again",
            ) from error
        if number in (errno.EEXIST, errno.ENOTDIR):
            raise BertwrightError("a file is in the way of a folder", where=path, fix="choose another --out") from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise BertwrightError("this place may not be written", where=path, fix="choose another --out") from error
        raise


def _errno_of(error: Exception) -> int | None:
    """Return an operating system's error number; safetensors has an exception of its own that only spells it out."""
    if isinstance(error, OSError):
        return error.errno
    spelt = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return None if spelt is None else int(spelt[1])


def sweep(folder: Path) -> None:
    """Clear away what a killed `new_folder` left in a folder that nobody else writes to.

    Killed in the instant between moving the old folder aside and the new one in, it leaves the old one
    aside: that is put back.
    """
    if not folder.is_dir():
        return
    for left in list(folder.iterdir()):
        named = re.fullmatch(r"\.(.+)\.\d+\.(old|tmp)", left.name)
        if named is None or not left.is_dir():
            continue
        path = folder / named[1]
        if named[2] == "old" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return a file's sha256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
