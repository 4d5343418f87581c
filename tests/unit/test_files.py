"""Folders that appear whole or not at all, whatever the disk says."""

import errno
import hashlib
import os
import subprocess
from contextlib import contextmanager

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bertwright.errors import BertwrightError, DiskFullError
from bertwright.files import explain_os_errors, new_folder, sha256_of, sweep


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path, error):
    with new_folder(path) as folder:
        (folder / "half").write_text("half")
        raise error


def test_a_folder_appears_at_the_end(tmp_path):
    path = tmp_path / "deep/down/model"
    with new_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub/a.txt").write_text("a")
        assert not path.exists()
    assert (path / "sub/a.txt").read_text() == "a"
    assert listing(path.parent) == ["model"]


def test_an_older_folder_is_replaced_whole(tmp_path):
    for name in ("old", "new"):
        with new_folder(tmp_path / "model") as folder:
            (folder / name).write_text(name)
    assert listing(tmp_path) == ["model"]
    assert listing(tmp_path / "model") == ["new"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError(errno.EIO, "bad disk")])
def test_after_a_failure_everything_is_as_before(tmp_path, error):
    with new_folder(tmp_path / "model") as folder:
        (folder / "good").write_text("good")
    with pytest.raises(type(error)):
        write_half(tmp_path / "model", error)
    assert listing(tmp_path) == ["model"]
    assert listing(tmp_path / "model") == ["good"]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError, "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFullError, "the disk is full"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            DiskFullError,
            "the disk is full",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), BertwrightError, "this place may not be written"),
        (OSError(errno.EROFS, "Read-only file system"), BertwrightError, "this place may not be written"),
        (SafetensorError("Permission denied (os error 13)"), BertwrightError, "this place may not be written"),
    ],
)
def test_what_the_system_says_is_explained(tmp_path, error, kind, message):
    with pytest.raises(kind, match=message) as caught, new_folder(tmp_path / "model"):
        raise error
    assert caught.value.where == str(tmp_path / "model")
    assert caught.value.fix
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "bad disk"), SafetensorError("header too large"), ValueError("x")]
)
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, explain_os_errors(tmp_path):
        raise error
    assert caught.value is error


@contextmanager
def small_disk(path, size):
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_really_is_full(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        with new_folder(disk / "model") as folder:
            (folder / "good").write_text("good")
        with pytest.raises(DiskFullError), new_folder(disk / "model") as folder:
            save_file({"a": torch.zeros(1_000_000)}, folder / "a.safetensors")
        with pytest.raises(DiskFullError), new_folder(disk / "model") as folder:
            (folder / "b").write_bytes(bytes(2_000_000))
        assert listing(disk) == ["model"]
        assert listing(disk / "model") == ["good"]


def test_a_file_in_the_way_is_no_mystery(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BertwrightError, match="a file is in the way"), new_folder(tmp_path / "file/model"):
        pass


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    for name in (".step-1.77.tmp", ".model.77.old", ".kept.77.old", "kept", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    (tmp_path / ".config.json.tmp").write_text("{}")
    sweep(tmp_path)
    assert listing(tmp_path) == [".config.json.tmp", "kept", "model", "other"]
    assert (tmp_path / "model/content").read_text() == ".model.77.old", "the old one, as the new one never came"
    assert (tmp_path / "kept/content").read_text() == "kept"
    sweep(tmp_path / "nowhere")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
