"""Fine-tuning as a whole: what is kept, what is frozen, what is started again, and trials over settings and seeds."""

import json
import re
from pathlib import Path

import pytest
import torch

from bertwright.config import BertConfig, FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.feature_heads import FeatureTaggingHead, layers_of
from bertwright.predict import Predictor
from bertwright.tasks import ClassifyTask, Example, Feature, TagTask
from bertwright.tasks.checking import check_examples
from bertwright.tasks.words import Entity
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece
from bertwright.training import finetune as module
from bertwright.training.features import FeatureStream
from bertwright.training.finetune import finetune, finetune_examples
from bertwright.training.trials import finetune_trials

WORDS = "a the good bad fine poor film plot actor scene was is very not ! ."
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *WORDS.split()], TextRules(lowercase=True))
SHAPE = BertConfig(
    vocab_size=WORDPIECE.vocab_size,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    initializer_range=0.2,
)
GOOD, BAD = ("the good film", "a fine plot !", "very good .", "fine actor"), ("the bad film", "a poor plot !", "bad .")
DIALS = {"precision": "fp32", "log_every": 1, "batch_size": 4, "lr": 5e-3, "dropout": 0.0, "threads": 1}


@pytest.fixture
def init(tmp_path: Path) -> Path:
    Bert(SHAPE, seed=3).save_pretrained(tmp_path / "init", WORDPIECE)
    return tmp_path / "init"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rows = [f"{text}\tpos" for text in GOOD] + [f"{text}\tneg" for text in BAD]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return {name: tmp_path / f"{name}.tsv" for name in ("train", "dev")}


def examples_of(rows: list[tuple[str, str]]) -> list[Example]:
    return [Example(text, label=label, where=f"row {number}") for number, (text, label) in enumerate(rows, start=1)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Predictor.load(folder).model.named_parameters())


# One run


def test_files_and_examples_give_the_same_weights(init, files, tmp_path):
    config = FinetuneConfig(epochs=2, **DIALS)
    one = finetune(ClassifyTask(), config, **files, init=init, out=tmp_path / "a")
    task = ClassifyTask()
    read = {name: task.read(path) for name, path in files.items()}
    two = finetune_examples(task, config, **read, init=str(init), out=tmp_path / "b")
    assert one.scores == two.scores
    first, second = weights(one.model), weights(two.model)
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_resuming_with_other_examples_is_refused(init, files, tmp_path):
    task = ClassifyTask()
    examples = task.read(files["train"])
    given = {"dev": examples, "init": init, "out": tmp_path / "run"}
    finetune_examples(task, FinetuneConfig(epochs=1, **DIALS), train=examples, **given)
    with pytest.raises(BertwrightError, match="train_sha256"):
        finetune_examples(task, FinetuneConfig(epochs=1, **DIALS), train=examples[:-1], **given, resume=True)


