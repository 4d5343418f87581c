"""Examples from documents, against a plain twin that really moves tokens about, and against the paper's odds."""

from itertools import chain

import numpy as np
import pytest
from scipy.stats import binomtest

from bertwright.config import DataConfig
from bertwright.data.counter import generator
from bertwright.data.pairs import _truncate, build_examples

LIKELY = 1e-4  # draws are seeded, so a test that passes once always does; this bounds how lucky it may have been


def random_documents(seed, *, count, sentences, longest):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, longest + 1, rng.integers(1, sentences + 1)).tolist() for _ in range(count)]


def plain_pairs(documents, config, rng):
    """The released algorithm as one reads it aloud, sentence by sentence; tokens are (document, sentence, place)."""
    draws = iter(rng.random(1_000_000).tolist())

    def below(limit):
        return int(next(draws) * limit)

    texts = [
        [[(d, s, place) for place in range(length)] for s, length in enumerate(document)]
        for d, document in enumerate(documents)
    ]
    longest = config.max_length - 3
    for number, text in enumerate(texts):
        chunk, i = [], 0
        while i < len(text):
            if not chunk:
                target = 2 + below(longest - 1) if next(draws) < config.short_seq_prob else longest
            chunk.append(text[i])
            if i == len(text) - 1 or sum(map(len, chunk)) >= target:
                a_end = 1 + below(len(chunk) - 1)
                a = list(chain.from_iterable(chunk[:a_end]))
                is_random = len(chunk) == 1 or next(draws) < 0.5
                if is_random:
                    other = below(len(texts) - 1)
                    other += other >= number
                    b, start = [], below(len(texts[other]))
                    for sentence in texts[other][start:]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end
                else:
                    b = list(chain.from_iterable(chunk[a_end:]))
                yield a, b, is_random
                chunk = []
            i += 1


def popped(a_length, b_length, longest):
    while a_length + b_length > longest:
        if a_length > b_length:
            a_length -= 1
        else:
            b_length -= 1
    return a_length, b_length


@pytest.mark.parametrize("longest_sentence", [5, 40, 200])
def test_the_google_rule_is_its_plain_twin(longest_sentence):
    documents = random_documents(1, count=40, sentences=12, longest=longest_sentence)
    config = DataConfig(max_length=64)
    examples = build_examples(documents, config, generator(7))
    flat = [(d, s, p) for d, document in enumerate(documents) for s, n in enumerate(document) for p in range(n)]
    twin = list(plain_pairs(documents, config, generator(7)))
    assert len(examples) == len(twin)
    for example, (a, b, is_random) in zip(examples, twin, strict=True):
        a_start, a_length, b_start, b_length, label = example.item()
        assert (a_length, b_length) == popped(len(a), len(b), config.max_length - 3)
        assert label == is_random
        for start, length, whole in ((a_start, a_length, a), (b_start, b_length, b)):
            kept = flat[start : start + length]
            assert any(whole[i : i + length] == kept for i in range(len(whole) - length + 1))


def test_truncation_takes_from_front_and_back_alike():
    table = np.tile([0, 500, 1000, 1400, 0], (400, 1))
    examples = _truncate(table, 125, generator(3))
    assert (examples["a_length"] == 63).all()
    assert (examples["b_length"] == 62).all()
    from_front = int(examples["a_start"].sum()) + int((examples["b_start"] - 1000).sum())
    lost = 400 * (437 + 338)
    assert binomtest(from_front, lost, 0.5).pvalue > LIKELY


def test_lengths_after_truncation_are_those_of_popping():
    lengths = [(a, b) for a in range(1, 30) for b in range(1, 30)]
    table = np.array([(0, a, 100, 100 + b, 0) for a, b in lengths])
    for longest in (5, 16, 21):
        examples = _truncate(table, longest, generator(0))
        expected = [popped(a, b, longest) for a, b in lengths]
        assert list(zip(examples["a_length"].tolist(), examples["b_length"].tolist(), strict=True)) == expected


