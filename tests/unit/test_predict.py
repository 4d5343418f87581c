"""Answers of a model: fill-mask, next sentence, labels; and what a model that cannot answer says."""

import json
import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.evaluation import evaluate, evaluate_examples
from bertwright.model.bert import Bert
from bertwright.model.heads import ClassificationHead, MaskedLMHead, NextSentenceHead
from bertwright.model.weights import save_model
from bertwright.predict import Predictor, cut_by_tokens
from bertwright.tasks import ClassifyTask, save_fine_tuned
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDS = "paris is the capital of france . play ##ing 北 京"
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *WORDS.split()], TextRules(lowercase=True))
CONFIG = BertConfig(
    vocab_size=WORDPIECE.vocab_size,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)
TASK = ClassifyTask(labels=("bad", "good"))


@pytest.fixture
def pretrained():
    return Predictor(Bert(CONFIG, {"mlm": MaskedLMHead(CONFIG), "nsp": NextSentenceHead(CONFIG)}), WORDPIECE)


@pytest.fixture
def classifier():
    return Predictor(Bert(CONFIG, {"classify": ClassificationHead(CONFIG, 2)}), WORDPIECE, TASK)


# Fill


def test_fill_has_the_keys_of_hugging_face_and_plain_values(pretrained):
    answers = pretrained.fill("The capital of France is [MASK].", top_k=3)
    assert len(answers) == 3
    for answer in answers:
        assert [*answer] == ["score", "token", "token_str", "sequence"]
        assert [type(value) for value in answer.values()] == [float, int, str, str]
        assert answer["sequence"].startswith("the capital of france is")
        assert WORDPIECE.tokens[answer["token"]] == answer["token_str"]
    assert answers == sorted(answers, key=lambda answer: -answer["score"])


def test_probabilities_of_all_tokens_sum_to_one(pretrained):
    answers = pretrained.fill("[MASK]", top_k=WORDPIECE.vocab_size)
    assert math.fsum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)


def test_fill_answers_from_the_masked_row(pretrained):
    ids = WORDPIECE.encode("paris is [MASK] of france").input_ids
    with torch.inference_mode():
        hidden = pretrained.model.eval().on_padded(torch.tensor([ids])).last_hidden_state[0, 3]
        expected = pretrained.model.heads["mlm"](hidden[None])[0].softmax(-1)
    [answer] = pretrained.fill("paris is [MASK] of france", top_k=1)
    assert answer["token"] == int(expected.argmax())
    assert answer["score"] == pytest.approx(float(expected.max()), rel=1e-5)


def test_several_masks_give_a_list_each_and_keep_the_others(pretrained):
    answers = pretrained.fill("[MASK] is the [MASK] of france", top_k=2)
    assert [len(each) for each in answers] == [2, 2]
    assert answers[0][0]["sequence"] == f"{answers[0][0]['token_str']} is the [MASK] of france".replace(" ##", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Paris is the capital.", r"no \[MASK\] in the text"),
        ("Paris is the [mask].", r"no \[MASK\] in the text"),
        ("", "the text is empty"),
        (" \n", "the text is empty"),
        ("paris " * 40 + "[MASK]", r"a \[MASK\] lies beyond the first 16 tokens"),
        ("[MASK] " + "paris " * 40 + "[MASK]", r"a \[MASK\] lies beyond the first 16 tokens"),
    ],
)
def test_fill_refuses_what_it_cannot_fill(pretrained, text, message):
    with pytest.raises(BertwrightError, match=message):
        pretrained.fill(text)


@pytest.mark.parametrize("top_k", [0, -1, 1000])
def test_top_k_has_limits(pretrained, top_k):
    with pytest.raises(BertwrightError, match="top_k must lie between 1 and 16"):
        pretrained.fill("[MASK]", top_k=top_k)


# Next sentence


def test_next_sentence_is_a_label_and_its_probability(pretrained):
    answer = pretrained.next_sentence("paris is the capital", "of france")
    assert [*answer] == ["label", "score"]
    assert answer["label"] in ("IsNext", "NotNext")
    assert 0.5 <= answer["score"] <= 1
    assert type(answer["score"]) is float


