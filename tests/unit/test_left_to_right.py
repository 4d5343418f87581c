"""Left-to-right models: what is predicted, what is seen, what is pooled; and a BiLSTM on top. Paper: 5.1, table 5."""

import dataclasses
import json
import random

import pytest
import torch
import torch.nn.functional as F

from bertwright.batch import Batch
from bertwright.config import BertConfig, DataConfig, FinetuneConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.data.loader import PretrainLoader
from bertwright.data.shards import ShardSet
from bertwright.embedding import Embedder
from bertwright.errors import BertwrightError
from bertwright.json_values import from_dict
from bertwright.model.bert import Bert
from bertwright.model.heads import ClassificationHead, MaskedLMHead, NextSentenceHead
from bertwright.model.layers import BiLSTM
from bertwright.model.weights import load_model, save_model
from bertwright.objectives import OBJECTIVES, LeftToRight, LeftToRightAndNextSentence
from bertwright.pipelines import pipeline
from bertwright.predict import Predictor
from bertwright.report import part_of
from bertwright.tasks import ClassifyTask, Example, TagTask
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece
from bertwright.training.finetune import finetune_examples
from bertwright.training.pretrain import pretrain

SUBJECTS, VERBS = ["cat", "dog", "owl", "fox"], ["sees", "likes", "hears"]
WORDPIECE = WordPiece([*SPECIAL_TOKENS, "the", ".", *SUBJECTS, *VERBS], TextRules(lowercase=True))
SHAPE = BertConfig(
    vocab_size=WORDPIECE.vocab_size,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    initializer_range=0.2,
)
CAUSAL = dataclasses.replace(SHAPE, is_decoder=True, pool_last=True)
LENGTHS = [9, 3, 20, 20, 5]
SAME = 1e-5
"""Between two ways to the same fp32 numbers."""
DIALS = {"precision": "fp32", "threads": 1, "batch_tokens": 300, "micro_batch_tokens": 120, "log_every": 1}


