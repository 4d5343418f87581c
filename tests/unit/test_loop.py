"""The training loop: what it logs, when it saves, how it stops, and that going on is bit for bit."""

import errno
import json
import math
import os
import signal
import threading
from dataclasses import dataclass

import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig, PretrainConfig
from bertwright.errors import BertwrightError, DiskFullError
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.objectives import MaskedLM, MaskedLMAndNextSentence
from bertwright.training import checkpoint
from bertwright.training.checkpoint import RunFolder
from bertwright.training.loop import TrainingInterrupted, evaluate_means, fit, num_parameters

SHAPE = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=12,
)
SPEEDS = ("tokens_per_second", "mfu", "seconds", "data_seconds")


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch):
    monkeypatch.setattr(machine, "peak_flops", lambda device, dtype: 1e12)


@dataclass
class Data:
    """Four sequences a step in two micro-batches, drawn from the position alone."""

    micro_batches: list
    next_position: int


class Stream:
    def batches_at(self, position, step=0):
        generator = torch.Generator().manual_seed(position)
        micro_batches = []
        for _ in range(2):
            lengths = torch.randint(3, 13, (2,), generator=generator).tolist()
            ids = [torch.randint(0, 40, (length,), generator=generator).tolist() for length in lengths]
            targets = {
                "masked_rows": torch.tensor([1, lengths[0] + 1, lengths[0] + 2]),
                "masked_labels": torch.randint(0, 40, (3,), generator=generator),
                "next_sentence_label": torch.randint(0, 2, (2,), generator=generator),
            }
            micro_batches.append(Batch.pack(ids, [[0] * len(each) for each in ids], targets))
        return Data(micro_batches, position + 4)


class Training:
    """One call of `fit` in a run folder, and what it told."""

    def __init__(
        self, path, config, *, steps, resume=False, dtype=torch.float32, prepare=None, on_event=None, scores=None
    ):
        self.objective = MaskedLMAndNextSentence()
        self.model = Bert(SHAPE, self.objective.heads(SHAPE), seed=config.seed)
        self.model.compute_dtype = dtype
        if prepare is not None:
            prepare(self.model)
        self.events, self.evaluated = [], []

        def tell(event):
            self.events.append(event)
            if on_event is not None:
                on_event(event)

        def evaluate(step):
            self.evaluated.append(step)
            return {"mlm_loss": 1.0} if scores is None else scores

        with RunFolder.create(path, {"train": {"steps": steps}}, resume=resume) as run:
            fit(self.model, self.objective, Stream(), config, steps=steps, run=run, evaluate=evaluate, on_event=tell)

    @property
    def weights(self):
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}


def config(**values):
    return PretrainConfig(**{"lr": 1e-3, "log_every": 4, "eval_every": 0, "checkpoint_every": 3} | values)


def rows(path):
    read = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in SPEEDS} for row in read]


def checkpoints(path):
    return [int(folder.name[5:]) for folder in sorted((path / "checkpoints").iterdir())]


def send(number, *, at):
    """An `on_event` that signals this process once, when a row of that step is told."""
    sent = []

    def on_event(event):
        if event.get("step") == at and event["kind"] == "train" and not sent:
            sent.append(at)
            os.kill(os.getpid(), number)

    return on_event


# What is told and saved


def test_rows_checkpoints_and_evaluations_come_when_they_should(tmp_path):
    training = Training(tmp_path, config(eval_every=5, keep_checkpoints=2), steps=11)
    told = [(event["kind"], event["step"]) for event in training.events]
    assert told == [
        ("start", 0), ("saved", 3), ("train", 4), ("eval", 5), ("saved", 6), ("train", 8), ("saved", 9), ("eval", 10),
        ("train", 11), ("eval", 11), ("saved", 11),
    ]  # fmt: skip
    assert training.evaluated == [5, 10, 11]
    assert checkpoints(tmp_path) == [9, 11]
    start = training.events[0]
    assert start["steps"] == 11
    assert start["parameters"] == num_parameters(training.model) == sum(p.numel() for p in training.model.parameters())


def test_a_row_holds_means_since_the_last_and_the_speed(tmp_path):
    training = Training(tmp_path, config(log_every=2), steps=4)
    row = training.events[1]
    assert [*row] == [
        "kind", "step", "lr", "grad_norm", "mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "tokens_per_second",
        "mfu", "seconds", "data_seconds",
    ]  # fmt: skip
    assert row["lr"] == pytest.approx(1e-3 * 3 / 4)
    assert 0 <= row["mlm_accuracy"] <= 1
    assert row["mlm_loss"] == pytest.approx(math.log(40), abs=0.3)
    assert row["nsp_loss"] == pytest.approx(math.log(2), abs=0.3)
    assert row["tokens_per_second"] > 0
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        event for event in training.events if event["kind"] in ("train", "eval")
    ]


def test_nought_means_at_the_end_alone(tmp_path):
    training = Training(tmp_path, config(eval_every=0, checkpoint_every=0), steps=5)
    assert training.evaluated == [5]
    assert checkpoints(tmp_path) == [5]


