"""A model with a domain's words: it opens everywhere, is not worse before any training, and can be trained on."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from bertwright import Bert, Predictor, WordPiece, extend_vocabulary
from bertwright.batch import Batch
from bertwright.cli import run
from bertwright.config import BertConfig, DataConfig, PretrainConfig, VocabConfig
from bertwright.data.build import build_shards
from bertwright.errors import BertwrightError
from bertwright.model.heads import ClassificationHead
from bertwright.model.weights import load_model, save_model
from bertwright.text.corpus import documents
from bertwright.text.vocabulary import train_vocabulary
from bertwright.training.pretrain import pretrain

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SHAPE = BertConfig(
    num_hidden_layers=1,
    hidden_size=64,
    num_attention_heads=2,
    intermediate_size=128,
    max_position_embeddings=32,
    initializer_range=0.1,
)
DIALS = {"objective": "mlm", "batch_tokens": 1024, "lr": 5e-3, "warmup_ratio": 0.1, "beta2": 0.98,
         "bias_correction": True, "dropout": 0.0, "precision": "fp32", "threads": 1}  # fmt: skip
NOT_WORSE = 0.01
"""Nats a character that words which were there before may lose: other words now have a little of their probability."""
TOLERANCE = 2e-5
"""fp32 sums in another order."""
NEW = {"size": 150, "min_count": 3}


@dataclass(frozen=True)
class Domain:
    """A pre-trained model, text of another domain, and the same model with that domain's words."""

    home: Path
    old: Path
    new: Path
    extended: object
    held_out: list[list[str]]

    def sides(self) -> list[tuple[Bert, WordPiece]]:
        return [(load_model(folder), WordPiece.load(folder)) for folder in (self.old, self.new)]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    home = tmp_path_factory.mktemp("domain")
    names = sorted(topics)
    for name, some in (("general", names[1::2]), ("special", names[0::4]), ("held-out", names[2::4])):
        text = "".join(json.dumps({"text": topics[each]}) + "\n" for each in some)
        (home / f"{name}.jsonl").write_text(text, encoding="utf-8")
    vocab = VocabConfig(size=900, unused_slots=100)
    wordpiece = train_vocabulary([home / "general.jsonl"], vocab, threads=1).wordpiece
    shards = DataConfig(max_length=32, objective="mlm")
    build_shards([home / "general.jsonl"], wordpiece, home / "shards", shards, workers=1)
    old = pretrain(SHAPE, PretrainConfig(steps=200, **DIALS), data=home / "shards", out=home / "run")
    extended = extend_vocabulary(old, [home / "special.jsonl"], home / "new", **NEW, threads=1)
    sentences = (wordpiece.rules.words(each) for text in documents([home / "held-out.jsonl"]) for each in text)
    return Domain(home, old, home / "new", extended, [words[:8] for words in sentences if len(words) > 4])


@torch.inference_mode()
def losses(model: Bert, wordpiece: WordPiece, sentences: list[list[str]], new: set[str]) -> dict[str, float]:
    """Nats a character over hidden words, the same ones whatever the vocabulary: all pieces of a word are hidden.

    So the figures of two vocabularies can be compared: both sides are asked for the same characters, in sight of the
    same ones.
    """
    ids, rows, labels, kinds = [], [], [], []
    sums, characters = dict.fromkeys(("new", "other"), 0.0), dict.fromkeys(("new", "other"), 0)
    for number, words in enumerate(sentences):
        ids.append([wordpiece.cls_id])
        for place, word in enumerate(words):
            pieces = wordpiece.pieces(word)
            hidden = hashlib.blake2b(repr((number, place)).encode(), digest_size=1).digest()[0] < 40
            if hidden and pieces != [wordpiece.unk_id]:
                kind = "new" if word in new else "other"
                start = sum(map(len, ids))
                rows += range(start, start + len(pieces))
                labels += pieces
                kinds += [kind] * len(pieces)
                characters[kind] += len(word)
                pieces = [wordpiece.mask_id] * len(pieces)
            ids[-1] += pieces
        ids[-1].append(wordpiece.sep_id)
    ids = [each[:32] for each in ids]
    assert sum(map(len, ids)) > max(rows), "no sentence was cut"
    batch = Batch.pack(ids, [[0] * len(each) for each in ids], {"masked_rows": torch.tensor(rows)})
    nats = -model(batch)["mlm"].log_softmax(1).gather(1, torch.tensor(labels)[:, None])
    for kind, value in zip(kinds, nats.flatten().tolist(), strict=True):
        sums[kind] += value
    return {kind: sums[kind] / characters[kind] for kind in sums}


def test_the_model_is_not_worse_before_any_training(domain: Domain) -> None:
    new = {each.word for each in domain.extended.words}
    sentences = [each for each in domain.held_out if len(" ".join(each)) < 60][:600]
    before, after = (losses(*side, sentences, new) for side in domain.sides())
    assert after["other"] < before["other"] + NOT_WORSE
    assert after["new"] < before["new"], "one token is guessed, where it was several at once"


