"""The paper's experiments as data: rows, what each changes, what they are scored on, and the paper's own numbers.

    experiment = get_experiment("table5")
    experiment.rows[1].pretraining.objective                  # 'mlm'
    experiment.rows[1].paper["mrpc"]                          # 86.5

An experiment is nothing but this: `runs` makes trainings of it, `engine` runs them, `results` compares. A further one
is an entry in `EXPERIMENTS`. Every number is from Devlin et al. 2019, in percent but for perplexities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bertwright.config import ObjectiveName
from bertwright.errors import BertwrightError, nearest
from bertwright.options import FeatureMix

Masks = tuple[int, int, int]
"""Of the tokens that are predicted, how many percent are shown as [MASK], unchanged, and as a random token."""

BEST_FEATURES: FeatureMix = "concat-last-4"
"""What the feature-based columns read. Paper: C.2 takes the best row of table 7."""
PERPLEXITY = "perplexity"
"""The column that pre-training itself fills: e to the power of the held-out MLM loss. Paper: table 6."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What a row changes in the pre-training; by default nothing."""

    objective: ObjectiveName = "mlm+nsp"
    """What is learnt."""
    rung: int | None = None
    """Place in the scale's ladder of sizes; None: the scale's own size."""
    masks: Masks = (80, 10, 10)
    """How predicted tokens are shown."""
    part: float = 1.0
    """Share of the steps after which the weights are taken; below 1 they are those of a checkpoint. Paper: C.1."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table."""

    key: str
    """As `--only` and the folders of runs have it."""
    name: str
    """As the paper has it."""
    pretraining: Pretraining = Pretraining()
    """What is changed in the pre-training."""
    bilstm: int = 0
    """Layers of a BiLSTM that fine-tuning puts on top. Paper: 5.1."""
    features: FeatureMix = "none"
    """Layers read by a BiLSTM on the frozen encoder; none: fine-tuning. Paper: 5.3."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """The paper's value by column."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What the rows are scored on."""

    key: str
    """As in `Row.paper` and the folders of runs."""
    task: str | None
    """One of `sources`; None: filled by pre-training."""
    metric: str
    """The score's name."""
    features: FeatureMix = "none"
    """As of a row: of a column it counts for all rows."""
    smaller_is_better: bool = False
    """Whether less is more."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An ordering that the paper states without a number."""

    better: str
    """Key of a row."""
    worse: str
    """Likewise."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table of the paper."""

    key: str
    """As the command takes it."""
    place: str
    """Where the paper has it."""
    rows: Sequence[Row]
    """In the paper's order."""
    columns: Sequence[Column]
    """In the paper's order."""
    claims: Sequence[Claim] = ()
    """Orderings without numbers; they hold for every column."""
    notes: Sequence[str] = ()
    """What a reader must know beside what holds for all: keys of messages."""
    also: Sequence[str] = ()
    """Tasks scored too, though the paper's table lacks them."""

    def chosen_rows(self, keys: Sequence[str]) -> list[Row]:
        """Return the rows of these keys, in the table's order; all of them if none is named.

        Raises:
            BertwrightError: there is no such row.
        """
        known = [row.key for row in self.rows]
        for key in keys:
            if key not in known:
                raise BertwrightError(f"{self.key} has no row {key!r}{nearest(key, known)}",
                                      fix=f"--only takes some of: {', '.join(known)}")  # fmt: skip
        return [row for row in self.rows if not keys or row.key in keys]


def _column(task: str, metric: str = "accuracy") -> Column:
    return Column(key=task.lower(), task=task, metric=metric)


MNLI, QNLI, MRPC, SST2 = map(_column, ("MNLI-m", "QNLI", "MRPC", "SST-2"))
SQUAD, CONLL = _column("SQuAD", "f1"), _column("CoNLL-2003", "f1")
CONLL_FEATURES = Column(key="conll-2003-features", task="CoNLL-2003", metric="f1", features=BEST_FEATURES)
LM = Column(key=PERPLEXITY, task=None, metric=PERPLEXITY, smaller_is_better=True)


def _values(columns: Sequence[Column], *values: float) -> dict[str, float]:
    return {column.key: value for column, value in zip(columns, values, strict=True)}


def _table5() -> Experiment:
    columns = (MNLI, QNLI, MRPC, SST2, SQUAD)
    ltr = Pretraining(objective="ltr")
    rows = (
        Row(key="bert", name="BERT", paper=_values(columns, 84.4, 88.4, 86.7, 92.7, 88.5)),
        Row(
            key="no-nsp",
            name="No NSP",
            pretraining=Pretraining(objective="mlm"),
            paper=_values(columns, 83.9, 84.9, 86.5, 92.6, 87.9),
        ),
        Row(
            key="ltr-no-nsp",
            name="LTR & No NSP",
            pretraining=ltr,
            paper=_values(columns, 82.1, 84.3, 77.5, 92.1, 77.8),
        ),
        Row(
            key="ltr-no-nsp-bilstm",
            name="+ BiLSTM",
            pretraining=ltr,
            bilstm=1,
            paper=_values(columns, 82.1, 84.1, 75.7, 91.6, 84.9),
        ),
    )
    return Experiment(key="table5", place="Table 5", rows=rows, columns=columns, notes=("reproduce_note_no_nsp",))


