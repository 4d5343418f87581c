"""Twenty steps of training, loss by loss, beside transformers' modules under torch's AdamW and their schedule."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from bertwright.batch import Batch, StepOutput
from bertwright.config import LEFT_TO_RIGHT, BertConfig, PretrainConfig
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.heads import ChoiceHead, ClassificationHead, Head, SpanHead, TokenClassificationHead
from bertwright.model.weights import save_model
from bertwright.objectives import OBJECTIVES
from bertwright.tasks import ClassifyTask, TaskObjective
from bertwright.tasks.losses import (
    choice_loss,
    classification_loss,
    multi_label_loss,
    regression_loss,
    span_loss,
    tagging_loss,
)
from bertwright.training.checkpoint import RunFolder
from bertwright.training.loop import fit
from bertwright.training.optim import learning_rate

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

STEPS = 20
SHAPE = BertConfig(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
CONFIG = PretrainConfig(
    lr=2e-3, warmup_ratio=0.2, dropout=0.0, bias_correction=True, log_every=1, eval_every=0, checkpoint_every=0
)
CLASSES = ("a", "b", "c")


@dataclass
class Data:
    micro_batches: list
    next_position: int


@dataclass
class Sequences:
    """Sixteen sequences a step, in `parts` micro-batches; a function of the position."""

    parts: int = 1
    length: int | None = None
    """Of every sequence, where they shall be of one length."""

    def draw(self, position):
        generator = torch.Generator().manual_seed(position)
        return [
            {
                "ids": torch.randint(1, 20, (length,), generator=generator),
                "types": (torch.arange(length) >= length // 2).long(),
                "masked": (torch.rand(length, generator=generator) < 0.2).index_fill(0, torch.tensor([1]), True),
                "next": int(torch.randint(0, 2, (), generator=generator)),
                "class": int(torch.randint(0, 3, (), generator=generator)),
                "value": float(torch.rand((), generator=generator)) * 5,
                "many": torch.randint(0, 2, (3,), generator=generator),
                "tags": torch.randint(0, 3, (length,), generator=generator),
                "span": torch.randint(0, length, (2,), generator=generator),
                "choice": int(torch.randint(0, 4, (), generator=generator)),
            }
            for length in self.lengths(generator)
        ]

    def lengths(self, generator):
        drawn = torch.randint(3, 33, (16,), generator=generator).tolist()
        return [self.length or length for length in drawn]

    def batches_at(self, position, step=0):
        sequences = self.draw(position)
        size = len(sequences) // self.parts
        parts = [sequences[start : start + size] for start in range(0, len(sequences), size)]
        return Data([self.pack(part) for part in parts], position + len(sequences))

    @staticmethod
    def pack(sequences):
        masked = torch.cat([each["masked"] for each in sequences])
        targets = {
            "masked_rows": masked.nonzero().squeeze(1),
            "masked_labels": torch.cat([each["ids"] for each in sequences])[masked],
            "next_sentence_label": torch.tensor([each["next"] for each in sequences]),
            "labels": torch.tensor([each["class"] for each in sequences]),
            "values": torch.tensor([each["value"] for each in sequences]),
            "many": torch.stack([each["many"] for each in sequences]),
            "token_rows": masked.nonzero().squeeze(1),
            "tags": torch.cat([each["tags"] for each in sequences])[masked],
            "spans": torch.stack([each["span"] for each in sequences]),
            "choices": torch.tensor([each["choice"] for each in sequences[::4]]),  # four sequences an example
        }
        return Batch.pack(
            [each["ids"].tolist() for each in sequences], [each["types"].tolist() for each in sequences], targets
        )

    @staticmethod
    def pad(sequences):
        longest = max(len(each["ids"]) for each in sequences)
        shape = len(sequences), longest
        padded = {name: torch.zeros(shape, dtype=torch.long) for name in ("input_ids", "token_type_ids")}
        padded["attention_mask"] = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, -100)
        for row, each in enumerate(sequences):
            length = len(each["ids"])
            padded["input_ids"][row, :length] = each["ids"]
            padded["token_type_ids"][row, :length] = each["types"]
            padded["attention_mask"][row, :length] = 1
            labels[row, :length] = each["ids"].where(each["masked"], torch.tensor(-100))
        return padded, labels


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch):
    monkeypatch.setattr(machine, "peak_flops", lambda device, dtype: 1e12)


def ours(model, objective, folder, parts=1, length=None):
    """The sum of losses at every step."""
    rows = []
    with RunFolder.create(folder, {}, resume=False) as run:
        fit(
            model,
            objective,
            Sequences(parts, length),
            CONFIG,
            steps=STEPS,
            run=run,
            evaluate=lambda step: {},
            on_event=lambda event: rows.append(event) if event["kind"] == "train" else None,
        )
    return [sum(value for name, value in row.items() if name.endswith("loss")) for row in rows]


def theirs(folder, architecture, arguments, length=None):
    model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").train()
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": CONFIG.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=CONFIG.lr,
        betas=(CONFIG.beta1, CONFIG.beta2),
        eps=CONFIG.eps,
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(CONFIG.warmup_ratio * STEPS), STEPS)
    losses = []
    for step in range(STEPS):
        sequences = Sequences(length=length).draw(16 * step)
        padded, labels = Sequences.pad(sequences)
        if architecture == "BertForMultipleChoice":
            padded = {name: value.view(4, 4, -1) for name, value in padded.items()}
        loss = model(**padded, **arguments(sequences, labels)).loss
        losses.append(float(loss.detach()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return losses


def pretraining(name):
    objective, causal = OBJECTIVES[name](), name in LEFT_TO_RIGHT
    shape = replace(SHAPE, is_decoder=causal, pool_last=causal)
    return Bert(shape, objective.heads(shape)), objective


@pytest.mark.parametrize(
    ("name", "architecture", "arguments"),
    [
        (
            "mlm+nsp",
            "BertForPreTraining",
            lambda sequences, labels: {
                "labels": labels,
                "next_sentence_label": torch.tensor([each["next"] for each in sequences]),
            },
        ),
        ("mlm", "BertForMaskedLM", lambda sequences, labels: {"labels": labels}),
    ],
)
def test_pre_training(name, architecture, arguments, tmp_path):
    model, objective = pretraining(name)
    save_model(model, tmp_path / "model")
    expected = theirs(tmp_path / "model", architecture, arguments)
    found = ours(model, objective, tmp_path / "run")
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[-1] < 0.95 * found[0], "something was learnt"


@dataclass
class Family:
    """A head, its loss, and what transformers calls them."""

    name: str
    head: Callable[[], Head]
    loss: Callable[[torch.Tensor, Batch], StepOutput]
    architecture: str
    arguments: Callable[[list, torch.Tensor], dict[str, torch.Tensor]]
    counts_of: Callable[[Batch], int] = lambda batch: batch.num_sequences
    extra_config: dict[str, Any] = field(default_factory=dict)
    length: int | None = None

    def heads(self, config):
        return {self.name: self.head()}

    def counts(self, batch):
        return {"loss": self.counts_of(batch)}

    def __call__(self, model, batch):
        return self.loss(model(batch)[self.name], batch)

    def model(self):
        return Bert(SHAPE, self.heads(SHAPE))


def of(key, dtype=torch.long):
    return lambda sequences, labels: {"labels": torch.tensor([each[key] for each in sequences], dtype=dtype)}


def tags(sequences, labels):
    labels = labels.clone()
    for row, each in enumerate(sequences):
        length = len(each["tags"])
        labels[row, :length] = each["tags"].where(each["masked"], torch.tensor(-100))
    return {"labels": labels}


FAMILIES = {
    "classification": Family(
        "classify", lambda: ClassificationHead(SHAPE, 3),
        lambda logits, batch: classification_loss(logits, batch.targets["labels"]),
        "BertForSequenceClassification", of("class"), extra_config=ClassifyTask(labels=CLASSES).config_keys(),
    ),
    "regression": Family(
        "classify", lambda: ClassificationHead(SHAPE, 1),
        lambda logits, batch: regression_loss(logits, batch.targets["values"]),
        "BertForSequenceClassification", of("value", torch.float),
        extra_config={"id2label": {"0": "score"}, "problem_type": "regression"},
    ),
    "multi-label": Family(
        "classify", lambda: ClassificationHead(SHAPE, 3),
        lambda logits, batch: multi_label_loss(logits, batch.targets["many"]),
        "BertForSequenceClassification",
        lambda sequences, labels: {"labels": torch.stack([each["many"] for each in sequences]).float()},
        counts_of=lambda batch: 3 * batch.num_sequences,
        extra_config=ClassifyTask(labels=CLASSES).config_keys() | {"problem_type": "multi_label_classification"},
    ),
    "choice": Family(
        "choice", lambda: ChoiceHead(SHAPE),
        lambda logits, batch: choice_loss(
            logits, torch.full((batch.num_sequences // 4,), 4), batch.targets["choices"]
        ),
        "BertForMultipleChoice",
        lambda sequences, labels: {"labels": torch.tensor([each["choice"] for each in sequences[::4]])},
        counts_of=lambda batch: batch.num_sequences // 4,
    ),
    "tagging": Family(
        "tag", lambda: TokenClassificationHead(SHAPE, 3),
        lambda logits, batch: tagging_loss(logits, batch.targets["tags"]),
        "BertForTokenClassification", tags, counts_of=lambda batch: len(batch.targets["tags"]),
        extra_config=ClassifyTask(labels=CLASSES).config_keys(),
    ),
    "spans": Family(
        "span", lambda: SpanHead(SHAPE),
        lambda logits, batch: span_loss(logits, batch.cu_seqlens, *batch.targets["spans"].unbind(1)),
        "BertForQuestionAnswering",
        lambda sequences, labels: {
            name: torch.stack([each["span"] for each in sequences])[:, side]
            for side, name in enumerate(("start_positions", "end_positions"))
        },
        length=20,  # transformers lets padding compete with tokens: there is none here
    ),
}  # fmt: skip


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_fine_tuning(name, parts, tmp_path):
    family = FAMILIES[name]
    model = family.model()
    save_model(model, tmp_path / "model", extra_config=family.extra_config)
    expected = theirs(tmp_path / "model", family.architecture, family.arguments, family.length)
    found = ours(model, family, tmp_path / "run", parts=parts, length=family.length)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(found)) == STEPS


def test_a_choice_may_have_its_own_number_of_endings():
    logits = torch.randn(7, 1)
    step = choice_loss(logits, torch.tensor([2, 5]), torch.tensor([1, 3]))
    expected = sum(
        torch.nn.functional.cross_entropy(part.T, torch.tensor([label]))
        for part, label in zip(logits.split([2, 5]), (1, 3), strict=True)
    )
    assert float(step.losses["loss"].total) == pytest.approx(float(expected), rel=1e-6)


def test_a_task_trains_as_its_loss_does(tmp_path):
    """`ClassifyTask` through `TaskObjective`, which `finetune` runs, is the family above."""
    task = ClassifyTask(labels=CLASSES)
    family = FAMILIES["classification"]
    expected = ours(family.model(), family, tmp_path / "a")
    assert ours(family.model(), TaskObjective(task), tmp_path / "b") == expected


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_of_a_quarter_train_the_same(name, tmp_path):
    whole, quarters = (ours(*pretraining(name), tmp_path / f"{parts}", parts=parts) for parts in (1, 4))
    assert quarters == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 10), (0.1, 100), (0.01, 333), (0.5, 7)])
def test_the_learning_rate_is_that_of_transformers(ratio, steps):
    config = PretrainConfig(lr=3e-4, warmup_ratio=ratio)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(ratio * steps), steps)
    for step in range(steps):
        assert learning_rate(config, step, steps) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()
