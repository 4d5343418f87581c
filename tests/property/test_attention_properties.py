"""Every implementation of attention agrees with the reference, on whatever lengths and query rows."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.model.attention import ATTENTION, AttentionLayout, reference

NAMES = sorted(set(ATTENTION) - {"reference", "flash"})

lengths_of_sequences = st.one_of(
    st.lists(st.integers(1, 6), min_size=1, max_size=30),
    st.lists(st.integers(1, 120), min_size=1, max_size=8),
    st.builds(lambda length, count, rest: [length] * count + rest, st.integers(1, 50), st.integers(6, 12),
              st.lists(st.integers(1, 60), max_size=5)),
)  # fmt: skip


def run(attend, rows, query_rows, layout, weight):
    inputs = [part.clone().requires_grad_() for part in rows]
    query = inputs[0] if query_rows is None else inputs[0].index_select(0, query_rows)
    context = attend(query, inputs[1], inputs[2], layout, 0.0)
    gradients = torch.autograd.grad((context * weight).sum(), inputs)
    return [context.detach(), *gradients]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths_of_sequences,
    ascending=st.booleans(),
    share=st.sampled_from([None, 0.02, 0.3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_and_gradients_are_those_of_the_reference(name, lengths, ascending, share, seed):
    lengths = sorted(lengths) if ascending else lengths
    generator = torch.Generator().manual_seed(seed)
    num_rows = sum(lengths)
    rows = [torch.randn(num_rows, 2, 8, generator=generator) for _ in range(3)]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    query_rows = None if share is None else (torch.rand(num_rows, generator=generator) < share).nonzero().squeeze(1)
    layout = AttentionLayout.of(cu_seqlens, query_rows)
    weight = torch.randn(num_rows if query_rows is None else query_rows.shape[0], 2, 8, generator=generator)
    found = run(ATTENTION[name], rows, query_rows, layout, weight)
    expected = run(reference, rows, query_rows, layout, weight)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of_sequences, data=st.data())
def test_query_rows_are_counted_in_their_sequences(lengths, data):
    chosen = sorted(data.draw(st.sets(st.integers(0, sum(lengths) - 1))))
    starts = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    layout = AttentionLayout.of(torch.tensor(starts, dtype=torch.int32), torch.tensor(chosen, dtype=torch.int64))
    counts = [sum(start <= row < end for row in chosen) for start, end in pairwise(starts)]
    assert layout.query_cu_seqlens.diff().tolist() == counts
