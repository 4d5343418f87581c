"""What a report says of one fine-tuning run, as rows to read: scores, trials, errors, calibration, its data.

    epochs_table([{"step": 19, "loss": 0.5, "accuracy": 0.9}], None, "en").rows  # [['1', '19', '0.500', '90.0 %']]

Everything here is plain values in, plain words out, for any task: what a task does not tell is left out.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertwright.charts import Chart, reliability, scatter, thinned
from bertwright.messages import MESSAGES, Lang, say, score_label, score_names, score_text

Row = Mapping[str, Any]
Fact = tuple[str, str, bool]
"""A name, a value, and whether it gives cause for doubt."""
Piece = tuple[str, str, bool]
"""A part of an answer, its label if it has one, and whether the other side lacks it."""

PERCENT = "\u202f%"
MOST_LABELS = 20
"""In a confusion matrix; of more labels, the most frequent mix-ups are listed."""
MOST_BARS = 30
"""Bars in the balance of answers."""
LONGEST = 160
"""Characters of a text that are shown without a click."""
_MOST_TEXT = 4000
_SHARES = ("truncated", "unknown_tokens")
_DOUBTFUL = ("contradictory", "also_in_dev", "truncated")


@dataclass(frozen=True)
class Table:
    """Words in rows and columns."""

    columns: list[tuple[str, bool]]
    """(heading, whether it holds numbers)."""
    rows: list[list[str]]
    best: int | None = None
    """The row to look at first."""
    note: str = ""
    """What is to be said below it."""


@dataclass(frozen=True)
class Diagram:
    """A chart with what is to be said about it."""

    chart: Chart
    note: str
    facts: list[Fact] = field(default_factory=list)
    table: Table | None = None


@dataclass(frozen=True)
class Mistake:
    """An example that was answered wrongly."""

    where: str
    asked: list[tuple[str, str]]
    """Each text: its beginning, and the rest of it."""
    gold: list[Piece]
    answer: list[Piece]
    score: str


@dataclass(frozen=True)
class DataCheck:
    """The look at labelled data before training."""

    facts: list[Fact]
    balance: list[tuple[str, str, float]]
    """(answer, how often, length of its bar between 0 and 1)."""
    more: str
    """How many answers have no bar, in words; empty if all have one."""
    pairs: list[tuple[str, list[tuple[str, str]]]]
    """(complaint, pairs of rows)."""
    examples: list[list[tuple[str, str]]]
    """Tokens, each with what the model is to say there."""


def epochs_table(evals: Sequence[Row], best: Row | None, lang: Lang) -> Table | None:
    """Return all scores of every evaluation; the one whose weights were kept is the best."""
    names = score_names({name: value for row in evals for name, value in row.items()})
    if not names:
        return None
    with_loss = ["loss"] if any("loss" in row for row in evals) else []
    columns = [
        (say("report_epoch", lang), False),
        (say("step", lang), True),
        *((say(n, lang), True) for n in with_loss),
    ]
    rows = [
        [str(row.get("epoch", number)), f"{row['step']:,}"]
        + [f"{row[name]:.3f}" if name in row else "–" for name in with_loss]
        + [_score(name, row.get(name)) for name in names]
        for number, row in enumerate(evals, start=1)
    ]
    place = next((place for place, row in enumerate(evals) if row is best), None)
    return Table(columns + [(score_label(name, lang), True) for name in names], rows, place)


def breakdown_tables(row: Row, lang: Lang) -> list[Table]:
    """Return the loss and accuracy of predicted tokens by length, by what was shown, and by kind.

    Args:
        row: of an evaluation; its keys are as in `training.breakdown`.
    """
    tables: dict[str, Table] = {}
    for key, count in row.items():
        by, _, rest = key.partition("/")
        member, _, name = rest.partition("/")
        if f"by_{by}" not in MESSAGES or not name.endswith("_tokens"):
            continue
        loss, accuracy = (row.get(key.removesuffix("tokens") + what) for what in ("loss", "accuracy"))
        heads = [(f"by_{by}", False), ("report_tokens", True), ("loss", True), ("accuracy", True)]
        table = tables.setdefault(by, Table([(say(head, lang), number) for head, number in heads], []))
        label = say(f"{by}_{member}", lang) if f"{by}_{member}" in MESSAGES else member.replace("-", "–")
        table.rows.append([label, f"{count:,}", "–" if loss is None else f"{loss:.3f}", _score("accuracy", accuracy)])
    return list(tables.values())


def trials_table(trials: Row, lang: Lang) -> Table | None:
    """Return settings and the mean and deviation of their scores over seeds, best first, as in trials.json."""
    settings: Sequence[Row] = trials.get("rows", [])
    if not settings:
        return None
    known = ("name", "mean", "deviation", "seeds", "degenerate")
    dials = [name for name in settings[0] if name not in known]
    best_by = trials.get("best_by")
    every = score_names(next(iter(settings[0]["seeds"].values())))
    names = sorted(every, key=lambda name: name != best_by)  # the one that decided comes first
    rows = []
    for setting in settings:
        number, spoilt = str(len(setting["seeds"])), setting.get("degenerate", [])
        if spoilt:
            number += f" · ⚠ {say('report_degenerate', lang, count=len(spoilt))}"
        cells = [_value(setting[dial]) for dial in dials] or [str(setting["name"])]
        rows.append([*cells, number, *(_spread(name, setting["seeds"].values()) for name in names)])
    heads = dials or [say("report_setting", lang)]
    columns = [(head, bool(dials)) for head in heads] + [(say("report_seeds", lang), True)]
    return Table(
        columns + [(score_label(name, lang), True) for name in names], rows, 0, say("report_trials_note", lang)
    )


def class_table(evaluation: Row, lang: Lang) -> Table | None:
    """Return the scores of each label or kind of entity."""
    per_class: Mapping[str, Row] = evaluation.get("per_class") or {}
    if not per_class:
        return None
    first = next(iter(per_class.values()))
    shares = [name for name in ("precision", "recall", "f1") if name in first]
    counts = [name for name in ("support", "predicted", "right") if name in first]
    columns = [(say("report_class", lang), False), *((score_label(name, lang), True) for name in shares)]
    rows = [
        [label, *(_score(name, row.get(name)) for name in shares), *(f"{row.get(name, 0):,}" for name in counts)]
        for label, row in per_class.items()
    ]
    return Table(columns + [(say(f"report_{name}", lang), True) for name in counts], rows)


def mix_ups(evaluation: Row, lang: Lang) -> Table | None:
    """Return the most frequent wrong answers, where a confusion matrix would be too large."""
    labels, counts = evaluation.get("labels", []), evaluation.get("confusion", [])
    if not counts or len(labels) <= MOST_LABELS:
        return None
    pairs = [(count, right, wrong) for right, row in zip(labels, counts, strict=True)
             for wrong, count in zip(labels, row, strict=True) if count and right != wrong]  # fmt: skip
    columns = [
        (say("report_gold", lang), False),
        (say("report_answer", lang), False),
        (say("report_support", lang), True),
    ]
    note = say("report_mix_ups_note", lang, count=len(labels))
    frequent = sorted(pairs, key=lambda pair: -pair[0])[:MOST_LABELS]
    return Table(columns, [[right, wrong, f"{count:,}"] for count, right, wrong in frequent], note=note)


def calibration_diagram(evaluation: Row, lang: Lang) -> Diagram | None:
    """Return how sure and how right the answers are, with the temperature that was set."""
    values: Row = evaluation.get("calibration") or {}
    bins = values.get("bins", [])
    if not bins:
        return None
    facts: list[Fact] = []
    if "temperature" in values:
        facts.append((say("report_temperature", lang), f"{values['temperature']:.2f}", False))
    error = values.get("expected_calibration_error")
    facts.append((say("report_calibration_error", lang), _score("accuracy", error), False))
    heads = ("report_confidence", "report_support", "report_mean_confidence", "score_accuracy")
    rows = [
        [f"{100 * each['above']:.0f}–{100 * each['up_to']:.0f}{PERCENT}", f"{each['count']:,}"]
        + [_score("accuracy", each[name]) for name in ("confidence", "accuracy")]
        for each in bins
    ]
    table = Table([(say(head, lang), place > 0) for place, head in enumerate(heads)], rows)
    chart = Chart(say("report_calibration", lang), reliability(bins), [])
    return Diagram(chart, say("report_calibration_note", lang), facts, table)


def points_diagram(evaluation: Row, lang: Lang) -> Diagram | None:
    """Return a regression's answers against the right numbers."""
    points = [(gold, answer) for gold, answer in evaluation.get("points") or [] if math.isfinite(gold + answer)]
    if not points:
        return None
    note, shown = say("report_points_note", lang), len(thinned(points))
    if shown < len(points):
        note += " " + say("report_points_some", lang, shown=shown, count=len(points))
    return Diagram(Chart(say("report_points", lang), scatter(points), []), note)


