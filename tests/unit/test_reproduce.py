"""The paper's experiments: what is run for which rows, pairs like QNLI's, verdicts, tables, and what is refused."""

import dataclasses
import json
import math
import random
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.config import DataConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.errors import BertwrightError
from bertwright.reproduce.cost import Cost
from bertwright.reproduce.engine import run_experiment
from bertwright.reproduce.experiments import CONLL, EXPERIMENTS, LM, MRPC, SIZES, Column, Row, get_experiment
from bertwright.reproduce.question_pairs import Pair, pairs_of_questions, write_pairs
from bertwright.reproduce.results import Cell, Score, collect, judge
from bertwright.reproduce.runs import PretrainRun, kept_steps, plan_runs
from bertwright.reproduce.scales import SCALES, Settings, finetune_config, get_scale, model_config, pretrain_config
from bertwright.reproduce.sources import LIKE_QNLI, draw, find_tasks, fitted
from bertwright.reproduce.tables import markdown, page_of, shown, write_tables
from bertwright.reproduce.workbench import DONE_FILE, Order, Workbench
from bertwright.tasks import Example, QATask, TagTask
from bertwright.tasks.qa_files import Answer
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDS = ["the", "cat", "dog", "sees", "hears", "here", "now", "."]
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *WORDS], TextRules(lowercase=True))
SQUAD = {
    "data": [
        {
            "title": "animals",
            "paragraphs": [
                {
                    "context": "The cat sees a dog. The owl hears it now. Nobody is here.",
                    "qas": [
                        {"id": "1", "question": "Who sees a dog?", "answers": [{"text": "The cat", "answer_start": 0}]},
                        {"id": "2", "question": "Who hears it?", "answers": [{"text": "owl", "answer_start": 24}]},
                    ],
                }
            ],
        }
    ]
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards of pairs and of single segments, and a folder of tasks."""
    folder, rng = tmp_path_factory.mktemp("made"), random.Random(0)
    documents = [
        "\n".join(f"the {rng.choice(WORDS)} {rng.choice(WORDS)} the dog ." for _ in range(5)) for _ in range(30)
    ]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    for name, config in (
        ("shards", DataConfig(max_length=32, held_out_prob=0.2)),
        ("single", DataConfig(max_length=32, objective="mlm")),
        ("other", DataConfig(max_length=64, objective="mlm", seed=3)),
    ):
        build_shards([folder / "corpus.txt"], WORDPIECE, folder / name, config, workers=1)
    mrpc = folder / "tasks" / "MRPC"
    mrpc.mkdir(parents=True)
    for name, count in (("train", 12), ("dev", 6)):
        rows = [f"{n % 2}\t{n}\t{n}\tthe cat sees {n}\tthe dog hears {n}" for n in range(count)]
        (mrpc / f"{name}.tsv").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "\n".join(rows) + "\n")
    squad = folder / "tasks" / "squad"  # whatever the case
    squad.mkdir()
    for name in ("train", "dev"):
        (squad / f"{name}-v1.1.json").write_text(json.dumps(SQUAD))
    return folder


@pytest.fixture
def order(made, tmp_path):
    return Order(
        experiment=get_experiment("table5"),
        scale=get_scale("tiny"),
        data=made / "shards",
        tasks=made / "tasks",
        out=tmp_path / "out",
        seeds=2,
    )


# The plan


def test_the_papers_numbers_are_all_there():
    """Every row has a number for every column, but of the figure that has none."""
    for experiment in EXPERIMENTS.values():
        keys = {column.key for column in experiment.columns}
        for row in experiment.rows:
            assert {*row.paper} == (keys if experiment.key != "steps" else set()), row.key
    rows = {row.key: row.paper for row in get_experiment("table6").rows}
    assert rows["3x768x12"] == {"perplexity": 5.84, "mnli-m": 77.9, "mrpc": 79.8, "sst-2": 88.4}


def test_rows_share_what_they_do_not_change():
    runs = plan_runs(get_experiment("table5"), get_scale("tiny"), [MRPC], seeds=2)
    assert [run.folder for run in runs.trainings] == [
        "bert-seed0",
        "bert-seed0/mrpc-seed0",
        "no-nsp-seed0",
        "no-nsp-seed0/mrpc-seed0",
        "ltr-no-nsp-seed0",
        "ltr-no-nsp-seed0/mrpc-seed0",
        "ltr-no-nsp-bilstm-seed0/mrpc-seed0",
        "bert-seed0/mrpc-seed1",
        "no-nsp-seed0/mrpc-seed1",
        "ltr-no-nsp-seed0/mrpc-seed1",
        "ltr-no-nsp-bilstm-seed0/mrpc-seed1",
    ]
    bilstm = runs.cells["ltr-no-nsp-bilstm", "mrpc"]
    assert [run.start.folder for run in bilstm] == ["ltr-no-nsp-seed0"] * 2
    assert [run.bilstm for run in bilstm] == [1, 1]


def test_only_the_rows_that_are_asked_for():
    runs = plan_runs(get_experiment("table5"), get_scale("tiny"), [MRPC], only=["ltr-no-nsp-bilstm"])
    assert [run.folder for run in runs.trainings] == ["ltr-no-nsp-seed0", "ltr-no-nsp-bilstm-seed0/mrpc-seed0"]


def test_several_pretrainings_each_with_several_seeds():
    runs = plan_runs(get_experiment("table5"), get_scale("tiny"), [MRPC], only=["bert"], seeds=3, pretrain_seeds=2)
    assert len(runs.pretrainings) == 2
    assert [(run.start.seed, run.seed) for run in runs.cells["bert", "mrpc"]] == [
        (first, second) for first in range(2) for second in range(3)
    ]


def test_the_same_features_are_trained_once():
    """Of an encoder of four layers, the last four are all."""
    for scale, shared in (("mini", True), ("base", False)):
        runs = plan_runs(get_experiment("table7"), get_scale(scale), [CONLL])
        one, other = (runs.cells[key, "conll-2003"] for key in ("weighted-sum-last-4", "weighted-sum-all"))
        assert (one == other) is shared
        assert len(runs.pretrainings) == 1


def test_sizes_of_a_ladder():
    """The fourth row is the scale itself where it is in the ladder, and shares its pre-training."""
    assert get_scale("base").ladder == SIZES
    for scale in SCALES.values():
        runs = plan_runs(get_experiment("table6"), scale, [LM])
        assert len(runs.pretrainings) == 6
        assert [run.folder for run in runs.pretrainings].count("bert-seed0") == 1
        sizes = [model_config(scale, run.pretraining) for run in runs.pretrainings]
        assert all(each.intermediate_size == 4 * each.hidden_size for each in sizes)
        cost = [each.num_hidden_layers * each.hidden_size for each in sizes]
        assert cost == sorted(cost)


def test_steps_are_checkpoints_of_two_runs():
    runs = plan_runs(get_experiment("steps"), get_scale("tiny"), [MRPC], only=["mlm-50", "ltr-100"])
    assert [run.folder for run in runs.pretrainings] == ["bert-over-time-seed0", "ltr-no-nsp-over-time-seed0"]
    assert runs.pretrainings[0].parts == (0.1, 0.25, 0.5, 0.75, 1.0), "whichever rows are asked for"
    assert [run.part for run in runs.finetunings] == [0.5, 1.0]


@given(steps=st.integers(20, 2_000_000), every=st.integers(0, 5_000))
def test_parts_end_where_checkpoints_are(steps, every):
    found, ends = kept_steps(PretrainConfig(steps=steps, checkpoint_every=every), (0.1, 0.25, 0.5, 0.75, 1.0))
    assert found >= 1
    assert ends[1.0] == steps
    assert all(end % found == 0 and end < steps for part, end in ends.items() if part < 1)
    assert all(abs(end - part * steps) <= 20 for part, end in ends.items())


def test_a_run_without_parts_is_saved_as_it_says():
    assert kept_steps(PretrainConfig(steps=100, checkpoint_every=7), (1.0,)) == (7, {1.0: 100})


def test_dials():
    base = get_scale("base")
    config = pretrain_config(base, Settings(), get_experiment("table5").rows[0].pretraining, seed=4)
    same = dataclasses.replace(PretrainConfig(seed=4), log_every=config.log_every)
    assert config == same, "the paper's"
    mixed = get_experiment("mask-mix").rows[4].pretraining
    assert mixed.masks == (0, 20, 80)
    config = pretrain_config(get_scale("tiny"), Settings(steps=70, lr=1e-4), mixed, seed=0)
    assert (config.mask_token_prob, config.random_token_prob, config.steps, config.lr) == (0.0, 0.8, 70, 1e-4)
    frozen = finetune_config(base, Settings(finetune_lr=9e-4), "CoNLL-2003", frozen=True, seed=1, max_length=99)
    assert (frozen.freeze, frozen.lr, frozen.epochs, frozen.restarts) == ("encoder", 1e-3, 20, 0)
    tuned = finetune_config(base, Settings(finetune_lr=9e-4), "SQuAD", frozen=False, seed=1, max_length=99)
    assert (tuned.freeze, tuned.lr, tuned.epochs, tuned.max_length) == ("", 9e-4, 3, 99)


# Pairs like those of QNLI


def question(text, context, answer, start):
    return Example(text, context, (Answer(answer, start, start + len(answer)),))


def test_pairs_of_a_question():
    context = "The cat sees a dog. A dog hears the owl. Nobody is here."
    pairs, left_out = pairs_of_questions([question("Whom does the dog hear?", context, "owl", context.index("owl"))])
    assert left_out == 0
    assert pairs == [
        Pair("Whom does the dog hear?", "A dog hears the owl.", "entailment"),
        Pair("Whom does the dog hear?", "The cat sees a dog.", "not_entailment"),
    ]


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("One sentence alone.", "alone"),
        ("The cat is here. The dog is there.", "here. The dog"),
    ],
    ids=["one sentence", "across sentences"],
)
def test_questions_without_pairs(context, answer):
    assert pairs_of_questions([question("Who?", context, answer, context.index(answer))]) == ([], 1)


def test_answers_that_the_context_lacks_are_left_out():
    assert pairs_of_questions([Example("Who?", "A cat. A dog.", (Answer("an owl", -1, -1),))]) == ([], 1)


def test_pairs_of_real_questions(shared_data, tmp_path):
    """Balanced, and the same every time; the answer stands in the one sentence."""
    source = shared_data / "tasks/en/SQuAD/dev-v1.1.json"
    first = write_pairs(source, tmp_path / "first.tsv").read_bytes()
    assert write_pairs(source, tmp_path / "again.tsv").read_bytes() == first
    rows = [line.split("\t") for line in first.decode().splitlines()[1:]]
    assert 20_000 < len(rows) < 2 * 10_570
    assert {len(row) for row in rows} == {3}
    assert [row[2] for row in rows] == ["entailment", "not_entailment"] * (len(rows) // 2)
    assert all(one[1] != other[1] for one, other in zip(rows[::2], rows[1::2], strict=True))


# Tasks


def test_tasks_are_found_and_missing_ones_named(made):
    found, missing = find_tasks(made / "tasks", ["MRPC", "SQuAD", "QNLI", "MNLI-m", "CoNLL-2003"])
    assert {name: each.title for name, each in found.items()} == {"MRPC": "MRPC", "SQuAD": "SQuAD", "QNLI": LIKE_QNLI}
    assert missing == {
        "MNLI-m": "MNLI/train.tsv, MNLI/dev_matched.tsv",
        "CoNLL-2003": "CoNLL-2003/train.txt, CoNLL-2003/valid.txt",
    }


def test_pairs_stand_in_for_qnli(made, tmp_path):
    found, _ = find_tasks(made / "tasks", ["QNLI"])
    train, dev, source = found["QNLI"].examples(tmp_path, most_train=3)
    assert (len(train), len(dev)) == (3, 4)
    assert dev[0].text == "Who sees a dog?"
    assert dev[0].label == "entailment"
    assert source["train_examples"] == 3


def test_real_tasks_are_found(shared_data, tmp_path):
    found, missing = find_tasks(shared_data / "tasks/en", ["MRPC", "SST-2", "CoNLL-2003", "SQuAD", "QNLI"])
    assert missing == {}
    assert found["QNLI"].title == LIKE_QNLI, "its training file is not there"
    train, dev, _ = found["MRPC"].examples(tmp_path)
    assert (len(train), len(dev)) == (3_668, 408)


def test_drawing():
    examples = [Example(str(number)) for number in range(50)]
    some = draw(examples, 7)
    assert some == draw(examples, 7)
    assert len(some) == 7
    assert [int(each.text) for each in some] == sorted(int(each.text) for each in some)
    assert draw(examples, 0) == draw(examples, 60) == examples


def test_windows_fit_short_inputs():
    assert fitted(QATask(), 128).stride == 42
    assert fitted(QATask(), 384).stride == 128
    assert fitted(TagTask(), 256).stride == 64


# Verdicts


def cell(*values, paper=None, seeds=None, problem=None):
    scores = [Score(value, (seeds or [0] * 99)[n], n, f"run-{n}", problem) for n, value in enumerate(values)]
    return Cell(tuple(scores), paper)


def test_a_cell():
    one = cell(70.0, 72.0, 74.0)
    assert (one.mean, one.deviation) == (72.0, 2.0)
    assert one.error == pytest.approx(2 / math.sqrt(3))
    assert shown(one, 1, "en") == "72.0 ± 2.0 (3)"
    assert shown(cell(70.0), 1, "en") == "70.0 (1)"
    assert shown(cell(), 1, "en") == "–"
    assert shown(cell(70.0, 70.0, problem="says one thing"), 1, "en") == "70.0 ± 0.0 (2, 2 spoilt)"


def test_runs_from_one_pretraining_are_not_independent():
    """Two pre-trainings 10 apart, three seeds each 0.1 apart: what counts is the 10."""
    both = cell(70.0, 70.1, 69.9, 80.0, 80.1, 79.9, seeds=[0, 0, 0, 1, 1, 1])
    assert both.error == pytest.approx(5.0)


ACCURACY, LESS = Column(key="acc", task="MRPC", metric="accuracy"), dataclasses.replace(LM, key="ppl")


@pytest.mark.parametrize(
    ("ahead", "behind", "verdict"),
    [
        (cell(80, 81, 82), cell(70, 71, 72), "agrees"),
        (cell(70, 71, 72), cell(80, 81, 82), "disagrees"),
        (cell(70, 75, 80), cell(69, 74, 79), "within"),
        (cell(80), cell(70, 71, 72), "untold"),
        (cell(80, 81), cell(70), "untold"),
        (cell(80, 80, problem="says one thing"), cell(70, 71), "untold"),
        (cell(), cell(70, 71, 72), "missing"),
    ],
)
def test_verdicts(ahead, behind, verdict):
    rows = [
        Row(key="a", name="A", paper={"acc": 88.0, "ppl": 3.0}),
        Row(key="b", name="B", paper={"acc": 85.0, "ppl": 4.0}),
    ]
    cells = {("a", "acc"): ahead, ("b", "acc"): behind}
    cells = {key: dataclasses.replace(each, paper=rows[key[0] == "b"].paper["acc"]) for key, each in cells.items()}
    for given_rows in (rows, rows[::-1]):
        (found,) = judge(get_experiment("table5"), given_rows, [ACCURACY], cells)
        assert (found.better, found.worse, found.verdict) == ("a", "b", verdict)
        assert found.paper == pytest.approx(3.0)


def test_of_perplexities_less_is_more():
    rows = [Row(key="a", name="A", paper={"ppl": 3.0}), Row(key="b", name="B", paper={"ppl": 4.0})]
    cells = {("a", "ppl"): cell(30, 31, paper=3.0), ("b", "ppl"): cell(40, 41, paper=4.0)}
    (found,) = judge(get_experiment("table6"), rows, [LESS], cells)
    assert (found.better, found.verdict, found.difference, found.paper) == ("a", "agrees", 10.0, 1.0)


def test_the_same_runs_tell_nothing():
    rows = [Row(key="a", name="A", paper={"acc": 88.0}), Row(key="b", name="B", paper={"acc": 85.0})]
    (found,) = judge(get_experiment("table7"), rows, [ACCURACY], {("a", "acc"): cell(1, 2), ("b", "acc"): cell(1, 2)})
    assert found.verdict == "untold"


def test_equal_numbers_order_nothing():
    experiment = get_experiment("table5")
    cells = {(row.key, column.key): cell() for row in experiment.rows for column in experiment.columns}
    orderings = judge(experiment, experiment.rows, experiment.columns, cells)
    pairs = {(each.better, each.worse, each.column) for each in orderings}
    assert len(orderings) == 6 * 5 - 1, "MNLI: both left-to-right rows have 82.1"
    assert ("ltr-no-nsp-bilstm", "ltr-no-nsp", "squad") in pairs
    assert ("ltr-no-nsp", "ltr-no-nsp-bilstm", "mrpc") in pairs


def test_claims_without_numbers():
    rows = get_experiment("steps").chosen_rows(["mlm-50", "mlm-100", "ltr-100"])
    cells = {(row.key, MRPC.key): cell(70 + n, 71 + n) for n, row in enumerate(rows)}
    found = {(each.better, each.worse): each for each in judge(get_experiment("steps"), rows, [MRPC], cells)}
    assert {*found} == {("mlm-100", "mlm-50"), ("mlm-100", "ltr-100")}
    assert found["mlm-100", "mlm-50"].paper is None


# Tables


def finish(bench, run, value, **more):
    """Leave behind what a training does."""
    folder = bench.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    done = {"scores": {"accuracy": value, "f1": value}, "step": 1, "problem": None, "seconds": 60.0}
    if isinstance(run, PretrainRun):
        scores = {"mlm_loss": 3.0, "mlm_accuracy": 0.4, "nsp_loss": 0.5, "nsp_accuracy": 0.8}
        done = {"made_from": bench.made_from(run), "steps": 5, "scores": scores, "seconds": 120.0}
    (folder / DONE_FILE).write_text(json.dumps({**done, **more}))


class Cells(HTMLParser):
    """The text of every cell, and addresses the page would fetch from."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.fetched, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._inside = tag in ("td", "th")
        if self._inside:
            self.cells.append("")
        self.fetched += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.cells[-1] += data


def test_what_was_not_run_has_no_number(order):
    results = collect(Workbench(order))
    assert not results.finished
    assert {each.verdict for each in results.holds} == {"missing"}
    table = page_of(results, "en").parts[0][1]
    columns = [name for name, _ in table.columns]
    assert columns == ["row", "QNLI-like accuracy", "paper", "MRPC accuracy", "paper", "SQuAD F1", "paper"]
    assert table.rows[1] == ["No NSP", "–", "–", "–", "86.5", "–", "87.9"], "QNLI's number is not put beside QNLI-like"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_tables(order, lang):
    bench = Workbench(order)
    for run in bench.runs.trainings:
        if run.folder.startswith(("bert-seed0", "no-nsp-seed0")):
            finish(bench, run, 0.8 + 0.02 * run.seed - 0.2 * run.folder.startswith("no"))
    write_tables(collect(bench), bench.out, lang=lang)
    text = (bench.out / "table.md").read_text(encoding="utf-8")
    assert "| BERT | 81.0 ± 1.4 (2) | – | 81.0 ± 1.4 (2) | 86.7 |" in text
    assert "| + BiLSTM | – | – | – | 75.7 |" in text
    assert "| BERT > No NSP | ✓ +20.0 (+3.5) | ✓ +20.0 (+0.2) | ✓ +20.0 (+0.6) |" in text
    assert "2 of 5 tasks" in text if lang == "en" else "5 个任务中有 2 个" in text
    page = Cells((bench.out / "table.html").read_text(encoding="utf-8"))
    assert page.fetched == []
    assert "81.0 ± 1.4 (2)" in page.cells
    assert "20.09 (1)" in page.cells, "e to the power of 3"
    values = json.loads((bench.out / "results.json").read_text())
    found = {row["key"]: row["cells"]["mrpc"] for row in values["rows"]}
    assert found["bert"]["mean"] == pytest.approx(81.0)
    assert found["ltr-no-nsp"]["mean"] is None
    assert len(values["runs"]) == len(bench.runs.trainings)


def test_a_row_of_pipes_stays_one_row(order):
    page = page_of(collect(Workbench(order)), "en")
    page.parts[0][1].rows[0][0] = "a | b"
    assert "| a \\| b |" in markdown(page)


def test_curves_over_steps(order):
    order = dataclasses.replace(order, experiment=get_experiment("steps"), score_on=["MRPC"])
    bench = Workbench(order)
    assert page_of(collect(bench), "en").charts == []
    for run in bench.runs.trainings:
        finish(bench, run, 0.5)
    (chart,) = page_of(collect(bench), "en").charts
    assert chart.keys == [("line", "MLM"), ("points", "LTR")]
    assert chart.svg.startswith("<svg")


def test_scores_on_other_tasks(order):
    bench = Workbench(dataclasses.replace(order, experiment=get_experiment("table6"), score_on=["MRPC", "SQuAD"]))
    assert [column.key for column in bench.columns] == ["perplexity", "mrpc", "squad"]
    found = {(each.column, each.verdict) for each in collect(bench).holds}
    assert found == {("perplexity", "missing"), ("mrpc", "missing")}, "the paper orders nothing by SQuAD there"


def test_times_come_from_what_was_measured(order):
    bench = Workbench(dataclasses.replace(order, score_on=["MRPC"]))
    cost = Cost(bench)
    assert cost.left() is None
    first, second = bench.runs.pretrainings[0], bench.runs.finetunings[0]
    assert cost.seconds(first) is None
    finish(bench, first, 0.0)
    cost.look()
    assert cost.seconds(first) == 120.0
    assert cost.seconds(second) == pytest.approx(120.0 * cost.flops(second) / cost.flops(first))
    left = cost.left()
    assert left is not None
    assert left > 120.0, "two more pre-trainings"


# What is refused


def refusal(make):
    with pytest.raises(BertwrightError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: get_experiment("tabel5"), ["'tabel5'", "did you mean 'table5'?", "mask-mix"]),
        (lambda: get_scale("small"), ["'small'", "tiny, mini, base"]),
        (lambda: plan_runs(get_experiment("table5"), get_scale("tiny"), [], only=["no-nps"]), ["'no-nps'", "'no-nsp'"]),
        (lambda: plan_runs(get_experiment("table5"), get_scale("tiny"), [], seeds=0), ["--seeds", "at least 1"]),
        (lambda: Settings(dev_examples=-1), ["dev_examples", "-1"]),
    ],
)
def test_unknown_names(make, words):
    text = refusal(make)
    assert [word for word in words if word not in text] == []


