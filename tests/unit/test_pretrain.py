"""How pre-training cuts a run into phases."""

import random

import pytest

from bertwright.config import BertConfig, DataConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece
from bertwright.training import pretrain as module

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
SHAPE = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("shards")
    documents = ["\n".join(" ".join(rng.choices(WORDS, k=9)) + " ." for _ in range(30)) for _ in range(20)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    found = {}
    for length in (32, 64):
        config = DataConfig(max_length=length, held_out_prob=0.2)
        build_shards([folder / "corpus.txt"], vocabulary(WORDS), folder / str(length), config)
        found[length] = ShardSet.open(folder / str(length))
    build_shards([folder / "corpus.txt"], vocabulary(WORDS[1:]), folder / "other", DataConfig(max_length=64))
    return found


def vocabulary(words):
    return WordPiece([*SPECIAL_TOKENS, ".", *words], TextRules(lowercase=True))


def phases(shards, *, longer=True, **options):
    config = PretrainConfig(steps=100, batch_tokens=3_200, **options)
    return module._phases(shards[32], shards[64] if longer else None, SHAPE, config).phases


def test_one_phase_is_the_usual_case(shards):
    [phase] = phases(shards, longer=False)
    assert (phase.until, phase.loader.batch_tokens, phase.from_start) == (100, 3_200, False)


def test_the_last_phase_has_as_many_sequences_of_longer_examples(shards):
    first, last = phases(shards)
    assert (first.until, last.until) == (90, 100)
    assert (first.loader.batch_tokens, last.loader.batch_tokens) == (3_200, 6_400)
    assert last.loader.split.config.max_length == 64
    assert last.held_out.split.config.max_length == 64
    assert last.from_start
    assert phases(shards, long_batch_tokens=1_000)[1].loader.batch_tokens == 1_000


def test_cropped_examples_come_before_both(shards):
    short, whole, longer = phases(shards, short_ratio=0.2, short_length=16, long_ratio=0.5, static_masks=3)
    assert [phase.until for phase in (short, whole, longer)] == [20, 50, 100]
    assert short.loader.split.lengths().max() == 16
    assert not whole.from_start, "it goes on where the cropped ones were"
    assert {phase.loader.static_masks for phase in (short, whole, longer)} == {3}


def test_shares_that_exceed_the_run_leave_something_out(shards):
    found = module.Phases(phases(shards, short_ratio=0.9, short_length=16, long_ratio=0.5))
    assert [found.at(step).loader.split.lengths().max() for step in (0, 49, 50, 99)] == [16, 16, 64, 64]


def test_the_last_phase_needs_longer_examples_of_the_same_vocabulary(shards):
    with pytest.raises(BertwrightError, match="they shall be longer"):
        module._longer(shards[32].folder, shards[64])
    with pytest.raises(BertwrightError, match="another vocabulary"):
        module._longer(shards[64].folder.with_name("other"), shards[32])
