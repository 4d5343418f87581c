"""How pre-training cuts a run into phases."""

import dataclasses
import random

import pytest

from bertwright.config import BertConfig, DataConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
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


# What changes along a run


def masked_share(batches):
    return sum(len(batch.targets["masked_rows"]) for batch in batches) / sum(batch.num_tokens for batch in batches)


def test_all_phases_follow_one_course(shards):
    config = PretrainConfig(
        steps=100, batch_tokens=3_200, short_ratio=0.2, short_length=16, long_ratio=0.5, batch_ramp_ratio=0.3,
        batch_ramp_start=0.25, mask_prob=0.5, mask_prob_end=0.1,
    )  # fmt: skip
    run = module._phases(shards[32], shards[64], SHAPE, config)
    tokens = {step: run.batches_at(0, step).num_tokens for step in (0, 15, 25, 30, 49, 50, 99)}
    assert tokens[0] < tokens[15] < tokens[25] < tokens[30] <= 3_200 < tokens[50] <= 6_400
    assert tokens[30] == pytest.approx(tokens[49], rel=0.02)
    assert tokens[0] == pytest.approx(0.25 * 3_200, rel=0.05)
    shares = [masked_share(run.batches_at(0, step).micro_batches) for step in (25, 49, 99)]
    assert shares[0] > shares[1] > 2 * shares[2]


@pytest.mark.parametrize("options", [{}, {"mask_prob": 0.4}, {"mask_prob": 0.3, "mask_prob_end": 0.15}])
def test_held_out_examples_are_masked_alike_in_every_run(shards, options):
    plain, other = (phases(shards, longer=False, **each)[0].held_out for each in ({}, options))
    for one, two in zip(plain.eval_batches(2_000), other.eval_batches(2_000), strict=True):
        assert one.input_ids.tolist() == two.input_ids.tolist()
    asked = phases(shards, longer=False, eval_mask_prob=0.5, **options)[0].held_out.eval_batches(2_000)
    assert masked_share(asked) > 2 * masked_share(plain.eval_batches(2_000))


def test_weights_of_another_kind_of_layer_keep_it(shards, tmp_path):
    config = PretrainConfig(steps=1)
    shape = dataclasses.replace(SHAPE, vocab_size=shards[32].wordpiece.vocab_size)
    Bert(shape).save_pretrained(tmp_path / "plain", shards[32].wordpiece)
    Bert(dataclasses.replace(shape, norm_first=True)).save_pretrained(tmp_path / "modern", shards[32].wordpiece)
    heard = []
    for name, recipe in (("plain", True), ("modern", False), ("modern", True)):
        wanted = dataclasses.replace(SHAPE, norm_first=recipe)
        found = module._shape_of(tmp_path / name, wanted, shards[32], config, heard.append)
        assert found.norm_first == (name == "modern")
    assert ["normalised first" in each["text"] for each in heard] == [False, True]
