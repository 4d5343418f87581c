"""What the processor at hand can do, and the settings that let it: precision, memory allocation, peak.

device = prepare(threads=0)
dtype = compute_dtype("auto", device)
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
import platform
import time
from typing import Literal

import torch

from bertwright.config import Precision
from bertwright.errors import BertwrightError

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_PEAK_SECONDS = 0.2
"""How long the peak is measured."""
_KERNELS_KEPT = "128"
"""How many kernels oneDNN keeps: more than a step has shapes of products. It makes new ones, of megabytes each, for
every number of rows, and in packed batches that is another one in every step."""
_PEAKS = {
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""bf16 products, floating-point operations per second without sparsity, by what NVIDIA calls the device in its data
sheets; of two that fit, the longer name counts."""
_FP32_TOLERANCE = 1e-6
"""Relative error against float64 that still counts as fp32; one bf16 product errs by about 3e-3."""


def prepare(threads: int = 0) -> torch.device:
    """Set the process up for BERT's arithmetic and return the device it runs on.

    On a CPU this keeps freed memory in the process (activations of tens of megabytes are otherwise given back to the
    system and paged in anew at every step, which costs more than the arithmetic on them), keeps few kernels of oneDNN
    where its ONEDNN_PRIMITIVE_CACHE_CAPACITY says nothing else, and sends fp32 products to oneDNN where that is proven
    to stay fp32.

    Args:
        threads: processor threads; 0 leaves torch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        return torch.device("cuda")
    _keep_freed_memory()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS_KEPT)  # read at the first product
    use_onednn_for_fp32()
    return torch.device("cpu")


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype activations have; weights stay fp32.

    Args:
        precision: `auto` takes bf16 where the device multiplies it natively.
        device: where the model runs.
    """
    if precision == "auto":
        on_gpu = device.type == "cuda"
        native = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_multiplies_bf16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def compiles(wanted: Literal["auto", "on", "off"], device: torch.device) -> bool:
    """Tell whether layers are compiled.

    Args:
        wanted: `auto` wants it where it can be.
        device: where the model runs.

    Raises:
        BertwrightError: it is `on`, and cannot be.
    """
    missing = [] if device.type == "cuda" else ["a CUDA device"]
    if not importlib.util.find_spec("triton"):
        missing.append("the package triton")
    if wanted == "on" and missing:
        raise BertwrightError(f"--compile on needs {' and '.join(missing)}", fix="leave it out")
    return wanted != "off" and not missing


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the most floating-point operations per second of matrix products.

    For a GPU in bf16 or fp16 it is the data sheet's figure where it is known, of which no product reaches all;
    elsewhere that of one large product, the best of several.
    """
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        known = known_peak(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    rows, inner, columns = (2048, 768, 3072) if device.type == "cpu" else (8192, 8192, 8192)
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(columns, inner, device=device, dtype=dtype)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < _PEAK_SECONDS or best == float("inf"):
        start = time.perf_counter()
        (a @ b.T).flatten()[0].item()  # .item() waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best


def known_peak(name: str) -> float | None:
    """Return what a GPU's data sheet says of bf16 products, operations per second; None if it is not known here.

    Args:
        name: as the driver says it, such as `NVIDIA H100 80GB HBM3`; a part of a GPU (MIG) has no figure of its own.
    """
    words = name.replace("-", " ").split()
    fitting = [each for each in _PEAKS if set(each.split()) <= set(words)]
    return None if "MIG" in words or not fitting else _PEAKS[max(fitting, key=len)]


def _cpu_multiplies_bf16() -> bool:
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


@functools.cache
def _keep_freed_memory() -> None:
    if platform.system() != "Linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # glibc < 2.35 takes no more
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@functools.cache
def use_onednn_for_fp32() -> None:
    """Route fp32 products to oneDNN, which is about twice as fast as MKL on AMD processors.

    The switch permits bf16 arithmetic. Processors without bf16 tiles do not take the permission; so one product is
    compared with float64, and the switch is undone where it would cost precision.
    """
    backend = torch.backends.mkldnn
    if not backend.is_available() or not hasattr(backend, "matmul"):
        return
    before = backend.matmul.fp32_precision
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    backend.matmul.fp32_precision = "bf16"
    error = ((a @ b).double() - exact).norm() / exact.norm()
    if error > _FP32_TOLERANCE:
        backend.matmul.fp32_precision = before
        log.info("fp32 products stay with the default library: oneDNN would round them to bf16")
