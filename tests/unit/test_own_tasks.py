"""A task of one's own: found by MODULE:CLASS, kept by that name, and loaded at a person's word alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bertwright.cli import run
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.export import convert
from bertwright.json_values import read_json
from bertwright.model.bert import Bert
from bertwright.model.weights import save_model
from bertwright.pipelines import pipeline
from bertwright.predict import Predictor
from bertwright.tasks import ClassifyTask, Task, get_task, task_from_json, task_to_json
from bertwright.tasks.own import own_task, trust
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

LOUD = """
from dataclasses import dataclass
from pathlib import Path
from bertwright.tasks import ClassifyTask, Task

Path("imported").touch()

@dataclass(frozen=True, kw_only=True)
class LoudTask(ClassifyTask):
    bangs: int = 1

    def encode(self, examples, wordpiece, max_length):
        from dataclasses import replace
        return super().encode([replace(each, text=each.text + " !" * self.bangs) for each in examples], wordpiece,
                              max_length)

class HalfTask(Task):
    def read(self, path, *, labelled=True):
        return []

class Other:
    pass

@dataclass(frozen=True, kw_only=True)
class HidingTask(ClassifyTask):
    marks: int = 1
"""


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    wordpiece = WordPiece([*SPECIAL_TOKENS, *["good", "bad", "film", "plot", "!"]], TextRules(lowercase=True))
    shape = BertConfig(vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    folder = tmp_path_factory.mktemp("init") / "model"
    save_model(Bert(shape, {}, seed=1), folder, wordpiece=wordpiece)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module, not imported, and a file of examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "train.csv").write_text("text,label\n" + "good film,1\nbad plot,0\n" * 8)
    yield tmp_path
    sys.modules.pop("loud", None)


@pytest.fixture
def trained(here, init):
    words = "finetune loud:LoudTask --train train.csv --dev train.csv --out run --epochs 1 --option bangs=2 --quiet"
    assert run([*words.split(), "--init", str(init)]) == 0
    del sys.modules["loud"]
    (here / "imported").unlink()
    return here / "run/model"


def test_it_is_kept_by_its_name_and_options(trained, here):
    saved = json.loads((trained / "task.json").read_text())
    assert saved["name"] == "loud:LoudTask"
    assert saved["options"]["bangs"] == 2
    assert read_json(here / "run/config.json")["task"]["name"] == "loud:LoudTask"


def test_a_folder_alone_imports_nothing(trained, here, capsys):
    for ask in (Predictor.load, lambda folder: pipeline("text-classification", folder)):
        with pytest.raises(BertwrightError, match="its module is not imported") as caught:
            ask(trained)
        assert "import loud first" in caught.value.fix
        assert str(trained / "task.json") in str(caught.value.where)
    assert run(["predict", str(trained), "good film"]) == 1
    assert "--trust loud" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (here / "imported").exists()
    assert "loud" not in sys.modules


def test_it_is_loaded_where_it_is_trusted(trained, here, capsys):
    assert run(["predict", str(trained), "good film", "bad plot", "--trust", "loud"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {*answers[0]} == {"label", "score"}
    predictor = Predictor.load(trained)  # the module is imported by now
    assert type(predictor.task).__name__ == "LoudTask"
    assert predictor.predict(["good film", "bad plot"]) == answers
    assert Predictor.load(trained, options={"bangs": 7}).task.bangs == 7
    assert pipeline("text-classification", trained)("good film")[0]["label"] in ("0", "1")
    assert run(["evaluate", str(trained), "--data", "train.csv", "--trust", "loud", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["num_examples"] == 16


def test_a_run_of_it_goes_on(trained, here, init, capsys):
    words = "finetune loud:LoudTask --train train.csv --dev train.csv --out run --epochs 1 --resume --quiet"
    assert run([*words.split(), "--init", str(init), "--option", "bangs=2"]) == 0
    assert run([*words.split(), "--init", str(init), "--option", "bangs=3"]) == 1
    assert "task.options.bangs = 2" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_checking_its_data(here, capsys):
    assert run(["check", "train.csv", "--task", "loud:LoudTask", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 16


def test_converting_runs_no_code(trained, here):
    convert(trained, here / "copy", to="hf")
    assert read_json(here / "copy/task.json")["name"] == "loud:LoudTask"
    assert not (here / "imported").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loud:LoudTsk", "no task 'LoudTsk' in loud (did you mean 'LoudTask'?)"),
        ("loud:Other", "no task 'Other' in loud"),
        ("loud:Path", "no task 'Path' in loud"),
        ("loud:", "no task '' in loud"),
        ("loud:HalfTask", "the task loud:HalfTask lacks best_by, counts, decode, encode, error, example, head"),
        ("loud:HidingTask", "the option 'marks' of loud:HidingTask hides the method of that name"),
        ("lowd:LoudTask", "no module 'lowd'"),
        ("loud.inner:LoudTask", "no module 'loud.inner'"),
        ("broken:LoudTask", "module broken cannot be imported (SyntaxError"),
        ("lacking:LoudTask", "module lacking needs no_such_package"),
    ],
)
def test_what_is_not_there_is_said(name, words, here, capsys):
    (here / "broken.py").write_text("def")
    (here / "lacking.py").write_text("import no_such_package")
    arguments = ["--train", "train.csv", "--dev", "train.csv", "--init", "model", "--out", "run"]
    assert run(["finetune", name, *arguments]) == 1
    assert words in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (here / "run").exists()


def test_options_are_checked_as_those_of_any_task(here):
    trust("loud")
    with pytest.raises(BertwrightError, match=r"unknown key 'bang' .*did you mean 'bangs'"):
        task_from_json({"name": "loud:LoudTask", "options": {"bang": 1}})
    with pytest.raises(BertwrightError, match="bangs must be a whole number"):
        task_from_json({"name": "loud:LoudTask", "options": {"bangs": "many"}})


def test_a_class_inside_a_function_cannot_be_found_again():
    class Inner(ClassifyTask):
        pass

    with pytest.raises(BertwrightError, match="not at the top of a module"):
        task_to_json(Inner())


def test_the_table_comes_first_and_its_names_stay():
    assert task_to_json(ClassifyTask())["name"] == "classify"
    with pytest.raises(BertwrightError, match=r"unknown task 'clasify' \(did you mean 'classify'"):
        get_task("clasify")
    assert issubclass(own_task("bertwright.tasks:ClassifyTask"), Task)


def test_a_class_of_the_script_itself_is_known_by_the_scripts_name(tmp_path):
    script = (
        LOUD.replace('Path("imported").touch()', "")
        + "from bertwright.tasks import task_from_json, task_to_json\n"
        + "values = task_to_json(LoudTask(bangs=3))\n"
        + "assert task_from_json(values) == LoudTask(bangs=3)\n"
        + "print(values['name'])\n"
    )
    (tmp_path / "my_run.py").write_text(script)
    found = subprocess.run([sys.executable, "my_run.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "my_run:LoudTask"
    assert Path(tmp_path / "my_run.py").exists()
