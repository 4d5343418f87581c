"""What the processor can do is found out, never assumed."""

import os

import pytest
import torch

from bertwright.errors import BertwrightError
from bertwright.model import machine

CPU = torch.device("cpu")


@pytest.fixture
def fp32_switch():
    """The switch for fp32 products, put back afterwards."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield torch.backends.mkldnn.matmul
    torch.backends.mkldnn.matmul.fp32_precision = before


def product_error():
    a, b = torch.randn(200, 300), torch.randn(300, 100)
    exact = a.double() @ b.double()
    return float(((a @ b).double() - exact).norm() / exact.norm())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device comes first")
def test_preparing_leaves_fp32_exact_and_sets_the_threads(fp32_switch):
    assert machine.prepare(threads=1) == CPU
    assert torch.get_num_threads() == 1
    machine.use_onednn_for_fp32.__wrapped__()
    assert product_error() < 1e-6


@pytest.mark.parametrize("given", [None, "500"])
def test_few_kernels_are_kept_unless_the_user_says_how_many(given, fp32_switch, monkeypatch):
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    machine.prepare()
    assert os.environ[name] == (given or "128")


def test_the_switch_is_undone_where_it_would_round(fp32_switch, monkeypatch):
    before = fp32_switch.fp32_precision
    monkeypatch.setattr(machine, "_FP32_TOLERANCE", 0.0)  # as if this processor multiplied in bf16
    machine.use_onednn_for_fp32.__wrapped__()
    assert fp32_switch.fp32_precision == before


@pytest.mark.parametrize(
    ("precision", "native", "dtype"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_the_compute_dtype(precision, native, dtype, monkeypatch):
    monkeypatch.setattr(machine, "_cpu_multiplies_bf16", lambda: native)
    assert machine.compute_dtype(precision, CPU) == dtype


def test_a_processor_of_which_torch_says_nothing_computes_in_fp32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert machine.compute_dtype("auto", CPU) == torch.float32


def test_the_peak_is_measured_once(monkeypatch):
    shapes = []

    def small(*shape, **options):
        shapes.append(shape)
        return torch.zeros(2, 3, **options)

    monkeypatch.setattr(torch, "randn", small)
    machine.peak_flops.cache_clear()
    assert machine.peak_flops(CPU, torch.float32) == machine.peak_flops(CPU, torch.float32) > 0
    assert len(shapes) == 2, "one product, measured once"
    machine.peak_flops.cache_clear()


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA L400", None),
        ("Tesla T4", None),
    ],
)
def test_the_peak_of_a_gpu_is_its_data_sheets(name, peak):
    assert machine.known_peak(name) == peak


def test_a_cpu_compiles_nothing():
    assert not machine.compiles("auto", CPU)
    assert not machine.compiles("off", CPU)
    with pytest.raises(BertwrightError, match="--compile on needs a CUDA device"):
        machine.compiles("on", CPU)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"), [("auto", True, True), ("auto", False, False), ("off", True, False)]
)
def test_a_gpu_compiles_where_triton_is_there(wanted, found, expected, monkeypatch):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object() if found else None)
    assert machine.compiles(wanted, torch.device("cuda")) == expected


def test_a_gpu_without_triton_says_so(monkeypatch):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BertwrightError, match="--compile on needs the package triton"):
        machine.compiles("on", torch.device("cuda"))
