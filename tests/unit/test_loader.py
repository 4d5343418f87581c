"""From a position to a batch: every example once an epoch, the same batches after any restart."""

import itertools

import numpy as np
import pytest
import torch

from bertwright.config import DataConfig, MaskingConfig
from bertwright.data.build import build_shards
from bertwright.data.course import Course
from bertwright.data.loader import Phase, Phases, PretrainLoader
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import WordPiece

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "a.txt"
    documents = [
        "\n".join(" ".join(rng.choice(WORDS, rng.integers(2, 30))) + "." for _ in range(rng.integers(2, 12)))
        for _ in range(60)
    ]
    path.write_text("\n\n".join(documents) + "\n")
    return path


@pytest.fixture(scope="module")
def wordpiece():
    return WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS], TextRules(lowercase=True))


@pytest.fixture(scope="module")
def shards(corpus, wordpiece, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "pairs"
    build_shards([corpus], wordpiece, out, DataConfig(max_length=64, held_out_prob=0.2))
    return ShardSet.open(out)


@pytest.fixture(scope="module")
def segments(corpus, wordpiece, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "segments"
    build_shards([corpus], wordpiece, out, DataConfig(max_length=64, objective="mlm"))
    return ShardSet.open(out)


def loader(shards, split="train", **options):
    options = {"batch_tokens": 1000, "micro_batch_tokens": 300} | options
    return PretrainLoader(shards.split(split), wordpiece=shards.wordpiece, **options)


def unmasked(batch):
    ids = batch.input_ids.clone()
    ids[batch.targets["masked_rows"]] = batch.targets["masked_labels"]
    return ids


def sequences(batches):
    """Each sequence as (original ids, token types, label)."""
    found = []
    for batch in batches:
        ids, cuts = unmasked(batch), batch.cu_seqlens.tolist()
        labels = batch.targets.get("next_sentence_label", torch.full((batch.num_sequences,), -1)).tolist()
        for start, end, label in zip(cuts, cuts[1:], labels, strict=False):
            found.append((tuple(ids[start:end].tolist()), tuple(batch.token_type_ids[start:end].tolist()), label))
    return found


def expected(shards, split, index):
    raw, wordpiece = shards.split(split).example(index), shards.wordpiece
    ids = [wordpiece.cls_id, *raw.a.tolist(), wordpiece.sep_id, *raw.b.tolist(), wordpiece.sep_id]
    types = [0] * (len(raw.a) + 2) + [1] * (len(raw.b) + 1)
    return tuple(ids), tuple(types), raw.next_sentence_label


def epoch_of(data, position, end):
    found = []
    while position < end:
        step = data.batches_at(position)
        found += sequences(step.micro_batches)
        position = step.next_position
    assert position == end
    return found


def identical(first, second):
    return all(
        torch.equal(a.input_ids, b.input_ids)
        and torch.equal(a.cu_seqlens, b.cu_seqlens)
        and all(torch.equal(a.targets[name], b.targets[name]) for name in a.targets)
        for a, b in zip(first.micro_batches, second.micro_batches, strict=True)
    )


def test_an_epoch_holds_every_example_once(shards):
    data = loader(shards, batch_tokens=1)  # one example a step, so that the epoch ends with a step
    count = len(data.split)
    wanted = sorted(expected(shards, "train", index) for index in range(count))
    first = epoch_of(data, 0, count)
    second = epoch_of(data, count, 2 * count)
    assert sorted(first) == sorted(second) == wanted
    assert first != second


def test_a_batch_is_what_its_names_say(shards):
    data = loader(shards)
    step = data.batches_at(0)
    for batch in step.micro_batches:
        lengths = torch.diff(batch.cu_seqlens)
        assert batch.num_tokens == int(lengths.sum()) == len(batch.input_ids) == len(batch.token_type_ids)
        assert batch.max_length == int(lengths.max())
        assert batch.position_ids.tolist() == [place for length in lengths.tolist() for place in range(length)]
        assert batch.cu_seqlens.dtype == torch.int32
        tensors = [batch.input_ids, batch.token_type_ids, batch.position_ids, *batch.targets.values()]
        assert all(tensor.dtype == torch.int64 for tensor in tensors)
        assert (batch.input_ids[batch.first_rows] == shards.wordpiece.cls_id).all()
        assert batch.targets["next_sentence_label"].shape == (batch.num_sequences,)
        masked = batch.input_ids[batch.targets["masked_rows"]] == shards.wordpiece.mask_id
        assert 0.5 < masked.float().mean() < 1
    assert step.num_tokens == sum(batch.num_tokens for batch in step.micro_batches)
    assert step.num_examples == sum(batch.num_sequences for batch in step.micro_batches) == step.next_position


def test_steps_fill_their_budget_and_no_more(shards):
    data = loader(shards)
    lengths = data.split.lengths()
    position = 0
    for _ in range(10):
        step = data.batches_at(position)
        assert 1000 - lengths.max() < step.num_tokens <= 1000
        assert all(batch.num_tokens <= 300 for batch in step.micro_batches)
        assert len(step.micro_batches) <= 5
        in_order = torch.cat([torch.diff(batch.cu_seqlens) for batch in step.micro_batches])
        assert (torch.diff(in_order) >= 0).all()
        position = step.next_position


def test_an_example_beyond_the_budget_still_comes(shards):
    step = loader(shards, batch_tokens=1, micro_batch_tokens=1).batches_at(0)
    assert step.num_examples == len(step.micro_batches) == 1


def test_a_step_may_cross_epochs_and_even_hold_several(shards):
    data = loader(shards, batch_tokens=20_000, micro_batch_tokens=20_000)
    count = len(data.split)
    total = int(data.split.lengths().sum(dtype=np.int64))
    step = data.batches_at(count - 3)
    assert step.num_examples > (20_000 // total) * count
    found = sequences(step.micro_batches)
    assert len(set(found)) == count
    one_by_one = loader(shards, batch_tokens=1)
    assert sorted(found) == sorted(epoch_of(one_by_one, count - 3, step.next_position))


def test_a_restart_anywhere_sees_the_same_batches(shards):
    straight, position, steps = loader(shards), 0, []
    for _ in range(12):
        steps.append((position, straight.batches_at(position)))
        position = steps[-1][1].next_position
    for position, step in reversed(steps):
        assert identical(loader(shards).batches_at(position), step)


def test_micro_batches_change_nothing_but_the_cuts(shards):
    small, large = (loader(shards, micro_batch_tokens=size).batches_at(40) for size in (200, 5000))
    assert len(large.micro_batches) == 1
    assert len(small.micro_batches) > 4
    whole = large.micro_batches[0]
    assert torch.equal(torch.cat([batch.input_ids for batch in small.micro_batches]), whole.input_ids)
    labels = torch.cat([batch.targets["masked_labels"] for batch in small.micro_batches])
    assert torch.equal(labels, whole.targets["masked_labels"])


def test_seed_and_epoch_change_order_and_masks(shards):
    data, other = loader(shards), loader(shards, seed=1)
    assert sequences(data.batches_at(0).micro_batches) != sequences(other.batches_at(0).micro_batches)
    one = loader(shards, batch_tokens=1)
    count = len(one.split)
    masks = {}
    for position in range(2 * count):
        batch = one.batches_at(position).micro_batches[0]
        rows = tuple(batch.targets["masked_rows"].tolist())
        masks.setdefault(tuple(unmasked(batch).tolist()), []).append(rows)
    assert np.mean([first != second for first, second in masks.values()]) > 0.9


def test_evaluation_is_fixed_for_every_run(shards):
    first, second = (
        list(loader(shards, "held_out", seed=seed, batch_tokens=tokens).eval_batches(600))
        for seed, tokens in ((0, 100), (9, 7000))
    )
    assert 0 < sum(batch.num_tokens for batch in first) <= 600
    assert sequences(first) == sequences(second)
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, second, strict=True))
    wanted = {expected(shards, "held_out", index) for index in range(len(shards.split("held_out")))}
    assert set(sequences(first)) <= wanted
    assert set(sequences(loader(shards, "held_out").eval_batches(10**9))) == wanted


def test_mlm_on_pairs_leaves_the_label_out(shards):
    batch = loader(shards, objective="mlm").batches_at(0).micro_batches[0]
    assert set(batch.targets) == {"masked_rows", "masked_labels"}
    assert batch.token_type_ids.max() == 1


def test_mlm_on_single_segments(segments):
    data = loader(segments, objective="mlm", masking=MaskingConfig(mask_prob=0.3))
    batch = data.batches_at(0).micro_batches[-1]
    assert batch.token_type_ids.max() == 0
    assert (
        batch.input_ids[batch.cu_seqlens[1:].long() - 1].tolist() == [segments.wordpiece.sep_id] * batch.num_sequences
    )
    ordinary = batch.num_tokens - 2 * batch.num_sequences
    assert abs(len(batch.targets["masked_rows"]) - 0.3 * ordinary) <= 0.5 * batch.num_sequences


def test_what_does_not_fit_is_refused(shards, segments, corpus, wordpiece, tmp_path):
    with pytest.raises(BertwrightError, match="single segments") as caught:
        loader(segments, objective="mlm+nsp")
    assert "--objective mlm" in caught.value.fix
    with pytest.raises(BertwrightError, match="reach 64 tokens, the model takes 32"):
        loader(shards, max_length_limit=32)
    build_shards([corpus], wordpiece, tmp_path / "s", DataConfig(held_out_prob=0.0))
    with pytest.raises(BertwrightError, match="no examples for 'held_out'"):
        loader(ShardSet.open(tmp_path / "s"), "held_out")


def test_cropped_examples_keep_what_meets_at_the_junction(shards: ShardSet) -> None:
    split = shards.split("train")
    cropped = split.cropped(16)
    budget = 16 - 3
    for index in range(len(split)):
        whole, short = split.example(index), cropped.example(index)
        assert whole.b is not None
        assert short.b is not None
        assert len(short.a) + len(short.b) == min(budget, len(whole.a) + len(whole.b)) == cropped.lengths()[index] - 3
        assert short.a.tolist() == whole.a[len(whole.a) - len(short.a) :].tolist()
        assert short.b.tolist() == whole.b[: len(short.b)].tolist()
        assert min(len(short.a), len(short.b)) >= min(budget // 2, len(whole.a), len(whole.b))
        assert short.next_sentence_label == whole.next_sentence_label


def test_short_examples_come_first_and_whole_ones_after(shards: ShardSet) -> None:
    split, wordpiece = shards.split("train"), shards.wordpiece
    short, whole = (
        PretrainLoader(part, wordpiece=wordpiece, batch_tokens=64, seed=3) for part in (split.cropped(16), split)
    )
    stream = Phases([Phase("short", short, until=4), Phase("whole", whole, until=12)])
    lengths, positions = [], [0]
    for number in range(12):
        step = stream.batches_at(positions[-1], number)
        lengths.append(max(batch.max_length for batch in step.micro_batches))
        positions.append(step.next_position)
    assert max(lengths[:4]) <= 16 < max(lengths[4:])
    assert positions == sorted(positions), "no example is seen twice"


def test_a_phase_of_other_data_begins_with_its_first_example(shards: ShardSet) -> None:
    one, two = (
        PretrainLoader(shards.split(split), wordpiece=shards.wordpiece, batch_tokens=64, seed=3)
        for split in ("train", "held_out")
    )
    stream = Phases([Phase("whole", one, until=3), Phase("long", two, until=5, from_start=True)])
    position = 0
    for number in range(3):
        found = stream.batches_at(position, number)
        assert identical(found, one.batches_at(position)) or number == 2
        position = found.next_position
    assert position == 0
    for number in (3, 4):
        assert identical(stream.batches_at(position, number), two.batches_at(position))
        position = stream.batches_at(position, number).next_position
    assert stream.at(5) is stream.phases[-1]


def test_static_masks_take_turns(shards: ShardSet) -> None:
    split = shards.split("train")
    whole = int(split.lengths().sum())

    def masks(static_masks: int, epoch: int) -> list[list[int]]:
        data = PretrainLoader(split, wordpiece=shards.wordpiece, batch_tokens=whole, static_masks=static_masks)
        found = {}
        step = data.batches_at(epoch * len(split))
        for batch in step.micro_batches:
            for start, end in itertools.pairwise(batch.cu_seqlens.tolist()):
                rows = [row - start for row in batch.targets["masked_rows"].tolist() if start <= row < end]
                found[tuple(batch.input_ids[start:end].tolist())] = rows
        return sorted(found.values())

    assert masks(2, 0) == masks(2, 2) == masks(2, 4) == masks(0, 0)
    assert masks(2, 1) == masks(2, 3) == masks(0, 1) != masks(0, 0)
    assert masks(0, 2) != masks(0, 0)


# What changes along a run


def test_a_course_changes_shares_and_sizes_and_nothing_else(shards):
    course = Course(steps=101, mask_from=0.4, mask_to=0.1, ramp_steps=50, ramp_start=0.1)
    plain, changing = loader(shards), loader(shards, course=course)
    for step in (0, 10, 25, 49, 50, 100):
        found = changing.batches_at(7, step)
        assert identical(found, changing.batches_at(7, step)), "a function of position and step"
        share = course.batch_share(step)
        alike = loader(
            shards, batch_tokens=round(1000 * share), masking=MaskingConfig(mask_prob=course.mask_prob(step))
        )
        assert identical(found, alike.batches_at(7))
        assert found.next_position == alike.batches_at(7).next_position <= plain.batches_at(7).next_position
    assert changing.batches_at(7, 0).num_tokens < 0.3 * changing.batches_at(7, 50).num_tokens
    asked = [
        sum(len(batch.targets["masked_rows"]) for batch in step.micro_batches) / step.num_tokens
        for step in (changing.batches_at(7, 50), changing.batches_at(7, 100))
    ]
    assert asked[0] > 2 * asked[1]


def test_a_growing_batch_skips_and_repeats_nothing(shards):
    course = Course(steps=40, mask_from=0.15, mask_to=0.15, ramp_steps=30, ramp_start=0.05)
    growing, one = loader(shards, course=course), loader(shards, batch_tokens=1)
    position, found = 0, []
    for step in range(6):
        batch = growing.batches_at(position, step)
        found += sequences(batch.micro_batches)
        position = batch.next_position
    assert position == len(found) > 6
    single = [sequences(one.batches_at(number).micro_batches)[0] for number in range(position)]
    assert sorted(found) == sorted(single)


def test_more_masks_hide_what_fewer_hide_and_more(shards):
    """The words of an example are gone through in one order: falling shares uncover, and never move."""
    course = Course(steps=2, mask_from=0.4, mask_to=0.1, ramp_steps=0, ramp_start=1.0)
    data = loader(shards, course=course)
    for many, few in zip(data.batches_at(0, 0).micro_batches, data.batches_at(0, 1).micro_batches, strict=True):
        assert set(few.targets["masked_rows"].tolist()) < set(many.targets["masked_rows"].tolist())


def test_evaluation_knows_no_course(shards):
    course = Course(steps=2, mask_from=0.9, mask_to=0.8, ramp_steps=2, ramp_start=0.1)
    plain, changing = loader(shards, "held_out"), loader(shards, "held_out", course=course)
    for one, other in zip(plain.eval_batches(2_000), changing.eval_batches(2_000), strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