def test_class_0_means_that_b_follows(pretrained):
    classifier = pretrained.model.heads["nsp"].classifier
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.bias.copy_(torch.tensor([5.0, 0.0]))
    assert pretrained.next_sentence("paris", "france")["label"] == "IsNext"


def test_long_text_is_cut_and_said(pretrained, caplog):
    with caplog.at_level(logging.WARNING):
        pretrained.next_sentence("paris " * 40, "france")
        pretrained.fill("[MASK] " + "paris " * 40)
    assert caplog.text.count("1 text was longer than 16 tokens and was cut") == 2


def test_an_empty_sentence_is_refused(pretrained):
    with pytest.raises(BertwrightError, match="the text is empty"):
        pretrained.next_sentence("paris", "")


# Heads a model does not have


def test_a_model_without_the_head_says_so(pretrained, classifier):
    with pytest.raises(BertwrightError, match=r"no masked-LM head \(its heads: classify\)"):
        classifier.fill("[MASK]")
    with pytest.raises(BertwrightError, match=r"no next-sentence head \(its heads: classify\)"):
        classifier.next_sentence("a", "b")
    with pytest.raises(BertwrightError, match=r"not fine-tuned for a task \(its heads: mlm, nsp\)"):
        pretrained.predict(["paris"])
    with pytest.raises(BertwrightError, match="it is a bare encoder"):
        Predictor(Bert(CONFIG), WORDPIECE).fill("[MASK]")


# Labels


def test_predictions_keep_the_order_of_the_texts(classifier):
    texts = ["paris " * (1 + number * 5 % 11) for number in range(20)]
    small = Predictor(classifier.model, WORDPIECE, TASK, batch_tokens=20)
    for text, answer in zip(texts, small.predict(texts), strict=True):
        [alone] = classifier.predict([text])
        assert answer["label"] == alone["label"]
        assert answer["score"] == pytest.approx(alone["score"], rel=1e-5)


def test_no_texts_no_answers(classifier):
    assert classifier.predict([]) == []


def test_an_empty_text_is_refused(classifier):
    with pytest.raises(BertwrightError, match="text 2: the text is empty"):
        classifier.predict(["paris", " "])


def test_prediction_leaves_a_training_model_in_training(classifier):
    classifier.model.train()
    first, second = classifier.predict(["paris"]), classifier.predict(["paris"])
    assert first == second, "no dropout in predictions"
    assert classifier.model.training


def test_task_inputs_end_at_the_length_of_fine_tuning(classifier, caplog):
    short = Predictor(classifier.model, WORDPIECE, TASK, max_length=5)
    assert short.predict(["paris is the " * 9]) == short.predict(["paris is the"])
    assert "1 of 1 inputs were longer than 5 tokens" in caplog.text
    assert Predictor(classifier.model, WORDPIECE, TASK, max_length=999).max_length == 16


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 100))
def test_batches_hold_every_sequence_once_within_the_budget(lengths, budget):
    batches = cut_by_tokens(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget
    longest = [max(lengths[index] for index in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


# Model folders


def test_a_pretrained_folder_answers(pretrained, tmp_path):
    save_model(pretrained.model, tmp_path / "model", wordpiece=WORDPIECE)
    loaded = Predictor.load(tmp_path / "model")
    assert loaded.fill("[MASK] 北京") == pretrained.fill("[MASK] 北京")
    assert loaded.next_sentence("paris", "北京") == pretrained.next_sentence("paris", "北京")


def test_a_folder_may_be_read_with_other_columns(classifier, tmp_path):
    save_fine_tuned(classifier.model, tmp_path / "model", wordpiece=WORDPIECE, task=TASK, max_length=9)
    assert Predictor.load(tmp_path / "model", options={"text_column": "body"}).task.text_column == "body"
    with pytest.raises(BertwrightError, match=r"unknown key 'txt_column'.*did you mean 'text_column'"):
        Predictor.load(tmp_path / "model", options={"txt_column": "body"})


def test_a_classifier_made_elsewhere_keeps_its_labels(classifier, tmp_path):
    names = {"id2label": {"0": "NEG", "1": "POS"}}
    save_model(classifier.model, tmp_path / "named", wordpiece=WORDPIECE, extra_config=names)
    save_model(classifier.model, tmp_path / "plain", wordpiece=WORDPIECE)
    [expected], [named], [plain] = (
        predictor.predict(["paris"])
        for predictor in (classifier, Predictor.load(tmp_path / "named"), Predictor.load(tmp_path / "plain"))
    )
    assert named == {"label": {"bad": "NEG", "good": "POS"}[expected["label"]], "score": expected["score"]}
    assert plain["label"] == {"bad": "LABEL_0", "good": "LABEL_1"}[expected["label"]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"problem_type": "regression"}, "'regression', 2 outputs, is not supported"),
        ({"id2label": {"0": "only one"}}, "does not name the 2 outputs"),
    ],
)
def test_a_classifier_that_is_no_such_is_refused(classifier, tmp_path, keys, message):
    save_model(classifier.model, tmp_path / "model", wordpiece=WORDPIECE, extra_config=keys)
    with pytest.raises(BertwrightError, match=message):
        Predictor.load(tmp_path / "model")


