"""The tasks of GLUE as data, their real files, and all of them run end to end with a small model."""

import json
import logging
import shutil
import zipfile

import pytest

from bertwright.config import BertConfig, FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.evaluation import evaluate
from bertwright.glue import SUBMISSION_NAMES, glue_average, run_glue, submission_value
from bertwright.model.bert import Bert
from bertwright.model.weights import save_model
from bertwright.scoring import score_predictions
from bertwright.tasks import ClassifyTask
from bertwright.tasks.glue_files import GLUE_TASKS, GlueFiles, glue_files, glue_task, read_test, tidy_file
from bertwright.text.wordpiece import WordPiece
from bertwright.training.finetune import finetune

COUNTS = {  # train, dev, test of what is here, as published
    "CoLA": (8_551, 1_043, 1_063),
    "SST-2": (67_349, 872, 1_821),
    "MRPC": (3_668, 408, None),
    "STS-B": (5_749, 1_500, 1_379),
    "QNLI": (None, 5_463, 5_463),
    "RTE": (2_490, 277, 3_000),
    "WNLI": (635, 71, 146),
}
SMALL = ("CoLA", "STS-B", "RTE", "WNLI")
CONFIG = FinetuneConfig(epochs=1, batch_size=16, max_length=32, lr=1e-3, precision="fp32")

QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
MNLI_HEADER = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    "\tsentence1\tsentence2\tlabel1\tgold_label\n"
)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def head(source, target, count):
    """Write the first rows of a file."""
    with source.open(encoding="utf-8") as stream:
        return write(target, "".join(line for _, line in zip(range(count), stream, strict=False)))


def qqp_rows(count):
    return [f"{n}\t{2 * n}\t{2 * n + 1}\tIs {n} prime?\tIs {n + n % 2} a prime?\t{n % 2}\n" for n in range(count)]


def mnli_rows(count):
    labels = ("neutral", "entailment", "contradiction")
    return [
        f"{n}\t1\t1a\tfiction\t( a )\t( b )\t(R a)\t(R b)\tone {n}\ttwo {n}\t-\t{labels[n % 3]}\n" for n in range(count)
    ]