def test_the_usual_length_is_the_tasks_or_what_the_model_takes(init, files, tmp_path):
    finetune(ClassifyTask(), FinetuneConfig(epochs=1, **DIALS), **files, init=init, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/model/task.json").read_text())["max_length"] == 32
    assert json.loads((tmp_path / "run/config.json").read_text())["train"]["max_length"] == 32


def test_what_dev_sets_is_in_the_model_folder(init, files, tmp_path):
    files["dev"].write_text(files["dev"].read_text() + "the good film\tneg\n", encoding="utf-8")  # nobody gets it right
    result = finetune(ClassifyTask(), FinetuneConfig(epochs=8, **DIALS), **files, init=init, out=tmp_path / "run")
    task = Predictor.load(result.model).task
    assert task.temperature != 1.0
    saved = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert saved["calibration"]["temperature"] == task.temperature
    assert saved["num_examples"] == len(GOOD) + len(BAD) + 1


def test_without_dev_the_last_weights_are_kept(init, files, tmp_path):
    task = ClassifyTask()
    train = task.read(files["train"])
    config = FinetuneConfig(epochs=3, **DIALS)
    last = finetune_examples(task, config, train=train, dev=[], init=init, out=tmp_path / "a")
    assert (last.scores, last.step, last.problem) == ({}, 6, None)
    assert Predictor.load(last.model).task.temperature == 1.0
    chosen = finetune_examples(task, config, train=train, dev=train, init=init, out=tmp_path / "b")
    first, second = weights(last.model), weights(chosen.model)
    assert all(torch.equal(first[name], second[name]) for name in first) == (chosen.step == 6)


# Freezing


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        ("", set()),
        ("embeddings", {"embeddings"}),
        ("layers:1", {"layers.1"}),
        ("layers:0-1, pooler", {"layers.0", "layers.1", "pooler"}),
        ("encoder", {"embeddings", "layers.0", "layers.1", "layers.2"}),
    ],
)
def test_what_is_frozen_stays_as_it_was(init, files, tmp_path, parts, frozen):
    before = dict(Bert.from_pretrained(init).named_parameters())
    config = FinetuneConfig(epochs=2, freeze=parts, **DIALS)
    after = weights(finetune(ClassifyTask(), config, **files, init=init, out=tmp_path / "run").model)
    moved = {name.rsplit(".", 2)[0] if name.startswith("layers") else name.split(".")[0]
             for name, value in before.items() if not torch.equal(value, after[name])}  # fmt: skip
    modules = {".".join(name.split(".")[:2]) if name.startswith("layers") else name.split(".")[0] for name in before}
    moved = {".".join(name.split(".")[:2]) if name.startswith("layers") else name for name in moved}
    assert moved == modules - frozen


def test_what_is_frozen_sees_no_dropout():
    model = Bert(SHAPE)
    model.freeze("embeddings,layers:0")
    model.train()
    modules = (model.embeddings, *model.layers, model.pooler)
    assert [module.training for module in modules] == [False, False, True, True, True]
    assert not model.layers[0].attention.training


@pytest.mark.parametrize("parts", ["layers:3", "layers:2-1", "layers", "attention", "layers:0-9", "layer:1"])
def test_freezing_what_is_not_there_is_refused(parts):
    with pytest.raises(BertwrightError, match="no part of this model is called") as caught:
        Bert(SHAPE).freeze(parts)
    assert "layers:0-2" in caught.value.fix


# Runs that come to nothing


def test_a_run_that_comes_to_nothing_is_set_aside_and_started_again(init, files, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "LEAST_STEPS", 1)
    config = FinetuneConfig(epochs=1, restarts=2, **DIALS | {"lr": 1e-9})
    out = tmp_path / "run"
    result = finetune(ClassifyTask(), config, **files, init=init, out=out)
    assert "answers 'neg'" in result.problem or "answers 'pos'" in result.problem
    assert sorted(path.name for path in out.glob("degenerate-*")) == ["degenerate-1", "degenerate-2"]
    seeds = [json.loads((folder / "config.json").read_text())["train"]["seed"]
             for folder in (out / "degenerate-1", out / "degenerate-2", out)]  # fmt: skip
    assert seeds == [0, 10_000, 20_000]
    kept = json.loads((out / "best.json").read_text())
    assert kept["problem"] == result.problem
    assert re.fullmatch("对开发集的每个样本都回答 '(neg|pos)'，其中 .*% 是对的", kept["problem_zh"])
    assert "starting again with seed 10000" in caplog.text
    assert "its scores mean little" in caplog.text
    again = finetune(ClassifyTask(), config, **files, init=init, out=out, resume=True)
    assert again == result


def test_a_short_run_that_comes_to_nothing_is_only_named(init, files, tmp_path, caplog):
    result = finetune(
        ClassifyTask(), FinetuneConfig(epochs=1, **DIALS | {"lr": 1e-9}), **files, init=init, out=tmp_path / "run"
    )
    assert result.problem
    assert not list((tmp_path / "run").glob("degenerate-*"))
    assert "its scores mean little" in caplog.text


