"""Training on one CUDA device; skipped where there is none.

The same run after a stop, bit for bit; compiled layers to rounding; bf16 near fp32; and no waiting inside a step.
"""

from dataclasses import dataclass

import jaxtyping
import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig, PretrainConfig
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.compiling import compile_layers
from bertwright.objectives import OBJECTIVES, MaskedLMAndNextSentence
from bertwright.training import loop
from bertwright.training.checkpoint import RunFolder
from bertwright.training.distributed import ALONE
from bertwright.training.loop import fit
from bertwright.training.optim import BertAdam

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("default"),  # the compiler has advice to give
]

SIZES = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 256}
SPEEDS = ("tokens_per_second", "mfu", "seconds", "data_seconds")


@pytest.fixture(autouse=True)
def _unchecked():
    """Functions as they are outside of tests: the checks of axes are not to be compiled."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@dataclass
class Data:
    micro_batches: list
    next_position: int


class Stream:
    """Two micro-batches a step, of sequences up to 128 tokens, drawn from the position alone."""

    def batches_at(self, position, step=0):
        generator = torch.Generator().manual_seed(position % 160)
        return Data([self.batch(generator) for _ in range(2)], position + 32)

    def batch(self, generator):
        lengths = torch.randint(8, 129, (16,), generator=generator).tolist()
        ids = [torch.randint(5, 200, (length,), generator=generator).tolist() for length in lengths]
        rows = torch.arange(1, sum(lengths), 7)
        targets = {
            "masked_rows": rows,
            "masked_labels": torch.randint(5, 20, rows.shape, generator=generator),
            "next_sentence_label": torch.randint(0, 2, (16,), generator=generator),
        }
        return Batch.pack(ids, [[0] * length for length in lengths], targets)


def model_for(objective, *, dtype, dropout, compiled, causal=False):
    config = BertConfig(
        vocab_size=200,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        is_decoder=causal,
        pool_last=causal,
        **SIZES,
    )
    model = Bert(config, objective.heads(config), seed=0)
    model.compute_dtype = dtype
    if compiled:
        compile_layers(model)
    return model.to("cuda")


class Training:
    """A call of `fit` in a run folder, and what it told."""

    def __init__(self, path, *, steps=8, stop=None, dtype=torch.bfloat16, dropout=0.1, compiled=False, resume=False):
        torch._dynamo.reset()
        objective, self.rows = MaskedLMAndNextSentence(), []
        self.model = model_for(objective, dtype=dtype, dropout=dropout, compiled=compiled)
        config = PretrainConfig(lr=1e-3, bias_correction=True, dropout=dropout, log_every=1, checkpoint_every=2)

        def tell(event):
            if event["kind"] == "train":
                self.rows.append({name: value for name, value in event.items() if name not in ("kind", *SPEEDS)})
            if event == {"kind": "saved", "step": stop}:
                raise KeyboardInterrupt

        with RunFolder.create(path, {"train": {"steps": steps}}, resume=resume) as run:
            fit(self.model, objective, Stream(), config, steps=steps, run=run, evaluate=lambda step: {}, on_event=tell)

    @property
    def weights(self):
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_going_on_is_bit_for_bit(compiled, dtype, tmp_path):
    whole = Training(tmp_path / "whole", dtype=dtype, compiled=compiled)
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path / "parts", dtype=dtype, compiled=compiled, stop=4)
    parts = Training(tmp_path / "parts", dtype=dtype, compiled=compiled, resume=True)
    assert parts.rows == whole.rows[4:]
    assert all(torch.equal(parts.weights[name], weight) for name, weight in whole.weights.items())


def test_compiled_layers_train_as_plain_ones(tmp_path):
    plain = Training(tmp_path / "plain", dropout=0.0)
    compiled = Training(tmp_path / "compiled", dropout=0.0, compiled=True)
    for one, other in zip(compiled.rows, plain.rows, strict=True):
        assert one == pytest.approx(other, rel=2e-2)
    in_fp32 = [
        Training(tmp_path / name, dropout=0.0, dtype=torch.float32, compiled=name == "compiled32")
        for name in ("plain32", "compiled32")
    ]
    for one, other in zip(*(training.rows for training in in_fp32), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_compiled_dropout_repeats_with_its_seed(tmp_path):
    first, again = (Training(tmp_path / name, compiled=True) for name in ("first", "again"))
    assert first.rows == again.rows
    assert first.rows != Training(tmp_path / "none", compiled=True, dropout=0.0).rows


def test_bf16_learns_what_fp32_learns(tmp_path):
    single, half = (
        Training(tmp_path / str(dtype), steps=40, dropout=0.0, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    for one, other in zip(half.rows, single.rows, strict=True):
        assert one["mlm_loss"] == pytest.approx(other["mlm_loss"], rel=3e-2)
    assert half.rows[-1]["mlm_loss"] < 0.8 * half.rows[0]["mlm_loss"]


@pytest.fixture
def no_waiting():
    """Whatever makes the processor wait for the device is an error, from the call on until the test ends."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_in_a_step_waits(name, compiled, no_waiting):
    """But for one look at the gradient's norm, which decides whether the step is taken."""
    torch._dynamo.reset()
    objective, config = OBJECTIVES[name](), PretrainConfig()
    model = model_for(objective, dtype=torch.bfloat16, dropout=0.1, compiled=compiled, causal="ltr" in name)
    optimizer, meter = BertAdam(model, config), loop._Meter(model.config, 1e12)

    def step(number):
        batches = Stream().batches_at(0).micro_batches
        loop._accumulate_gradients(model, objective, batches, 0, number, meter, ALONE)
        norm = optimizer.gradient_norm()
        optimizer.step(number, 1e-4, norm)
        optimizer.zero_grad()
        return norm

    step(0)  # what is set up once may wait
    torch.cuda.synchronize()
    no_waiting()
    norms = [step(number) for number in (1, 2)]
    torch.cuda.set_sync_debug_mode("default")
    assert all(float(norm) > 0 for norm in norms)
    assert meter.row(ALONE)["tokens_per_second"] > 0


def test_rows_that_two_heads_read_may_be_there_twice():
    objective = MaskedLMAndNextSentence()
    model = model_for(objective, dtype=torch.float32, dropout=0.0, compiled=False).eval()
    batch = Stream().batches_at(0).micro_batches[0]
    rows = torch.cat([batch.first_rows, batch.targets["masked_rows"]]).unique()
    batch.targets["masked_rows"], batch.targets["masked_labels"] = rows, torch.full_like(rows, 7)
    with torch.no_grad():
        found = model(batch.to("cuda"))
        expected = model.cpu()(batch)
    for head, logits in expected.items():
        torch.testing.assert_close(found[head].cpu(), logits, rtol=1e-3, atol=1e-4)


def test_the_peak_is_the_data_sheets_or_measured():
    device = torch.device("cuda")
    known = machine.known_peak(torch.cuda.get_device_name())
    machine.peak_flops.cache_clear()
    found = machine.peak_flops(device, torch.bfloat16)
    assert found == known if known else found > 1e12
    assert 1e11 < machine.peak_flops(device, torch.float32) < 1e15