SIZES: tuple[tuple[int, int, int], ...] = (
    (3, 768, 12), (6, 768, 3), (6, 768, 12), (12, 768, 12), (12, 1_024, 16), (24, 1_024, 16),
)  # fmt: skip
"""Layers, hidden size and attention heads of table 6, smallest first: the rungs of a ladder."""


def _table6() -> Experiment:
    columns = (LM, MNLI, MRPC, SST2)
    values = (
        (5.84, 77.9, 79.8, 88.4), (5.24, 80.6, 82.2, 90.7), (4.68, 81.9, 84.8, 91.3), (3.99, 84.4, 86.7, 92.9),
        (3.54, 85.7, 86.9, 93.3), (3.23, 86.6, 87.8, 93.7),
    )  # fmt: skip
    rows = [
        Row(
            key=f"{layers}x{hidden}x{heads}",
            name=f"L={layers} H={hidden} A={heads}",
            pretraining=Pretraining(rung=rung),
            paper=_values(columns, *values[rung]),
        )
        for rung, (layers, hidden, heads) in enumerate(SIZES)
    ]
    notes = ("reproduce_note_ladder", "reproduce_note_perplexity")
    return Experiment(key="table6", place="Table 6", rows=rows, columns=columns, notes=notes)


def _table7() -> Experiment:
    mixes: tuple[tuple[FeatureMix, str, float], ...] = (
        ("none", "Fine-tuning", 96.4),
        ("embeddings", "Embeddings", 91.0),
        ("second-to-last", "Second-to-Last Hidden", 95.6),
        ("last", "Last Hidden", 94.9),
        ("weighted-sum-last-4", "Weighted Sum Last Four Hidden", 95.9),
        ("concat-last-4", "Concat Last Four Hidden", 96.1),
        ("weighted-sum-all", "Weighted Sum All Layers", 95.5),
    )
    rows = [
        Row(key="fine-tuning" if mix == "none" else mix, name=name, features=mix, paper=_values((CONLL,), value))
        for mix, name, value in mixes
    ]
    return Experiment(key="table7", place="Table 7", rows=rows, columns=(CONLL,), notes=("reproduce_note_features",))


def _mask_mix() -> Experiment:
    columns = (MNLI, CONLL, CONLL_FEATURES)
    found: tuple[tuple[Masks, tuple[float, float, float]], ...] = (
        ((80, 10, 10), (84.2, 95.4, 94.9)),
        ((100, 0, 0), (84.3, 94.9, 94.0)),
        ((80, 0, 20), (84.1, 95.2, 94.6)),
        ((80, 20, 0), (84.4, 95.2, 94.7)),
        ((0, 20, 80), (83.7, 94.8, 94.6)),
        ((0, 0, 100), (83.6, 94.9, 94.6)),
    )
    rows = [
        Row(
            key="-".join(map(str, masks)),
            name=" / ".join(f"{share} %" for share in masks),
            pretraining=Pretraining(masks=masks),
            paper=_values(columns, *values),
        )
        for masks, values in found
    ]
    notes = ("reproduce_note_masks", "reproduce_note_features")
    return Experiment(key="mask-mix", place="Table 8 (C.2)", rows=rows, columns=columns, notes=notes)


PARTS = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Where the steps of figure 5 are looked at, as shares of all; of a million the paper speaks of 0.5 and 1."""


def _steps() -> Experiment:
    kinds: tuple[tuple[str, ObjectiveName], ...] = (("MLM", "mlm+nsp"), ("LTR", "ltr"))
    rows = [
        Row(
            key=f"{name.lower()}-{round(100 * part)}",
            name=f"{name}, {part:.0%}",
            pretraining=Pretraining(objective=objective, part=part),
        )
        for name, objective in kinds
        for part in PARTS
    ]
    claims = [Claim(better="mlm-100", worse="mlm-50")]
    claims += [Claim(better=f"mlm-{round(100 * part)}", worse=f"ltr-{round(100 * part)}") for part in PARTS]
    return Experiment(
        key="steps",
        place="Figure 5 (C.1)",
        rows=rows,
        columns=(MNLI,),
        claims=claims,
        notes=("reproduce_note_steps",),
        also=("QNLI", "MRPC", "SST-2"),
    )


EXPERIMENTS: dict[str, Experiment] = {
    each.key: each for each in (_table5(), _table6(), _table7(), _mask_mix(), _steps())
}
"""By name."""


def get_experiment(name: str) -> Experiment:
    """Return an experiment by name.

    Raises:
        BertwrightError: none has that name; the nearest one and all others are listed.
    """
    if name not in EXPERIMENTS:
        raise BertwrightError(f"unknown experiment {name!r}{nearest(name, EXPERIMENTS)}",
                              fix=f"choose one of: {', '.join(EXPERIMENTS)}")  # fmt: skip
    return EXPERIMENTS[name]
