"""The report: one file, complete, safe, and honest about broken input."""

import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bertwright.charts import MAX_DOTS, MAX_POINTS, follow_the_page, series, thinned
from bertwright.errors import BertwrightError
from bertwright.messages import MESSAGES, say, score_label, score_names, score_text
from bertwright.report import Comparison, part_of, read_metrics, write_page, write_report
from bertwright.sections import LONGEST, MOST_BARS, MOST_LABELS, data_check, mistakes, trials_table


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
    path.write_text('{"kind": "note"}\n[7]\n' + whole)
    with pytest.raises(BertwrightError, match=r"metrics.jsonl, line 2: not a row of metrics"):
        read_metrics(path)
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
    averaged = series(rows, "x")
    assert len(averaged) <= MAX_POINTS
    assert sum(y for _, y in averaged) / len(averaged) == pytest.approx(5_000, rel=0.01)


def test_charts_take_their_colours_from_the_page() -> None:
    path = '<g id="figure_1"><path style="stroke: #a10001"/></g>'
    svg = f'<?xml version="1.0"?>\n<svg height="9pt" width="9pt" viewBox="0 0 9 9">{path}</svg>'
    assert follow_the_page(svg) == '<svg viewBox="0 0 9 9"><g><path style="stroke: var(--line)"/></g></svg>'


def test_both_languages_have_the_same_placeholders() -> None:
    for key, (english, chinese) in MESSAGES.items():
        names = [set(re.findall(r"{(\w+)", text)) for text in (english, chinese)]
        assert names[0] == names[1], key
        assert english, key
        assert re.search("[\u4e00-\u9fff]", chinese), key


# Fine-tuning of every task

HOSTILE = "<script>alert('1')</script>"
BINS = [{"above": 0.4, "up_to": 0.6, "count": 9, "confidence": 0.5, "accuracy": 0.25},
        {"above": 0.8, "up_to": 1.0, "count": 1, "confidence": 0.9, "accuracy": 1.0}]  # fmt: skip
CLASSES = {label: {"precision": 0.5, "recall": 0.25, "f1": 0.333, "support": 1234} for label in ("no", HOSTILE)}
ENTITY = {"entity_group": "PER", "word": "Ann", "start": 0, "end": 3}
PLACE = {"entity_group": "LOC", "word": "Paris", "start": 7, "end": 12}


def wrong(gold: object, prediction: object, **asked: object) -> list[dict]:
    return [{"where": f"dev{HOSTILE}.csv, row 2", "text": HOSTILE, **asked, "gold": gold, "prediction": prediction}]


