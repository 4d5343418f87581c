"""What every member of `OBJECTIVES` must do. A new objective passes all of this without a change here."""

import dataclasses

import pytest
import torch

from bertwright.batch import Batch, LossTerm
from bertwright.config import LEFT_TO_RIGHT, BertConfig, PretrainConfig
from bertwright.model.bert import Bert
from bertwright.model.heads import Head
from bertwright.model.names import ARCHITECTURES
from bertwright.objectives import OBJECTIVES, Objective
from bertwright.training.optim import BertAdam

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=24,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LENGTHS = [5, 24, 9, 9, 3, 14]


@pytest.fixture(params=OBJECTIVES)
def name(request):
    return request.param


@pytest.fixture
def objective(name):
    return OBJECTIVES[name]()


@pytest.fixture
def config(name):
    causal = name in LEFT_TO_RIGHT
    return dataclasses.replace(CONFIG, is_decoder=causal, pool_last=causal)


@pytest.fixture
def model(objective, config):
    return Bert(config, objective.heads(config))


def make_batch(sequences):
    """A batch whose targets are a function of its sequences: any split of them has the same targets."""
    rows, labels, first = [], [], 0
    for ids in sequences:
        places = range(1, len(ids), 4)
        rows += [first + place for place in places]
        labels += [ids[place] for place in places]
        first += len(ids)
    targets = {
        "masked_rows": torch.tensor(rows),
        "masked_labels": torch.tensor(labels),
        "next_sentence_label": torch.tensor([ids[0] % 2 for ids in sequences]),
    }
    return Batch.pack(sequences, [[0] * len(ids) for ids in sequences], targets)


@pytest.fixture
def sequences():
    return [torch.randint(0, CONFIG.vocab_size, (length,)).tolist() for length in LENGTHS]


def terms(output):
    return output.losses | output.metrics


def test_it_keeps_the_contract(objective):
    assert isinstance(objective, Objective)


def test_its_heads_are_heads_that_hugging_face_has_a_class_for(objective):
    heads = objective.heads(CONFIG)
    assert heads
    assert all(isinstance(head, Head) for head in heads.values())
    assert frozenset(heads) in ARCHITECTURES.values()
    fresh = objective.heads(CONFIG)
    assert all(fresh[name] is not head for name, head in heads.items())


def test_it_sums_what_it_counts(objective, model, sequences):
    batch = make_batch(sequences)
    output = objective(model, batch)
    assert objective.counts(batch) == {name: term.count for name, term in output.losses.items()}
    for name, term in terms(output).items():
        assert isinstance(term, LossTerm)
        assert term.count > 0, name
        assert term.total.shape == ()
        assert torch.isfinite(term.total)
        assert name.endswith(("_loss", "_accuracy")), "the log and the report know these"
    for name, term in output.metrics.items():
        assert 0 <= float(term.total) <= term.count, name
        assert not term.total.requires_grad


@torch.no_grad()
def test_a_split_batch_adds_up_to_the_whole(objective, model, sequences):
    model.eval()
    whole = objective(model, make_batch(sequences))
    parts = [objective(model, make_batch(part)) for part in (sequences[:1], sequences[1:4], sequences[4:])]
    for name, term in terms(whole).items():
        assert sum(terms(part)[name].count for part in parts) == term.count
        total = sum(float(terms(part)[name].total) for part in parts)
        assert total == pytest.approx(float(term.total), rel=1e-5), name


def test_chance_is_where_it_starts(objective, config, sequences):
    """Near-zero logits: the loss of a uniform guess over the vocabulary and over two labels."""
    config = dataclasses.replace(config, initializer_range=1e-4)
    output = objective(Bert(config, objective.heads(config)).eval(), make_batch(sequences))
    chance = {"mlm_loss": 60.0, "ltr_loss": 60.0, "nsp_loss": 2.0}
    for name, term in output.losses.items():
        assert float(term.total.detach()) / term.count == pytest.approx(
            torch.tensor(chance[name]).log().item(), abs=0.02
        )


def test_it_learns(objective, model, sequences):
    batch, config = make_batch(sequences), PretrainConfig(bias_correction=True)
    optimizer, losses = BertAdam(model, config), []
    for step in range(12):
        output = objective(model, batch)
        means = torch.stack([term.total / term.count for term in output.losses.values()])
        losses.append(means.detach())
        means.sum().backward()
        optimizer.step(step, 3e-3, optimizer.gradient_norm())
        optimizer.zero_grad()
    assert torch.all(losses[-1] < 0.9 * losses[0]), "every loss falls"


def test_every_weight_that_a_head_reads_is_trained(objective, model, sequences):
    output = objective(model, make_batch(sequences))
    torch.stack([term.total for term in output.losses.values()]).sum().backward()
    reads_pooler = any(head.pooled for head in model.heads.values())
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle <= (set() if reads_pooler else {"pooler.dense.weight", "pooler.dense.bias"})