def test_new_words_never_outbid_what_was_there(domain: Domain) -> None:
    (old, wordpiece), (new, _) = domain.sides()
    ids = [wordpiece.ids(" ".join(words))[:30] for words in domain.held_out[:40]]
    rows = torch.arange(sum(map(len, ids)))
    batch = Batch.pack(ids, [[0] * len(each) for each in ids], {"masked_rows": rows})
    with torch.inference_mode():
        one, other = (model(batch)["mlm"].double() for model in (old, new))
    fresh = list(domain.extended.ids)
    pieces = sorted({piece for each in domain.extended.words for piece in each.pieces})
    assert wordpiece.unk_id not in pieces
    assert (other[:, fresh].exp().sum(1) <= 0.5 * one[:, pieces].exp().sum(1) * (1 + TOLERANCE)).all()
    kept = [number for number in range(one.shape[1]) if number not in fresh]
    torch.testing.assert_close(one[:, kept], other[:, kept], atol=TOLERANCE, rtol=0)


def test_rows_are_means_and_slots_are_filled(domain: Domain) -> None:
    (old, wordpiece), (new, extended) = domain.sides()
    report = domain.extended.report
    assert report["slots_filled"] == 100
    assert new.config.vocab_size == old.config.vocab_size + 50 == extended.vocab_size
    assert new.heads["mlm"].decoder_weight is new.embeddings.word.weight
    for number, each in zip(domain.extended.ids, domain.extended.words, strict=True):
        expected = old.embeddings.word.weight[wordpiece.pieces(each.word)].mean(0)
        assert torch.equal(new.embeddings.word.weight[number], expected)
        assert extended.tokens[number] == each.word
    state = new.state_dict()
    for name, tensor in old.state_dict().items():
        if not name.endswith(("word.weight", "decoder_weight", "decoder_bias")):
            assert torch.equal(state[name], tensor), name


def test_it_opens_in_transformers_with_the_same_tokens_and_logits(domain: Domain) -> None:
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(domain.new).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(domain.new)
    _, (ours, wordpiece) = domain.sides()
    assert theirs.config.vocab_size == len(tokenizer) == wordpiece.vocab_size
    word = domain.extended.words[0].word
    for words in [[word, "is", word], *domain.held_out[:30]]:
        text = " ".join(words)
        encoded = tokenizer(text, return_tensors="pt")
        ids = wordpiece.encode(text).input_ids
        assert encoded["input_ids"][0].tolist() == list(ids)
        batch = Batch.pack([list(ids)], [[0] * len(ids)], {"masked_rows": torch.arange(len(ids))})
        with torch.inference_mode():
            torch.testing.assert_close(theirs(**encoded).logits[0], ours(batch)["mlm"], atol=TOLERANCE, rtol=1e-4)


