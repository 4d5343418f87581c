"""The report: one file, complete, safe, and honest about broken input."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bertwright.errors import BertwrightError
from bertwright.messages import MESSAGES, say
from bertwright.report import (
    MAX_POINTS,
    Comparison,
    _follow_the_page,
    _series,
    part_of,
    read_metrics,
    write_page,
    write_report,
)


def write_rows(run: Path, rows: list[dict]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def pretraining(tmp_path: Path) -> Path:
    rows = []
    for step in range(10, 401, 10):
        loss = 4 + 6 * math.exp(-step / 100)
        scores = {"mlm_loss": loss, "mlm_accuracy": 0.3, "nsp_loss": 0.6, "nsp_accuracy": 0.7}
        pace = {"lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1_000, "mfu": 0.4, "seconds": 2.0}
        rows.append({"kind": "train", "step": step, **scores, **pace})
        if step % 100 == 0:
            rows.append({"kind": "eval", "step": step, **scores})
    write_rows(tmp_path, rows)
    (tmp_path / "config.json").write_text('{"model": {"hidden_size": 256}, "train": {"lr": 0.001}}')
    (tmp_path / "versions.json").write_text('{"torch": "2.13.0"}')
    (tmp_path / "data.json").write_text('{"counts": {"train": {"documents": 12345}}}')
    sample = {
        "text": "<script>alert(1)</script> a [MASK] here",
        "answer": "cat",
        "after": [{"token_str": "cat", "score": 0.5}],
    }
    (tmp_path / "samples.json").write_text(json.dumps([sample]))
    return tmp_path


@pytest.fixture
def finetuning(tmp_path: Path) -> Path:
    run = tmp_path / "finetune"
    run.mkdir()
    rows = [
        {"kind": "train", "step": step, "loss": 1.0, "accuracy": 0.5, "lr": 1e-5, "seconds": 1.0}
        for step in range(1, 31)
    ]
    rows += [
        {"kind": "eval", "step": step, "loss": 1.0, "accuracy": a, "f1": f}
        for step, a, f in ((10, 0.5, 0.4), (20, 0.8, 0.7), (30, 0.6, 0.5))
    ]
    write_rows(run, rows)
    per_class = {label: {"precision": 0.5, "recall": 0.25, "f1": 0.333, "support": 40} for label in ("no", "是")}
    (run / "evaluation.json").write_text(
        json.dumps({"labels": ["no", "是"], "confusion": [[31, 9], [30, 10]], "per_class": per_class})
    )
    return run


class _Page(HTMLParser):
    """Collects elements and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "img", "link", "input"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.fetched.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_file_that_fetches_nothing(pretraining: Path) -> None:
    text = write_report(pretraining).read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert not list(pretraining.glob("*.tmp"))


def test_pretraining_shows_curves_data_configuration_versions_and_samples(pretraining: Path) -> None:
    text = write_report(pretraining).read_text(encoding="utf-8")
    assert _Page(text).tags.count("svg") == 8  # loss and accuracy of MLM and NSP, lr, gradient, tokens/s, share of peak
    for expected in ("MLM loss", "NSP accuracy", "12,345", "hidden_size", "2.13.0", "train.lr", 'class="right">cat'):
        assert expected in text
    assert "1\u202fmin\u202f20\u202fs" in text


def test_text_of_others_is_escaped(pretraining: Path) -> None:
    text = write_report(pretraining).read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<mark>[MASK]</mark>" in text


def test_finetuning_shows_epochs_confusion_and_classes(finetuning: Path) -> None:
    text = write_report(finetuning).read_text(encoding="utf-8")
    assert re.search(r'<tr class="best"><td>2</td>', text)
    assert "80.0\u202f%" in text
    assert "25.0\u202f%" in text
    assert "是" in text
    assert re.search(r'<td class="true" style="background: rgba\(var\(--tint\), 0\.58\)"[^>]*>31</td>', text)


def test_the_evaluation_that_was_kept_is_the_best(finetuning: Path) -> None:
    (finetuning / "best.json").write_text('{"step": 30, "scores": {}}')
    assert re.search(r'<tr class="best"><td>3</td>', write_report(finetuning).read_text(encoding="utf-8"))


def test_speaks_chinese(finetuning: Path) -> None:
    text = write_report(finetuning, lang="zh").read_text(encoding="utf-8")
    assert '<html lang="zh">' in text
    for key in ("report_confusion", "report_scores", "report_class", "accuracy", "dev"):
        assert say(key, "zh") in text
        assert say(key, "en") not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL) or key in (
            "dev",
            "accuracy",
        )


def test_one_page_about_several_runs(pretraining: Path, finetuning: Path) -> None:
    parts = [part_of(pretraining, "en"), part_of(finetuning, "en", title="From random weights")]
    comparison = Comparison("accuracy", [("pre-trained", 0.75), ("random", 0.5)])
    text = write_page(pretraining / "all.html", "Everything", parts, comparison=comparison).read_text(encoding="utf-8")
    assert "width: 75.0%" in text
    assert "<h2>From random weights</h2>" in text


def test_a_line_cut_short_is_left_out_and_a_broken_one_is_named(pretraining: Path) -> None:
    path = pretraining / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"kind": "train", "st')
    assert len(read_metrics(path)[0]) == 40
    path.write_text("oops\n" + whole)
    with pytest.raises(BertwrightError, match=r"metrics.jsonl, line 1: not a line of JSON"):
        read_metrics(path)


def test_a_step_run_twice_counts_once(tmp_path: Path) -> None:
    write_rows(
        tmp_path, [{"kind": "train", "step": step, "mlm_loss": loss} for step, loss in ((1, 9.0), (2, 8.0), (2, 7.0))]
    )
    assert [row["mlm_loss"] for row in read_metrics(tmp_path / "metrics.jsonl")[0]] == [9.0, 7.0]


def test_no_run_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="no run folder"):
        write_report(tmp_path)


def test_a_run_without_a_row_yet_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert "<svg" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_long_runs_are_averaged_and_not_a_number_is_left_out() -> None:
    rows = [{"step": step, "x": float(step)} for step in range(10_000)] + [{"step": 10_000, "x": float("nan")}]
    series = _series(rows, "x")
    assert len(series) <= MAX_POINTS
    assert sum(y for _, y in series) / len(series) == pytest.approx(5_000, rel=0.01)


def test_charts_take_their_colours_from_the_page() -> None:
    path = '<g id="figure_1"><path style="stroke: #a10001"/></g>'
    svg = f'<?xml version="1.0"?>\n<svg height="9pt" width="9pt" viewBox="0 0 9 9">{path}</svg>'
    assert _follow_the_page(svg) == '<svg viewBox="0 0 9 9"><g><path style="stroke: var(--line)"/></g></svg>'


def test_both_languages_have_the_same_placeholders() -> None:
    for key, (english, chinese) in MESSAGES.items():
        names = [set(re.findall(r"{(\w+)", text)) for text in (english, chinese)]
        assert names[0] == names[1], key
        assert english, key
        assert re.search("[\u4e00-\u9fff]", chinese), key
