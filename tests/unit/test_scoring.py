"""Scores of files of predictions: known answers, and what is told to files that do not belong together."""

import json
import re

import pytest

from bertwright.errors import BertwrightError
from bertwright.scoring import kinds, score_predictions

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Paris",
            "paragraphs": [
                {
                    "context": "Paris lies on the Seine, in the north of France.",
                    "qas": [
                        {"id": "q1", "question": "Where?", "answers": [{"text": "the Seine", "answer_start": 14}]},
                        {"id": "q2", "question": "What country?", "answers": [{"text": "France", "answer_start": 41}]},
                        {"id": "q3", "question": "Who?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
ANSWERS = {"q1": "Seine.", "q2": "north of France", "q3": ""}
CONLL = "-DOCSTART- -X- O\n\nU.N. NNP B-ORG\nofficial NN O\nEkeus NNP B-PER\n\nhe PRP O\nleft VBD O\n"


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def squad(written):
    return written("dev.json", SQUAD)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def refused(*words, **arguments):
    with pytest.raises(BertwrightError) as caught:
        score_predictions(**arguments)
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    return text


# Answers by id


@pytest.mark.parametrize(
    ("version", "exact", "f1"), [("ensemble-dev-v1.1", 86.206, 92.196), ("single-dev-v2.0", 78.742, 81.775)]
)
def test_googles_published_predictions_have_their_official_scores(shared_data, version, exact, f1):
    folder = shared_data / "tasks/en/SQuAD"
    data = folder / f"{version.partition('-')[2]}.json"
    scores = score_predictions("squad", data, folder / f"published-bert-{version}.json")
    assert (round(100 * scores["exact"], 3), round(100 * scores["f1"], 3)) == (exact, f1)
    assert ("unanswerable_accuracy" in scores) == version.endswith("2.0")


def test_the_answers_of_cmrc_are_right_to_their_questions(shared_data, tmp_path, caplog):
    data = shared_data / "tasks/zh/CMRC2018/cmrc2018_dev.json"
    questions = [
        question
        for article in json.loads(data.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    given = {question["id"]: question["answers"][-1]["text"] for question in questions}
    assert len(given) == 3_219
    given[questions[0]["id"]] = "完全不对"
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(given), encoding="utf-8")
    assert score_predictions("cmrc", data, path)["exact"] == pytest.approx(3_218 / 3_219)


def test_squad_by_hand(squad, written):
    scores = score_predictions("squad", squad, written("p.json", ANSWERS))
    assert scores["exact"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx((1 + 2 * (1 / 3) / (1 + 1 / 3) + 1) / 3)
    rows = lines({"id": key, "text": "asked", "answer": answer} for key, answer in ANSWERS.items())
    assert score_predictions("squad", squad, written("p.jsonl", rows)) == scores


def test_an_answer_with_much_doubt_is_taken_back(squad, written):
    answers = written("p.json", ANSWERS | {"q3": "Napoleon"})
    assert score_predictions("squad", squad, answers)["unanswerable_accuracy"] == 0
    doubts = written("na.json", {"q1": 0.1, "q2": 0.2, "q3": 0.75})
    never = score_predictions("squad", squad, answers, na_probs=doubts)
    assert never["unanswerable_accuracy"] == 0
    sure = score_predictions("squad", squad, answers, na_probs=doubts, na_threshold=0.5)
    assert sure["unanswerable_accuracy"] == 1
    assert sure["best_f1"] == never["best_f1"] == pytest.approx(sure["f1"])
    assert 0.2 <= sure["best_f1_threshold"] < 0.75


def test_ids_must_be_those_of_the_questions(squad, written):
    few = {"q1": "Seine"}
    refused("2 of 3 questions have no answer", "q2", kind="squad", data=squad, predictions=written("p.json", few))
    partial = score_predictions("squad", squad, written("p.json", few), partial=True)
    assert partial["exact"] == pytest.approx(1 / 3)
    other = written("other.json", ANSWERS | {"x": "y"})
    refused("1 of 4 ids belong to no question", "'x'", "other.json", kind="squad", data=squad, predictions=other)
    twice = written("twice.json", '{"q1": "a", "q1": "b", "q2": "", "q3": ""}')
    refused("'q1' is there twice", kind="squad", data=squad, predictions=twice)
    twice = written("twice.jsonl", lines([{"id": "q1", "answer": ""}] * 2))
    refused("row 2", "'q1' was there before", kind="squad", data=squad, predictions=twice)
    doubts = written("na.json", {"q1": 0.1})
    refused("2 of 3 questions have no probability", "na.json", kind="squad", data=squad,
            predictions=written("p.json", ANSWERS), na_probs=doubts)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["p.json", "JSON"]),
        ("[1]", ["p.json", "object"]),
        ('{"q1": 7}', ["'q1'", "must be text", "7"]),
    ],
)
def test_what_is_no_file_of_answers(squad, written, content, words):
    refused(*words, kind="squad", data=squad, predictions=written("p.json", content))


def test_questions_without_ids_cannot_be_told_apart(written):
    row = {"question": "Where?", "context": "In Rome.", "answers": {"text": ["Rome"], "answer_start": [3]}}
    rows = written("dev.jsonl", lines([row]))
    refused("no id", "row 1", kind="squad", data=rows, predictions=written("p.json", {}))
    rows = written("dev.jsonl", lines([row | {"id": "a"}] * 2))
    refused("'a'", "row 2", kind="squad", data=rows, predictions=written("p.json", {"a": "Rome"}))


# A word a line


def predicted(*tags):
    rows = iter(tags)
    return "".join(f"{line} {next(rows)}\n" if line.strip() and line[0] != "-" else "\n" for line in CONLL.splitlines())


def test_conll_with_both_columns_in_one_file_and_in_two(written):
    both = written("out.txt", predicted("B-ORG", "O", "B-LOC", "O", "O"))
    scores = score_predictions("conll", None, both)
    assert {name: scores[name] for name in ("precision", "recall", "f1", "accuracy", "tokens")} == {
        "precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.8, "tokens": 5,
    }  # fmt: skip
    gold = written("gold.txt", CONLL)
    assert score_predictions("conll", gold, both) == scores
    narrow = "\n".join(" ".join(line.split()[::3]) for line in both.read_text().splitlines())
    assert score_predictions("conll", gold, written("narrow.txt", narrow)) == scores
    tabs = written("gold.tsv", CONLL.replace(" ", "\t"))
    assert score_predictions("conll", tabs, both) == scores
    turned = written("turned.txt", re.sub(r"(?m)^(\w\S+) (\S+) (\S+)$", r"\3 \2 \1", CONLL))
    assert score_predictions("conll", turned, both, token_column=-1, tag_column=0) == scores


def test_the_tags_of_conll_2003_are_right_to_themselves(shared_data, written):
    gold = shared_data / "tasks/en/CoNLL-2003/test.txt"
    scores = score_predictions("conll", gold, gold)
    assert (scores["f1"], scores["counts"]["gold"], scores["per_class"]["PER"]["support"]) == (1.0, 5_648, 1_617)
    # without the I- of its inner words an entity is cut short, and only then wrong
    cut = re.sub(r"(?m) I-\w+$", " O", gold.read_text(encoding="utf-8"))
    single = len(re.findall(r"(?m) B-\w+\n(?!.* I-\w+$)", gold.read_text(encoding="utf-8")))
    scores = score_predictions("conll", gold, written("cut.txt", cut))
    assert scores["counts"] == {"gold": 5_648, "predicted": 5_648, "right": single}


def test_tokens_that_differ_are_named(written):
    gold = written("gold.txt", CONLL)
    other = predicted("B-ORG", "O", "B-PER", "O", "O")
    swapped = written("p.txt", other.replace("Ekeus", "Ekéus"))
    refused("p.txt, row 5", "'Ekeus'", "gold.txt, row 5", kind="conll", data=gold, predictions=swapped)
    longer = written("p.txt", other.replace("left VBD O O", "left VBD O O\n! . O O"))
    refused("sentence 2 has 2 words", "and 3 here", kind="conll", data=gold, predictions=longer)
    shorter = written("p.txt", other.partition("he PRP")[0])
    refused("p.txt", "1 sentences", "has 2", kind="conll", data=gold, predictions=shorter)
    bare = written("p.txt", "U.N.\n")
    refused("row 1", "--data", kind="conll", data=None, predictions=bare)
    refused("row 1", "its tag", kind="conll", data=gold, predictions=bare)
    refused("no words", kind="conll", data=None, predictions=written("p.txt", "\n\n"))
    refused("gold.txt", "no column 7", kind="conll", data=gold, predictions=gold, tag_column=7)
    refused("p.txt", "'PER'", kind="conll", data=None, predictions=written("p.txt", "a O PER\n"))


# GLUE


def test_every_row_of_a_dev_file_right_is_a_score_of_one(shared_data, written):
    folder = shared_data / "tasks/en"
    for name, column, keys in (
        ("RTE", -1, ["accuracy"]),
        ("CoLA", 1, ["mcc"]),
        ("STS-B", -1, ["pearson", "spearman"]),
        ("MRPC", 0, ["accuracy", "f1"]),
    ):
        rows = (folder / name / "dev.tsv").read_text(encoding="utf-8").splitlines()[name != "CoLA" :]
        answers = [f"{index}\t{row.split(chr(9))[column]}\n" for index, row in enumerate(rows)]
        path = written("p.tsv", "index\tprediction\n" + "".join(reversed(answers)))
        scores = score_predictions(name, folder / name / "dev.tsv", path)
        assert scores == pytest.approx(dict.fromkeys(keys, 1.0)), name


MNLI = "index\tsentence1\tsentence2\tgold_label\n" + "".join(
    f"{number}\tone\tother\t{label}\n" for number, label in enumerate(["neutral", "entailment", "contradiction"] * 40)
)


def test_mnli_leaves_out_rows_without_a_label(written, caplog):
    data = written("dev_matched.tsv", MNLI + "120\tone\tother\t-\n")
    answers = written("p.jsonl", lines({"label": "neutral", "score": 0.5} for _ in range(120)))
    assert score_predictions("mnli-m", data, answers) == {"accuracy": pytest.approx(1 / 3)}
    assert "1 of 121 rows" in caplog.text


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("0\t1\n0\t0\n", ["row 3", "0 was there before", "row 2"]),
        ("0\t1\n2\t0\n", ["row 3", "'2'", "0 to 1"]),
        ("0\t1\n", ["1 predictions for 2 labelled rows"]),
        ("0\t1\n1\tyes\n", ["row 3", "'yes'", "WNLI"]),
    ],
)
def test_rows_of_a_submission_are_the_files(written, rows, words):
    data = written("dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n1\tc\td\t0\n")
    refused(*words, kind="WNLI", data=data, predictions=written("p.tsv", "index\tprediction\n" + rows))


def test_numbers_of_stsb_are_numbers(written):
    data = written("dev.tsv", "sentence1\tsentence2\tscore\na\tb\t1\nc\td\t0\n")
    answers = written("p.tsv", "index\tprediction\n0\t1.5\n1\tnan\n")
    refused("row 3", "'nan'", kind="STS-B", data=data, predictions=answers)


# Our own tasks


def test_labels_by_file_with_other_columns(written):
    data = written("dev.csv", "body,kind\ngood,pos\nbad,neg\nfair,pos\n")
    rows = [{"label": "pos", "score": 0.9}, {"label": "neg", "score": 0.9}, {"label": "odd", "score": 0.4}]
    columns = {"text_column": "body", "label_column": "kind"}
    scores = score_predictions("classify", data, written("p.jsonl", lines(rows)), **columns)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)  # "odd" is no label of the file
    asked = [{"text": text} | row for text, row in zip(["good", "bad", "fair"], rows, strict=True)]
    assert score_predictions("classify", data, written("p.jsonl", lines(asked)), **columns) == scores
    asked[1]["text"] = "worse"
    refused("row 2", "'worse'", "'bad'", "row 3", kind="classify", data=data,
            predictions=written("p.jsonl", lines(asked)), **columns)  # fmt: skip