def sentence(rng):
    return f"the {rng.choice(SUBJECTS)} {rng.choice(VERBS)} the {rng.choice(SUBJECTS)} ."


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Shards of pairs, and shards of single segments."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("data")
    documents = ["\n".join(sentence(rng) for _ in range(rng.randint(2, 9))) for _ in range(40)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    for kind in ("mlm+nsp", "mlm"):
        config = DataConfig(max_length=24, held_out_prob=0.2, objective=kind)
        build_shards([folder / "corpus.txt"], WORDPIECE, folder / kind, config)
    return {kind: folder / kind for kind in ("mlm+nsp", "mlm")}


def batch_of(lengths=LENGTHS, *, seed=0):
    """Random sequences, with what `ltr+nsp` asks of them."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, SHAPE.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    batch = Batch.pack(ids, [[0] * length for length in lengths])
    rows = torch.arange(batch.num_tokens)
    rows = rows[~torch.isin(rows, batch.last_rows)]
    targets = {"masked_rows": rows, "masked_labels": batch.input_ids[rows + 1]}
    return dataclasses.replace(batch, targets=targets | {"next_sentence_label": torch.arange(len(lengths)) % 2})


def model_with(*names, config=CAUSAL):
    heads = {"mlm": MaskedLMHead, "nsp": NextSentenceHead, "classify": lambda config: ClassificationHead(config, 3)}
    return Bert(config, {name: heads[name](config) for name in names}, seed=3).eval()


# What is predicted


@pytest.mark.parametrize(("objective", "kind"), [("ltr", "mlm"), ("ltr", "mlm+nsp"), ("ltr+nsp", "mlm+nsp")])
def test_every_token_is_predicted_where_the_one_before_it_stands(objective, kind, folders):
    shards = ShardSet.open(folders[kind])
    whole = PretrainLoader(shards.split("train"), wordpiece=WORDPIECE, batch_tokens=300, objective=objective)
    for batch in whole.batches_at(0).micro_batches:
        expected_rows, expected_labels = [], []
        for start, end in zip(batch.cu_seqlens.tolist(), batch.cu_seqlens[1:].tolist(), strict=False):
            assert batch.input_ids[start] == WORDPIECE.cls_id
            assert batch.input_ids[end - 1] == WORDPIECE.sep_id
            expected_rows += range(start, end - 1)
            expected_labels += batch.input_ids[start + 1 : end].tolist()
        assert batch.targets["masked_rows"].tolist() == expected_rows
        assert batch.targets["masked_labels"].tolist() == expected_labels
        assert WORDPIECE.mask_id not in batch.input_ids
        assert ("next_sentence_label" in batch.targets) == (objective == "ltr+nsp")


def test_next_sentences_want_pairs(folders):
    shards = ShardSet.open(folders["mlm"])
    with pytest.raises(BertwrightError, match=r"objective 'ltr\+nsp' needs pairs") as caught:
        PretrainLoader(shards.split("train"), wordpiece=WORDPIECE, objective="ltr+nsp")
    assert "`--objective ltr`" in caught.value.fix


def test_the_loss_is_the_plain_one():
    model, batch = model_with("mlm", "nsp"), batch_of()
    output = LeftToRightAndNextSentence()(model, batch)
    total, right = 0.0, 0
    with torch.no_grad():
        for start, end in zip(batch.cu_seqlens.tolist(), batch.cu_seqlens[1:].tolist(), strict=False):
            ids = batch.input_ids[start:end]
            logits = model.heads["mlm"](model.on_padded(ids[None]).last_hidden_state[0])
            total += float(F.cross_entropy(logits[:-1], ids[1:], reduction="sum"))
            right += int((logits[:-1].argmax(-1) == ids[1:]).sum())
    assert output.losses["ltr_loss"].count == sum(LENGTHS) - len(LENGTHS)
    assert float(output.losses["ltr_loss"].total.detach()) == pytest.approx(total, rel=SAME)
    assert int(output.metrics["ltr_accuracy"].total) == right
    assert set(output.losses) == {"ltr_loss", "nsp_loss"}
    alone = LeftToRight()(model, batch)
    assert float(alone.losses["ltr_loss"].total.detach()) == pytest.approx(total, rel=SAME)


def test_a_model_that_reads_both_ways_is_no_subject():
    with pytest.raises(AssertionError, match="no secret"):
        LeftToRight()(model_with("mlm", config=SHAPE), batch_of())


# What is seen, and what is pooled


@torch.no_grad()
def test_no_token_sees_the_future():
    model, batch = model_with("mlm"), batch_of()
    for sequence, place in ((0, 4), (2, 1), (3, 19), (4, 3)):
        row = int(batch.cu_seqlens[sequence]) + place
        changed = batch.input_ids.clone()
        changed[row] = (changed[row] + 1) % SHAPE.vocab_size
        one, other = model.encode(batch), model.encode(dataclasses.replace(batch, input_ids=changed))
        differs = ((one - other).abs() > SAME).any(1).nonzero().flatten().tolist()
        assert differs == list(range(row, int(batch.cu_seqlens[sequence + 1])))


@torch.no_grad()
def test_whatever_is_pooled_is_the_last_token():
    batch = batch_of()
    model = model_with("nsp", "classify")
    hidden = model.encode(batch)
    pooled = model.pooler(hidden[batch.cu_seqlens[1:].long() - 1])
    assert torch.allclose(model.hidden_states(batch).pooler_output, pooled, atol=SAME)
    for name, logits in model(batch).items():
        assert torch.allclose(logits, model.heads[name](pooled), atol=SAME), name
        rows, alone = model.head_logits(name, batch)
        assert torch.equal(rows, batch.last_rows)
        assert torch.allclose(logits, alone, atol=SAME), name
    lengths = batch.cu_seqlens.diff()
    ids = torch.nn.utils.rnn.pad_sequence(list(batch.input_ids.split(lengths.tolist())), batch_first=True)
    output = model.on_padded(ids, attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long())
    assert torch.allclose(output.pooler_output, pooled, atol=SAME)


@torch.no_grad()
def test_a_folder_that_does_not_say_so_pools_its_first_token():
    """As transformers does: its left-to-right classes have the same numbers here."""
    batch = batch_of()
    model = model_with("classify", config=dataclasses.replace(CAUSAL, pool_last=False))
    assert torch.equal(model.head_logits("classify", batch)[0], batch.first_rows)
    assert torch.equal(model_with("classify", config=SHAPE).head_logits("classify", batch)[0], batch.first_rows)


def test_the_key_is_written_where_it_says_something(tmp_path):
    for name, config in (("both", SHAPE), ("causal", CAUSAL)):
        save_model(model_with("mlm", "nsp", config=config), tmp_path / name, wordpiece=WORDPIECE)
        assert load_model(tmp_path / name).config == config
    both, causal = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("both", "causal"))
    assert "pool_last" not in both
    assert (causal["is_decoder"], causal["pool_last"], causal["architectures"]) == (True, True, ["BertLMHeadModel"])
    assert both["architectures"] == ["BertForPreTraining"]
    assert "pools the last token" in (tmp_path / "causal/README.md").read_text()


# Pre-training


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """A run of each objective, by name."""
    out = tmp_path_factory.mktemp("runs")
    for objective, kind in (("ltr", "mlm"), ("ltr+nsp", "mlm+nsp"), ("mlm", "mlm")):
        config = PretrainConfig(objective=objective, steps=30, lr=5e-3, bias_correction=True, dropout=0.0, **DIALS)
        pretrain(SHAPE, config, data=folders[kind], out=out / objective)
    return out


def rows_of(run, kind):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


@pytest.mark.parametrize("objective", ["ltr", "ltr+nsp"])
def test_training_lowers_the_loss(objective, trained):
    rows = rows_of(trained / objective, "train")
    assert rows[-1]["ltr_loss"] < 0.6 * rows[0]["ltr_loss"]
    assert rows[-1]["ltr_accuracy"] > rows[0]["ltr_accuracy"]
    assert ("nsp_loss" in rows[0]) == (objective == "ltr+nsp")
    assert rows_of(trained / objective, "eval")[-1]["ltr_loss"] < 0.6 * rows[0]["ltr_loss"]
    config = json.loads((trained / objective / "model/config.json").read_text())
    assert (config["is_decoder"], config["pool_last"]) == (True, True)


def test_the_report_shows_it_and_what_comes_next(trained):
    part = part_of(trained / "ltr", "en")
    assert part.title == "Pre-training"
    assert any(name.startswith("LTR loss") for name, _ in part.tiles)
    assert [chart.title for chart in part.charts][:2] == ["LTR loss", "LTR accuracy"]
    assert part.samples
    assert all(sample["text"].endswith("[MASK]") and sample["after"] for sample in part.samples)


@pytest.mark.parametrize("objective", ["ltr", "ltr+nsp"])
def test_a_stopped_run_goes_on_bit_for_bit(objective, folders, tmp_path):
    config = PretrainConfig(objective=objective, steps=9, checkpoint_every=4, eval_every=3, eval_tokens=100, **DIALS)
    pretrain(SHAPE, config, data=folders["mlm+nsp"], out=tmp_path / "whole")

    def stop(event):
        if event["kind"] == "saved" and event["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(SHAPE, config, data=folders["mlm+nsp"], out=tmp_path / "parts", on_event=stop)
    pretrain(SHAPE, config, data=folders["mlm+nsp"], out=tmp_path / "parts", resume=True)
    for name in ("model/model.safetensors", "checkpoints/step-00000009/state.safetensors", "samples.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(
    "dials",
    [
        {"mask_prob": 0.3},
        {"mask_token_prob": 0.5},
        {"random_token_prob": 0.0},
        {"whole_word": True},
        {"mask_draw": "word"},
        {"static_masks": 10},
    ],
    ids=lambda dials: next(iter(dials)),
)
@pytest.mark.parametrize("objective", ["ltr", "ltr+nsp"])
def test_dials_of_masks_are_refused_by_name(objective, dials):
    [name] = dials
    with pytest.raises(BertwrightError, match=f"{name} .* means nothing to objective") as caught:
        PretrainConfig(objective=objective, **dials)
    assert f"leave out --{name.replace('_', '-')}" in caught.value.fix
    assert getattr(PretrainConfig(objective="mlm", **dials), name) == dials[name]


def test_a_saved_run_is_a_valid_configuration(trained):
    saved = json.loads((trained / "ltr" / "config.json").read_text())["train"]
    assert from_dict(PretrainConfig, saved).objective == "ltr"


def test_a_model_goes_on_the_way_it_reads(trained, folders, tmp_path):
    def go_on(objective, init, out, shape=SHAPE):
        config = PretrainConfig(objective=objective, steps=2, **DIALS)
        init = None if init is None else trained / init / "model"
        return pretrain(shape, config, data=folders["mlm+nsp"], out=tmp_path / out, init=init)

    with pytest.raises(BertwrightError, match="reads both ways and cannot go on from left to right"):
        go_on("ltr", "mlm", "a")
    with pytest.raises(BertwrightError, match=r"reads from left to right .* cannot be trained to fill") as caught:
        go_on("mlm", "ltr", "b")
    assert "--objective ltr" in caught.value.fix
    with pytest.raises(BertwrightError, match="reads from left to right"):
        go_on("mlm", None, "c", CAUSAL)
    assert load_model(go_on("ltr+nsp", "ltr", "d")).config.pool_last


# Questions to a left-to-right model


def test_it_says_what_comes_next(trained):
    predictor = Predictor.load(trained / "ltr/model")
    answers = predictor.fill("the cat [MASK]", top_k=3)
    assert {answer["token_str"] for answer in answers} == set(VERBS)
    assert answers[0]["sequence"] == f"the cat {answers[0]['token_str']}"
    ids = torch.tensor([[WORDPIECE.cls_id, *WORDPIECE.encode("the cat").input_ids[1:-1]]])
    with torch.inference_mode():
        hidden = predictor.model.on_padded(ids).last_hidden_state[0, -1:]
        expected = predictor.model.heads["mlm"](hidden).softmax(-1)[0]
    assert all(answer["score"] == pytest.approx(float(expected[answer["token"]]), rel=1e-4) for answer in answers)
    assert pipeline("fill-mask", predictor)("the cat [MASK]", top_k=3) == answers
    for text in ("the [MASK] sees", "[MASK] [MASK]", "the [MASK] ."):
        with pytest.raises(BertwrightError, match="it says what comes next"):
            predictor.fill(text)


def test_next_sentences_are_told_apart_by_their_second_half(trained):
    predictor = Predictor.load(trained / "ltr+nsp/model")
    answers = predictor.next_sentences([("the cat sees", "the dog"), ("the cat sees", "owl likes owl .")])
    assert answers[0]["score"] != answers[1]["score"]
    with pytest.raises(BertwrightError, match="no next-sentence head"):
        Predictor.load(trained / "ltr/model").next_sentence("the cat", "the dog")


def test_vectors_are_not_those_of_the_first_token(trained):
    texts = ["the cat", "the cat sees the dog ."]
    last = Embedder.load(trained / "ltr/model", pooling="lasttoken").embed(texts)
    assert abs(last[0] - last[1]).max() > 0.01
    assert Embedder.load(trained / "ltr/model").embed(texts).shape == last.shape
    with pytest.raises(BertwrightError, match=r"its \[CLS\] has seen nothing"):
        Embedder.load(trained / "ltr/model", pooling="cls")
    with pytest.raises(BertwrightError, match=r"its \[CLS\] has seen nothing"):
        pipeline("feature-extraction", trained / "ltr/model")("the cat", pooling="cls")


# Fine-tuning


TICKETS = [
    Example(f"the {one} {verb} the {other} .", label="small" if other in ("cat", "owl") else "big")
    for one in SUBJECTS
    for verb in VERBS
    for other in SUBJECTS
]
TUNE = {"precision": "fp32", "threads": 1, "lr": 5e-3, "batch_size": 16, "dropout": 0.0, "log_every": 1}


@pytest.mark.parametrize("bilstm", [0, 1])
@pytest.mark.parametrize("init", ["ltr", "mlm"])
def test_a_classifier_answers_by_what_comes_last(init, bilstm, trained, tmp_path):
    """The label hangs on the last word but one, which [CLS] of a left-to-right model never sees."""
    task, config = ClassifyTask(bilstm=bilstm), FinetuneConfig(epochs=30, eval_every=45, **TUNE)
    given = {"train": TICKETS, "dev": TICKETS[::3], "init": trained / init / "model"}
    result = finetune_examples(task, config, **given, out=tmp_path / "run")
    assert result.scores["accuracy"] == 1.0
    predictor = Predictor.load(result.model)
    assert (predictor.model.config.pool_last, predictor.require_task().bilstm) == (init == "ltr", bilstm)
    assert [each["label"] for each in predictor.predict_examples(TICKETS)] == [each.label for each in TICKETS]
    key = "classify_bilstm" if bilstm else "classify_last" if init == "ltr" else "classify"
    assert list(predictor.model.heads) == [key]
    config = json.loads((result.model / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification" if key == "classify" else "BertModel"]
    assert pipeline("text-classification", predictor)(TICKETS[0].text)[0]["label"] == TICKETS[0].label


def test_fine_tuning_on_a_bilstm_goes_on_bit_for_bit(trained, tmp_path):
    config = FinetuneConfig(epochs=2, **TUNE)
    given = {"train": TICKETS, "dev": TICKETS[::3], "init": trained / "ltr/model"}
    finetune_examples(ClassifyTask(bilstm=2), config, **given, out=tmp_path / "whole")

    def stop(event):
        if event["kind"] == "saved":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_examples(ClassifyTask(bilstm=2), config, **given, out=tmp_path / "parts", on_event=stop)
    with pytest.raises(BertwrightError, match="bilstm"):
        finetune_examples(ClassifyTask(bilstm=1), config, **given, out=tmp_path / "parts", resume=True)
    finetune_examples(ClassifyTask(bilstm=2), config, **given, out=tmp_path / "parts", resume=True)
    for name in ("model/model.safetensors", "model/task.json", "best.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_options_cannot_ask_for_another_head(trained, tmp_path):
    config = FinetuneConfig(epochs=1, **TUNE)
    given = {"train": TICKETS, "dev": [], "init": trained / "ltr/model", "out": tmp_path / "run"}
    model = finetune_examples(ClassifyTask(), config, **given).model
    with pytest.raises(BertwrightError, match="another head than the model has: classify_last"):
        Predictor.load(model, options={"bilstm": 1})


# The BiLSTM


@torch.no_grad()
def test_a_packed_bilstm_is_torchs_on_each_sequence_alone():
    ours, x = BiLSTM(12, 16, 2), torch.randn(sum(LENGTHS), 12)
    plain = torch.nn.LSTM(12, 8, 2, bidirectional=True)
    plain.load_state_dict(ours.state_dict())
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    found, ends = ours(x, cu_seqlens), []
    for own, alone in zip(found.split(LENGTHS), x.split(LENGTHS), strict=True):
        expected, (last, _) = plain(alone)
        assert torch.allclose(own, expected, atol=SAME)
        ends.append(torch.cat([last[-2], last[-1]]))
    assert torch.allclose(ours.ends(found, cu_seqlens), torch.stack(ends), atol=SAME)
    assert ours(x.bfloat16(), cu_seqlens).dtype == torch.bfloat16


@torch.no_grad()
def test_a_head_on_a_bilstm_reads_what_it_says():
    batch, task = batch_of(), ClassifyTask(labels=("a", "b"), bilstm=1)
    model = Bert(SHAPE, task.heads(SHAPE), seed=3).eval()
    head = model.heads["classify_bilstm"]
    pooled = model.pooler(head.bilstm.ends(head.bilstm(model.encode(batch), batch.cu_seqlens), batch.cu_seqlens))
    assert torch.allclose(model(batch)["classify_bilstm"], head(pooled), atol=SAME)
    drawn = torch.cat([weight.flatten() for weight in head.bilstm.parameters()])
    assert 0.9 / 8**0.5 < drawn.abs().max() <= 1 / 8**0.5
    again = Bert(SHAPE, task.heads(SHAPE), seed=3).heads["classify_bilstm"]
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), again.parameters(), strict=True))


def test_bad_options_are_refused():
    for wrong in (lambda: ClassifyTask(bilstm=-1), lambda: TagTask(bilstm=-1)):
        with pytest.raises(BertwrightError, match="bilstm must not be negative"):
            wrong()
    with pytest.raises(BertwrightError, match="features have a BiLSTM of their own"):
        TagTask(features="last", bilstm=1)
    odd = dataclasses.replace(SHAPE, hidden_size=15, num_attention_heads=3)
    with pytest.raises(BertwrightError, match="15 is not even"):
        ClassifyTask(labels=("a", "b"), bilstm=1).heads(odd)


def test_every_objective_has_a_name_for_its_tokens():
    assert {name: objective().tokens for name, objective in OBJECTIVES.items()} == {
        "mlm+nsp": "mlm",
        "mlm": "mlm",
        "ltr": "ltr",
        "ltr+nsp": "ltr",
    }