def test_a_loss_no_better_than_guessing_is_named(init, files, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setattr(ClassifyTask, "degenerate", lambda *_: None)
    config = FinetuneConfig(epochs=2, **DIALS | {"lr": 1e-9})
    result = finetune(ClassifyTask(), config, **files, init=init, out=tmp_path / "run")
    assert "no better than guessing (0.683)" in result.problem
    assert "不比猜测好（0.683）" in result.problem_zh
    assert "不比猜测好（0.683）" in caplog.text


def test_a_run_that_learns_is_not_degenerate(init, files, tmp_path):
    result = finetune(ClassifyTask(), FinetuneConfig(epochs=20, **DIALS), **files, init=init, out=tmp_path / "run")
    assert result.problem is None
    assert result.scores["accuracy"] == 1.0


# Trials


def test_trials_over_a_grid_keep_the_best_and_go_on_where_they_were_left(init, files, tmp_path, monkeypatch):
    config = FinetuneConfig(epochs=4, **DIALS)
    given = {**files, "init": init, "out": tmp_path / "run"}
    grid = {"lr": (1e-9, 5e-3), "epochs": (2, 12)}
    events = []
    trials = finetune_trials(ClassifyTask(), config, grid=grid, seeds=2, **given, on_event=events.append)
    assert [event["kind"] for event in events].count("check") == 1
    assert json.loads((tmp_path / "run/data.json").read_text())["examples"] == 7
    best = trials.settings[0]
    assert best.dials == {"lr": 5e-3, "epochs": 12}
    assert [*best.seeds] == [0, 1]
    assert best.mean("accuracy") == trials.scores["accuracy"] == 1.0
    assert len(trials.settings) == 4
    means = [setting.mean("accuracy") for setting in trials.settings]
    assert means == sorted(means, reverse=True)
    assert Predictor.load(trials.model).predict(["good"])[0]["label"] == "pos"
    rows = json.loads((tmp_path / "run/trials.json").read_text())["rows"]
    assert rows == json.loads(json.dumps(trials.rows()))
    table = (tmp_path / "run/trials.md").read_text()
    assert table.count("\n") == 6
    assert "1.0000 ± 0.0000" in table

    def refuse(*_, **__):
        raise AssertionError("everything is there already")

    monkeypatch.setattr("bertwright.training.trials.finetune_examples", refuse)
    again = finetune_trials(ClassifyTask(), config, grid=grid, seeds=2, **given, resume=True)
    assert again == trials


def test_a_trial_that_was_stopped_is_finished(init, files, tmp_path, monkeypatch):
    config = FinetuneConfig(epochs=4, **DIALS)
    whole = finetune_trials(ClassifyTask(), config, seeds=2, **files, init=init, out=tmp_path / "whole")
    calls = []

    def stop_in_the_second(*words, **given):
        calls.append(given["out"].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finetune_examples(*words, **given)

    monkeypatch.setattr("bertwright.training.trials.finetune_examples", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        finetune_trials(ClassifyTask(), config, seeds=2, **files, init=init, out=tmp_path / "run")
    resumed = finetune_trials(ClassifyTask(), config, seeds=2, **files, init=init, out=tmp_path / "run", resume=True)
    assert calls == ["trial-seed=0", "trial-seed=1", "trial-seed=1"]
    assert resumed.settings == whole.settings


def test_the_papers_grid_has_eighteen_settings():
    from bertwright.training.trials import _combinations, _grid

    settings = _combinations(_grid("paper"))
    assert len(settings) == 18
    assert {"batch_size": 16, "lr": 2e-5, "epochs": 4} in settings
    with pytest.raises(BertwrightError, match=r"unknown grid 'papr' \(did you mean 'paper'"):
        _grid("papr")


# Data


def test_a_step_keeps_the_features_of_an_example_together():
    task = ClassifyTask(labels=("a", "b"), windows=True)
    features = [Feature([2, 5 + size, 3], [0] * 3, size % 2, size) for size in range(9) for _ in range(1 + size % 3)]
    stream = FeatureStream(features, task, batch_size=4, micro_batch_tokens=7, seed=1)
    assert stream.steps_per_epoch == 3
    position, seen = 0, []
    while position < 9:
        step = stream.batches_at(position)
        assert step.next_position - position == min(4, 9 - position)
        for batch in step.micro_batches:
            sizes = batch.targets["num_windows"].tolist()
            owners = batch.input_ids.view(-1, 3)[:, 1].split(sizes)
            assert all(len(set(owner.tolist())) == 1 for owner in owners)
            assert batch.num_tokens <= 7 or len(sizes) == 1
            seen += [int(owner[0]) - 5 for owner in owners]
        position = step.next_position
    assert sorted(seen) == list(range(9))


def test_a_check_finds_doubles_contradictions_and_leaks():
    train = examples_of([("the film", "a"), ("the film", "a"), ("the film", "b"), ("a plot", "b"), ("unheard of", "b")])
    task = ClassifyTask().learn(train)
    dev = examples_of([("a plot", "a"), ("an actor", "a")])
    check = check_examples(task, train, task.encode(train, WORDPIECE, 4), WORDPIECE, dev=dev)
    assert check.balance == {"b": 3, "a": 2}
    assert check.contradictions == [("row 1", "row 3")]
    assert check.overlaps == [("row 4", "row 1")]
    facts = check.facts
    assert (facts["examples"], facts["dev_examples"], facts["repeated"], facts["inputs"]) == (5, 2, 2, 5)
    assert facts["longest"] == 4
    assert facts["unknown_tokens"] == pytest.approx(2 / 20)
    assert check.shown[0] == [("[CLS]", "a"), ("the", ""), ("film", ""), ("[SEP]", "")]
    assert json.loads(json.dumps(check.to_json()))["shown"][0][0] == ["[CLS]", "a"]
    assert "longest" not in check_examples(task, train).facts


# Features of frozen layers


@pytest.mark.parametrize(
    ("features", "layers", "width"),
    [
        ("embeddings", (0,), 16),
        ("second-to-last", (5,), 16),
        ("last", (6,), 16),
        ("sum-last-4", (3, 4, 5, 6), 16),
        ("concat-last-4", (3, 4, 5, 6), 64),
        ("weighted-sum-last-4", (3, 4, 5, 6), 16),
        ("sum-all", (1, 2, 3, 4, 5, 6), 16),
    ],
)
def test_features_are_mixed_as_said(features, layers, width):
    assert layers_of(features, 6) == layers
    config = BertConfig(**{**SHAPE.__dict__, "num_hidden_layers": 6, "hidden_dropout_prob": 0.0})
    model = Bert(
        config, {"features": FeatureTaggingHead(config, 2, features=features, lstm_layers=0, lstm_size=2)}, seed=1
    ).eval()
    head = model.heads["features"]
    assert head.classifier.weight.shape == (2, width)
    task = TagTask(labels=("O", "B-X"), features=features, lstm_layers=0)
    batch = task.collate(task.encode([task.example("the good film"), task.example("very bad")], WORDPIECE, 32))
    states = torch.stack([output for number, output in enumerate(model.layer_outputs(batch)) if number in layers], 1)
    mixed = states.flatten(1) if features.startswith("concat") else states.sum(1)
    expected = mixed[batch.targets["token_rows"]] @ head.classifier.weight.T + head.classifier.bias
    rows, logits = model.head_logits("features", batch)
    assert torch.equal(rows, batch.targets["token_rows"])
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(model(batch)["features"], expected)


def test_a_bilstm_reads_each_sequence_by_itself():
    head = FeatureTaggingHead(SHAPE, 3, features="last", lstm_layers=2, lstm_size=8)
    model = Bert(SHAPE, {"features": head}).eval()
    task = TagTask(labels=("O", "B-X", "I-X"), features="last")
    examples = [task.example(text) for text in ("the good film was very fine", "bad", "a plot !")]
    features = task.encode(examples, WORDPIECE, 32)
    together = model.head_logits("features", task.collate(features))[1]
    alone = [model.head_logits("features", task.collate([feature]))[1] for feature in features]
    torch.testing.assert_close(together, torch.cat(alone))
    bound = 1 / 2  # 1 / sqrt(4): torch's own way to draw an LSTM of 4 a direction
    assert 0.8 * bound < max(float(weight.detach().abs().max()) for weight in head.lstm.parameters()) <= bound


def test_a_tagger_on_frozen_features_learns_and_is_loaded_again(init, tmp_path):
    rows = ["the good film", "a fine plot", "the bad actor", "a poor scene", "very good film", "not bad plot"]
    task = TagTask(features="concat-last-4", lstm_layers=1, lstm_size=16)
    examples = [
        Example(text, label=(Entity(start, len(text), "X"),), words=task.example(text).words)
        for text in rows
        for start in [text.rindex(" ") + 1]
    ]
    config = FinetuneConfig(epochs=30, freeze="encoder", **DIALS | {"lr": 1e-2})
    result = finetune_examples(task, config, train=examples, dev=examples, init=init, out=tmp_path / "run")
    assert result.scores["f1"] == 1.0
    before = dict(Bert.from_pretrained(init).named_parameters())
    loaded = Predictor.load(result.model)
    after = dict(loaded.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("pooler"))
    assert loaded.predict(["the fine scene"])[0]["entities"][0]["word"] == "scene"


# Stopped at a bad moment, or asked for something else


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_kill_while_a_spoilt_run_is_set_aside_loses_nothing(init, files, tmp_path, monkeypatch, after):
    monkeypatch.setattr(module, "LEAST_STEPS", 1)
    config = FinetuneConfig(epochs=1, restarts=1, **DIALS | {"lr": 1e-9})
    rename, done = Path.rename, []

    def rename_some(path: Path, target: Path) -> Path:
        if "degenerate-1" in str(target):
            done.append(path.name)
            if len(done) > after:
                raise KeyboardInterrupt
        return rename(path, target)

    given = {**files, "init": init, "out": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_some)
        with pytest.raises(KeyboardInterrupt):
            finetune(ClassifyTask(), config, **given)
    assert len(done) == after + 1
    result = finetune(ClassifyTask(), config, **given, resume=True)
    assert result.problem
    assert [path.name for path in (tmp_path / "run").glob("degenerate-*")] == ["degenerate-1"]
    assert json.loads((tmp_path / "run/config.json").read_text())["train"]["seed"] == 10_000


def test_trials_of_other_settings_are_not_mixed(init, files, tmp_path):
    given = {**files, "init": init, "out": tmp_path / "run"}
    config = FinetuneConfig(epochs=1, **DIALS)
    finetune_trials(ClassifyTask(), config, **given)
    more = finetune_trials(ClassifyTask(), config, seeds=2, **given, resume=True)
    assert [*more.settings[0].seeds] == [0, 1]
    other = FinetuneConfig(epochs=1, **DIALS | {"lr": 1e-6})
    with pytest.raises(BertwrightError, match=r"train\.lr = 0\.005, this command says 1e-06"):
        finetune_trials(ClassifyTask(), other, seeds=3, **given, resume=True)


@pytest.mark.parametrize("grid", [{"learning": (1,)}, {"lr": ()}, {"seed": (1, 2)}, {"lr": ("fast",)}])
def test_a_grid_that_cannot_be_is_refused(init, files, tmp_path, grid):
    with pytest.raises(BertwrightError):
        finetune_trials(ClassifyTask(), FinetuneConfig(), grid=grid, **files, init=init, out=tmp_path / "run")


def test_a_grid_of_words(init, files, tmp_path):
    config = FinetuneConfig(epochs=1, **DIALS)
    trials = finetune_trials(
        ClassifyTask(), config, grid={"freeze": ("", "embeddings")}, **files, init=init, out=tmp_path / "run"
    )
    assert {setting.name for setting in trials.settings} == {"freeze=", "freeze=embeddings"}


def test_fine_tuning_is_done_by_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BertwrightError, match="fine-tuning is done by one process, not by 2"):
        finetune_examples(ClassifyTask(), FinetuneConfig(), train=[], dev=[], init=tmp_path, out=tmp_path / "run")
