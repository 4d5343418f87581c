"""Masks: the counter-based passes against a plain loop, the paper's shares, and what is never touched."""

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from bertwright.config import MaskingConfig
from bertwright.data.counter import below, hashed, uniform
from bertwright.data.masking import MaskVocabulary, mask_tokens
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import WordPiece

LIKELY = 1e-4
TOKENS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(193))]


@pytest.fixture(scope="module")
def vocabulary():
    return MaskVocabulary.of(WordPiece(TOKENS, TextRules(lowercase=True)))


def sequences(lengths, seed=0):
    rng = np.random.default_rng(seed)
    ids = [np.array([4, *rng.integers(7, 200, length), 5]) for length in lengths]
    return np.concatenate(ids), np.cumsum([0, *(len(sequence) for sequence in ids)])


def mask(ids, starts, vocabulary, *, examples=None, epoch=0, seed=0, **shares):
    count = len(starts) - 1
    examples = np.arange(count) if examples is None else examples
    epochs = np.full(count, epoch)
    return mask_tokens(ids, examples, epochs, starts, seed=seed, config=MaskingConfig(**shares), vocabulary=vocabulary)


def plain_mask(ids, example, epoch, seed, vocabulary):
    """One sequence, one token at a time."""
    config = MaskingConfig()
    key = hashed(seed, np.array([epoch]), np.array([example]))
    places = [place for place in range(len(ids)) if vocabulary.maskable[ids[place]]]
    order = {place: int(hashed(1, key, np.array([place]))[0]) >> 32 for place in places}
    chosen = sorted(places, key=lambda place: (order[place], place))[: max(1, round(len(places) * config.mask_prob))]
    shown = ids.copy()
    for place in chosen:
        kind = uniform(hashed(2, key, np.array([place])))[0]
        if kind < config.mask_token_prob:
            shown[place] = vocabulary.mask_id
        elif kind < config.mask_token_prob + config.random_token_prob:
            pick = below(hashed(3, key, np.array([place])), len(vocabulary.replacements))[0]
            shown[place] = vocabulary.replacements[int(pick)]
    return shown, sorted(chosen)


def test_a_batch_is_its_plain_twin(vocabulary):
    ids, starts = sequences([1, 2, 3, 10, 11, 30, 77, 126])
    examples = np.array([5, 0, 2**40, 7, 8, 9, 10, 11])
    masked = mask(ids, starts, vocabulary, examples=examples, epoch=3, seed=2**63 + 1)
    for number, example in enumerate(examples.tolist()):
        start, end = starts[number], starts[number + 1]
        shown, rows = plain_mask(ids[start:end], example, 3, 2**63 + 1, vocabulary)
        assert masked.input_ids[start:end].tolist() == shown.tolist()
        assert (masked.rows[(masked.rows >= start) & (masked.rows < end)] - start).tolist() == rows


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9, 10, 11, 50, 100, 509])
def test_every_sequence_has_exactly_its_share_of_targets(vocabulary, length):
    ids, starts = sequences([length] * 20)
    masked = mask(ids, starts, vocabulary)
    per_sequence = np.bincount(np.searchsorted(starts, masked.rows, side="right") - 1, minlength=20)
    assert per_sequence.tolist() == [max(1, round(0.15 * length))] * 20


def test_shares_are_those_of_the_paper(vocabulary):
    ids, starts = sequences([125] * 4000)
    masked = mask(ids, starts, vocabulary)
    count = len(masked.rows)
    assert count == 4000 * round(0.15 * 125)
    shown = masked.input_ids[masked.rows]
    is_mask, is_same = shown == vocabulary.mask_id, shown == masked.labels
    # One random token in 193 is the original itself.
    assert binomtest(int(is_mask.sum()), count, 0.8).pvalue > LIKELY
    assert binomtest(int(is_same.sum()), count, 0.1 + 0.1 / 193).pvalue > LIKELY
    assert binomtest(int((~is_mask & ~is_same).sum()), count, 0.1 * 192 / 193).pvalue > LIKELY


def test_every_place_is_as_likely_as_any_other(vocabulary):
    ids, starts = sequences([20] * 20_000)
    masked = mask(ids, starts, vocabulary)
    places = np.bincount(masked.rows - starts[np.searchsorted(starts, masked.rows, side="right") - 1], minlength=22)
    assert places[0] == places[21] == 0
    # Places of one sequence exclude each other, which only makes counts more even than chance would.
    assert chisquare(places[1:21]).pvalue > LIKELY


def test_random_tokens_are_uniform_over_ordinary_ones(vocabulary):
    assert vocabulary.replacements.tolist() == list(range(7, 200))
    ids, starts = sequences([125] * 2000)
    masked = mask(ids, starts, vocabulary, mask_token_prob=0.0, random_token_prob=1.0)
    shown = masked.input_ids[masked.rows]
    assert set(shown.tolist()) == set(range(7, 200))
    assert chisquare(np.bincount(shown, minlength=200)[7:]).pvalue > LIKELY


def test_specials_are_never_predicted_and_unknown_words_may_be(vocabulary):
    ids = np.array([4, 0, 3, 6, 5, 5])
    masked = mask(ids, np.array([0, 6]), vocabulary, mask_prob=0.99)
    assert masked.rows.tolist() == [2]
    assert masked.labels.tolist() == [3]


def test_epoch_example_and_seed_each_change_the_mask(vocabulary):
    ids, starts = sequences([100] * 50)
    first = mask(ids, starts, vocabulary)
    others = [
        mask(ids, starts, vocabulary, epoch=1),
        mask(ids, starts, vocabulary, seed=1),
        mask(ids, starts, vocabulary, examples=np.arange(50) + 50),
    ]
    for other in others:
        overlap = len(np.intersect1d(first.rows, other.rows)) / len(first.rows)
        assert 0.05 < overlap < 0.25
    assert mask(ids, starts, vocabulary).input_ids.tobytes() == first.input_ids.tobytes()


def test_neither_ids_nor_global_randomness_is_touched(vocabulary):
    ids, starts = sequences([30] * 5)
    before = ids.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    mask(ids, starts, vocabulary)
    assert (ids == before).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_hashes_are_the_published_ones():
    # SplitMix64 from state 0: the first three outputs of the reference implementation.
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, 2 * golden % 2**64], dtype=np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert hashed(states).tolist() == expected
    assert hashed(-1).tolist() == hashed(2**64 - 1).tolist()
    bits = hashed(np.arange(100_000))
    assert uniform(bits).min() >= 0
    assert uniform(bits).max() < 1
    assert abs(uniform(bits).mean() - 0.5) < 4 * 0.289 / np.sqrt(100_000)
    assert set(below(bits, 7).tolist()) == set(range(7))