@pytest.mark.parametrize("sentences", [2, 3, 20])
@pytest.mark.parametrize("longest", [3, 30, 300])
def test_the_paper_rule_gives_even_odds(sentences, longest):
    documents = random_documents(2, count=600, sentences=sentences, longest=longest)
    examples = build_examples(documents, DataConfig(next_sentence_rule="paper"), generator(5))
    assert binomtest(int(examples["next_sentence_label"].sum()), len(examples), 0.5).pvalue > LIKELY


def test_the_google_rule_gives_lone_sentences_a_random_follower():
    documents = [[10]] * 50 + [[200, 200]] * 50
    examples = build_examples(documents, DataConfig(short_seq_prob=0.0), generator(0))
    assert (examples["next_sentence_label"] == 1).all()


def test_the_google_rule_is_uneven_on_short_documents():
    examples = build_examples(
        random_documents(4, count=2000, sentences=8, longest=40), DataConfig(max_length=128), generator(0)
    )
    assert 0.6 < examples["next_sentence_label"].mean() < 0.75


def test_under_the_paper_rule_a_document_of_one_sentence_is_only_a_random_segment():
    documents = [[6]] * 20 + [[6, 6]] * 20
    examples = build_examples(documents, DataConfig(next_sentence_rule="paper", max_length=64), generator(1))
    assert (examples["a_start"] >= 20 * 6).all()
    assert (examples["b_start"][examples["next_sentence_label"] == 1] < 20 * 6).any()


def test_under_the_paper_rule_no_sentence_is_left_out():
    documents = random_documents(8, count=100, sentences=9, longest=50)
    documents = [document for document in documents if len(document) > 1]
    config = DataConfig(next_sentence_rule="paper", max_length=2000, short_seq_prob=0.5)
    examples = build_examples(documents, config, generator(1))
    seen = np.zeros(sum(map(sum, documents)), dtype=bool)
    for a_start, a_length, b_start, b_length, label in examples.tolist():
        seen[a_start : a_start + a_length] = True
        if label == 0:
            seen[b_start : b_start + b_length] = True
    assert seen.all()


def test_a_tenth_of_the_single_segments_is_shorter():
    documents = [[1] * 4000] * 40
    config = DataConfig(objective="mlm", max_length=34, held_out_prob=0.0)
    lengths = build_examples(documents, config, generator(2))["a_length"]
    inner = lengths[np.cumsum(lengths.astype(int)) % 4000 != 0]  # not the last of a document
    # A short target is uniform over 2..32, so one in 31 of them is no shorter.
    assert binomtest(int((inner < 32).sum()), len(inner), 0.1 * 30 / 31).pvalue > LIKELY
    short = inner[inner < 32]
    assert short.min() == 2
    assert abs(short.mean() - 16.5) < 4 * 8.7 / np.sqrt(len(short))


def test_single_segments_lose_no_token_and_cut_only_sentences_that_are_too_long():
    documents = random_documents(3, count=50, sentences=10, longest=90)
    config = DataConfig(objective="mlm", max_length=50, short_seq_prob=0.0)
    examples = build_examples(documents, config, generator(0))
    ends = examples["a_start"] + examples["a_length"]
    assert examples["a_start"][0] == 0
    assert (examples["a_start"][1:] == ends[:-1]).all()
    assert ends[-1] == sum(map(sum, documents))
    boundaries = set(np.cumsum(np.concatenate(documents)).tolist())
    inside = [example for example, end in zip(examples, ends.tolist(), strict=True) if end not in boundaries]
    assert all(example["a_length"] == 48 for example in inside)


def test_one_document_has_no_pairs():
    assert len(build_examples([[5, 6, 7]], DataConfig(), generator(0))) == 0
    assert len(build_examples([], DataConfig(), generator(0))) == 0
    assert len(build_examples([[5, 6, 7]], DataConfig(objective="mlm"), generator(0))) == 1
