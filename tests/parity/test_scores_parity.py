"""Our scores against other people's, on thousands of generated cases and on published predictions.

SQuAD: transformers 4's rendering of the official script. CMRC 2018: its rules told again, with NLTK's own words.
Entities: conlleval.pl as it is, its port `conlleval`, and seqeval. Numbers and labels: SciPy and scikit-learn.
"""

import itertools
import json
import math
import random
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import f1_score

from bertwright.tasks.answer_scores import answer_scores, best_threshold
from bertwright.tasks.entities import chunks, conll_report, conll_text, detect_scheme, tags_of
from bertwright.tasks.metrics import (
    expected_calibration_error,
    fit_temperature,
    multi_label_details,
    multi_label_scores,
    regression_scores,
)

ORACLES = Path(sys.prefix) / "oracles"
CASES = 1200


# Numbers and labels


def test_correlations_are_scipys():
    random.seed(0)
    for case in range(CASES):
        draw = random.gauss if case % 2 else lambda mean, spread: float(random.randint(0, 3))  # many ties
        gold, predicted = ([draw(0, 1) for _ in range(2 + case % 30)] for _ in range(2))
        scores = regression_scores(gold, predicted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            expected = [float(np.corrcoef(gold, predicted)[0, 1]) if len(set(gold)) > 1 < len(set(predicted)) else 0.0]
            expected.append(float(np.nan_to_num(stats.spearmanr(gold, predicted).statistic)))
        assert [scores["pearson"], scores["spearman"]] == pytest.approx(expected, abs=1e-9)
        squares = [(a - b) ** 2 for a, b in zip(gold, predicted, strict=True)]
        assert scores["mse"] == pytest.approx(sum(squares) / len(gold))


@pytest.mark.parametrize("num_labels", [2, 5])
def test_multi_label_scores_are_scikit_learns(num_labels):
    random.seed(num_labels)
    labels = [f"label {index}" for index in range(num_labels)]
    for case in range(CASES):
        table = np.array([[random.random() < 0.3 for _ in range(2 * num_labels)] for _ in range(1 + case % 20)])
        gold, predicted = table[:, :num_labels], table[:, num_labels:]
        sets = [[list(itertools.compress(labels, row)) for row in side] for side in (gold, predicted)]
        scores = multi_label_scores(*sets, labels)
        for average in ("micro", "macro"):
            expected = f1_score(gold, predicted, average=average, zero_division=0.0)
            assert scores[f"{average}_f1"] == pytest.approx(expected)
        each = multi_label_details(*sets, labels)["per_class"]
        assert [each[label]["f1"] for label in labels] == pytest.approx(
            f1_score(gold, predicted, average=None, zero_division=0.0)
        )
        assert scores["accuracy"] == (gold == predicted).all(1).mean()


def test_calibration_error_is_its_definition():
    random.seed(0)
    for case in range(CASES):
        bins, size = random.randint(1, 20), 1 + case % 40
        confidence = [random.choice([random.random(), random.randint(0, bins) / bins]) for _ in range(size)]
        right = [random.random() < 0.5 for _ in range(size)]
        gap = 0.0
        for step in range(bins):
            inside = [i for i, sure in enumerate(confidence) if max(1, math.ceil(round(sure * bins, 9))) - 1 == step]
            gap += abs(sum(confidence[i] - right[i] for i in inside))
        assert expected_calibration_error(confidence, right, bins) == pytest.approx(gap / size)


def test_no_temperature_is_better():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        logits = rng.normal(size=(50, 3)) * rng.uniform(0.2, 8)
        labels = np.where(rng.random(50) < 0.7, logits.argmax(1), rng.integers(0, 3, 50))

        def loss(temperature, logits=torch.from_numpy(logits), labels=torch.from_numpy(labels)):
            return float(F.cross_entropy(logits / temperature, labels))

        if (logits.argmax(1) == labels).all():
            assert fit_temperature(logits, labels) == 1
            continue
        found = loss(fit_temperature(logits, labels))
        assert all(found <= loss(temperature) + 1e-7 for temperature in np.geomspace(0.05, 20, 60))


# Answers


@pytest.fixture(scope="module")
def squad():
    """The functions of transformers 4's squad_metrics.py, which needs nothing of the rest but a logger."""
    file = ORACLES / "transformers4" / "transformers" / "data" / "metrics" / "squad_metrics.py"
    if not file.is_file():
        pytest.skip(f"transformers 4 is not installed apart: {file}")
    source = re.sub(r"(?m)^from \.\.\..*$", "", file.read_text(encoding="utf-8"))
    names = {"logging": SimpleNamespace(get_logger=lambda name: None), "__name__": "squad_metrics"}
    exec(compile(source, str(file), "exec"), names)
    return SimpleNamespace(**names)


def squad_example(key, gold):
    return SimpleNamespace(qas_id=key, answers=[{"text": text} for text in gold])


ENGLISH = ["a", "A", "é", "an", "the", "The", "Seine", "seine,", "theatre", "U.S.", "'s", "--", "1,000", "«x»", " "]


def draw_english():
    return random.choice(["", " ", ""]).join(random.choices(ENGLISH, k=random.randint(0, 5)))


def draw_questions(draw):
    """Questions, some unanswerable, with predictions that are often a gold answer."""
    keys = [f"q{index}" for index in range(random.randint(1, 12))]
    gold = {key: [draw() for _ in range(random.choice([0, 1, 1, 2, 3]))] for key in keys}
    return gold, {key: random.choice([draw(), "", *(gold[key] or [draw()])]) for key in gold}


def test_english_answers_are_scored_as_in_transformers(squad):
    random.seed(0)
    questions = 0
    for _ in range(CASES):
        gold, predictions = draw_questions(draw_english)
        expected = squad.squad_evaluate([squad_example(*item) for item in gold.items()], predictions)
        scores = answer_scores(predictions, gold)
        questions += len(gold)
        pairs = {"exact": "exact", "f1": "f1", "answerable_exact": "HasAns_exact", "answerable_f1": "HasAns_f1"}
        pairs |= {"unanswerable_accuracy": "NoAns_exact"}
        if all(gold.values()):
            assert scores.keys() == {"exact", "f1"}
        for ours, theirs in pairs.items():
            assert (theirs in expected) == (ours in scores) or all(gold.values()), ours
            if ours in scores:
                assert 100 * scores[ours] == pytest.approx(expected[theirs]), (gold, predictions)
    assert questions > 5000


def test_threshold_is_that_of_transformers(squad):
    random.seed(1)
    for _ in range(CASES):
        gold, answers = draw_questions(draw_english)
        # Their search takes a lone article for an answer, unlike their scores.
        answers = {key: answer if squad.normalize_answer(answer) else "Seine" for key, answer in answers.items()}
        gold = {key: [text for text in right if squad.normalize_answer(text)] for key, right in gold.items()}
        differences = {key: random.gauss(5, 1) for key in gold}  # above 0, where their threshold of all empty is right
        examples = [squad_example(*item) for item in gold.items()]
        _, each = squad.get_raw_scores(examples, answers)
        known = {key: bool(right) for key, right in gold.items()}
        best_f1, their_threshold = squad.find_best_thresh(answers, each, differences, known)
        threshold, f1, exact = best_threshold(differences, answers, gold)
        assert 100 * f1 == pytest.approx(best_f1)
        assert threshold == their_threshold or (their_threshold == 0 and threshold < min(differences.values()))
        kept = {key: "" if differences[key] > threshold else answer for key, answer in answers.items()}
        scores = answer_scores(kept, gold)
        assert (scores["f1"], scores["exact"]) == pytest.approx((f1, exact))


@pytest.mark.parametrize("rules", ["squad", "cmrc"])
def test_no_threshold_is_better_whatever_is_equal(rules):
    random.seed(2)
    for _ in range(CASES // 4):
        gold, answers = draw_questions(draw_english)
        differences = {key: float(random.randint(-2, 2)) for key in gold}
        threshold, f1, _ = best_threshold(differences, answers, gold, rules=rules)
        for each in (threshold, -9.0, *set(differences.values())):
            kept = {key: "" if differences[key] > each else answer for key, answer in answers.items()}
            found = answer_scores(kept, gold, rules=rules)["f1"]
            assert found == pytest.approx(f1) if each == threshold else found < f1 + 1e-9


@pytest.mark.parametrize(
    ("questions", "predictions", "exact", "f1"),
    [
        ("dev-v1.1.json", "published-bert-ensemble-dev-v1.1.json", "86.206", "92.196"),
        ("dev-v2.0.json", "published-bert-single-dev-v2.0.json", "78.742", "81.775"),
    ],
)
def test_published_predictions_score_as_published(shared_data, questions, predictions, exact, f1):
    folder = shared_data / "tasks" / "en" / "SQuAD"
    documents = json.loads((folder / questions).read_text(encoding="utf-8"))["data"]
    asked = [each for document in documents for paragraph in document["paragraphs"] for each in paragraph["qas"]]
    gold = {each["id"]: [answer["text"] for answer in each["answers"]] for each in asked}
    scores = answer_scores(json.loads((folder / predictions).read_text(encoding="utf-8")), gold)
    assert (f"{100 * scores['exact']:.3f}", f"{100 * scores['f1']:.3f}") == (exact, f1)


def plain_cmrc(prediction, gold):
    """The rules of CMRC's script, told as plainly as can be."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    dropped = [*"-:_*^/\\~`+=", *"，。：？！“”；’《》·、「」（）－～『』", "……"]  # the last one is two characters: none

    def kept(text):
        return [letter for letter in text.lower().strip() if letter not in dropped]

    def segments(text):
        found, run = [], ""
        for letter in [*kept(text), ""]:
            if letter and not "\u4e00" <= letter <= "\u9fa5":
                run += letter
                continue
            found += NLTKWordTokenizer().tokenize(run) if run else []
            found, run = found + [letter] * bool(letter), ""
        return found

    def f1(one, other):
        runs, others = (
            {tuple(each[start:end]) for end in range(len(each) + 1) for start in range(end)} for each in (one, other)
        )
        same = max(map(len, runs & others), default=0)
        return same and 2 * same / (len(one) + len(other))

    exact = any(kept(prediction) == kept(right) for right in gold)
    return float(exact), max(f1(segments(prediction), segments(right)) for right in gold)


CHINESE = [*"巴黎的河，。（）《》…·“’—〇龥㐀ア ", "BERT", "x-y", "1,000", "12", "3.5%", '"x"', "(a)", "U.S.", "can't"]


def test_chinese_answers_are_scored_by_the_rules():
    pytest.importorskip("nltk", reason="NLTK, whose words CMRC's script counts, is not installed")
    random.seed(3)
    for _ in range(CASES):
        gold = ["".join(random.choices(CHINESE, k=random.randint(1, 9))) for _ in range(random.randint(1, 3))]
        letters = random.choice([CHINESE, list(gold[0])])
        prediction = random.choice([gold[-1], "".join(random.choices(letters, k=random.randint(0, 9)))])
        scores = answer_scores({"q": prediction}, {"q": gold}, rules="cmrc")
        assert (scores["exact"], scores["f1"]) == pytest.approx(plain_cmrc(prediction, gold)), (prediction, gold)


def test_real_chinese_answers_are_scored_by_the_rules(shared_data):
    """Half of the questions are answered by a right answer, and half by the question itself."""
    pytest.importorskip("nltk", reason="NLTK, whose words CMRC's script counts, is not installed")
    path = shared_data / "tasks" / "zh" / "CMRC2018" / "cmrc2018_trial.json"
    documents = json.loads(path.read_text(encoding="utf-8"))["data"]
    asked = [each for document in documents for paragraph in document["paragraphs"] for each in paragraph["qas"]]
    gold = {each["id"]: [answer["text"] for answer in each["answers"]] for each in asked}
    predictions = {each["id"]: each["question"] for each in asked} | {
        each["id"]: gold[each["id"]][0] for each in asked[::2]
    }
    expected = [plain_cmrc(predictions[key], gold[key]) for key in gold]
    scores = answer_scores(predictions, gold, rules="cmrc")
    assert scores["exact"] == pytest.approx(sum(exact for exact, _ in expected) / len(gold))
    assert scores["f1"] == pytest.approx(sum(f1 for _, f1 in expected) / len(gold))
    assert scores["exact"] >= 0.5


# Entities


def draw_tags(letters, length):
    return [
        "O" if random.random() < 0.3 else f"{random.choice(letters)}-{random.choice(['X', 'X', 'Y', 'A-B'])}"
        for _ in range(length)
    ]


def draw_corpus(letters):
    gold = [draw_tags(letters, random.randint(1, 9)) for _ in range(random.randint(1, 6))]
    swap = random.choice([0.1, 0.5, 1])
    other = [draw_tags(letters, len(row)) for row in gold]
    return gold, [
        [new if random.random() < swap else tag for new, tag in zip(*rows, strict=True)]
        for rows in zip(other, gold, strict=True)
    ]


def conll_lines(gold, predicted):
    rows = [
        [f"word {right} {found}" for right, found in zip(*pair, strict=True)]
        for pair in zip(gold, predicted, strict=True)
    ]
    return [line for row in rows for line in [*row, ""]]


@pytest.mark.parametrize("letters", ["B", "I", "BI", "IE"])
def test_report_is_conllevals_to_the_letter(letters):
    """The script of 2004 knows these letters only (and of E- and B-, not how to part them)."""
    perl, script = shutil.which("perl"), ORACLES / "conlleval" / "conlleval.pl"
    if perl is None or not script.is_file():
        pytest.skip(f"perl or the script is not here: {script}")
    random.seed(letters)
    for _ in range(CASES // 4):
        gold, predicted = draw_corpus(letters)
        text = "\n".join(conll_lines(gold, predicted)) + "\n"
        printed = subprocess.run([perl, str(script)], input=text, capture_output=True, text=True, check=True).stdout
        assert conll_text(conll_report(gold, predicted)) == printed


@pytest.mark.parametrize("letters", ["BI", "IE", "BIES", "[]"])
def test_report_is_that_of_the_port(letters):
    conlleval = pytest.importorskip("conlleval")
    random.seed(letters)
    for _ in range(CASES):
        gold, predicted = draw_corpus(letters)
        expected = conlleval.evaluate(conll_lines(gold, predicted))
        report = conll_report(gold, predicted)
        overall = expected["overall"]["chunks"]["stats"]
        assert report["counts"] == {"gold": overall["gold"], "predicted": overall["pred"], "right": overall["correct"]}
        for label, row in expected["slots"]["chunks"].items():
            found = report["per_class"].get(label, {"support": 0, "predicted": 0, "right": 0})
            counts = [found[name] for name in ("support", "predicted", "right")]
            assert counts == [row["stats"][name] for name in ("gold", "pred", "correct")]
        # Where nothing is found, the port's precision is 1.
        if overall["pred"] and all(row["predicted"] for row in report["per_class"].values()):
            assert conll_text(report) == conlleval.report(expected)


@pytest.mark.parametrize("letters", ["BI", "IE", "BIES"])
def test_chunks_are_those_of_seqeval(letters):
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling")
    random.seed(letters)
    for _ in range(CASES):
        tags = draw_tags(letters, random.randint(0, 12))
        expected = [(start, last + 1, label) for label, start, last in entities.get_entities(tags)]
        assert chunks(tags) == expected


@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes", "bmes"])
def test_tags_say_every_set_of_chunks(scheme):
    random.seed(scheme)
    for _ in range(CASES):
        length = random.randint(1, 12)
        edges = sorted(random.sample(range(length + 1), random.randint(0, (length + 1) // 2 * 2)))
        found = [(start, end, random.choice("XY")) for start, end in itertools.pairwise(edges)]
        found = [each for each in found if random.random() < 0.7]
        tags = tags_of(found, length, scheme)
        assert chunks(tags) == found
        assert tags_of(chunks(tags), length, scheme) == tags
        assert tags_of(found, length, detect_scheme([tags])) == tags or detect_scheme([tags]) != scheme


def test_real_tags_are_what_they_are(shared_data):
    """The CoNLL-2003 file here says IOB2; its entities are as many as its B- tags, and as many as seqeval's."""
    text = (shared_data / "tasks" / "en" / "CoNLL-2003" / "valid.txt").read_text(encoding="utf-8")
    blocks = [[line.split()[-1] for line in block.splitlines()] for block in text.split("\n\n") if block.strip()]
    assert detect_scheme(blocks) == "iob2"
    assert sum(len(chunks(tags)) for tags in blocks) == sum(tag[0] == "B" for tags in blocks for tag in tags) == 5942