def test_training_goes_on_from_it(domain: Domain, tmp_path: Path) -> None:
    corpus, shards = str(domain.home / "special.jsonl"), str(tmp_path / "shards")
    assert run(["data", "build", corpus, "--vocab", str(domain.new), "--out", shards, "--objective", "mlm",
                "--max-length", "32", "--workers", "1", "--quiet"]) == 0  # fmt: skip
    words = ["--init", str(domain.new), "--data", shards, "--objective", "mlm", "--steps", "20", "--lr", "3e-4",
             "--batch-tokens", "512", "--out", str(tmp_path / "run"), "--threads", "1", "--quiet"]  # fmt: skip
    assert run(["pretrain", "tiny", *words]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    trained = [row["mlm_loss"] for row in rows if row["kind"] == "train"]
    assert trained[0] < math.log(domain.extended.wordpiece.vocab_size) - 1.5, "it starts where the old model stood"
    assert trained[-1] < trained[0] + 0.5
    assert WordPiece.load(tmp_path / "run/model").sha256 == domain.extended.wordpiece.sha256
    assert run(["pretrain", "tiny", *words[:1], str(domain.old), *words[2:]]) == 1, "another vocabulary"


def test_the_same_folder_from_the_command_line(
    domain: Domain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["vocab", "extend", str(domain.old), "--corpus", str(domain.home / "special.jsonl"),
             "--size", "150", "--min-count", "3"]  # fmt: skip
    assert run([*words, "--out", str(tmp_path / "a"), "--threads", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["added"], said["slots_filled"], said["appended"]) == (150, 100, 50)
    assert [each["word"] for each in said["new_words"]] == [each.word for each in domain.extended.words]
    for file in domain.new.iterdir():
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes(), file.name
    for locale, expected in (("C.UTF-8", "150 new words: 100 in [unused] slots"), ("zh_CN.UTF-8", "新增 150 个词")):
        monkeypatch.setenv("LC_ALL", locale)
        assert run([*words, "--out", str(tmp_path / locale)]) == 0
        shown = capsys.readouterr().out
        assert expected in shown
        best = domain.extended.words[0]
        assert f"{best.tokens_saved:,}" in next(line for line in shown.splitlines() if line.startswith(best.word))


# Other models


def fine_tuned(domain: Domain, folder: Path) -> Path:
    """The encoder under a classifier, with the task that goes with it."""
    bert, wordpiece = domain.sides()[0]
    bert.heads = torch.nn.ModuleDict({"classify": ClassificationHead(bert.config, 2)})
    task = {"name": "classify", "options": {"labels": ["good", "bad"]}, "max_length": 16}
    save_model(bert, folder, wordpiece=wordpiece, extra_files={"task.json": json.dumps(task)})
    return folder


def test_a_fine_tuned_model_keeps_its_head_and_its_answers(domain: Domain, tmp_path: Path) -> None:
    old = fine_tuned(domain, tmp_path / "old")
    extension = extend_vocabulary(old, [domain.home / "special.jsonl"], tmp_path / "new", **NEW)
    words = (" ".join(words) for words in domain.held_out)
    sentences = [text for text in words if extension.wordpiece.ids(text) == extension.old.ids(text)][:20]
    assert len(sentences) == 20
    one, other = (Predictor.load(folder).predict(sentences) for folder in (old, tmp_path / "new"))
    assert [each["label"] for each in one] == [each["label"] for each in other]
    assert [each["score"] for each in one] == pytest.approx([each["score"] for each in other], abs=TOLERANCE)
    assert Predictor.load(tmp_path / "new").predict([extension.words[0].word])[0]["label"] in ("good", "bad")


def test_an_encoder_without_heads_and_its_pooling(minilm: Path, domain: Domain, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: its slots hold a hundred words, and what it says of other text stays as it is."""
    from bertwright import Embedder

    corpus = domain.home / "special.jsonl"
    extension = extend_vocabulary(minilm, [corpus], tmp_path / "new", size=100, min_count=3)
    assert extension.report["slots_filled"] == len(extension.words)
    assert extension.wordpiece.vocab_size == WordPiece.load(minilm).vocab_size
    assert transformers.AutoModel.from_pretrained(tmp_path / "new").config.vocab_size == 30_522
    texts = ["The cat sat on the mat.", "Oak is a hard wood."]
    one, other = (Embedder.load(folder).embed(texts) for folder in (minilm, tmp_path / "new"))
    assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    text = f"What does {extension.words[0].word} mean?"
    one, other = (torch.as_tensor(Embedder.load(folder).embed([text])) for folder in (minilm, tmp_path / "new"))
    assert 0.5 < float((one * other).sum()) < 1 - 1e-6, "near what it was, though it is another token"


def test_characters_that_were_unknown_share_what_unk_has(domain: Domain, tmp_path: Path) -> None:
    (tmp_path / "zh.txt").write_text("车轮车轮车" * 3 + " def", encoding="utf-8")
    extension = extend_vocabulary(domain.old, [tmp_path / "zh.txt"], tmp_path / "new", size=10, min_count=1)
    assert [(each.word, each.count) for each in extension.words] == [("车", 9), ("轮", 6)]
    old, new, unk = load_model(domain.old), load_model(tmp_path / "new"), extension.old.unk_id
    for number, share in zip(extension.ids, (9 / 15, 6 / 15), strict=True):
        assert torch.equal(new.embeddings.word.weight[number], old.embeddings.word.weight[unk])
        bias = old.heads["mlm"].decoder_bias[unk] + torch.tensor(share).log()
        torch.testing.assert_close(new.heads["mlm"].decoder_bias[number], bias)


def test_embeddings_padded_beyond_the_vocabulary(domain: Domain, tmp_path: Path) -> None:
    wordpiece = WordPiece.load(domain.old)
    rows = -(-wordpiece.vocab_size // 64) * 64
    config = BertConfig(**{**vars(SHAPE), "vocab_size": rows})
    save_model(Bert(config), tmp_path / "old", wordpiece=wordpiece)
    for size, expected in ((102, rows), (rows, None)):
        out = tmp_path / f"new{size}"
        extension = extend_vocabulary(tmp_path / "old", [domain.home / "special.jsonl"], out, size=size, min_count=1)
        assert load_model(out).config.vocab_size == (expected or extension.wordpiece.vocab_size)
        assert Predictor.load(out).wordpiece.sha256 == extension.wordpiece.sha256


# Refusals


@pytest.mark.parametrize(
    ("corpus", "flags", "words"),
    [
        ("\n", [], "no text in this file"),
        ("\u200b\n", [], "there is no word in this corpus"),
        ("a statement is a statement", [], "is one token already"),
        ("zyzzyva zyzzyva", [], "occurs 2 times, fewer than 5"),
        ("zyzzyva", ["--size", "0"], "size must be at least 1"),
        (None, [], "no such file, folder or pattern"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    domain: Domain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    corpus: str | None,
    flags: list[str],
    words: str,
) -> None:
    path = tmp_path / "corpus.txt"
    if corpus is not None:
        path.write_text(corpus, encoding="utf-8")
    out = tmp_path / "new"
    assert run(["vocab", "extend", str(domain.old), "--corpus", str(path), "--out", str(out), *flags]) == 1
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_nothing_is_written_over(domain: Domain, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    for out, words in ((tmp_path / "there", "something is here already"), (domain.old / "new", "lies in the model")):
        with pytest.raises(BertwrightError, match=words):
            extend_vocabulary(domain.old, [domain.home / "special.jsonl"], out)