def test_a_file_of_one_label_has_a_score(written):
    data, answers = written("dev.csv", "text,label\ngood,1\nbad,1\n"), written("p.jsonl", '{"label": "1"}\n' * 2)
    assert score_predictions("classify", data, answers)["accuracy"] == 1


def test_several_labels_and_numbers(written):
    data = written("dev.csv", 'text,label\na,"x,y"\nb,y\nc,\n')
    rows = [{"labels": ["y", "x"]}, {"labels": ["x"]}, {"labels": []}]
    scores = score_predictions("classify", data, written("p.jsonl", lines(rows)), multi_label=True)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    data = written("dev.csv", "text,label\na,1\nb,2\nc,4\n")
    rows = [{"score": 1}, {"score": 2.0}, {"score": 3.5}]
    scores = score_predictions("regress", data, written("p.jsonl", lines(rows)))
    assert (scores["spearman"], scores["mse"]) == (pytest.approx(1.0), pytest.approx(0.25 / 3))


def test_questions_words_and_choices(squad, written):
    asked = [question["question"] for question in SQUAD["data"][0]["paragraphs"][0]["qas"]]
    rows = [
        {"id": key, "text": text, "answer": answer} for (key, answer), text in zip(ANSWERS.items(), asked, strict=True)
    ]
    scores = score_predictions("qa", squad, written("p.jsonl", lines(rows)))
    assert scores == score_predictions("squad", squad, written("p.json", ANSWERS))

    gold = written("gold.conll", CONLL)
    tags = [["B-ORG", "O", "B-LOC"], ["O", "O"]]
    rows = [{"tags": each, "entities": []} for each in tags]
    ends = [(0, 4, "ORG"), (14, 19, "LOC")]
    rows[0]["entities"] = [
        {"entity_group": label, "start": start, "end": end, "score": 1.0} for start, end, label in ends
    ]
    scores = score_predictions("tag", gold, written("p.jsonl", lines(rows)))
    assert (scores["f1"], scores["accuracy"]) == (0.5, 0.8)
    rows[1]["tags"].append("O")
    refused("row 2", "3 tags for the 2 words", kind="tag", data=gold, predictions=written("p.jsonl", lines(rows)))
    rows[1] = {"tags": ["O", "O"], "entities": [{}]}
    refused("not as the task tag", kind="tag", data=gold, predictions=written("p.jsonl", lines(rows)))

    data = written("dev.jsonl", lines({"prompt": "I", "choices": ["am", "is"], "label": 0} for _ in range(4)))
    rows = [{"choice": number % 2, "answer": "am", "score": 0.5} for number in range(4)]
    assert score_predictions("choice", data, written("p.jsonl", lines(rows)))["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ('{"label": "1"}\n', ["1 predictions for 2 labelled rows", "p.jsonl"]),
        ('{"label": "1"}\n{"label": 1}\n', ["row 2", "'label'", "text"]),
        ('{"label": "1"}\n{"score": 1}\n', ["row 2", "'label'", "None"]),
        ('{"label": "1"}\nno\n', ["row 2", "JSON"]),
        ('{"label": "1"}\n[]\n', ["row 2", "object"]),
    ],
)
def test_what_is_no_file_of_predictions(written, rows, words):
    data = written("dev.csv", "text,label\ngood,1\nbad,0\n")
    refused(*words, kind="classify", data=data, predictions=written("p.jsonl", rows))


def test_what_cannot_be_scored(squad, written):
    answers = written("p.json", ANSWERS)
    refused("'skuad'", "'squad'", kind="skuad", data=squad, predictions=answers)
    refused("'AX'", kind="AX", data=squad, predictions=answers)
    refused("--data", kind="squad", data=None, predictions=answers)
    refused("'partal'", "'partial'", kind="squad", data=squad, predictions=answers, partal=True)
    refused("'partial'", kind="RTE", data=squad, predictions=answers, partial=True)
    refused("'text_colum'", "'text_column'", kind="classify", data=squad, predictions=answers, text_colum="a")
    refused("no such file", kind="squad", data=squad, predictions=squad.with_name("none.json"))
    assert {"squad", "cmrc", "conll", "CoLA", "MNLI", "classify"} <= set(kinds())