def mistakes(evaluation: Row, lang: Lang) -> list[Mistake]:
    """Return the worst errors, whatever the task."""
    found = []
    for row in evaluation.get("worst_errors") or []:
        prediction = row.get("prediction")
        gold, answer = _compared(row.get("gold"), prediction, row.get("choices", []))
        named = isinstance(prediction, Mapping) and {"label", "choice", "answer"} & {*prediction}
        texts = [text for text in (row.get("text"), row.get("text_pair")) if text]
        texts += [f"{number}. {choice}" for number, choice in enumerate(row.get("choices", []))]
        found.append(
            Mistake(
                where=str(row.get("id") or row.get("where") or "–"),
                asked=[_cut(str(text)) for text in texts],
                gold=gold or [(say("report_nothing", lang), "", False)],
                answer=answer or [(say("report_nothing", lang), "", True)],
                score=_score("accuracy", prediction.get("score")) if named else "",
            )
        )
    return found


def data_check(data: Row, lang: Lang) -> DataCheck | None:
    """Return what data.json tells, if it is a check of labelled data."""
    if "balance" not in data:
        return None
    examples = data.get("shown") or data["examples"] if isinstance(data.get("examples"), list) else data.get("shown")
    balance: Mapping[str, int] = data["balance"] or {}
    total, most = sum(balance.values()) or 1, max(balance.values(), default=1) or 1
    bars = [
        (label, f"{count:,} · {100 * count / total:.1f}{PERCENT}", count / most) for label, count in balance.items()
    ]
    pairs = [
        (say(title, lang), [(str(first), str(second)) for first, second in data[key]])
        for title, key in (("check_contradiction", "contradictory_rows"), ("check_overlap", "overlapping_rows"))
        if data.get(key)
    ]
    return DataCheck(
        facts=list(_facts(data, lang)),
        balance=bars[:MOST_BARS],
        more=say("report_more", lang, count=len(bars) - MOST_BARS) if len(bars) > MOST_BARS else "",
        pairs=pairs,
        examples=[[(token, mark) for token, mark in each] for each in examples or []],
    )


