"""Masks: the counter-based passes against a plain loop, the paper's shares, and what is never touched."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from bertwright.config import MaskingConfig, PretrainConfig
from bertwright.data.counter import below, hashed, uniform
from bertwright.data.masking import MaskVocabulary, mask_tokens
from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import WordPiece

LIKELY = 1e-4
TOKENS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(193))]


def tables():
    return MaskVocabulary.of(WordPiece(TOKENS, TextRules(lowercase=True)))


@pytest.fixture(scope="module")
def vocabulary():
    return tables()


def sequences(lengths, seed=0):
    rng = np.random.default_rng(seed)
    ids = [np.array([4, *rng.integers(7, 200, length), 5]) for length in lengths]
    return np.concatenate(ids), np.cumsum([0, *(len(sequence) for sequence in ids)])


def mask(ids, starts, vocabulary, *, examples=None, epoch=0, seed=0, goes_on=None, **dials):
    count = len(starts) - 1
    examples = np.arange(count) if examples is None else examples
    epochs, config = np.full(count, epoch), MaskingConfig(**dials)
    return mask_tokens(ids, examples, epochs, starts, seed=seed, config=config, vocabulary=vocabulary, goes_on=goes_on)


def plain_words(ids, goes_on, vocabulary):
    """The places of the tokens of each word of one sequence."""
    words = []
    for place in range(len(ids)):
        if vocabulary.maskable[ids[place]]:
            if goes_on[place] and words and words[-1][-1] == place - 1:
                words[-1].append(place)
            else:
                words.append([place])
    return words


def plain_choice(words, order, wanted):
    """Words in their order, each unless that leads further away from the wanted number; or else the shortest."""
    chosen, count = [], 0
    for word in sorted(words, key=lambda word: (order[word[0]], word)):
        if count < wanted and abs(count + len(word) - wanted) <= wanted - count:
            chosen.append(word)
            count += len(word)
    return chosen or [min(words, key=lambda word: (len(word), order[word[0]], word))]


def plain_mask(ids, example, epoch, seed, vocabulary, goes_on=None, config=MaskingConfig()):
    """One sequence, one token at a time."""
    key = hashed(seed, np.array([epoch]), np.array([example]))
    words = plain_words(ids, np.zeros(len(ids), dtype=bool) if goes_on is None else goes_on, vocabulary)
    order = {word[0]: int(hashed(1, key, np.array([word[0]]))[0]) >> 32 for word in words}
    wanted = max(1, round(sum(map(len, words)) * config.mask_prob))
    first_of = {place: word[0] for word in plain_choice(words, order, wanted) for place in word}
    chosen = sorted(first_of)
    shown = ids.copy()
    for place in chosen:
        kind = uniform(hashed(2, key, np.array([first_of[place] if config.mask_draw == "word" else place])))[0]
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


# Whole words

SIZES = np.repeat([1, 2, 3, 4], [50, 42, 5, 3])
"""Tokens of a word of Chinese text, by how common they are."""
SHARE = 0.15
BAND = 0.01


def like_text(rng, length):
    """Of as many ordinary tokens, which go on with a word, as in Chinese text."""
    goes_on = [mark for size in rng.choice(SIZES, length) for mark in (False, *[True] * (size - 1))]
    return [False, *goes_on[:length], False]


def many(length, count, seed=0):
    rng = np.random.default_rng(seed)
    ids, starts = sequences([length] * count)
    return ids, starts, np.concatenate([like_text(rng, length) for _ in range(count)])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.floats(0, 1),
    st.floats(0.01, 0.9),
    st.sampled_from(["token", "word"]),
    st.integers(0, 2**63),
)
def test_a_batch_of_words_is_its_plain_twin_and_no_sequence_minds_its_neighbours(lengths, joined, prob, draw, seed):
    vocabulary = tables()
    ids, starts = sequences(lengths)
    goes_on = np.random.default_rng(seed).random(len(ids)) < joined  # of [CLS], [SEP] and what follows them too
    examples = np.arange(len(lengths)) * 2**33
    dials = {"mask_prob": prob, "mask_draw": draw}
    masked = mask(ids, starts, vocabulary, goes_on=goes_on, examples=examples, seed=seed, epoch=3, **dials)
    assert (masked.labels == ids[masked.rows]).all()
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        sequence, marks = ids[start:end], goes_on[start:end]
        shown, rows = plain_mask(
            sequence, examples[number], 3, seed, vocabulary, goes_on=marks, config=MaskingConfig(**dials)
        )
        inside = masked.rows[(masked.rows >= start) & (masked.rows < end)] - start
        assert inside.tolist() == rows
        assert masked.input_ids[start:end].tolist() == shown.tolist()
        alone = mask(
            sequence,
            np.array([0, end - start]),
            vocabulary,
            goes_on=marks,
            examples=examples[[number]],
            seed=seed,
            epoch=3,
            **dials,
        )
        assert alone.rows.tolist() == rows
        assert alone.input_ids.tolist() == shown.tolist()
        assert rows
        chosen = set(rows)
        for word in plain_words(sequence, marks, vocabulary):
            assert chosen.issuperset(word) or chosen.isdisjoint(word)


def test_words_of_one_token_are_masked_as_tokens_are(vocabulary):
    ids, starts = sequences([1, 2, 9, 40, 126])
    apart = mask(ids, starts, vocabulary, goes_on=np.zeros(len(ids), dtype=bool))
    tokens = mask(ids, starts, vocabulary, goes_on=None)
    assert apart.rows.tolist() == tokens.rows.tolist()
    assert apart.input_ids.tolist() == tokens.input_ids.tolist()


@pytest.mark.parametrize("length", [29, 125, 509])
def test_fifteen_percent_of_the_tokens_are_predicted(vocabulary, length):
    ids, starts, goes_on = many(length, 2000)
    masked = mask(ids, starts, vocabulary, goes_on=goes_on)
    assert abs(len(masked.rows) / (2000 * length) - SHARE) < BAND
    counts = np.bincount(np.searchsorted(starts, masked.rows, side="right") - 1, minlength=2000)
    assert np.abs(counts - round(SHARE * length)).max() <= 2  # half of the longest word


def test_a_long_word_is_as_likely_as_a_short_one(vocabulary):
    ids, starts, goes_on = many(125, 3000)
    rows = set(mask(ids, starts, vocabulary, goes_on=goes_on).rows.tolist())
    firsts = np.flatnonzero(~goes_on & vocabulary.maskable[ids])
    ends = np.append(np.flatnonzero(~goes_on), len(ids))
    sizes = ends[np.searchsorted(ends, firsts, side="right")] - firsts
    for size in (1, 2, 3, 4):
        found = [first in rows for first in firsts[sizes == size].tolist()]
        assert len(found) > 5000
        assert abs(np.mean(found) - SHARE) < BAND


def test_a_sequence_of_one_long_word_is_predicted_whole(vocabulary):
    ids, starts = sequences([12, 30])
    goes_on = np.ones(len(ids), dtype=bool)
    assert len(mask(ids, starts, vocabulary, goes_on=goes_on).rows) == 12 + 30


def test_what_is_shown_may_be_drawn_for_every_token_or_every_word(vocabulary):
    ids, starts, goes_on = many(125, 1500)
    pairs = {}
    for draw in ("token", "word"):
        masked = mask(ids, starts, vocabulary, goes_on=goes_on, mask_draw=draw)
        hidden = masked.input_ids[masked.rows] == vocabulary.mask_id
        same = goes_on[masked.rows][1:] & (np.diff(masked.rows) == 1)
        pairs[draw] = (hidden[1:] == hidden[:-1])[same]
        heads = ~goes_on[masked.rows]
        assert binomtest(int(hidden[heads].sum()), int(heads.sum()), 0.8).pvalue > LIKELY
    assert pairs["word"].all()
    assert binomtest(int(pairs["token"].sum()), len(pairs["token"]), 0.8**2 + 0.2**2).pvalue > LIKELY


def test_words_drawn_at_once_need_words():
    with pytest.raises(BertwrightError, match="mask_draw 'word' needs whole words"):
        MaskingConfig(whole_word=False, mask_draw="word")
    assert PretrainConfig(mask_draw="word").masking == MaskingConfig(mask_draw="word")