def test_means_over_batches_are_means_over_what_is_counted():
    objective = MaskedLM()
    model = Bert(SHAPE, objective.heads(SHAPE))
    batches = [batch for position in (0, 4, 8) for batch in Stream().batches_at(position).micro_batches][:-1]
    found = evaluate_means(model, objective, batches)
    model.eval()
    outputs = [objective(model, batch) for batch in batches]
    for name, terms in (("mlm_loss", "losses"), ("mlm_accuracy", "metrics")):
        parts = [getattr(output, terms)[name] for output in outputs]
        expected = sum(float(part.total.detach()) for part in parts) / sum(part.count for part in parts)
        assert found[name] == pytest.approx(expected, abs=1e-6)


def test_training_lowers_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Stream, "batches_at", lambda self, position, step, real=Stream.batches_at: real(self, position % 8)
    )
    training = Training(tmp_path, config(lr=1e-2, bias_correction=True, dropout=0.0), steps=40)
    losses = [event["mlm_loss"] for event in training.events if event["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]


# Stopping and going on


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("number", "at"), [(signal.SIGINT, 6), (signal.SIGTERM, 10)])
def test_a_signal_stops_after_the_step_and_resuming_is_bit_for_bit(tmp_path, number, at, dtype):
    whole = Training(tmp_path / "whole", config(log_every=2), steps=14, dtype=dtype)
    before = signal.getsignal(number)
    with pytest.raises(
        TrainingInterrupted, match=rf"stopped at step {at} and saved\n  → the same command with"
    ) as caught:
        Training(tmp_path / "parts", config(log_every=2), steps=14, dtype=dtype, on_event=send(number, at=at))
    assert caught.value.signal == number
    assert signal.getsignal(number) is before
    assert checkpoints(tmp_path / "parts")[-1] == at
    parts = Training(tmp_path / "parts", config(log_every=2), steps=14, dtype=dtype, resume=True)
    assert parts.events[0]["step"] == at
    assert all(torch.equal(parts.weights[name], weight) for name, weight in whole.weights.items())
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


@pytest.mark.parametrize("kills", [[1], [2, 5, 5, 11], [13]])
def test_after_kills_anywhere_the_run_is_the_same(tmp_path, kills):
    """Between two checkpoints and between two rows, several times, at the same step twice."""
    settings = config(log_every=1, checkpoint_every=4, eval_every=3)
    whole = Training(tmp_path / "whole", settings, steps=14)
    for at in kills:

        def kill(event, at=at):
            if event["kind"] == "train" and event["step"] == at:
                raise Killed

        with pytest.raises(Killed):
            Training(tmp_path / "parts", settings, steps=14, resume=True, on_event=kill)
    parts = Training(tmp_path / "parts", settings, steps=14, resume=True)
    assert all(torch.equal(parts.weights[name], weight) for name, weight in whole.weights.items())
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    for name in ("state.safetensors", "state.json"):
        ours, theirs = (tmp_path / part / "checkpoints/step-00000014" / name for part in ("parts", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_means_survive_a_stop_between_two_rows(tmp_path):
    settings = config(log_every=7, checkpoint_every=2)
    Training(tmp_path / "whole", settings, steps=14)

    def kill(event):
        if event == {"kind": "saved", "step": 4}:
            raise Killed

    with pytest.raises(Killed):
        Training(tmp_path / "parts", settings, steps=14, on_event=kill)
    Training(tmp_path / "parts", settings, steps=14, resume=True)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_disk_that_fills_while_saving_costs_nothing_but_the_steps_since(tmp_path, monkeypatch):
    whole = Training(tmp_path / "whole", config(), steps=8)
    saves = []

    def full_at_the_second(tensors, path, real=checkpoint.save_file):
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full_at_the_second)
    with pytest.raises(DiskFullError, match="what was saved before is intact"):
        Training(tmp_path / "parts", config(), steps=8)
    assert checkpoints(tmp_path / "parts") == [3]
    parts = Training(tmp_path / "parts", config(), steps=8, resume=True)
    assert parts.events[0]["step"] == 3
    assert all(torch.equal(parts.weights[name], weight) for name, weight in whole.weights.items())
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize("aside", [False, True])
def test_training_may_go_on_without_a_checkpoint(aside, tmp_path, monkeypatch, caplog):
    whole, saves = Training(tmp_path / "whole", config(), steps=8), []

    def full_at_the_first(tensors, path, real=checkpoint.save_file):
        saves.append(path)
        if len(saves) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full_at_the_first)
    settings = config(on_save_error="continue", async_checkpoints=aside)
    found = Training(tmp_path / "parts", settings, steps=8)
    assert "the checkpoint of step 3 was not saved" in caplog.text
    assert checkpoints(tmp_path / "parts") == [6, 8]
    assert [event["step"] for event in found.events if event["kind"] == "saved"] == [6, 8]
    assert all(torch.equal(found.weights[name], weight) for name, weight in whole.weights.items())


@pytest.mark.parametrize("aside", [False, True])
def test_the_last_checkpoint_is_needed(aside, tmp_path, monkeypatch):
    def full_at_the_third(tensors, path, real=checkpoint.save_file):
        if "00000008" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full_at_the_third)
    with pytest.raises(DiskFullError):
        Training(tmp_path, config(on_save_error="continue", async_checkpoints=aside), steps=8)
    assert checkpoints(tmp_path) == [3, 6]


