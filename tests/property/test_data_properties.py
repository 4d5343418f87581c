"""What holds for the examples of any documents whatever."""

from itertools import accumulate, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.config import DataConfig, MaskingConfig
from bertwright.data.counter import generator
from bertwright.data.loader import _cut
from bertwright.data.masking import MaskVocabulary, mask_tokens
from bertwright.data.pairs import build_examples
from bertwright.data.partition import partition

documents_strategy = st.lists(st.lists(st.integers(1, 80), min_size=1, max_size=12), min_size=2, max_size=12)
rules = st.sampled_from(["google", "paper"])
checked = settings(deadline=None, max_examples=100)


@checked
@given(documents_strategy, rules, st.integers(8, 200), st.floats(0, 0.99), st.integers(0, 1000))
def test_pairs_stay_inside_documents(documents, rule, max_length, short_seq_prob, seed):
    config = DataConfig(max_length=max_length, next_sentence_rule=rule, short_seq_prob=short_seq_prob)
    examples = build_examples(documents, config, generator(seed))
    owner = np.repeat(np.arange(len(documents)), [sum(document) for document in documents])
    boundaries = {0, *accumulate(length for document in documents for length in document)}
    longest = max_length - 3
    for a_start, a_length, b_start, b_length, label in examples.tolist():
        a_end, b_end = a_start + a_length, b_start + b_length
        assert a_length > 0
        assert b_length > 0
        assert a_length + b_length <= longest
        a_owners, b_owners = set(owner[a_start:a_end]), set(owner[b_start:b_end])
        assert len(a_owners) == len(b_owners) == 1
        assert (a_owners != b_owners) == (label == 1)
        if label == 0:
            assert a_end <= b_start
        if a_length + b_length < longest:  # nothing was cut off
            assert {a_start, a_end, b_start, b_end} <= boundaries
            assert label == 1 or a_end == b_start


@checked
@given(documents_strategy, rules, st.integers(8, 200))
def test_examples_are_a_function_of_the_key(documents, rule, max_length):
    config = DataConfig(max_length=max_length, next_sentence_rule=rule)
    first, second = (build_examples(documents, config, generator(1, 2)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@checked
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.01, 0.3, 0.9]),
    st.sampled_from(["mlm", "mlm+nsp"]),
    st.integers(1, 300),
)
def test_partition_keeps_every_document_once_and_in_order(sizes, share, objective, shard_characters):
    texts = [chr(0x4E00 + number) * size for number, size in enumerate(sizes)]
    config = DataConfig(objective=objective, held_out_prob=share)
    works = list(partition(texts, config, shard_characters=shard_characters))
    assert sorted(text for work in works for text in work.texts) == sorted(texts)
    by_split = {split: [work for work in works if work.split == split] for split in ("train", "held_out")}
    for found in by_split.values():
        assert [work.number for work in found] == list(range(len(found)))
    fewest = 2 if objective == "mlm+nsp" else 1
    assert by_split["train"]
    if share == 0.0:
        assert not by_split["held_out"]
    if len(texts) >= fewest:
        assert all(len(work.texts) >= fewest for work in works)
    if share and len(texts) >= 2 * fewest and sum(sizes) < shard_characters:
        assert by_split["held_out"]


@checked
@given(st.lists(st.integers(3, 128), min_size=1, max_size=200), st.integers(1, 2000))
def test_micro_batches_are_few_full_and_within_the_limit(lengths, limit):
    ordered = np.sort(np.array(lengths, dtype=np.uint16))
    cuts = _cut(ordered, limit)
    sums = [int(ordered[i:j].sum()) for i, j in pairwise(cuts)]
    assert cuts[0] == 0
    assert cuts[-1] == len(lengths)
    assert all(i < j for i, j in pairwise(cuts))
    assert all(total <= limit or j - i == 1 for total, i, j in zip(sums, cuts, cuts[1:], strict=False))
    fewest, held = 1, 0
    for length in ordered.tolist():
        if held and held + length > limit:
            fewest, held = fewest + 1, 0
        held += length
    assert len(sums) == fewest


@checked
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
    st.integers(0, 2**63),
    st.floats(0.01, 0.9),
    st.data(),
)
def test_a_mask_depends_on_nothing_but_its_key(sizes, seed, mask_prob, data):
    vocabulary = MaskVocabulary(mask_id=4, maskable=np.arange(100) >= 5, replacements=np.arange(20, 100))
    rng = np.random.default_rng(0)
    sequences = [np.array([2, *rng.integers(5, 100, size), 3]) for size in sizes]
    examples = np.arange(len(sizes)) * 7
    epochs = np.array([data.draw(st.integers(0, 3)) for _ in sizes])

    def mask(members):
        starts = np.cumsum([0, *(len(sequences[member]) for member in members)])
        ids = np.concatenate([sequences[member] for member in members])
        config = MaskingConfig(mask_prob=mask_prob)
        return starts, mask_tokens(
            ids, examples[members], epochs[members], starts, seed=seed, config=config, vocabulary=vocabulary
        )

    shuffled = data.draw(st.permutations(range(len(sizes))))
    starts, together = mask(np.array(shuffled))
    for place, member in enumerate(shuffled):
        _, alone = mask(np.array([member]))
        assert (together.input_ids[starts[place] : starts[place + 1]] == alone.input_ids).all()
        inside = (together.rows >= starts[place]) & (together.rows < starts[place + 1])
        assert (together.rows[inside] - starts[place] == alone.rows).all()
        assert (together.labels[inside] == alone.labels).all()
        assert len(alone.rows) == max(1, round(sizes[member] * mask_prob))
        assert (alone.labels == sequences[member][alone.rows]).all()
        assert vocabulary.maskable[alone.labels].all()
        untouched = np.ones(len(alone.input_ids), dtype=bool)
        untouched[alone.rows] = False
        assert (alone.input_ids[untouched] == sequences[member][untouched]).all()