KINDS = {
    "classify": (
        {"accuracy": 0.75, "f1": 0.7, "macro_f1": 0.65, "mcc": 0.321},
        {"labels": ["no", HOSTILE], "confusion": [[3, 1], [2, 4]], "per_class": CLASSES,
         "calibration": {"temperature": 1.25, "expected_calibration_error": 0.125, "bins": BINS},
         "worst_errors": wrong(HOSTILE, {"label": "no", "score": 0.875})},
        ("report_confusion", "report_classes", "report_calibration", "report_temperature", "report_score"),
        ("75.0", "0.321", "1.25", "12.5", "87.5", "1,234"),
    ),
    "multi-label": (
        {"accuracy": 0.25, "micro_f1": 0.8, "macro_f1": 0.65},
        {"labels": ["no", HOSTILE], "per_class": CLASSES,
         "worst_errors": wrong(["no", "maybe"], {"labels": ["no", HOSTILE], "scores": {"no": 0.9}})},
        ("report_classes", "score_micro_f1"),
        ("80.0", '<span class="missed">maybe</span>', "<span>no</span>"),
    ),
    "regress": (
        {"pearson": 0.801, "spearman": 0.798, "mse": 0.51234},
        {"points": [[0.0, 0.5], [5.0, 4.0], [1.0, float("nan")]], "worst_errors": wrong(5.0, {"score": 4.0},
                                                                                        text_pair="other")},
        ("report_points", "score_spearman", "score_mse"),
        ("0.801", "0.798", "0.5123", "other"),
    ),
    "qa": (
        {"exact": 0.5, "f1": 0.6, "answerable_exact": 0.4, "answerable_f1": 0.55, "unanswerable_accuracy": 0.7},
        {"questions": 3, "unanswerable": 1, "null_threshold": None,
         "worst_errors": wrong(["Paris", "the city"], {"answer": "", "score": 0.1}, id="q-7", text_pair="x" * 500)},
        ("score_exact", "score_answerable_f1", "detail_questions", "report_nothing"),
        ("50.0", "60.0", "Paris", "the city", "q-7", "x" * (LONGEST) + "…", "x" * (500 - LONGEST)),
    ),
    "choice": (
        {"accuracy": 0.75},
        {"labels": ["0", "1"], "confusion": [[3, 1], [2, 4]],
         "worst_errors": wrong(1, {"choice": 0, "text": "ends", "score": 0.6, "scores": [0.6, 0.4]},
                               choices=["ends", HOSTILE])},
        ("report_confusion", "report_score"),
        ("0. ends", "1. &lt;script&gt;", "60.0"),
    ),
    "tag": (
        {"precision": 0.5, "recall": 0.4, "f1": 0.444, "accuracy": 0.9},
        {"counts": {"gold": 11, "predicted": 10, "right": 5},
         "per_class": {"PER": {**CLASSES["no"], "predicted": 55, "right": 18}},
         "worst_errors": wrong([ENTITY, PLACE], {"entities": [ENTITY], "tags": ["B-PER"]})},
        ("report_classes", "detail_counts.right", "report_predicted", "score_recall"),
        ("44.4", "<span>Ann <small>PER</small></span>", '<span class="missed">Paris <small>LOC</small></span>'),
    ),
    "plain tags": (
        {"accuracy": 0.9, "macro_f1": 0.8},
        {"worst_errors": wrong(["NOUN", "VERB"], {"entities": [{**ENTITY, "entity_group": "NOUN"},
                                                               {**PLACE, "entity_group": "NOUN"}]})},
        ("score_macro_f1",),
        ("Paris <small>VERB", "Paris <small>NOUN"),
    ),
    "somebody's own": (
        {"bleu": 12.3456, "accuracy": 0.5},
        {"oddity": {"a": [HOSTILE]}, "worst_errors": wrong({"any": 1}, {"thing": HOSTILE})},
        ("report_details", "report_errors"),
        ("bleu", "12.35", "oddity.a"),
    ),
}  # fmt: skip


CHECK = {
    "dev_examples": 1234, "contradictory": 1, "truncated": 0.125, "unknown_tokens": 0.0,
    "balance": {HOSTILE: 3, "no": 1},
    "contradictory_rows": [[f"{HOSTILE}, row 3", "train.csv, row 9"]],
    "overlapping_rows": [["train.csv, row 4", "dev.csv, row 5"]],
    "examples": [[["[CLS]", "no"], ["<b>", ""], ["##s", "O"], ["[SEP]", ""]]] * 5,
}  # fmt: skip


def write_run(run: Path, kind: str) -> Path:
    """A fine-tuning run folder as training leaves it."""
    scores, details, _, _ = KINDS[kind]
    run.mkdir(exist_ok=True)
    rows = [{"kind": "train", "step": step, "loss": 2.0, "lr": 1e-5, "seconds": 1.0} for step in (5, 10)]
    rows += [{"kind": "eval", "step": step, "loss": 1.0, **scores} for step in (5, 10)]
    write_rows(run, rows)
    (run / "evaluation.json").write_text(json.dumps({"scores": scores, "num_examples": 8, **details}))
    (run / "data.json").write_text(json.dumps(CHECK))
    (run / "best.json").write_text(json.dumps({"step": 5, "scores": scores, "problem": None}))
    return run


