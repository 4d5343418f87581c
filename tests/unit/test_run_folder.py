"""The run folder: one run at a time, one configuration, checkpoints that are whole or not used, rows told once."""

import errno
import fcntl
import json
import logging
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from bertwright.config import BertConfig, FinetuneConfig, PretrainConfig
from bertwright.errors import BertwrightError, DiskFullError
from bertwright.json_values import to_dict
from bertwright.tasks import ClassifyTask
from bertwright.training import checkpoint
from bertwright.training.board import TensorBoard
from bertwright.training.checkpoint import MAY_CHANGE, RunFolder

CONFIG = {"kind": "pretrain", "train": {"lr": 1e-4, "steps": 10, "log_every": 5}, "model": {"hidden_size": 8}}


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "run", CONFIG, resume=False) as run:
        yield run


def tensors_of(step):
    return {"model.w": torch.full((3, 4), float(step)), "exp_avg.w": torch.arange(5.0) * step}


def save(run, *steps, keep=10):
    for step in steps:
        run.save(step, tensors_of(step), {"position": 100 * step}, keep=keep)


def saved_steps(run):
    return [int(path.name.removeprefix("step-")) for path in sorted((run.path / "checkpoints").iterdir())]


def reopen(path, config=CONFIG, *, resume=True):
    return RunFolder.create(path, config, resume=resume)


# One at a time


def test_another_process_is_refused(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    script = (
        "import fcntl, sys\n"
        f"lock = open({str(path / 'run.lock')!r}, 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(BertwrightError, match=r"another process is training here\n  → wait for it, or choose"):
            reopen(path, resume=False)
        assert not (path / "config.json").exists()
        other.stdin.close()
        other.wait()
    with reopen(path, resume=False):
        assert (path / "config.json").exists()


def test_the_lock_is_held_until_the_block_ends(run):
    with (run.path / "run.lock").open("w") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(BertwrightError, match="another process is training here"):
        reopen(run.path)
    run.__exit__(None, None, None)
    with reopen(run.path):
        pass


def test_a_refused_run_leaves_the_lock_to_others(run):
    run.__exit__(None, None, None)
    for _ in range(2):
        with pytest.raises(BertwrightError, match=r"a run is here already\n  → add --resume"):
            reopen(run.path, resume=False)
    with reopen(run.path):
        pass


# One configuration


def test_a_new_run_says_what_it_is_made_of(run):
    assert json.loads((run.path / "config.json").read_text()) == CONFIG
    versions = json.loads((run.path / "versions.json").read_text())
    assert versions["torch"] == torch.__version__
    assert {"bertwright", "python", "numpy", "tokenizers", "platform", "processor"} <= versions.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": CONFIG["train"] | {"lr": 2e-4}}, r"made with train\.lr = 0\.0001, this command says 0\.0002"),
        ({"train": CONFIG["train"] | {"steps": 11}}, r"made with train\.steps = 10, this command says 11"),
        ({"model": {"hidden_size": 16}}, r"made with model\.hidden_size = 8, this command says 16"),
        ({"kind": "finetune"}, r"made with kind = 'pretrain', this command says 'finetune'"),
        ({"init": "m"}, r"made with init = None, this command says 'm'"),
    ],
)
def test_another_configuration_is_refused_by_name_and_values(run, change, message):
    run.__exit__(None, None, None)
    with pytest.raises(BertwrightError, match=message) as caught:
        reopen(run.path, CONFIG | change)
    assert caught.value.where == str(run.path / "config.json")
    assert json.loads((run.path / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize("name", sorted(MAY_CHANGE))
def test_what_computes_nothing_may_change(run, name):
    run.__exit__(None, None, None)
    changed = CONFIG | {"train": CONFIG["train"] | {name: 77}, name: 78}
    with reopen(run.path, changed):
        assert json.loads((run.path / "config.json").read_text()) == changed


def test_a_configuration_is_the_same_after_its_way_through_json(tmp_path):
    config = {"task": {"labels": ("a", "b"), "names": {1: "x"}}, "lr": 1e-4}
    for _ in range(2):
        with reopen(tmp_path / "run", config):
            pass
    with pytest.raises(BertwrightError, match=r"made with task\.labels = \['a', 'b'\], this command says \['a'\]"):
        reopen(tmp_path / "run", config | {"task": {"labels": ("a",), "names": {1: "x"}}})


def test_resuming_nothing_begins(tmp_path, caplog):
    caplog.set_level(logging.INFO, "bertwright")
    with reopen(tmp_path / "run") as run:
        assert run.load_newest() is None
    assert "holds no run yet: starting from the beginning" in caplog.text


def test_a_place_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    with pytest.raises(BertwrightError, match=r"this place may not be written\n  → choose another --out"):
        reopen(tmp_path / "run")


# Checkpoints


def test_the_newest_checkpoint_comes_back(run):
    save(run, 3, 12)
    state = run.load_newest()
    assert state.step == 12
    assert state.values == {"position": 1200}
    assert state.tensors.keys() == tensors_of(12).keys()
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in tensors_of(12).items())


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept(run, keep):
    save(run, 1, 2, 9, 10, 11, keep=keep)
    assert saved_steps(run) == [1, 2, 9, 10, 11][-keep:]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit in the weights": lambda folder: flip(folder / "state.safetensors"),
    "a flipped bit in the values": lambda folder: flip(folder / "state.json"),
    "a flipped bit in the manifest": lambda folder: flip(folder / "manifest.json"),
    "truncated weights": lambda folder: (folder / "state.safetensors").write_bytes(b"\0" * 100),
    "empty values": lambda folder: (folder / "state.json").write_text(""),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no weights": lambda folder: (folder / "state.safetensors").unlink(),
    "a manifest that is a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "a manifest that says nothing": lambda folder: (folder / "manifest.json").write_text("{}"),
    "a manifest of another kind": lambda folder: (folder / "manifest.json").write_text('{"sha256": [1]}'),
    "a manifest that vouches for nothing": lambda folder: (folder / "manifest.json").write_text('{"sha256": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(run, damage, caplog):
    save(run, 4, 8)
    damage(run.path / "checkpoints/step-00000008")
    assert run.load_newest().step == 4
    assert "checkpoints/step-00000008 is damaged (" in caplog.text
    assert "going back to" in caplog.text
    assert "checkpoints/step-00000004" in caplog.text


def test_every_single_bit_of_a_manifest_counts(run):
    """Wherever a bit of the manifest flips, the checkpoint before is used, or the right one is read."""
    save(run, 4, 8)
    path = run.path / "checkpoints/step-00000008/manifest.json"
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 13):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        state = run.load_newest()
        assert torch.equal(state.tensors["model.w"], tensors_of(state.step)["model.w"])


def test_when_every_checkpoint_is_damaged_nothing_is_guessed(run):
    save(run, 4, 8)
    for step in (4, 8):
        flip(run.path / f"checkpoints/step-{step:08d}/state.safetensors")
    with pytest.raises(BertwrightError, match=r"every checkpoint is damaged\n  → start again in another --out"):
        run.load_newest()


def test_a_damaged_checkpoint_takes_no_whole_ones_place(run):
    save(run, 10, 20)
    flip(run.path / "checkpoints/step-00000020/state.safetensors")
    assert run.load_newest().step == 10
    save(run, 15, keep=1)
    assert run.load_newest().step == 15
    save(run, 20, keep=1)
    assert saved_steps(run) == [20]
    assert run.load_newest().step == 20


def test_leftovers_of_a_killed_save_are_swept(run):
    save(run, 1)
    (run.path / "checkpoints/.step-00000002.77.tmp").mkdir()
    (run.path / ".model.77.old").mkdir()
    run.__exit__(None, None, None)
    with reopen(run.path):
        assert saved_steps(run) == [1]
        assert (run.path / "model").exists(), "the kill came between moving the old aside and the new in"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "safetensors"],
)
def test_a_full_disk_leaves_the_checkpoint_before(run, error, monkeypatch):
    save(run, 5)

    def half_write(_tensors, path):
        path.write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", half_write)
        with pytest.raises(DiskFullError, match="the disk is full; what was saved before is intact"):
            save(run, 6, keep=1)
    assert saved_steps(run) == [5]
    assert run.load_newest().step == 5
    save(run, 6)
    assert run.load_newest().step == 6


