"""The command line: help, who wins among flag, file and recipe, one message per mistake, and what the views print."""

import ast
import dataclasses
import errno
import inspect
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bertwright.cli import app, console, explain, run, view
from bertwright.config import BertConfig, DataConfig, FinetuneConfig, PretrainConfig, VocabConfig
from bertwright.data.progress import BuildState
from bertwright.data.show import ExampleView, TokenView
from bertwright.errors import BertwrightError
from bertwright.json_values import save_json
from bertwright.messages import language
from bertwright.recipes import RECIPES, Recipe

COMMANDS = {
    "demo": None,
    "vocab": VocabConfig,
    "vocab extend": None,
    "data build": DataConfig,
    "data show": None,
    "plan": PretrainConfig,
    "pretrain": PretrainConfig,
    "fill": None,
    "nsp": None,
    "finetune classify": FinetuneConfig,
    "predict": None,
    "evaluate": None,
    "report": None,
}
HEAVY = ("torch", "sklearn", "matplotlib", "scipy", "tokenizers", "safetensors", "jinja2")


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    recipe = Recipe(
        name="toy", summary="", model=BertConfig(), train={"lr": 5e-4, "steps": 123, "bias_correction": True}
    )
    monkeypatch.setitem(RECIPES, "toy", recipe)
    return "toy"


def dials(*words: str) -> Any:
    _, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    return bound.arguments.get("dials", PretrainConfig())


# Help


def described(kind: type | None) -> dict[str, str]:
    """The docstring under each field of a configuration."""
    found: dict[str, str] = {}
    for base in kind.__mro__[-2::-1] if kind else ():
        body = ast.parse(inspect.getsource(base)).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[field.target.id] = ast.literal_eval(text.value)  # type: ignore[union-attr]
    assert kind is None or set(found) == {field.name for field in dataclasses.fields(kind)}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, words in described(COMMANDS[command]).items():
        assert f"--{name.replace('_', '-')} " in text, name
        assert " ".join(words.split()[:3]) in text, name
    flags = [line for line in text.split(" --") if line]
    assert len(flags) > 3
    assert "--json" in text
    assert "--quiet" in text


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command.split()[0] in text for command in COMMANDS)


