"""How packed attention rearranges its rows, in the cases that matter; the properties hold for all of them."""

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binomtest

from bertwright.model.attention import ATTENTION, AttentionLayout, bucketed, choose_attention, flash, reference

ON_CPU = sorted(set(ATTENTION) - {"flash"})
HEADS, WIDTH = 2, 16


def cumulative(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def rows_of(num_rows, dtype=torch.float32, seed=0):
    """Query, key and value of that many rows, reproducible whatever torch's global state."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_rows, HEADS, WIDTH, generator=generator).to(dtype) for _ in range(3)]


def one_hot_values(lengths):
    """Values that make attention return its probabilities: token i of a sequence has the i-th unit vector."""
    return torch.cat([torch.eye(length, WIDTH) for length in lengths])[:, None, :].repeat(1, HEADS, 1)


def relative_error(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def plain_softmax(query, key, value, lengths, *, causal=False):
    """One sequence and one head at a time, in float64."""
    context = []
    for q, k, v in zip(*(rows.double().split(lengths) for rows in (query, key, value)), strict=True):
        scores = torch.stack([q[:, head] @ k[:, head].T for head in range(HEADS)]) / WIDTH**0.5
        seen = torch.ones_like(scores).tril() if causal else torch.ones_like(scores)
        probs = scores.exp() * seen / (scores.exp() * seen).sum(-1, keepdim=True)
        context.append(torch.stack([probs[head] @ v[:, head] for head in range(HEADS)], 1))
    return torch.cat(context)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    "lengths",
    [[1], [1, 1, 1], [5], [32], [3, 1, 7], [1, 40, 2, 90, 41], [12] * 9, [64] * 8 + [3], [70, *[32] * 9, 31, 33]],
)
def test_it_is_the_formula_of_the_paper_in_value_and_gradient(name, lengths, causal):
    layout, weight = AttentionLayout.of(cumulative(lengths), causal=causal), rows_of(sum(lengths), seed=1)[0]
    results = []
    for attend in (
        lambda *rows: ATTENTION[name](*rows, layout, 0.0),
        lambda *rows: plain_softmax(*rows, lengths, causal=causal),
    ):
        inputs = [rows.requires_grad_() for rows in rows_of(sum(lengths))]
        context = attend(*inputs)
        results.append([context, *torch.autograd.grad((context * weight).sum(), inputs)])
    for found, expected in zip(*results, strict=True):
        if expected.any():  # of a single token, query and key change nothing
            assert relative_error(found, expected) < 1e-6
        else:
            assert found.abs().max() < 1e-6


@pytest.mark.parametrize("name", ON_CPU)
def test_left_to_right_a_token_does_not_see_those_after_it(name):
    query, key, value = rows_of(46)
    layout = AttentionLayout.of(cumulative([40, 6]), causal=True)
    before = ATTENTION[name](query, key, value, layout, 0.0)
    key[[30, 44]], value[[30, 44]] = 7.0, -9.0
    after = ATTENTION[name](query, key, value, layout, 0.0)
    changed = (before != after).flatten(1).any(1)
    assert changed.nonzero().squeeze(1).tolist() == [*range(30, 40), 44, 45]


def test_left_to_right_wants_a_query_on_every_row():
    with pytest.raises(AssertionError, match="a query on every row"):
        AttentionLayout.of(cumulative([4, 2]), torch.tensor([1]), causal=True)


@pytest.mark.parametrize("name", ON_CPU)
def test_sequences_do_not_see_each_other(name):
    query, key, value = rows_of(12)
    layout = AttentionLayout.of(cumulative([5, 7]))
    before = ATTENTION[name](query, key, value, layout, 0.0)
    key[5:], value[5:] = 7.0, -9.0
    after = ATTENTION[name](query, key, value, layout, 0.0)
    assert torch.equal(before[:5], after[:5])
    assert not torch.allclose(before[5:], after[5:])


@pytest.mark.parametrize("name", ON_CPU)
def test_queries_may_stand_on_a_few_rows_of_a_few_sequences(name):
    query, key, value = rows_of(30)
    cu_seqlens, rows = cumulative([4, 10, 1, 9, 6]), torch.tensor([3, 14, 17, 18])  # none in the second and the last
    layout = AttentionLayout.of(cu_seqlens, rows)
    assert layout.query_cu_seqlens.tolist() == [0, 1, 1, 2, 4, 4]
    assert layout.max_lengths == (2, 10)
    found = ATTENTION[name](query[rows], key, value, layout, 0.0)
    every = ATTENTION[name](query, key, value, AttentionLayout.of(cu_seqlens), 0.0)
    assert relative_error(found, every[rows]) < 1e-6


@pytest.mark.parametrize("name", ON_CPU)
def test_bf16_stays_near_fp32_in_value_and_gradient(name):
    lengths = [33, 1, 60, 12, 12]
    layout, weight = AttentionLayout.of(cumulative(lengths)), rows_of(sum(lengths), seed=1)[0]
    rounded = rows_of(sum(lengths), torch.bfloat16)
    results = []
    for rows, attend in ((rounded, ATTENTION[name]), ([part.float() for part in rounded], reference)):
        inputs = [part.clone().requires_grad_() for part in rows]
        context = attend(*inputs, layout, 0.0)
        assert context.dtype == rows[0].dtype
        results.append([context, *torch.autograd.grad((context * weight).sum(), inputs)])
    for low, high in zip(*results, strict=True):
        assert relative_error(low, high) < 2e-2


# Dropout


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_zeroes_probabilities_at_its_rate_and_keeps_their_mean(name, p):
    lengths = [16, 9, 3]
    query, key, _ = rows_of(sum(lengths))
    value, layout = one_hot_values(lengths), AttentionLayout.of(cumulative(lengths))
    plain = ATTENTION[name](query, key, value, layout, 0.0)
    own, seeds = plain > 0, 200
    total, zeros = torch.zeros_like(plain), 0
    for seed in range(seeds):
        torch.manual_seed(seed)
        dropped = ATTENTION[name](query, key, value, layout, p)
        assert torch.all((dropped == 0) | torch.isclose(dropped, plain / (1 - p), rtol=1e-3))
        total, zeros = total + dropped, zeros + int((dropped[own] == 0).sum())
    assert binomtest(zeros, seeds * int(own.sum()), p).pvalue > 1e-4
    error = (total / seeds - plain)[own] / (plain[own] * (p / (1 - p) / seeds) ** 0.5)  # in standard deviations
    assert error.abs().max() < 5
    assert abs(error.mean()) * error.numel() ** 0.5 < 4


def test_the_gradient_goes_where_the_dropout_let_the_value_through():
    lengths = [16, 5]
    query, key, _ = rows_of(sum(lengths))
    value = one_hot_values(lengths).requires_grad_()
    torch.manual_seed(3)
    context = bucketed(query, key, value, AttentionLayout.of(cumulative(lengths)), 0.5)
    weight = rows_of(sum(lengths), seed=1)[0]
    (gradient,) = torch.autograd.grad((context * weight).sum(), value)
    probs = context.detach()[:16]  # row, head, token of the first sequence
    assert torch.allclose(gradient[:16], torch.einsum("rat,rad->tad", probs, weight[:16]), atol=1e-5)


@pytest.mark.parametrize("name", ON_CPU)
def test_a_seed_decides_the_dropout(name):
    query, key, value = rows_of(9)
    layout = AttentionLayout.of(cumulative([4, 5]))
    contexts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        contexts.append(ATTENTION[name](query, key, value, layout, 0.3))
    assert torch.equal(contexts[0], contexts[1])
    assert not torch.equal(contexts[0], contexts[2])


# Buckets


def test_many_sequences_of_one_aligned_length_are_stacked_without_padding_or_mask():
    _, _, buckets = AttentionLayout.of(cumulative([25, 30] + [32] * 8 + [60])).plan
    assert [(bucket.num_sequences, bucket.key_length) for bucket in buckets] == [(2, 32), (8, 32), (1, 64)]
    assert buckets[1].pad_keys is buckets[1].pad_queries is buckets[1].key_bias is None
    for ragged in (buckets[0], buckets[2]):
        assert ragged.pad_keys is not None
        assert ragged.key_bias is not None


def test_buckets_hold_every_row_and_little_padding():
    lengths = torch.randint(1, 200, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    _, _, buckets = AttentionLayout.of(cumulative(lengths)).plan
    assert sum(bucket.num_sequences for bucket in buckets) == 300
    assert sum(bucket.num_keys for bucket in buckets) == sum(bucket.num_queries for bucket in buckets) == sum(lengths)
    assert len(buckets) > 3
    assert sum(bucket.num_sequences * bucket.key_length for bucket in buckets) < 1.2 * sum(lengths)


def test_sequences_in_order_of_length_are_not_moved():
    assert AttentionLayout.of(cumulative([3, 3, 8, 90])).plan[:2] == (None, None)
    assert None not in AttentionLayout.of(cumulative([8, 3])).plan[:2]


def test_the_cpu_attends_in_buckets():
    query = torch.zeros(1, 1, 8)
    assert choose_attention(query) is choose_attention(query.bfloat16()) is bucketed


def test_flash_is_wired_as_torch_has_it():
    """Shapes alone, without a GPU: what goes into the operator, into its gradient, and what comes out."""
    query, key, value = (torch.randn(9, 2, 8, device="meta", dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    layout = AttentionLayout.of(torch.tensor([0, 4, 9], dtype=torch.int32, device="meta"), max_length=5)
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    context = flash(query, key, value, layout, 0.1)
    context.sum().backward()
    assert context.shape == query.grad.shape == key.grad.shape == value.grad.shape == (9, 2, 8)
    assert (torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory) == before


def test_flash_is_told_its_arguments_in_their_order(monkeypatch):
    """torch's operators by the names of their arguments, with a stand-in that remembers what it was given."""
    given = {}

    def stand_in(name, results):
        schema = getattr(torch.ops.aten, name).default._schema
        names = [argument.name for argument in schema.arguments]

        def remember(*arguments):
            given[name] = dict(zip(names, arguments, strict=False))
            return results

        return remember

    query, key, value = (torch.randn(9, 2, 8).requires_grad_() for _ in range(3))
    rows, cu_seqlens = torch.tensor([0, 5, 6]), torch.tensor([0, 4, 9], dtype=torch.int32)
    forward = [torch.randn(3, 2, 8), *(torch.full((1,), float(number)) for number in range(4))]
    backward = [torch.randn(3, 2, 8), *(torch.randn(9, 2, 8) for _ in range(2))]
    fake = SimpleNamespace(
        _flash_attention_forward=stand_in("_flash_attention_forward", forward),
        _flash_attention_backward=stand_in("_flash_attention_backward", backward),
    )
    monkeypatch.setattr(torch.ops, "aten", fake)
    layout = AttentionLayout.of(cu_seqlens, rows, max_length=5)
    queries = query[rows]
    context = flash(queries, key, value, layout, 0.25)
    weight = torch.randn_like(context)
    gradients = torch.autograd.grad((context * weight).sum(), [queries, key, value])
    assert all(torch.equal(found, expected) for found, expected in zip(gradients, backward, strict=True))
    there, back = given["_flash_attention_forward"], given["_flash_attention_backward"]
    for told in (there, back):
        assert told["cum_seq_q"].tolist() == [0, 1, 3]
        assert told["cum_seq_k"].tolist() == [0, 4, 9]
        assert (told["max_q"], told["max_k"], told["dropout_p"], told["is_causal"]) == (5, 5, 0.25, False)
        assert all(torch.equal(told[name], each) for name, each in (("query", queries), ("key", key), ("value", value)))
    assert there["return_debug_mask"] is False
    assert torch.equal(back["grad_out"], weight)
    names = ("out", "logsumexp", "rng_state", "unused")
    assert all(torch.equal(back[name], each) for name, each in zip(names, forward, strict=False))