def test_a_full_disk_while_logging(run, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(run.path), "open", full)
    with pytest.raises(DiskFullError):
        run.log({"kind": "train", "step": 1})


# Rows


def rows(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_rows_that_will_be_told_again_are_forgotten(run):
    for step in (10, 20, 30):
        run.log({"kind": "train", "step": step})
        run.log({"kind": "eval", "step": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # killed in the middle of a row
    run.forget_after(20)
    assert [row["step"] for row in rows(run)] == [10, 10, 20, 20]
    run.log({"kind": "train", "step": 30})
    assert [row["step"] for row in rows(run)][-1] == 30
    run.forget_after(0)
    assert rows(run) == []


def test_rows_garbled_by_a_crash_are_dropped(run):
    run.log({"kind": "train", "step": 10})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b"\0\0\0\0\n\xff\xfe\n[]\n")
    run.forget_after(10)
    assert [row["step"] for row in rows(run)] == [10]


def test_there_may_be_nothing_to_forget(run):
    run.forget_after(0)
    assert not (run.path / "metrics.jsonl").exists()


# TensorBoard


def test_without_tensorboard_the_message_says_what_to_install(tmp_path, monkeypatch):
    for name in ("torch.utils.tensorboard", "torch.utils.tensorboard.writer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(BertwrightError, match=r"TensorBoard is not installed\n  → pip install bertwright\[track\]"):
        RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["tensorboard"])
    assert not (tmp_path / "run").exists(), "the same command works once it is installed"


def test_rows_go_to_tensorboard_too(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["tensorboard"]) as run:
        for step in (10, 20, 30):
            run.log({"kind": "train", "step": step, "mlm_loss": 9.0 - step / 10, "lr": 1e-4})
            run.log({"kind": "eval", "step": step, "mlm_loss": 8.0})
    with RunFolder.create(tmp_path / "run", CONFIG, resume=True, boards=["tensorboard"]) as run:
        run.forget_after(20)
        run.log({"kind": "train", "step": 30, "mlm_loss": 5.5, "lr": 1e-4})
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["eval/mlm_loss", "train/lr", "train/mlm_loss"]
    assert [(event.step, event.value) for event in events.Scalars("train/mlm_loss")] == [
        (10, 8.0),
        (20, 7.0),
        (30, 5.5),
    ]


def test_numbers_become_scalars_by_kind_and_name(tmp_path, monkeypatch):
    """What the writer is told, on machines without TensorBoard."""
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def flush(self):
            pass

        def close(self):
            told.append("closed")

    module = type(sys)("torch.utils.tensorboard.writer")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("torch.utils.tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", module)
    board = TensorBoard(tmp_path)
    board.forget_after(4)
    board.log({"kind": "train", "step": 5, "lr": 0.5, "mlm_loss": 2.0})
    board.close()
    assert told == [(str(tmp_path), 5), ("train/lr", 0.5, 5), ("train/mlm_loss", 2.0, 5), "closed"]


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "mine"
    (folder / ".cache.tmp").mkdir(parents=True)
    (folder / ".bashrc.old").write_text("mine")
    with pytest.raises(BertwrightError, match="something else is here already"):
        RunFolder.create(folder, CONFIG, resume=False)
    assert {path.name for path in folder.iterdir()} == {".cache.tmp", ".bashrc.old", "run.lock"}


def test_fine_tuning_may_not_change_when_it_looks(tmp_path):
    config = {"kind": "finetune", "train": {"epochs": 3, "eval_every": 10}}
    with RunFolder.create(tmp_path / "run", config, resume=False):
        pass
    with pytest.raises(BertwrightError, match=r"train\.eval_every"):
        RunFolder.create(tmp_path / "run", {**config, "train": {"epochs": 3, "eval_every": 20}}, resume=True)


# A run that an older version began


def saved_without(path, config, *keys):
    """A run folder whose config.json lacks a setting."""
    with RunFolder.create(path, config, resume=False):
        pass
    values = json.loads((path / "config.json").read_text())
    part = values
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    (path / "config.json").write_text(json.dumps(values))


AS_RUN = PretrainConfig(precision="fp32", compile="off", whole_word=False)
PRETRAINING = {"kind": "pretrain", "train": to_dict(AS_RUN), "model": to_dict(BertConfig())}
FINETUNING = {
    "kind": "finetune",
    "train": to_dict(FinetuneConfig()),
    "task": {"name": "classify", "options": ClassifyTask().options()},
}


@pytest.mark.parametrize(
    ("config", "keys", "other"),
    [
        (PRETRAINING, ("train", "static_masks"), 10),
        (PRETRAINING, ("train", "mask_draw"), "word"),
        (PRETRAINING, ("train", "whole_word"), True),
        (PRETRAINING, ("train", "compile"), "on"),
        (PRETRAINING, ("model", "pool_last"), True),
        (FINETUNING, ("train", "freeze"), "embeddings"),
        (FINETUNING, ("task", "options", "metric"), "mcc"),
        (FINETUNING, ("task", "options", "columns"), ["a"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_setting_that_came_later_was_at_its_default(config, keys, other, tmp_path):
    saved_without(tmp_path / "run", config, *keys)
    changed = json.loads(json.dumps(config))
    part = changed
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = other
    with pytest.raises(BertwrightError) as caught:
        reopen(tmp_path / "run", changed)
    assert f"made with {'.'.join(keys)} = " in caught.value.what
    assert f"this command says {other!r}" in caught.value.what
    with reopen(tmp_path / "run", config):
        pass
    assert json.loads((tmp_path / "run/config.json").read_text()) == json.loads(json.dumps(config)), "now it says so"


def test_a_setting_that_nobody_knows_is_not_at_any_default(tmp_path):
    config = {**PRETRAINING, "data": "shards", "init": None}
    saved_without(tmp_path / "run", {**config, "examples": 5}, "examples")
    with pytest.raises(BertwrightError, match="made with examples = None, this command says 5"):
        reopen(tmp_path / "run", {**config, "examples": 5})


def test_a_run_goes_on_although_a_setting_is_missing(tmp_path):
    saved_without(tmp_path / "run", PRETRAINING, "train", "clip_norm")
    with reopen(tmp_path / "run", PRETRAINING) as run:
        save(run, 3)
    with reopen(tmp_path / "run", PRETRAINING) as run:
        assert run.load_newest().step == 3