def test_help_and_flags_need_nothing_heavy() -> None:
    code = (
        "import sys; from bertwright.cli import run;"
        "run(['--help']); run(['pretrain', '--help']); run(['pretrain', 'nosuch', '--data', 'x', '--out', 'y']);"
        f"sys.exit(', '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


# Flag > --config FILE > recipe > default


def test_the_recipe_changes_defaults(toy: str) -> None:
    found = dials("pretrain", toy, "--data", "d", "--out", "o")
    assert found == PretrainConfig(lr=5e-4, steps=123, bias_correction=True)


def test_a_file_wins_over_the_recipe(toy: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"lr": 0.01, "seed": 7}')
    found = dials("pretrain", toy, "--data", "d", "--out", "o", "--config", str(path))
    assert (found.lr, found.seed, found.steps) == (0.01, 7, 123)


def test_a_flag_wins_even_when_it_says_the_default(toy: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"lr": 0.01, "steps": 5}')
    words = ["--lr", "1e-4", "--no-bias-correction", "--steps", "1000000", "--config", str(path)]
    assert dials("pretrain", toy, "--data", "d", "--out", "o", *words) == PretrainConfig()


def test_a_saved_run_is_a_configuration(tmp_path: Path) -> None:
    saved = PretrainConfig(lr=2e-3, tensorboard=True, precision="bf16", objective="mlm")
    save_json(saved, tmp_path / "flat.json")
    run_config = {
        "kind": "pretrain",
        "model": {"hidden_size": 128},
        "train": dataclasses.asdict(saved),
        "data": "shards",
    }
    (tmp_path / "config.json").write_text(json.dumps(run_config))
    for name in ("flat.json", "config.json"):
        assert dials("pretrain", "base", "--data", "d", "--out", "o", "--config", str(tmp_path / name)) == saved


def test_finetuning_has_the_papers_defaults() -> None:
    words = ["finetune", "classify", "--train", "t", "--dev", "d", "--init", "m", "--out", "o"]
    _, bound, _ = app.parse_args([*words, "--epochs", "4", "--batch-size", "16"], exit_on_error=False)
    assert bound.arguments["dials"] == FinetuneConfig(epochs=4, batch_size=16)


# Mistakes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretain"], 'Did you mean "pretrain"?'),
        (["finetune", "clasify"], 'Did you mean "classify"?'),
        (["pretrain", "mini", "--data", "d", "--out", "o", "--btch-tokens", "4"], "Did you mean --batch-tokens?"),
        (["pretrain", "mnii", "--data", "d", "--out", "o"], "unknown recipe 'mnii' (did you mean 'mini'?)"),
        (["pretrain", "mini", "--out", "o"], "--data"),
        (
            ["pretrain", "mini", "--data", "d", "--out", "o", "--steps", "ten"],
            "--steps must be a whole number, not 'ten'",
        ),
        (
            ["pretrain", "mini", "--data", "d", "--out", "o", "--steps", "2.5"],
            "--steps must be a whole number, not '2.5'",
        ),
        (["pretrain", "mini", "--data", "d", "--out", "o", "--steps", "-1"], "steps must be at least 1, not -1"),
        (["pretrain", "mini", "--data", "d", "--out", "o", "--lr", "0"], "lr must be positive"),
        (["pretrain", "mini", "--data", "d", "--out", "o", "--precision", "fp16"], '"auto", "fp32", "bf16"'),
        (["pretrain", "mini", "--data", "d", "--out", "o", "--config", "no.json"], "no.json: no such file"),
        (["data", "show", "d"], "INDEX"),
        (["fill", "model"], "TEXT"),
        (["predict", "model"], "no text"),
        (["predict", "model", "a text", "--input", "f.csv"], "texts and --input together"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert expected in shown.err
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err


def test_a_bad_configuration_file_names_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.json"
    for text, expected in (
        ('{"lrr": 1}', "unknown key 'lrr' for PretrainConfig (did you mean 'lr'?)"),
        ('{"train": {"steps": "many"}}', "steps must be a whole number, not 'many'"),
        ("[1]", "expected a JSON object"),
        ("{", "not valid JSON"),
    ):
        path.write_text(text)
        assert run(["pretrain", "mini", "--data", "d", "--out", "o", "--config", str(path)]) == 1
        shown = capsys.readouterr().err
        assert expected in shown
        assert str(path) in shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            BertwrightError("it is [odd]", where="a[0].csv", fix="mend it"),
            "error: a[0].csv: it is [odd]\n  → mend it\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/x"),
            "error: run/x: the disk is full; what was saved before",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "error: /root/x: permission denied\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "gone"), "error: gone: no such file or folder\n"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "file"),
            "error: file: a file is in the way of a folder\n",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "dir"), "error: dir: Is a directory\n"),
        (MemoryError(), "error: not enough memory\n  → lower --micro-batch-tokens"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "error: not enough memory\n  → lower --micro-batch-tokens",
        ),
        (KeyError("x"), "error: something unexpected happened (KeyError: 'x')\n  → type the same command with --debug"),
    ],
)
def test_explain(error: Exception, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    explain(error)
    assert capsys.readouterr().err.startswith(expected)


def _replace_report(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("bertwright.report.write_report", fail)


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _replace_report(monkeypatch, RuntimeError("odd"))
    assert run(["report", "x"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run(["report", "x", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "error: something unexpected happened (RuntimeError: odd)" in shown


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _replace_report(monkeypatch, KeyboardInterrupt())
    assert run(["report", "x"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def test_ctrl_c_in_a_build_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bertwright.text.wordpiece.WordPiece.load", interrupt)
    words = ["data", "build", "c.txt", "--vocab", str(tmp_path), "--out", str(tmp_path / "out")]
    assert run(words) == 130
    assert capsys.readouterr().err == "\nStopped. What is finished is kept; type the same command to go on.\n"
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run(words) == 130
    assert "再次输入同一命令即可继续" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
def test_an_interrupted_run_says_how_to_go_on(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = BertwrightError("stopped at step 7 and saved", fix="the same command with --resume goes on from here")
    error.signal = number  # type: ignore[attr-defined]
    _replace_report(monkeypatch, error)
    assert run(["report", "x"]) == status
    assert "--resume" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-c", "from bertwright.cli import main; main()", "pretrain", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""


# Views


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a colour terminal of 100 columns shows of standard error and output."""
    text = io.StringIO()
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name in ("err", "out"):
        console = Console(
            file=text, force_terminal=True, width=100, color_system="truecolor", highlight=False, soft_wrap=True
        )
        monkeypatch.setattr(view, name, console)
    return text


TRAIN = {"kind": "train", "step": 50, "lr": 1e-4, "grad_norm": 1.25, "tokens_per_second": 12_345.6, "mfu": 0.41,
         "mlm_loss": 6.5, "mlm_accuracy": 0.1, "nsp_loss": 0.69, "nsp_accuracy": 0.55}  # fmt: skip
EVAL = {"kind": "eval", "step": 50, "mlm_loss": 6.75, "mlm_accuracy": 0.0875, "nsp_loss": 0.71, "nsp_accuracy": 0.5}


def test_plain_lines_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    with view.TrainingView("en") as shown:
        shown({"kind": "start", "step": 0, "steps": 100, "parameters": 5})
        shown(TRAIN)
        shown({**TRAIN, "step": 60})  # too soon after the first
        shown(EVAL)
        shown({**TRAIN, "step": 100})  # the last is always shown
        shown({"kind": "message", "text": "a [word]"})
        shown({"kind": "saved", "step": 100})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(
        "step 50/100 · MLM loss 6.500 accuracy 10.0% · NSP loss 0.690 accuracy 55.0% · lr 1.0e-04"
    )
    assert "gradient 1.25 · 12,346 tokens/s · 41% of peak · left" in lines[0]
    assert lines[1] == "held‑out step 50 · MLM loss 6.750 accuracy 8.8% · NSP loss 0.710 accuracy 50.0%"
    assert lines[2].startswith("step 100/100")
    assert lines[3] == "a [word]"


STATE = BuildState(
    share=0.25,
    text_bytes=1_234_000_000,
    documents=300_000,
    examples=2_500_000,
    bytes_per_second=12_340_000.0,
    seconds_left=3723.4,
)


def test_plain_lines_of_a_build(capsys: pytest.CaptureFixture[str]) -> None:
    with view.build_bar("en", line_seconds=0) as tell:
        tell(STATE)
        tell(dataclasses.replace(STATE, share=0.5, bytes_per_second=None, seconds_left=None))
    assert capsys.readouterr().err.splitlines() == [
        "25% · 1.2 GB · 300,000 documents · 2,500,000 examples · 12.3 MB/s · left 1:02:03",
        "50% · 1.2 GB · 300,000 documents · 2,500,000 examples",
    ]
    with view.build_bar("en") as tell:  # too soon
        tell(STATE)
    with view.build_bar("en", quiet=True, line_seconds=0) as tell:
        tell(STATE)
    assert capsys.readouterr().err == ""


def test_a_build_in_a_terminal(screen: io.StringIO) -> None:
    with view.build_bar("zh") as tell:
        tell(STATE)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "25%" in shown
    assert "1.2 GB · 300,000 篇文档 · 2,500,000 个样本 · 12.3 MB/s · 剩余 1:02:03" in shown
    before = screen.tell()
    with view.build_bar("zh", quiet=True) as tell:
        tell(STATE)
    assert screen.tell() == before


def test_fine_tuning_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with view.TrainingView("en") as shown:
        shown({"kind": "start", "steps": 10})
        shown({"kind": "eval", "step": 10, "loss": 0.5, "accuracy": 0.9, "f1": 0.85})
    assert capsys.readouterr().err == "dev step 10 · loss 0.500 accuracy 90.0% F1 85.0%\n"


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        (
            {"accuracy": 0.9, "f1": 0.85, "macro_f1": 0.8, "mcc": 0.75},
            "accuracy 90.0% F1 85.0% macro F1 80.0% MCC 0.750",
        ),
        ({"mse": 0.51234, "spearman": 0.7, "pearson": -0.25}, "Pearson -0.250 Spearman 0.700 MSE 0.5123"),
        ({"f1": 0.6, "exact": 0.5, "unanswerable_accuracy": 1.0}, "EM 50.0% F1 60.0% right if unanswerable 100.0%"),
        (
            {"precision": 0.1, "recall": 0.2, "f1": 0.3, "accuracy": 0.9},
            "F1 30.0% precision 10.0% recall 20.0% accuracy 90.0%",
        ),
        ({"micro_f1": 0.1, "macro_f1": 0.2, "accuracy": 0.3}, "micro F1 10.0% macro F1 20.0% accuracy 30.0%"),
        ({"my[b]score": 3.0}, "my[b]score 3"),
    ],
)
def test_every_tasks_scores_are_in_the_line(
    scores: dict[str, float], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with view.TrainingView("en") as shown:
        shown({"kind": "eval", "step": 1_000, "loss": 0.5, **scores})
    assert capsys.readouterr().err == f"dev step 1,000 · loss 0.500 {line}\n"


def test_a_tasks_scores_in_the_panel_in_chinese(screen: io.StringIO) -> None:
    with view.TrainingView("zh") as shown:
        shown({"kind": "start", "step": 0, "steps": 10})
        shown({"kind": "train", "step": 5, "loss": 1.5, "lr": 1e-5, "tokens_per_second": 10, "mfu": 0.1})
        shown({"kind": "eval", "step": 5, "loss": 0.5, "exact": 0.5, "f1": 0.6})
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "损失 1.500" in plain
    assert "开发集 步 5 · 损失 0.500 精确匹配率 50.0% F1 值 60.0%" in plain


def test_quiet_training_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with view.TrainingView("en", quiet=True) as shown:
        for event in ({"kind": "start", "steps": 10}, TRAIN, EVAL):
            shown(event)
    assert capsys.readouterr() == ("", "")


def test_live_panel(screen: io.StringIO) -> None:
    with view.TrainingView("zh") as shown:
        shown({"kind": "start", "step": 0, "steps": 100})
        shown(TRAIN)
        shown({**TRAIN, "step": 75})
        shown(EVAL)
    text = screen.getvalue()
    for word in ("75", "/100", "75%", "MLM", "NSP", "12,346 词元/秒", "峰值的 41%", "剩余", "留出集", "━"):
        assert word in text, word


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (61.4, "1:01"), (3_725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert view.clock(seconds) == text


EXAMPLE = ExampleView(
    tokens=[
        TokenView(shown="[CLS]", original="[CLS]", segment=0, state="special"),
        TokenView(shown="[MASK]", original="paris", segment=0, state="mask"),
        TokenView(shown="apple", original="is", segment=0, state="random"),
        TokenView(shown="[SEP]", original="[SEP]", segment=0, state="special"),
        TokenView(shown="首", original="首", segment=1, state="kept"),
        TokenView(shown="都", original="都", segment=1, state="plain"),
        TokenView(shown="[SEP]", original="[SEP]", segment=1, state="special"),
    ],
    text_a="paris is",
    text_b="首都",
    next_sentence_label=1,
)  # fmt: skip


def test_an_example_without_colour_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    view.print_example(EXAMPLE, "en", title="shards [3]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shards [3] · 7 tokens · 3 to be guessed · next sentence: B is random"
    assert lines[1:7] == [
        "▌ segment A",
        "  [CLS] [MASK] apple [SEP]",
        "        paris  is",
        "▌ segment B",
        "  首 都 [SEP]",
        "  首",
    ]
    assert "[MASK] hidden · other swapped for a random token · same left as it is" in lines[7]


def test_an_example_in_colour(screen: io.StringIO) -> None:
    view.print_example(EXAMPLE, "zh", title="x")
    text = screen.getvalue()
    assert "\x1b[" in text
    assert "B 是随机抽取的" in text


def test_a_single_segment_has_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    single = dataclasses.replace(EXAMPLE, tokens=EXAMPLE.tokens[:4], text_b=None, next_sentence_label=None)
    view.print_example(single, "en", title="x")
    shown = capsys.readouterr().out
    assert "next sentence" not in shown
    assert "segment B" not in shown


def test_gaps_are_shown_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"score": 0.5, "token": 7, "token_str": "[x]", "sequence": "a [x]"}
    view.print_fills("a [MASK]", [answer])
    assert "50.0%  [x]" in capsys.readouterr().out
    view.print_fills("[MASK] [MASK]", [[answer], [answer]])
    assert "(2/2)" in capsys.readouterr().out


def test_json_is_one_line_whatever_the_width(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "很长 " * 200, "markup": "[bold]"}
    console.print_json(value)
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert json.loads(shown) == value


def test_language_comes_from_the_flag_then_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert language() == "zh"
    assert language("en") == "en"
    monkeypatch.delenv("LC_ALL")
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", "zh_TW")
    assert language() == "zh"
    monkeypatch.delenv("LANG")
    assert language() == "en"