ALWAYS = ("report_scores", "report_errors", "report_gold", "report_answer", "report_data", "check_balance",
          "check_contradiction", "check_overlap", "check_shown", "check_dev_examples")  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_has_its_sections_in_both_languages(kind: str, lang: str, tmp_path: Path) -> None:
    scores, details, keys, figures = KINDS[kind]
    text = write_report(write_run(tmp_path / "run", kind), lang=lang).read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert page.fetched == []
    for words in [say(key, lang) for key in (*ALWAYS, *keys)] + [score_label(name, lang) for name in scores]:
        assert f">{words}" in html.unescape(text) or re.search(f"(: |：){words}<", text), words
    for figure in figures:
        assert figure in text, figure
    assert '<tr class="best"><td>1</td>' in text
    assert ('class="heat"' in text) == ("confusion" in details)
    assert (say("report_calibration_note", lang) in text) == ("calibration" in details)
    assert (say("report_points_note", lang) in text) == ("points" in details)
    assert say("report_problem", lang) not in text
    assert say("report_trials", lang) not in text


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_others_is_taken_for_html(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / HOSTILE.replace("/", "∕"), kind)
    (run / "best.json").write_text(json.dumps({"step": 5, "scores": {}, "problem": HOSTILE}))
    (run / "config.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    text = write_report(run).read_text(encoding="utf-8")
    assert not {"script", "b>"} & {*_Page(text).tags}
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 5
    assert "&lt;b&gt;" in text


def test_tokens_bear_their_marks(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path / "run", "classify")).read_text(encoding="utf-8")
    assert text.count('<div class="tokens">') == 5
    assert "<span>[CLS]<small>no</small></span>" in text
    assert '<span>##s<small class="o">O</small></span><span class="special">[SEP]</span>' in text
    assert '<dd class="doubt">12.5\u202f%</dd>' in text
    assert "<dd>0.0\u202f%</dd>" in text
    assert 'style="width: 33.3%"' in text
    assert "3 · 75.0\u202f%" in text


PROBLEM = {"problem": "answers 'x' to everything", "problem_zh": "总是回答 'x'"}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_run_that_came_to_nothing_says_so(lang: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "classify")
    (run / "best.json").write_text(json.dumps({"step": 5, "scores": {}, **PROBLEM}))
    (run / "degenerate-1").mkdir()
    (run / "degenerate-1/best.json").write_text(json.dumps({"step": 5, "problem": "was worse"}))
    (run / "degenerate-2").mkdir()  # of which nothing is known
    text = write_report(run, lang=lang).read_text(encoding="utf-8")
    assert 'role="alert"' in text
    why = "总是回答 &#39;x&#39;" if lang == "zh" else "answers &#39;x&#39; to"
    for expected in (say("report_problem", lang), say("report_restarts", lang), why, "was worse"):
        assert expected in text
    assert ("answers" in text) == (lang == "en"), "the reason stands there in one language"
    assert "{problem}" not in text


TRIALS = {"best_by": "f1", "rows": [
    {"name": "lr=5e-05", "lr": 5e-05, "mean": 0.8, "deviation": 0.1, "degenerate": [1],
     "seeds": {"0": {"accuracy": 0.9, "f1": 0.7, "mcc": 0.5}, "1": {"accuracy": 0.9, "f1": 0.9, "mcc": 0.7}}},
    {"name": "lr=3e-05", "lr": 3e-05, "mean": 0.5, "deviation": 0.0, "degenerate": [],
     "seeds": {"0": {"accuracy": 0.5, "f1": 0.5, "mcc": 0.0}}},
]}  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_trials_are_compared(lang: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "classify")
    (run / "trials.json").write_text(json.dumps(TRIALS))
    (run / "data.json").unlink()
    best = write_run(run / "lr=5e-05-seed=1", "classify")
    (best / "config.json").write_text('{"train": {"lr": 5e-05}}')
    text = write_report(run, lang=lang).read_text(encoding="utf-8")
    for expected in ("report_trials", "report_seeds", "report_best_configuration", "check_shown"):
        assert say(expected, lang) in text
    assert say("report_degenerate", lang, count=1) in text
    assert "5e-05" in text


def test_the_score_that_decided_comes_first_in_the_table_of_trials() -> None:
    table = trials_table(TRIALS, "en")
    assert table is not None
    assert [name for name, _ in table.columns] == ["lr", "Seeds", "F1", "accuracy", "MCC"]
    assert table.rows[0] == [
        "5e-05",
        "2 · ⚠ 1 came to nothing",
        "80.0 ± 14.1\u202f%",
        "90.0 ± 0.0\u202f%",
        "0.600 ± 0.141",
    ]
    assert table.rows[1] == ["3e-05", "1", "50.0\u202f%", "50.0\u202f%", "0.000"]
    assert table.best == 0
    seeds_only = {"best_by": "f1", "rows": [{**TRIALS["rows"][1], "name": "trial"}]}
    del seeds_only["rows"][0]["lr"]
    assert trials_table(seeds_only, "en").rows == [["trial", "1", "50.0\u202f%", "50.0\u202f%", "0.000"]]


