"""The optimizer against Google's in plain Python and torch's in double precision."""

import math

import pytest
import torch
from torch import nn

from bertwright.config import BertConfig, PretrainConfig
from bertwright.model.bert import Bert
from bertwright.training.optim import BertAdam, learning_rate

STEPS = 6


class Small(nn.Module):
    """A matrix, which decays, and two vectors, which do not."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(5, 4))
        self.bias = nn.Parameter(torch.randn(4))
        self.norm = nn.Parameter(torch.ones(4))


def gradients_of(step, model):
    """Gradients of quite different size, in some steps longer than the clip."""
    generator = torch.Generator().manual_seed(step)
    size = (0.01, 1.0, 30.0)[step % 3]
    return {name: size * torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def train(model, config, rates):
    optimizer = BertAdam(model, config)
    for step, lr in enumerate(rates):
        for name, gradient in gradients_of(step, model).items():
            model.get_parameter(name).grad = gradient
        optimizer.step(step, lr, optimizer.gradient_norm())
        optimizer.zero_grad()
    return optimizer


def google(values, config, rates):
    """`AdamWeightDecayOptimizer` of google-research/bert and the clipping around it, number by number."""
    model = Small()
    values = {name: value.flatten().tolist() for name, value in values.items()}
    mean = {name: [0.0] * len(value) for name, value in values.items()}
    square = {name: [0.0] * len(value) for name, value in values.items()}
    for step, lr in enumerate(rates):
        gradients = {name: gradient.flatten().tolist() for name, gradient in gradients_of(step, model).items()}
        norm = math.sqrt(math.fsum(g * g for gradient in gradients.values() for g in gradient))
        for name, gradient in gradients.items():
            for i, g in enumerate(gradient):
                g *= config.clip_norm / max(norm, config.clip_norm)
                mean[name][i] = config.beta1 * mean[name][i] + (1 - config.beta1) * g
                square[name][i] = config.beta2 * square[name][i] + (1 - config.beta2) * g * g
                update = mean[name][i] / (math.sqrt(square[name][i]) + config.eps)
                if name == "matrix":
                    update += config.weight_decay * values[name][i]
                values[name][i] -= lr * update
    return values


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
def test_without_bias_correction_it_is_googles(weight_decay):
    config, rates = PretrainConfig(weight_decay=weight_decay), [0.0, 1e-3, 1e-2, 1e-2, 5e-3, 1e-3]
    model = Small()
    start = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    train(model, config, rates)
    for name, expected in google(start, config, rates).items():
        assert model.get_parameter(name).flatten().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("clip_norm", [1.0, 0.0, 100.0])
def test_with_bias_correction_it_is_torchs(clip_norm):
    config = PretrainConfig(bias_correction=True, weight_decay=0.1, clip_norm=clip_norm, eps=1e-8)
    rates, model, twin = [1e-3, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4], Small(), Small().double()
    twin.load_state_dict(model.state_dict())
    train(model, config, rates)
    theirs = torch.optim.AdamW(
        [{"params": [twin.matrix], "weight_decay": 0.1}, {"params": [twin.bias, twin.norm], "weight_decay": 0.0}],
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    for step, lr in enumerate(rates):
        for name, gradient in gradients_of(step, twin).items():
            twin.get_parameter(name).grad = gradient.double()
        if clip_norm:
            nn.utils.clip_grad_norm_(twin.parameters(), clip_norm)
        for group in theirs.param_groups:
            group["lr"] = lr
        theirs.step()
    for name, expected in twin.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_clipping_is_torchs(step):
    model, twin = Small(), Small()
    config = PretrainConfig(clip_norm=1.0)
    for each in (model, twin):
        for name, gradient in gradients_of(step, each).items():
            each.get_parameter(name).grad = gradient
    optimizer = BertAdam(model, config)
    norm = optimizer.gradient_norm()
    expected = nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    assert float(norm) == pytest.approx(float(expected), rel=1e-6)
    optimizer.step(0, 1e-3, norm)
    for name, moment in optimizer.exp_avg.items():  # a tenth of the clipped gradient
        torch.testing.assert_close(moment * 10, twin.get_parameter(name).grad, rtol=1e-5, atol=1e-7)


def test_biases_and_layer_norms_do_not_decay():
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=4,
    )  # fmt: skip
    model = Bert(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = BertAdam(model, PretrainConfig(weight_decay=0.5))
    optimizer.step(0, 0.1, optimizer.gradient_norm())
    for name, parameter in model.named_parameters():
        plain = name.endswith("bias") or "norm" in name
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if plain else 0.95), msg=name)


def test_parameters_without_a_gradient_stay_and_frozen_ones_have_no_moments():
    model = Small()
    model.norm.requires_grad_(False)
    before = model.bias.detach().clone()
    optimizer = BertAdam(model, PretrainConfig())
    model.matrix.grad = torch.ones(5, 4)
    optimizer.step(0, 1.0, optimizer.gradient_norm())
    assert torch.equal(model.bias, before)
    assert sorted(optimizer.state()) == ["exp_avg.bias", "exp_avg.matrix", "exp_avg_sq.bias", "exp_avg_sq.matrix"]


@pytest.mark.parametrize("bias_correction", [False, True])
def test_moments_come_back(bias_correction):
    config, rates = PretrainConfig(bias_correction=bias_correction), [1e-2] * STEPS
    straight = Small()
    stopped = Small()
    stopped.load_state_dict(straight.state_dict())
    train(straight, config, rates)
    saved = {name: tensor.clone() for name, tensor in train(stopped, config, rates[:3]).state().items()}
    optimizer = BertAdam(stopped, config)
    optimizer.load_state(saved)
    for step in range(3, STEPS):
        for name, gradient in gradients_of(step, stopped).items():
            stopped.get_parameter(name).grad = gradient
        optimizer.step(step, 1e-2, optimizer.gradient_norm())
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, stopped.get_parameter(name))


# The learning rate


def test_the_rate_rises_from_nought_and_falls_to_nought():
    config = PretrainConfig(lr=1e-4, warmup_ratio=0.2)
    rates = [learning_rate(config, step, 10) for step in range(11)]
    assert rates == pytest.approx([0, 0.5e-4, *(1e-4 * left / 8 for left in (8, 7, 6, 5, 4, 3, 2, 1, 0))])


def test_the_papers_schedule():
    config = PretrainConfig()
    assert learning_rate(config, 10_000, config.steps) == pytest.approx(1e-4)
    assert learning_rate(config, 5_000, config.steps) == pytest.approx(0.5e-4)
    assert learning_rate(config, 505_000, config.steps) == pytest.approx(0.5e-4)


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 1), (0.0, 5), (0.9, 1), (0.5, 2), (0.01, 3)])
def test_the_shortest_runs_have_a_schedule(ratio, steps):
    config = PretrainConfig(lr=1.0, warmup_ratio=ratio)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
