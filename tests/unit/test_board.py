"""MLflow and Weights & Biases are told every row once; what they were told is read back with their own code."""

import json
import struct
import sys
from pathlib import Path

import pytest

from bertwright.errors import BertwrightError
from bertwright.training.board import BOARDS, boards_of, open_boards
from bertwright.training.checkpoint import RunFolder

CONFIG = {"kind": "pretrain", "train": {"steps": 30, "lr": 1e-4, "objective": "mlm"}, "init": None}
LAST = {"train/mlm_loss": 6.0, "train/lr": 1e-4, "eval/mlm_loss": 8.0, "eval/shown/mask/mlm_loss": 7.5}


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for reading; writing sees to it by itself


def write(run, steps, *, offset=0.0):
    for step in steps:
        run.log({"kind": "train", "step": step, "mlm_loss": 9.0 - step / 10 + offset, "lr": 1e-4})
        run.log({"kind": "eval", "step": step, "mlm_loss": 8.0 + offset, "shown/mask/mlm_loss": 7.5})


def trained_twice(path, board):
    """A run that was stopped after step 20 and goes on from the checkpoint of step 10."""
    with RunFolder.create(path, CONFIG, resume=False, boards=[board]) as run:
        write(run, (10, 20))
    with RunFolder.create(path, CONFIG, resume=True, boards=[board]) as run:
        run.forget_after(10)
        write(run, (20, 30))


def mlflow_runs(uri):
    client = pytest.importorskip("mlflow.tracking").MlflowClient(tracking_uri=uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "bertwright"]
    return client, client.search_runs([experiment.experiment_id])


def wandb_records(folder):
    """All records of a folder's offline files: blocks of LevelDB's log format, protocol buffers in them."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for file in sorted(Path(folder).glob("offline-run-*/run-*.wandb")):
        data, at, whole = file.read_bytes(), 7, b""
        assert data[:4] == b":W&B"
        while at + 7 <= len(data):
            if 2**15 - at % 2**15 < 7:
                at += 2**15 - at % 2**15
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
            if kind in (1, 4):  # whole, or its last part
                yield pb.Record.FromString(whole)
                whole = b""


def wandb_history(folder):
    rows = []
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            rows.append({key: json.loads(value) for key, value in items.items() if not key.startswith("_t")})
    return [row for row in rows if "train/mlm_loss" in row]


def test_mlflow_has_every_row_once_and_the_settings(tmp_path):
    pytest.importorskip("mlflow")
    trained_twice(tmp_path / "tiny", "mlflow")
    client, [run] = mlflow_runs((tmp_path / "tiny/mlflow").as_uri())
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert run.data.params == {
        "kind": "pretrain",
        "train.steps": "30",
        "train.lr": "0.0001",
        "train.objective": "mlm",
        "init": "null",
    }
    assert run.data.metrics == LAST
    for name, values in (("train/mlm_loss", [8.0, 7.0, 6.0]), ("eval/shown/mask/mlm_loss", [7.5] * 3)):
        history = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert history == list(zip((10, 20, 30), values, strict=True))


def test_mlflow_writes_where_the_environment_says_and_knows_who_failed(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    with (
        pytest.raises(ValueError, match="stopped"),
        RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["mlflow"]) as run,
    ):
        write(run, [10])
        raise ValueError("stopped")
    assert mlflow_runs((tmp_path / "store").as_uri())[1][0].info.status == "FAILED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "other").as_uri())
    with RunFolder.create(tmp_path / "run", CONFIG, resume=True, boards=["mlflow"]) as run:
        write(run, [10, 20])
    client, [run] = mlflow_runs((tmp_path / "other").as_uri())
    history = client.get_metric_history(run.info.run_id, "eval/mlm_loss")
    assert [metric.step for metric in history] == [10, 20], "another store knows nothing of the run yet"


def test_a_store_that_cannot_be_opened_is_said_at_the_first_row(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at-all")
    with (
        pytest.raises(BertwrightError, match="MLflow does not take this run") as caught,
        RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["mlflow"]) as run,
    ):
        write(run, [10])
    assert caught.value.where == "nowhere://at-all"
    assert "leave out --mlflow" in caught.value.fix
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == 1, "the record has it"


def test_a_row_that_is_not_taken_later_stops_nothing(tmp_path, caplog):
    mlflow = pytest.importorskip("mlflow")
    with RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["mlflow"]) as run:
        write(run, [10])
        run.log({"kind": "train", "step": 20, "a name that // is no name": 1.0})
        write(run, [30])
    assert "MLflow did not take the row of step 20" in caplog.text
    client, [run] = mlflow_runs((tmp_path / "run/mlflow").as_uri())
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/mlm_loss")]
    assert steps == [10, 30], mlflow.__version__


def test_wandb_has_every_row_once_offline_without_a_question(tmp_path):
    pytest.importorskip("wandb")
    trained_twice(tmp_path / "tiny", "wandb")
    rows = wandb_history(tmp_path / "tiny/wandb")
    assert [row["train/mlm_loss"] for row in rows] == [8.0, 7.0, 6.0]
    assert [row["_step"] for row in rows] == [10, 20, 30]
    assert all(row["eval/shown/mask/mlm_loss"] == 7.5 for row in rows), "the rows of a step stand together"
    runs = [each.run for each in wandb_records(tmp_path / "tiny/wandb") if each.WhichOneof("record_type") == "run"]
    assert {(run.display_name, run.project) for run in runs} == {("tiny", "bertwright")}
    assert len({run.run_id for run in runs}) == 1, "one run, in two parts"
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["train"]["lr"] == 1e-4


def test_wandb_online_needs_somebody(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(BertwrightError, match="nobody is logged in"):
        RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["wandb"])
    assert not (tmp_path / "run").exists()


def test_wandb_may_be_disabled_from_outside(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=["wandb"]) as run:
        write(run, [10])
    assert not list((tmp_path / "run/wandb").glob("*run-*"))


@pytest.mark.parametrize(("name", "module", "title"), [("mlflow", "mlflow", "MLflow"), ("wandb", "wandb", "Weights")])
def test_what_is_not_installed_is_said_before_anything_is_written(name, module, title, tmp_path, monkeypatch):
    for each in [each for each in sys.modules if each.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, each)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        BertwrightError, match=rf"{title}.* not installed\n.*pip install bertwright\[{name}\].*--{name}"
    ):
        RunFolder.create(tmp_path / "run", CONFIG, resume=False, boards=[name])
    assert not (tmp_path / "run").exists()


def test_every_board_has_a_dial_and_none_is_on_by_itself():
    from bertwright.config import FinetuneConfig, PretrainConfig

    for kind in (FinetuneConfig, PretrainConfig):
        assert boards_of(kind()) == []
        assert boards_of(kind(**dict.fromkeys(BOARDS, True))) == [*BOARDS]
    assert open_boards([], Path("nowhere"), {}) == []
