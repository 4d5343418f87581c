"""A small model folder, and what it takes to be refused well."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bertwright.config import BertConfig, DataConfig
from bertwright.data.build import build_shards
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.heads import MaskedLMHead, NextSentenceHead
from bertwright.model.weights import load_model, save_model
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

LONGEST_MESSAGE = 1_000


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file of this name and content, and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="session")
def invented_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 50 documents of invented words, some of them far commoner than others; a fifth is held out."""
    home = tmp_path_factory.mktemp("invented")
    rng = random.Random(0)
    words = [f"w{number}" for number in range(60)]
    sentences = [" ".join(rng.choices(words, range(1, 61), k=rng.randint(3, 9))) + "." for _ in range(600)]
    documents = ["\n".join(sentences[start : start + 12]) for start in range(0, 600, 12)]
    (home / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    wordpiece = WordPiece([*SPECIAL_TOKENS, ".", *words], TextRules(lowercase=True))
    config = DataConfig(max_length=32, held_out_prob=0.2)
    build_shards([home / "text.txt"], wordpiece, home / "shards", config, workers=1)
    return home / "shards"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pre-trained model of two layers, width 16, 40 words and 12 positions, in `model.safetensors`."""
    wordpiece = WordPiece([*SPECIAL_TOKENS, *(f"w{number}" for number in range(35))], TextRules(lowercase=True))
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
    )
    model = Bert(config, {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)}, seed=5)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that are not what a fresh model has
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, tmp_path / "model", wordpiece=wordpiece)
    return tmp_path / "model"


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture) -> Callable[..., BertwrightError]:
    """Load what must not load: one short error with these words in it, and no warning or line of log beside it."""

    def check(folder: Path, *words: str, load: Callable[..., object] = load_model) -> BertwrightError:
        with warnings.catch_warnings(record=True) as warned, pytest.raises(BertwrightError) as caught:
            warnings.simplefilter("always")
            load(folder)
        error, text = caught.value, str(caught.value)
        assert [word for word in words if word not in text] == [], text
        assert error.__suppress_context__ or error.__context__ is None
        assert len(text) < LONGEST_MESSAGE
        assert [str(each.message) for each in warned] == []
        assert caplog.text == ""
        return error

    return check