def test_what_is_written_aside_is_what_was(tmp_path, monkeypatch):
    """The weights go on changing while a slow disk takes them in."""
    whole, started = Training(tmp_path / "whole", config(keep_checkpoints=9), steps=8), threading.Event()

    def slow(tensors, path, real=checkpoint.save_file):
        started.wait(20 if "00000003" in str(path) else 0)
        real(tensors, path)

    def tell(event):
        if (event["kind"], event.get("step")) == ("train", 4):
            started.set()  # a step later than what is being written

    monkeypatch.setattr(checkpoint, "save_file", slow)
    found = Training(tmp_path / "parts", config(async_checkpoints=True, keep_checkpoints=9), steps=8, on_event=tell)
    assert started.is_set()
    assert all(torch.equal(found.weights[name], weight) for name, weight in whole.weights.items())
    for step in (3, 6):
        manifests = [tmp_path / run / f"checkpoints/step-{step:08d}/manifest.json" for run in ("parts", "whole")]
        assert manifests[0].read_text() == manifests[1].read_text()


def test_a_damaged_checkpoint_costs_nothing_but_the_steps_since(tmp_path):
    whole = Training(tmp_path / "whole", config(), steps=8)
    Training(tmp_path / "parts", config(), steps=8)
    (tmp_path / "parts/checkpoints/step-00000008/state.safetensors").write_bytes(b"")
    parts = Training(tmp_path / "parts", config(), steps=8, resume=True)
    assert parts.events[0]["step"] == 6
    assert all(torch.equal(parts.weights[name], weight) for name, weight in whole.weights.items())
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    whole = Training(tmp_path, config(), steps=4)
    before = rows(tmp_path)
    again = Training(tmp_path, config(), steps=4, resume=True)
    assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())
    assert rows(tmp_path) == before


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_at_once(tmp_path, interruptible):
    """While the first waits for the step to end, Ctrl-C again means now."""

    def twice(event):
        if event["kind"] == "train":
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
                sum(range(1000))  # until it has arrived

    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path, config(log_every=1), steps=5, on_event=twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not (tmp_path / "checkpoints").exists()


def test_in_another_thread_signals_are_left_alone(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(Training(tmp_path, config(), steps=2)))
    thread.start()
    thread.join()
    assert done[0].events[-1] == {"kind": "saved", "step": 2}


def test_dropout_differs_between_steps_and_micro_batches_and_follows_the_seed(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        training = Training(tmp_path / name, config(seed=seed), steps=3, prepare=lambda model: model.initialise(0))
        weights.append(training.weights["embeddings.word.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# Numbers that are none


def test_a_poisoned_weight_is_told_with_step_and_examples(tmp_path):
    def poison(model):
        with torch.no_grad():
            model.layers[0].up.weight[3, 3] = float("nan")

    message = r"a gradient of step 1 is not finite \(examples 0 to 3 of the stream\): the step was not taken"
    with pytest.raises(BertwrightError, match=message) as caught:
        Training(tmp_path, config(), steps=5, prepare=poison)
    assert caught.value.where == str(tmp_path)
    assert "lower --lr" in caught.value.fix
    assert not (tmp_path / "checkpoints").exists()


def test_too_high_a_rate_ends_in_a_message_and_earlier_checkpoints_stay(tmp_path):
    with pytest.raises(BertwrightError, match=r"a gradient of step 2 is not finite \(examples 4 to 7 of the stream\)"):
        Training(tmp_path, config(lr=1e30, warmup_ratio=0.0, checkpoint_every=1), steps=5)
    assert checkpoints(tmp_path) == [1]
    with RunFolder.create(tmp_path, {"train": {"steps": 5}}, resume=True) as run:
        assert run.load_newest().step == 1


def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    """The numbers go wrong at the sixth step; what is there is the fifth."""
    training = []

    def poison(event):
        if event["kind"] == "train" and event["step"] == 5:
            with torch.no_grad():
                training[0].pooler.dense.bias[0] = float("nan")

    with pytest.raises(BertwrightError, match=r"a gradient of step 6 is not finite"):
        Training(tmp_path, config(log_every=1), steps=9, prepare=training.append, on_event=poison)
    assert checkpoints(tmp_path) == [3]
    assert rows(tmp_path)[-1]["step"] == 5


def test_an_evaluation_that_is_not_finite_is_no_result(tmp_path):
    message = "mlm_loss of the evaluation at step 3 is not finite; earlier checkpoints are intact"
    with pytest.raises(BertwrightError, match=message):
        Training(tmp_path, config(eval_every=3), steps=9, scores={"mlm_accuracy": 0.5, "mlm_loss": float("nan")})
    assert not (tmp_path / "checkpoints").exists()