def test_unknown_tasks_and_empty_folders(order, tmp_path):
    text = refusal(lambda: Workbench(dataclasses.replace(order, score_on=["MRCP"])))
    assert "unknown task 'MRCP' (did you mean 'MRPC'?)" in text
    (tmp_path / "nothing").mkdir()
    text = refusal(lambda: Workbench(dataclasses.replace(order, tasks=tmp_path / "nothing")))
    assert "no task is here" in text
    assert "MRPC: MRPC/train.tsv" in text
    assert "no such folder" in refusal(lambda: Workbench(dataclasses.replace(order, tasks=tmp_path / "absent")))


def test_single_segments_have_no_next_sentences(order, made):
    single = dataclasses.replace(order, data=made / "single")
    text = refusal(lambda: Workbench(single))
    assert "the rows bert learn next sentences" in text
    assert "--only no-nsp,ltr-no-nsp,ltr-no-nsp-bilstm" in text
    assert len(Workbench(dataclasses.replace(single, only=["no-nsp"])).runs.pretrainings) == 1


def test_singles_for_rows_without_nsp(order, made):
    bench = Workbench(dataclasses.replace(order, data_single=made / "single"))
    read = [bench.shards_of(run).folder.name for run in bench.runs.pretrainings]
    assert read == ["shards", "single", "single"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": get_scale("mini")}, "scale = 'tiny', this command says 'mini'"),
        ({"experiment": get_experiment("table6")}, "experiment = 'table5'"),
        ({"settings": Settings(steps=9)}, "settings.steps = None, this command says 9"),
        ({"data": "other"}, "data_sha256"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_holds_one_experiment(order, made, change, words):
    Workbench(order).open()
    if "data" in change:
        change = {"data": made / "other", "only": ["no-nsp"]}
    text = refusal(lambda: Workbench(dataclasses.replace(order, **change)).open())
    assert words in text
    assert "choose another folder" in text


def test_seeds_rows_and_tasks_may_be_added(order):
    Workbench(dataclasses.replace(order, seeds=1, only=["bert"], score_on=["MRPC"])).open()
    Workbench(order).open()
    Workbench(dataclasses.replace(order, score_on=["MRPC"], settings=Settings(threads=2))).open()
    saved = json.loads((order.out / "experiment.json").read_text())
    assert {*saved["tasks"]} == {"QNLI", "MRPC", "SQuAD"}


def test_other_task_files_are_refused(order, made, tmp_path):
    Workbench(order).open()
    other = tmp_path / "tasks"
    (other / "MRPC").mkdir(parents=True)
    for name in ("train", "dev"):
        (other / "MRPC" / f"{name}.tsv").write_bytes((made / "tasks/MRPC/dev.tsv").read_bytes())
    text = refusal(lambda: Workbench(dataclasses.replace(order, tasks=other)).open())
    assert "tasks.MRPC.train_sha256" in text


def test_a_shared_pretraining_is_the_same_one(order, tmp_path):
    shared = dataclasses.replace(order, models=tmp_path / "models")
    bench = Workbench(shared)
    finish(bench, bench.runs.pretrainings[0], 0.0)
    same = Workbench(dataclasses.replace(shared, out=tmp_path / "second", experiment=get_experiment("table6")))
    assert same.done(next(run for run in same.runs.pretrainings if run.folder == "bert-seed0")) is not None
    other = Workbench(dataclasses.replace(shared, out=tmp_path / "third", settings=Settings(steps=9)))
    assert "train.steps = 5000, this command says 9" in refusal(lambda: other.done(other.runs.pretrainings[0]))


def test_nothing_is_run_where_all_is_done(order):
    bench = Workbench(dataclasses.replace(order, score_on=["MRPC"]))
    for run in bench.runs.trainings:
        finish(bench, run, 0.7)
    events = []
    results = run_experiment(bench.order, on_event=events.append)
    assert events == []
    assert results.finished
    assert (order.out / "table.html").is_file()