def test_trials_that_were_stopped_have_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text(json.dumps(TRIALS))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert say("report_trials", "en") in text
    assert "<svg" not in text


@pytest.mark.parametrize("missing", ["evaluation.json", "data.json", "best.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_left_out(kind: str, missing: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kind)
    (run / missing).unlink()
    text = write_report(run).read_text(encoding="utf-8")
    assert _Page(text).open == []
    assert say("report_scores", "en") in text
    assert (say("report_errors", "en") in text) == (missing != "evaluation.json")
    assert (say("check_shown", "en") in text) == (missing != "data.json")


def test_an_older_runs_data_is_shown_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "classify")
    (run / "data.json").write_text('{"train_examples": 6543, "dev_examples": 21}')
    text = write_report(run).read_text(encoding="utf-8")
    assert "<dt>train_examples</dt><dd>6,543</dd>" in text
    assert say("check_balance", "en") not in text


@pytest.mark.parametrize(("name", "text"), [("best.json", "{"), ("data.json", "[1]"), ("samples.json", "{}"),
                                            ("trials.json", ""), ("evaluation.json", "3")])  # fmt: skip
def test_a_broken_file_is_named(name: str, text: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "classify")
    (run / name).write_text(text)
    with pytest.raises(BertwrightError, match=name):
        write_report(run)


def test_many_labels_are_no_matrix_but_a_list_of_mix_ups(tmp_path: Path) -> None:
    run, labels = write_run(tmp_path / "run", "classify"), [f"label {number}" for number in range(MOST_LABELS + 1)]
    confusion = [[100 * (row == column) for column in range(len(labels))] for row in range(len(labels))]
    confusion[3][7] = 41
    (run / "evaluation.json").write_text(json.dumps({"labels": labels, "confusion": confusion}))
    balance = {f"label {number}": 50 for number in range(MOST_BARS + 12)}
    (run / "data.json").write_text(json.dumps({**CHECK, "balance": balance}))
    text = write_report(run).read_text(encoding="utf-8")
    assert 'class="heat"' not in text
    assert "<td>label 3</td><td>label 7</td>" in text
    assert text.count("<td>label") == 2
    assert "… and 12 more" in text


def test_long_texts_open_at_a_click() -> None:
    [mistake] = mistakes({"worst_errors": wrong("a", {"label": "b", "score": 0.5}, text="y" * 10_000)}, "en")
    [(start, rest)] = mistake.asked
    assert start == "y" * LONGEST
    assert len(rest) < 4_000
    assert rest.endswith("…")


def test_the_count_of_examples_and_the_examples_may_both_be_told() -> None:
    check = data_check({"balance": {}, "examples": 7, "shown": [[["a", "b"]]]}, "en")
    assert check is not None
    assert check.facts[0] == ("examples", "7", False)
    assert check.examples == [[("a", "b")]]


def test_a_large_cloud_of_points_is_thinned() -> None:
    points = [(float(number), 0.0) for number in range(2 * MAX_DOTS + 5)]
    assert MAX_DOTS / 2 < len(thinned(points)) <= MAX_DOTS


def test_scores_are_named_and_ordered_best_known_first() -> None:
    assert score_names({"loss": 1, "step": 3, "mcc": 0, "bleu": 1, "accuracy": 1, "f1": 1}) == [
        "accuracy", "f1", "mcc", "bleu",
    ]  # fmt: skip
    assert score_names({"precision": 0, "recall": 0, "f1": 0, "accuracy": 0}) == [
        "f1",
        "precision",
        "recall",
        "accuracy",
    ]
    assert score_names({"accuracy": 0, "micro_f1": 0, "macro_f1": 0}) == ["micro_f1", "macro_f1", "accuracy"]
    assert [score_text(name, 0.5) for name in ("exact", "mcc", "mse", "bleu")] == ["50.0%", "0.500", "0.5", "0.5"]
    assert (score_label("exact", "en"), score_label("exact", "zh"), score_label("bleu", "zh")) == (
        "EM",
        "精确匹配率",
        "bleu",
    )
