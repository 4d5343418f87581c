"""Muon for the layers' matrices: what it takes, its steps, its state; and a trapezoid's rates."""

import dataclasses

import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.objectives import MaskedLMAndNextSentence
from bertwright.training.muon import MatrixMuon
from bertwright.training.optim import BertAdam, is_muons, learning_rate

SHAPE = BertConfig(
    vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
    max_position_embeddings=8, norm_first=True,
)  # fmt: skip
CONFIG = PretrainConfig(optimizer="muon", bias_correction=True, lr=1e-3, muon_lr=0.02)
ORTHOGONAL = 0.35
"""How far the singular values of what Newton and Schulz's five steps make may lie from one."""


def a_model(config=SHAPE):
    return Bert(config, MaskedLMAndNextSentence().heads(config), seed=1)


def with_gradients(model, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=generator)
    return model


def steps(model, optimizer, numbers, lr=1e-3):
    for number in numbers:
        with_gradients(model, seed=number)
        optimizer.step(number, lr, optimizer.gradient_norm())
        optimizer.zero_grad()


def test_it_takes_the_matrices_of_the_layers_and_nothing_else():
    model = a_model()
    state = BertAdam(model, CONFIG).state()
    muons = {name.removeprefix("momentum.") for name in state if name.startswith("momentum.")}
    products = ("attention.qkv", "attention.output", "up", "down")
    assert muons == {f"layers.{number}.{name}.weight" for number in (0, 1) for name in products}
    others = {name for name, _ in model.named_parameters()} - muons
    assert {name.removeprefix("exp_avg.") for name in state if name.startswith("exp_avg.")} == others
    assert {name.removeprefix("exp_avg_sq.") for name in state if name.startswith("exp_avg_sq.")} == others
    assert not any(is_muons(name, each, PretrainConfig()) for name, each in model.named_parameters())


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 1e6])
def test_its_step_is_torchs_on_each_matrix(clip_norm):
    config = PretrainConfig(optimizer="muon", muon_lr=0.02, weight_decay=0.1, clip_norm=clip_norm)
    model, twin = a_model(), a_model()
    optimizer = BertAdam(model, config)
    hidden = SHAPE.hidden_size
    split = {}
    for name, parameter in twin.named_parameters():
        if is_muons(name, parameter, config):
            parts = parameter.detach().clone().split(hidden if "qkv" in name else parameter.shape[0])
            split[name] = [torch.nn.Parameter(part.clone()) for part in parts]
    theirs = torch.optim.Muon(
        [part for parts in split.values() for part in parts], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for number in range(4):
        with_gradients(model, number)
        norm = optimizer.gradient_norm()
        scale = max(1.0, float(norm) / clip_norm) if clip_norm else 1.0
        for name, parts in split.items():
            sizes = [part.shape[0] for part in parts]
            for part, gradient in zip(parts, model.get_parameter(name).grad.split(sizes), strict=True):
                part.grad = gradient / scale
        theirs.step()
        optimizer.step(number, config.lr, norm)
    for name, parts in split.items():
        torch.testing.assert_close(model.get_parameter(name), torch.cat(list(parts)), rtol=1e-5, atol=1e-6)


def test_query_key_and_value_are_each_made_orthogonal():
    """A gradient of the values does not touch the queries, and each third steps as far as it would alone."""
    matrix = torch.nn.Parameter(torch.zeros(48, 16))
    muon = MatrixMuon({"layers.0.attention.qkv.weight": matrix}, PretrainConfig(muon_lr=1.0, weight_decay=0.0))
    matrix.grad = torch.zeros(48, 16)
    matrix.grad[32:] = torch.randn(16, 16)
    muon.step(1.0, torch.tensor(1.0))
    assert torch.equal(matrix[:32], torch.zeros(32, 16))
    values = torch.linalg.svdvals(matrix[32:].detach()) / (0.2 * 16**0.5)
    assert float((values - 1).abs().max()) < ORTHOGONAL


def test_its_steps_are_as_large_as_adams():
    """The root mean square of an update is 0.2 of the rate, for matrices of any shape."""
    for shape in ((16, 16), (64, 16), (16, 64)):
        matrix = torch.nn.Parameter(torch.zeros(shape))
        muon = MatrixMuon({"layers.0.up.weight": matrix}, PretrainConfig(muon_lr=0.5, weight_decay=0.0))
        matrix.grad = torch.randn(shape)
        muon.step(0.5, torch.tensor(1.0))
        assert float(matrix.detach().square().mean().sqrt()) == pytest.approx(0.25 * 0.2, rel=0.25)


def test_the_rate_of_both_rises_and_falls_together():
    model = a_model()
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    steps(model, BertAdam(model, CONFIG), [0], lr=0.0)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_moments_come_back():
    straight, stopped = a_model(), a_model()
    steps(straight, BertAdam(straight, CONFIG), range(6))
    first = BertAdam(stopped, CONFIG)
    steps(stopped, first, range(3))
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    second = BertAdam(stopped, CONFIG)
    second.load_state(saved)
    steps(stopped, second, range(3, 6))
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, stopped.get_parameter(name)), name


