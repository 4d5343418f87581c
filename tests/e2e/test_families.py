"""Every family of tasks on real files, as a user runs it: one model, and the same answers wherever one asks."""

import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bertwright import Predictor, pipeline
from bertwright.cli import run
from bertwright.config import BertConfig
from bertwright.model.bert import Bert
from bertwright.text.wordpiece import WordPiece

TRAINING = ["--precision", "fp32", "--threads", "1", "--epochs", "1", "--lr", "3e-3", "--max-length", "128"]
ENDINGS = ["ending0", "ending1", "ending2", "ending3"]
CODAH = ["category", "prompt", *ENDINGS, "label"]


@dataclass(frozen=True)
class Family:
    """What is trained on which part of which file, asked in full, and how a pipeline is asked the same."""

    verb: str
    train: str
    dev: str
    flags: Sequence[str] = ()
    part: Callable[[str], str] = lambda text: "".join(text.splitlines(keepends=True)[:200])
    pipe: str = "text-classification"
    asked: Callable[[Any], Any] = lambda example: example.text
    answer: Callable[[dict[str, Any]], Any] = lambda prediction: prediction
    vocabulary: str = "uncased"


def pair(example: Any) -> Any:
    return example.text, example.text_pair


def first_articles(text: str) -> str:
    squad = json.loads(text)
    paragraphs = [paragraph for article in squad["data"] for paragraph in article["paragraphs"]][:12]
    return json.dumps({"data": [{"paragraphs": paragraphs}]})


def columns(text: str, pair: str | None = None, label: str = "label") -> list[str]:
    flags = ["--text-column", text, "--label-column", label]
    return flags if pair is None else [*flags, "--text-pair-column", pair]


FAMILIES = {
    "sentence": Family("classify", "en/SST-2/train.tsv", "en/SST-2/dev.tsv", columns("sentence")),
    "pair": Family("classify", "en/RTE/train.tsv", "en/RTE/dev.tsv", columns("sentence1", "sentence2"), asked=pair),
    "regression": Family(
        "regress",
        "en/STS-B/train.tsv",
        "en/STS-B/dev.tsv",
        columns("sentence1", "sentence2", "score"),
        pipe="text-regression",
        asked=pair,
    ),
    "choice": Family(
        "choice",
        "en/CODAH/full_data.tsv",
        "en/CODAH/full_data.tsv",
        ["--columns", *CODAH, "--choice-columns", *ENDINGS],
        pipe="multiple-choice",
        asked=lambda example: (example.text, list(example.choices)),
    ),
    "qa": Family(
        "qa",
        "en/SQuAD/dev-v2.0.json",
        "en/SQuAD/dev-v2.0.json",
        ["--stride", "32"],
        part=first_articles,
        pipe="question-answering",
        asked=lambda example: {"question": example.text, "context": example.text_pair},
    ),
    "tag": Family(
        "tag",
        "en/CoNLL-2003/train.txt",
        "en/CoNLL-2003/valid.txt",
        ["--stride", "8"],
        part=lambda text: "".join(text.splitlines(keepends=True)[:3000]),
        pipe="ner",
        asked=lambda example: [example.text[start:end] for start, end in example.words],
        answer=lambda prediction: prediction["entities"],
    ),
    "sentence, Chinese": Family(
        "classify", "zh/ChnSentiCorp/train.tsv", "zh/ChnSentiCorp/dev.tsv", columns("text_a"), vocabulary="chinese"
    ),
    "qa, Chinese": Family(
        "qa",
        "zh/CMRC2018/cmrc2018_dev.json",
        "zh/CMRC2018/cmrc2018_trial.json",
        ["--rules", "cmrc", "--stride", "8", "--max-question-length", "24"],
        part=first_articles,
        pipe="question-answering",
        asked=pair,
        vocabulary="chinese",
    ),
    "tag, Chinese": Family(
        "tag",
        "zh/MSRA-NER/train.txt.xz",
        "zh/MSRA-NER/dev.txt",
        ["--stride", "8"],
        part=lambda text: "".join(text.splitlines(keepends=True)[:3000]),
        pipe="ner",
        asked=lambda example: [example.text[start:end] for start, end in example.words],
        answer=lambda prediction: prediction["entities"],
        vocabulary="chinese",
    ),
}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def small_model(shared_data: Path, name: str, folder: Path) -> Path:
    [vocabulary] = (shared_data / "vocab").glob(f"*{name}*")
    wordpiece = WordPiece.load(vocabulary / "vocab.txt" if vocabulary.is_dir() else vocabulary, lowercase=True)
    shape = BertConfig(
        vocab_size=wordpiece.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    Bert(shape, seed=1).save_pretrained(folder, wordpiece)
    return folder


@pytest.mark.slow
def test_the_same_answers_from_every_side(family, shared_data, tmp_path, capsys, monkeypatch):
    """A whole dev set through `evaluate`, `predict` and a pipeline; and `score` counts as `evaluate` does."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    tasks = shared_data / "tasks"
    source, dev = tasks / family.train, tasks / family.dev
    packed = source.read_bytes()
    text = (lzma.decompress(packed) if source.suffix == ".xz" else packed).decode("utf-8-sig")
    train = tmp_path / source.name.removesuffix(".xz")
    train.write_text(family.part(text), encoding="utf-8")
    init, model = small_model(shared_data, family.vocabulary, tmp_path / "init"), tmp_path / "run/model"
    files = ["--train", str(train), "--dev", str(train), "--init", str(init), "--out", str(tmp_path / "run")]
    assert run(["finetune", family.verb, *files, *family.flags, *TRAINING, "--quiet"]) == 0
    capsys.readouterr()

    assert run(["evaluate", str(model), "--data", str(dev), "--out", str(tmp_path), "--json", "--quiet"]) == 0
    scores = json.loads(capsys.readouterr().out)
    evaluated = list(map(json.loads, (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]))

    assert run(["predict", str(model), "--input", str(dev), "--quiet"]) == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert len(predicted) == len(evaluated) == scores["num_examples"]
    for one, other in zip(evaluated, predicted, strict=True):
        assert {key: one[key] for key in other} == other

    predictor = Predictor.load(model)
    task = predictor.require_task()
    examples = task.read(dev, labelled=False)
    examples = [example for example in examples if example.text.strip()]  # CMRC 2018 has two empty questions
    expected = [answer for answer, example in zip(predicted, task.read(dev), strict=True) if example.text.strip()]
    piped = pipeline(family.pipe, predictor)([family.asked(example) for example in examples])
    for one, other in zip(piped, expected, strict=True):
        other.pop("id", None)
        assert one == family.answer(other)

    predictions = str(tmp_path / "predictions.jsonl")
    options = [] if family.verb != "qa" else ["--option", f"rules={task.rules}"]
    options += family.flags if family.verb in ("classify", "regress") else []
    if family.verb == "choice":
        options = ["--option", f"columns={json.dumps(CODAH)}", "--option", f"choice_columns={json.dumps(ENDINGS)}"]
    assert run(["score", family.verb, "--data", str(dev), "--predictions", predictions, *options, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    for name, score in counted.items():
        assert scores[name] == pytest.approx(score), name
