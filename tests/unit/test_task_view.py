"""The table of trials, whatever their dials are."""

import io

import pytest
from rich.console import Console

from bertwright.cli.task_view import print_trials
from bertwright.sections import trials_table


def row(**dials):
    name = "-".join(f"{dial}={value}" for dial, value in dials.items())
    seeds = {"0": {"accuracy": 0.5}, "1": {"accuracy": 0.7}}
    return {"name": name, **dials, "mean": 0.6, "deviation": 0.1, "seeds": seeds, "degenerate": []}


ROWS = [
    row(freeze="embeddings,layers:0-5", lr=5e-05, bias_correction=True, epochs=3),
    row(freeze="", lr=1e-3, bias_correction=False, epochs=10),
]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_dials_may_be_words_and_switches(lang):
    console = Console(file=io.StringIO(), width=120)
    print_trials(ROWS, "accuracy", lang, console)
    heads, first, second = console.file.getvalue().splitlines()
    assert heads.split() == ["freeze", "lr", "bias_correction", "epochs", "seeds", "accuracy"]
    assert first.split() == ["embeddings,layers:0-5", "5e-05", "True", "3", "2", "0.6000", "±", "0.1000"]
    assert second.split() == ["0.001", "False", "10", "2", "0.6000", "±", "0.1000"]


def test_so_may_they_in_the_report():
    table = trials_table({"best_by": "accuracy", "rows": ROWS}, "en")
    assert table.rows[0][:4] == ["embeddings,layers:0-5", "5e-05", "true", "3"]