def other_details(evaluation: Row) -> dict[str, Any]:
    """Return what an evaluation tells beside its scores and that has no section of its own."""
    shown = ("scores", "labels", "confusion", "per_class", "calibration", "points", "worst_errors")
    return {name: value for name, value in evaluation.items() if name not in shown and value is not None}


def _facts(data: Row, lang: Lang) -> Iterator[Fact]:
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        known = f"check_{name}" in MESSAGES
        shown = _score("accuracy", value) if name in _SHARES and not isinstance(value, str) else _value(value)
        yield say(f"check_{name}", lang) if known else name, shown, bool(value) and name in _DOUBTFUL


def _compared(gold: Any, prediction: Any, choices: Sequence[str]) -> tuple[list[Piece], list[Piece]]:
    """Return a right answer and the one given in words; what the other side lacks is marked."""
    match prediction:
        case {"entities": list(entities)} if isinstance(gold, list):
            if gold and isinstance(gold[0], str):  # a tag for every word: those that differ
                pairs = [(each, tag) for each, tag in zip(entities, gold, strict=False) if each["entity_group"] != tag]
                return [(each["word"], tag, True) for each, tag in pairs], [_entity(each, True) for each, _ in pairs]
            places = [{_place(each) for each in side} for side in (gold, entities)]
            return (
                [_entity(each, _place(each) not in places[1]) for each in gold],
                [_entity(each, _place(each) not in places[0]) for each in entities],
            )
        case {"labels": list(labels)} if isinstance(gold, list):
            return [(each, "", each not in labels) for each in gold], [(each, "", each not in gold) for each in labels]
        case {"choice": int(choice)}:
            return [_chosen(gold, choices, False)], [_chosen(choice, choices, True)]
        case {"label": answer} | {"answer": answer} | {"score": answer}:
            rights = gold if isinstance(gold, list) else [gold]
            given = [] if answer == "" else [(_value(answer), "", True)]
            return [(_value(each), "", False) for each in dict.fromkeys(rights)], given
    return [(_value(gold), "", False)], [(_value(prediction), "", True)]


def _place(entity: Row) -> tuple[Any, ...]:
    return entity.get("start"), entity.get("end"), entity["entity_group"]


def _entity(entity: Row, wrong: bool) -> Piece:
    return entity["word"], entity["entity_group"], wrong


def _chosen(place: Any, choices: Sequence[str], wrong: bool) -> Piece:
    text = choices[place] if isinstance(place, int) and 0 <= place < len(choices) else ""
    return f"{place}. {text}".strip(), "", wrong


def _cut(text: str) -> tuple[str, str]:
    if len(text) <= LONGEST * 1.25:
        return text, ""
    rest = text[LONGEST:_MOST_TEXT]
    return text[:LONGEST], rest + "…" * (len(text) > _MOST_TEXT)


def _score(name: str, value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "–"
    return score_text(name, value, sign=PERCENT)


def _spread(name: str, seeds: Any) -> str:
    """Return the mean of a score and its standard deviation."""
    values = [scores[name] for scores in seeds if name in scores]
    if not values:
        return "–"
    mean, deviation = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    if deviation is None:
        return _score(name, mean)
    sign = PERCENT if score_text(name, 0.0).endswith("%") else ""
    return f"{score_text(name, mean, sign='')} ± {score_text(name, deviation, sign='')}{sign}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