@pytest.fixture(scope="module")
def init(minilm, tmp_path_factory):
    """A fresh BERT of two layers of width 32, with the released uncased vocabulary."""
    wordpiece = WordPiece.load(minilm)
    config = BertConfig(
        vocab_size=wordpiece.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("init") / "model"
    save_model(Bert(config, seed=1), folder, wordpiece=wordpiece)
    return folder


@pytest.fixture(scope="module")
def slices(shared_data, tmp_path_factory):
    """The first rows of the real files of four tasks, and MNLI's in the official form with the real diagnostic set."""
    folder = tmp_path_factory.mktemp("glue")
    for name in SMALL:
        for file, count in (("train.tsv", 49), ("dev.tsv", 33), ("test.tsv", 7)):
            head(shared_data / "tasks/en" / name / file, folder / name / file, count)
    rows = mnli_rows(48)
    for file in ("train", "dev_matched", "dev_mismatched"):
        write(folder / "MNLI" / f"{file}.tsv", MNLI_HEADER + "".join(rows))
    bare = "\n".join("\t".join(line.split("\t")[:-2]) for line in (MNLI_HEADER + "".join(rows[:5])).splitlines())
    write(folder / "MNLI/test_matched.tsv", bare + "\n")
    head(shared_data / "tasks/en/AX/diagnostic.tsv", folder / "diagnostic/diagnostic.tsv", 12)
    return folder


# Files


@pytest.mark.slow
def test_every_real_file_is_read_and_counted(shared_data, tmp_path, caplog):
    found = glue_files(shared_data / "tasks/en")
    assert [name for name, files in found.items() if not files.missing] == [
        "CoLA",
        "SST-2",
        "MRPC",
        "STS-B",
        "RTE",
        "WNLI",
    ]
    assert found["QNLI"].missing == ("QNLI/train.tsv",)
    for name, counts in COUNTS.items():
        files = found[name]
        for path, count in zip((files.train, *files.dev.values()), counts[:2], strict=True):
            if count is not None:
                examples = files.spec.task.read(tidy_file(files, path, out=tmp_path))
                assert len(examples) == count, path
                assert files.spec.labels == () or {example.label for example in examples} == set(files.spec.labels)
        if counts[2] is not None:
            indices, examples = read_test(files.spec, name, files.test[name])
            assert indices == [str(number) for number in range(counts[2])]
            assert all((example.text_pair is None) == (len(files.spec.text_columns) == 1) for example in examples)
            assert files.spec.test[name].rows == counts[2]
    indices, _ = read_test(GLUE_TASKS["MNLI"], "AX", found["MNLI"].test["AX"])
    assert len(indices) == 1_104 == GLUE_TASKS["MNLI"].test["AX"].rows
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_mrpc_trains_on_no_dev_pair(shared_data, tmp_path):
    files = glue_files(shared_data / "tasks/en")["MRPC"]
    train = files.spec.task.read(tidy_file(files, files.train, out=tmp_path))
    dev = files.spec.task.read(files.dev["MRPC"])
    assert not {(example.text, example.text_pair) for example in train} & {(each.text, each.text_pair) for each in dev}
    official = {tuple(line.split()) for line in (files.train.parent / "dev_ids.tsv").read_text().splitlines()}
    kept = (tmp_path / "MRPC-msr_paraphrase_train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert not {tuple(line.split("\t")[1:3]) for line in kept} & official
    assert len(kept) + len(official) == 4_076
    ready = write(tmp_path / "MRPC/train.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n")
    write(tmp_path / "MRPC/msr_paraphrase_train.txt", "")
    shutil.copy(files.dev["MRPC"], tmp_path / "MRPC/dev.tsv")
    assert glue_files(tmp_path)["MRPC"].train == ready, "a file that is made already is preferred"


@pytest.mark.parametrize("folder", ["SST-2", "sst2", "SST2", "sst_2"])
def test_folders_are_known_by_any_spelling(tmp_path, folder):
    for file in ("train.tsv", "dev.tsv"):
        write(tmp_path / folder / file, "sentence\tlabel\na\t1\n")
    assert glue_files(tmp_path)["SST-2"].missing == ()
    assert glue_files(tmp_path)["RTE"].missing == ("RTE/train.tsv", "RTE/dev.tsv")
    assert glue_task(folder).name == "SST-2"


def test_a_folder_without_tasks_is_told_what_was_looked_for(tmp_path):
    write(tmp_path / "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n")
    with pytest.raises(BertwrightError, match="no task of GLUE can be trained") as caught:
        glue_files(tmp_path)
    assert all(f"\n    {name}: " in str(caught.value) for name in GLUE_TASKS)
    assert "QNLI/train.tsv" in str(caught.value)
    assert "QNLI/dev.tsv" not in str(caught.value)
    with pytest.raises(BertwrightError, match="no such folder"):
        glue_files(tmp_path / "none")
    write(tmp_path / "sst2/dev.tsv", "")
    write(tmp_path / "SST-2/dev.tsv", "")
    with pytest.raises(BertwrightError, match="SST-2 and sst2 are folders of one task"):
        glue_files(tmp_path)


def test_rows_of_qqp_and_mnli_that_lack_something_are_left_out_and_counted(tmp_path, caplog):
    rows = qqp_rows(500)
    rows[3:3] = ["7\t1\t2\tWhat is\n", "a line end?\tWhat?\t1\n"]
    path = write(tmp_path / "QQP/train.tsv", QQP_HEADER + "".join(rows))
    files = GlueFiles(GLUE_TASKS["QQP"], path, {})
    tidy = tidy_file(files, path, out=tmp_path / "data")
    assert tidy == tmp_path / "data/QQP-train.tsv"
    assert len(files.spec.task.read(tidy)) == 500
    assert [record.message for record in caplog.records] == [
        f"{path}: 2 of 502 rows lack a text or a label and are left out (rows 5, 6)"
    ]
    whole = write(tmp_path / "QQP/dev.tsv", QQP_HEADER + "".join(qqp_rows(20)))
    assert tidy_file(files, whole, out=tmp_path / "data") == whole, "nothing is copied that is good"

    caplog.clear()
    rows = [*mnli_rows(300), mnli_rows(1)[0].replace("neutral", "-"), mnli_rows(1)[0].replace("two 0", "")]
    path = write(tmp_path / "MNLI/train.tsv", MNLI_HEADER + "".join(rows))
    files = GlueFiles(GLUE_TASKS["MNLI"], path, {})
    assert len(files.spec.task.read(tidy_file(files, path, out=tmp_path / "data"))) == 300
    assert "2 of 302 rows" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("QQP", QQP_HEADER + "".join(qqp_rows(20)) + "a\tb\n", ["1 of 21 rows", "row 22 first"]),
        ("QQP", QQP_HEADER + "1\t2\t3\ta\tb\tmaybe\n", ["row 2", "'maybe'", "0, 1"]),
        ("QQP", QQP_HEADER + "1\t2\t3\ta\tb\t1\tmore\n", ["row 2", "expected 6 columns, found 7"]),
        ("RTE", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailmnt\n", ["row 2", "'entailmnt'", "not_entailment"]),
        ("RTE", "index\tsentence1\tsentence2\tlabel\n0\ta\t\tentailment\n", ["row 2", "'sentence2' is empty"]),
        ("RTE", "index\tsentence1\tlabel\n0\ta\tentailment\n", ["no column 'sentence2'", "'sentence1'"]),
        ("CoLA", "gj04\t1\tA sentence.\n", ["row 1", "expected 4 columns, found 3"]),
        ("RTE", "", ["no column 'sentence1'"]),
    ],
)
def test_files_that_are_not_the_official_ones_are_refused(tmp_path, name, content, words):
    path = write(tmp_path / "train.tsv", content)
    with pytest.raises(BertwrightError) as caught:
        tidy_file(GlueFiles(GLUE_TASKS[name], path, {}), path, out=tmp_path)
    assert [word for word in [*words, "train.tsv"] if word not in str(caught.value)] == []


def test_a_test_row_is_answered_even_without_a_text(tmp_path, caplog):
    path = write(tmp_path / "test.tsv", "id\tquestion1\tquestion2\n0\ta\t\n1\tb\tc\n")
    indices, examples = read_test(GLUE_TASKS["QQP"], "QQP", path)
    assert (indices, [example.text_pair for example in examples]) == (["0", "1"], ["", "c"])
    assert "1 of 2 rows have an empty text" in caplog.text
    assert "the leaderboard wants 390965 answers" in caplog.text
    write(path, "id\tquestion1\tquestion2\n0\ta\tb\n0\tb\tc\n")
    with pytest.raises(BertwrightError, match=r"row 3: the number 0 was there before .*row 2"):
        read_test(GLUE_TASKS["QQP"], "QQP", path)


# Scores


def test_the_average_is_the_leaderboards():
    """BERT-large as the paper's table 1 has it, with the leaderboard's 65.1 for WNLI."""
    scores = {
        "CoLA": {"mcc": 0.605, "accuracy": 0.9},
        "SST-2": {"accuracy": 0.949},
        "MRPC": {"f1": 0.893, "accuracy": 0.854},
        "STS-B": {"pearson": 0.876, "spearman": 0.865},
        "QQP": {"f1": 0.721, "accuracy": 0.893},
        "MNLI-m": {"accuracy": 0.867},
        "MNLI-mm": {"accuracy": 0.859},
        "QNLI": {"accuracy": 0.927},
        "RTE": {"accuracy": 0.701},
        "WNLI": {"accuracy": 0.651},
    }
    average = glue_average(scores)
    assert average["tasks"]["MNLI"] == pytest.approx(0.863)
    assert average["tasks"]["QQP"] == pytest.approx(0.807)
    assert average["absent"] == []
    assert round(average["score"], 3) == 0.805  # the leaderboard's 80.5
    assert average["score_without_wnli"] == pytest.approx((9 * average["score"] - 0.651) / 8)
    half = glue_average({name: scores[name] for name in ("MNLI-m", "RTE")})
    assert half == {
        "score": 0.701,
        "score_without_wnli": 0.701,
        "tasks": {"RTE": 0.701},
        "absent": [name for name in GLUE_TASKS if name != "RTE"],
    }
    assert glue_average({"WNLI": {"accuracy": 0.5}})["score_without_wnli"] is None
    for wrong, word in (({"CoLA": {"accuracy": 1.0}}, "mcc"), ({"XNLI": {}}, "XNLI"), ({}, "nothing to average")):
        with pytest.raises(BertwrightError, match=word):
            glue_average(wrong)


def test_answers_in_the_leaderboards_words():
    values = [submission_value(GLUE_TASKS["STS-B"], {"score": score}) for score in (5.2, -0.1, 3.14159, 2.0)]
    assert values == ["5.000", "0.000", "3.142", "2.000"]
    assert submission_value(GLUE_TASKS["RTE"], {"label": "not_entailment", "score": 0.7}) == "not_entailment"


# The whole run


@pytest.fixture(scope="module")
def run(slices, init, tmp_path_factory):
    """One run of five tasks with all it leaves behind, and what it said."""
    out, events = tmp_path_factory.mktemp("run") / "glue", []
    report = run_glue(slices, init, out, config=CONFIG, on_event=events.append)
    return out, report, events


def test_every_task_is_trained_and_scored(run):
    out, report, events = run
    assert json.loads((out / "glue.json").read_text(encoding="utf-8")) == report
    assert [*report["tasks"]] == ["CoLA", "STS-B", "MNLI", "RTE", "WNLI"]
    assert report["dev"]["absent"] == ["SST-2", "MRPC", "QQP", "QNLI"]
    assert report["dev"]["score"] == pytest.approx(sum(task["score"] for task in report["tasks"].values()) / 5)
    assert [*report["tasks"]["MNLI"]["scores"]] == ["MNLI-m", "MNLI-mm"]
    assert report["tasks"]["CoLA"]["score"] == report["tasks"]["CoLA"]["scores"]["CoLA"]["mcc"]
    assert next(event["text"] for event in events if event["kind"] == "message") == "CoLA: task 1 of 5"
    assert sum(event["kind"] == "start" for event in events) >= 5


def test_the_scores_are_those_of_the_kept_models(run, slices):
    out, report, _ = run
    for name, entry in report["tasks"].items():
        dev = slices / name / ("dev_mismatched.tsv" if name == "MNLI" else "dev.tsv")
        scores = evaluate(out / entry["model"], dev).scores
        assert entry["scores"]["MNLI-mm" if name == "MNLI" else name] == pytest.approx(scores)


def test_the_scorer_gives_the_answers_on_dev_the_same_scores(run, slices):
    out, report, _ = run
    for name in SMALL:
        scores = score_predictions(name, slices / name / "dev.tsv", out / name / "predictions.jsonl")
        assert scores == pytest.approx({metric: report["tasks"][name]["scores"][name][metric] for metric in scores})


def test_the_submission_has_the_leaderboards_form(run, shared_data):
    out, report, _ = run
    examples = shared_data / "tasks/en/glue-submission-format"
    with zipfile.ZipFile(out / "submission.zip") as archive:
        names = archive.namelist()
        assert names == ["CoLA.tsv", "STS-B.tsv", "MNLI-m.tsv", "AX.tsv", "RTE.tsv", "WNLI.tsv"]
        assert {path.name for path in examples.iterdir()} <= {f"{name}.tsv" for name in SUBMISSION_NAMES}
        for name in names:
            ours = archive.read(name).decode().split("\n")
            theirs = (examples / name).read_text(encoding="utf-8").split("\n")
            assert ours[0] == theirs[0] == "index\tprediction"
            assert ours[-1] == "", "the last line ends"
            indices, answers = zip(*(line.split("\t") for line in ours[1:-1]), strict=True)
            assert indices == tuple(map(str, range({"MNLI-m.tsv": 5, "AX.tsv": 11}.get(name, 6))))
            if name == "STS-B.tsv":
                assert all(len(answer) == 5 and 0 <= float(answer) <= 5 for answer in answers)
            else:
                labels = glue_task(name[:-4] if name != "AX.tsv" else "MNLI").labels
                assert {line.split("\t")[1] for line in theirs[1:-1]} <= set(labels)
                assert set(answers) <= set(labels)
    assert report["submission"]["files"] == [name[:-4] for name in names]
    assert report["submission"]["missing"] == ["SST-2", "MRPC", "QQP", "MNLI-mm", "QNLI"]


def test_what_is_done_is_not_done_again(run, slices, init, tmp_path, caplog):
    out = shutil.copytree(run[0], tmp_path / "glue")
    archive = (out / "submission.zip").read_bytes()

    def no_training(task, config, **arguments):
        raise AssertionError("trained again")

    report = run_glue(slices, init, out, config=CONFIG, resume=True, train_one=no_training)
    assert report == run[1]
    assert (out / "submission.zip").read_bytes() == archive
    assert "lacks 5 of the 11 files that the leaderboard wants" in caplog.text
    assert "4 of 9 tasks are left out (SST-2, MRPC, QQP, QNLI)" in caplog.text

    with pytest.raises(BertwrightError, match="--resume"):
        run_glue(slices, init, out, config=CONFIG)
    with pytest.raises(BertwrightError, match=r"the run was made with lr = 0\.001, this command says 2e-05"):
        run_glue(slices, init, out, config=FinetuneConfig(epochs=1, batch_size=16, max_length=32, lr=2e-5), resume=True)
    with pytest.raises(BertwrightError, match="the run was made with init"):
        run_glue(slices, tmp_path, out, config=CONFIG, resume=True)


def test_a_run_that_was_stopped_goes_on_and_takes_more_tasks(slices, init, tmp_path, run):
    out, trained = tmp_path / "glue", []

    def stops(task, config, **arguments):
        trained.append(arguments["out"].name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return finetune(task, config, **arguments)

    with pytest.raises(KeyboardInterrupt):
        run_glue(slices, init, out, tasks=["wnli", "RTE"], config=CONFIG, train_one=stops)
    saved = json.loads((out / "glue.json").read_text(encoding="utf-8"))
    assert [*saved["tasks"]] == ["WNLI"]
    assert (out / "submission/WNLI.tsv").is_file()
    report = run_glue(slices, init, out, tasks=["RTE"], config=CONFIG, train_one=stops, resume=True)
    assert trained == ["WNLI", "RTE", "RTE"]
    assert report["tasks"] == {name: run[1]["tasks"][name] for name in ("WNLI", "RTE")}, "the same to the last bit"
    assert report["submission"]["files"] == ["RTE", "WNLI"]


def test_options_reach_the_training_and_are_remembered(slices, init, tmp_path):
    seen = []

    def trials(task, config, *, grid, **arguments):
        seen.append((type(task), grid))
        return finetune(task, config, **arguments)

    arguments = {"tasks": ["WNLI"], "config": CONFIG, "train_one": trials}
    run_glue(slices, init, tmp_path / "glue", options={"grid": {"lr": (1e-3,)}}, **arguments)
    assert seen == [(ClassifyTask, {"lr": (1e-3,)})]
    with pytest.raises(BertwrightError, match="made with options"):
        run_glue(slices, init, tmp_path / "glue", options={"grid": {"lr": (2e-3,)}}, resume=True, **arguments)


def test_tasks_that_cannot_be_run_are_named(slices, init, tmp_path):
    for tasks, words in ((["QNLI"], "no QNLI/train.tsv"), (["CoLA2"], "'CoLA'"), ([], "no task")):
        with pytest.raises(BertwrightError, match=words):
            run_glue(slices, init, tmp_path / "glue", tasks=tasks)
    assert not (tmp_path / "glue").exists()
    write(tmp_path / "other/glue.json", "{}")
    with pytest.raises(BertwrightError, match="no report"):
        run_glue(slices, init, tmp_path / "other", config=CONFIG, resume=True)
