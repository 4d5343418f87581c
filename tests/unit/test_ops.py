"""Dropout from 16 random bits, and the loss that keeps no logits, against their plain forms."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest

from bertwright.model import ops
from bertwright.model.ops import dropout, dropout_add, keep_mask, linear_cross_entropy


def relative_error(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


# Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_elements_vanish_at_the_rate_asked_for(p, dtype):
    mask = keep_mask(torch.empty(300, 500, dtype=dtype), p)
    assert mask.dtype == dtype
    assert binomtest(int((mask == 0).sum()), mask.numel(), p).pvalue > 1e-4


def test_the_four_draws_of_one_random_number_are_alike_and_independent():
    p, draws = 0.25, (keep_mask(torch.empty(400_000), 0.25) == 0).view(-1, 4)
    for lane in range(4):
        assert binomtest(int(draws[:, lane].sum()), draws.shape[0], p).pvalue > 1e-4
        both = draws[:, lane] & draws[:, (lane + 1) % 4]
        assert binomtest(int(both.sum()), draws.shape[0], p * p).pvalue > 1e-4
    both = draws[1:, 0] & draws[:-1, 3]
    assert binomtest(int(both.sum()), draws.shape[0] - 1, p * p).pvalue > 1e-4


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9, 1 / 3])
def test_the_mean_is_exact(p):
    kept = keep_mask(torch.empty(4_000), p).max().item()
    dropped = round(p * 65_536) / 65_536  # the rate that 16 bits can hold
    assert kept * (1 - dropped) == pytest.approx(1, abs=1e-6)
    assert dropped == pytest.approx(p, abs=1e-5)


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 3), (5, 7, 3), (4, 0, 2)])
def test_every_shape_has_a_mask(shape):
    assert keep_mask(torch.empty(shape), 0.5).shape == shape


def test_a_seed_decides_the_mask():
    x, masks = torch.ones(1_000), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.3, training=True))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_without_training_nothing_happens():
    x, residual = torch.randn(6, 4), torch.randn(6, 4)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert torch.equal(dropout_add(x, residual, 0.5, training=False), residual + x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adding_a_dropped_tensor_in_one_go(dtype):
    x, residual = torch.randn(50, 40).to(dtype), torch.randn(50, 40).to(dtype)
    results = []
    for form in (
        lambda: dropout_add(x, residual, 0.3, training=True),
        lambda: residual + dropout(x, 0.3, training=True),
    ):
        torch.manual_seed(5)
        results.append(form())
    assert relative_error(*results) < (1e-7 if dtype == torch.float32 else 5e-3)


def test_the_gradient_passes_where_the_value_did():
    x = torch.randn(30, 20, requires_grad=True)
    residual = torch.randn(30, 20, requires_grad=True)
    torch.manual_seed(9)
    dropout_add(x, residual, 0.4, training=True).sum().backward()
    torch.manual_seed(9)
    assert torch.equal(x.grad, keep_mask(x, 0.4))
    assert torch.equal(residual.grad, torch.ones(30, 20))


# The loss over the vocabulary


def loss_problem(dtype, num_rows=37, width=24, vocab_size=101, spread=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(num_rows, width, generator=generator),
        torch.randn(vocab_size, width, generator=generator),
    )
    bias = torch.randn(vocab_size, generator=generator)
    labels = torch.randint(0, vocab_size, (num_rows,), generator=generator)
    return [(part * spread).to(dtype) for part in (hidden, weight, bias)], labels


def ours(inputs, labels, scale):
    inputs = [part.clone().requires_grad_() for part in inputs]
    total, losses, right = linear_cross_entropy(*inputs, labels)
    return total, losses, right, torch.autograd.grad(total * scale, inputs)


def plain(inputs, labels, scale):
    """The same in float64, with every logit kept."""
    inputs = [part.double().requires_grad_() for part in inputs]
    logits = F.linear(*inputs)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return losses.sum(), losses, logits.argmax(1) == labels, torch.autograd.grad(losses.sum() * scale, inputs)


@pytest.mark.parametrize("block", [1, 1200, 2**26])
@pytest.mark.parametrize("chunk", [1, 505, 2**22])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_loss_gradients_and_right_answers(dtype, tolerance, chunk, block, monkeypatch):
    monkeypatch.setattr(ops, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(ops, "_CHUNK_ELEMENTS", chunk)
    inputs, labels = loss_problem(dtype)
    labels[:5] = F.linear(*inputs)[:5].argmax(1)  # some right answers
    found, expected = ours(inputs, labels, 0.37), plain(inputs, labels, 0.37)
    assert found[0].dtype == torch.float32
    assert relative_error(found[0], expected[0]) < tolerance
    assert found[1].dtype == torch.float32
    assert relative_error(found[1], expected[1]) < tolerance
    assert not found[1].requires_grad
    assert torch.equal(found[2], expected[2])
    assert found[2][:5].all()
    for one, other in zip(found[3], expected[3], strict=True):
        assert one.dtype == dtype
        assert relative_error(one, other) < tolerance


def test_huge_logits_stay_finite():
    inputs, labels = loss_problem(torch.float32, spread=100.0)
    total, *_, gradients = ours(inputs, labels, 1.0)
    assert relative_error(total, plain(inputs, labels, 1.0)[0]) < 1e-6
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_fp32_weights_meet_bf16_rows():
    (hidden, weight, bias), labels = loss_problem(torch.float32)
    hidden, weight = hidden.bfloat16().requires_grad_(), weight.requires_grad_()
    total, *_ = linear_cross_entropy(hidden, weight, bias, labels)
    total.backward()
    assert weight.grad.dtype == torch.float32
    expected = plain([hidden.detach(), weight.detach().bfloat16(), bias.bfloat16()], labels, 1.0)
    assert relative_error(total, expected[0]) < 2e-2
    assert relative_error(weight.grad, expected[3][1]) < 2e-2


def test_no_rows_no_loss():
    (hidden, weight, bias), labels = loss_problem(torch.float32, num_rows=0)
    total, losses, right = linear_cross_entropy(hidden, weight.requires_grad_(), bias, labels)
    assert (float(total.detach()), losses.shape, right.shape) == (0.0, (0,), (0,))


def test_nothing_is_kept_for_a_gradient_nobody_wants():
    inputs, labels = loss_problem(torch.float32)
    with torch.inference_mode():
        total, losses, right = linear_cross_entropy(*inputs, labels)
    expected = plain(inputs, labels, 1.0)
    assert relative_error(total, expected[0]) < 1e-6
    assert relative_error(losses, expected[1]) < 1e-6
    assert torch.equal(right, expected[2])