def test_a_real_encoder_without_heads_says_so(minilm):
    predictor = Predictor.load(minilm)
    with pytest.raises(BertwrightError, match="it is a bare encoder"):
        predictor.predict(["a"])


# Evaluation


def test_evaluation_is_prediction_with_scores(classifier, tmp_path):
    folder, data = tmp_path / "model", tmp_path / "dev.csv"
    save_fine_tuned(classifier.model, folder, wordpiece=WORDPIECE, task=TASK, max_length=16)
    data.write_text("text,label\nparis,good\n北京,bad\nthe capital of france,good\n", encoding="utf-8")
    evaluation = evaluate(folder, data)
    assert evaluation.predictions == Predictor.load(folder).predict(["paris", "北京", "the capital of france"])
    right = [one["label"] for one in evaluation.predictions] == ["good", "bad", "good"]
    assert (evaluation.scores["accuracy"] == 1) is right
    assert evaluation.labels == ["bad", "good"]
    assert [sum(row) for row in evaluation.confusion] == [1, 2]

    evaluation.save(tmp_path / "run")
    saved = json.loads((tmp_path / "run/evaluation.json").read_text(encoding="utf-8"))
    assert saved["scores"] == evaluation.scores
    assert saved["confusion"] == evaluation.confusion
    lines = (tmp_path / "run/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {"text": "北京", "gold": "bad"} | evaluation.predictions[1]


def test_the_loss_is_the_mean_of_minus_log_probability(classifier):
    examples = [TASK.example(text) for text in ("paris", "北京", "the capital")]
    predictions = classifier.predict_examples(examples)
    gold = [type(example)(example.text, label=one["label"]) for example, one in zip(examples, predictions, strict=True)]
    expected = sum(-math.log(one["score"]) for one in predictions) / 3
    assert evaluate_examples(classifier, gold).scores["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_pretrained_model_cannot_be_evaluated(pretrained, tmp_path):
    with pytest.raises(BertwrightError, match="not fine-tuned"):
        evaluate(pretrained, tmp_path / "dev.csv")


# Vocabulary and embeddings of different sizes


def test_embeddings_may_have_rows_to_spare(pretrained):
    short = WordPiece(pretrained.wordpiece.tokens[:-3], TextRules(lowercase=True))
    answers = Predictor(pretrained.model, short).fill("[MASK]", top_k=short.vocab_size)
    assert sum(answer["score"] for answer in answers) == pytest.approx(1.0, abs=1e-5)


def test_a_vocabulary_longer_than_the_embeddings_is_refused(pretrained, tmp_path):
    pretrained.model.save_pretrained(tmp_path / "model", pretrained.wordpiece)
    WordPiece([*pretrained.wordpiece.tokens, "more"], TextRules(lowercase=True)).save(tmp_path / "model")
    with pytest.raises(BertwrightError, match="the vocabulary has"):
        Predictor.load(tmp_path / "model")


def test_a_tagger_does_not_pass_for_a_classifier(classifier, tmp_path):
    classifier.model.save_pretrained(tmp_path / "model", classifier.wordpiece)
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"architectures": ["BertForTokenClassification"]}))
    [answer] = Predictor.load(tmp_path / "model").predict(["a text"])
    assert len(answer["tags"]) == 2