def test_what_is_frozen_or_has_no_gradient_stays():
    model = a_model()
    model.freeze("layers:0")
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    optimizer = BertAdam(model, CONFIG)
    assert not any("layers.0." in name for name in optimizer.state())
    with_gradients(model)
    model.layers[1].up.weight.grad = None
    optimizer.step(0, 1e-3, optimizer.gradient_norm())
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == (not name.startswith("layers.0.") and name != "layers.1.up.weight"), name


def test_it_learns():
    model = a_model()
    config = PretrainConfig(optimizer="muon", bias_correction=True, lr=1e-2, muon_lr=0.02)
    optimizer, objective = BertAdam(model, config), MaskedLMAndNextSentence()
    targets = {
        "masked_rows": torch.tensor([1, 2]),
        "masked_labels": torch.tensor([7, 9]),
        "next_sentence_label": torch.tensor([0]),
    }
    batch = Batch.pack([[2, 4, 4, 3]], [[0, 0, 0, 0]], targets)
    losses = []
    model.eval()
    for number in range(30):
        loss = sum(term.total for term in objective(model, batch).losses.values())
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step(number, config.lr, optimizer.gradient_norm())
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]


def test_parts_of_matrices_are_refused():
    with pytest.raises(BertwrightError, match="'muon' needs whole matrices"):
        dataclasses.replace(CONFIG, shard_weights=True)


# The trapezoid


def test_a_trapezoid_rises_stays_and_falls():
    config = PretrainConfig(lr=1e-3, schedule="trapezoid", warmup_ratio=0.2, decay_ratio=0.4)
    rates = [learning_rate(config, step, 10) for step in range(11)]
    assert rates == pytest.approx([0, 5e-4, *[1e-3] * 5, 7.5e-4, 5e-4, 2.5e-4, 0], abs=1e-12)


@pytest.mark.parametrize(("decay_ratio", "steps"), [(0.0, 5), (1.0, 5), (0.2, 1), (0.2, 2), (0.99, 3)])
def test_the_shortest_trapezoids_have_rates(decay_ratio, steps):
    config = PretrainConfig(lr=1.0, schedule="trapezoid", warmup_ratio=0.0, decay_ratio=decay_ratio)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert rates[0] == 1.0
    assert all(0 < rate <= 1 for rate in rates)


def test_a_linear_schedule_is_what_it_was():
    config = PretrainConfig()
    for step in (0, 1, 9_999, 10_000, 10_001, 123_457, 999_999):
        warmup = 10_000
        plain = config.lr * step / warmup if step < warmup else config.lr * (1_000_000 - step) / (1_000_000 - warmup)
        assert learning_rate(config, step, 1_000_000) == plain
