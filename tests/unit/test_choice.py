"""Multiple choice: reading endings and their labels, the inputs, long prompts, answers, and what bad input is told."""

import json
import logging
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bertwright.errors import BertwrightError
from bertwright.tasks.base import Example
from bertwright.tasks.choice import ChoiceTask
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDPIECE = WordPiece([*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz", "今", "天", "好"], TextRules(lowercase=True))
PROMPT = "a b c d e f g h i j"
COLUMNS = ChoiceTask(choice_columns=("e0", "e1", "e2"))


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)), encoding="utf-8")
        return path

    return write


def row(label, choices=("x", "y"), **more):
    return {"prompt": "p", "choices": list(choices), "label": label, **more}


def shown(feature):
    return " ".join(WORDPIECE.tokens[number] for number in feature.input_ids)


def encoded(example, max_length, **options):
    return ChoiceTask(**options).encode([example], WORDPIECE, max_length)


# Reading


def test_endings_in_columns_and_in_lists(written):
    table = "prompt,e0,e1,e2,label\nwhy,x,y,,1\nhow,x,y,z,2\n"
    lists = [
        {"prompt": "why", "choices": ["x", "y"], "label": 1},
        {"prompt": "how", "choices": list("xyz"), "label": 2},
    ]
    for task, path in ((COLUMNS, written("a.csv", table)), (ChoiceTask(), written("a.jsonl", lists))):
        examples = task.read(path)
        assert [(each.text, each.choices, each.label) for each in examples] == [
            ("why", ("x", "y"), 1),
            ("how", ("x", "y", "z"), 2),
        ]
        assert [replace(each, label=None) for each in examples] == task.read(path, labelled=False)


def test_a_file_without_header_and_with_stems(written):
    task = replace(COLUMNS, stem_column="stem", columns=("label", "stem", "prompt", "e0", "e1", "e2"))
    [example] = task.read(written("a.tsv", "0\tShe\tThe pan is hot.\truns\tsings\tsits\n"))
    assert (example.text, example.text_pair, example.choices[0], example.label) == (
        "The pan is hot.",
        "She",
        "runs",
        0,
    )


@pytest.mark.parametrize(
    ("labels", "first", "places"),
    [
        ([0, 1], 0, [0, 1]),
        (["1", "2"], 1, [0, 1]),
        ([1.0, 2.0], 1, [0, 1]),
        (["A", "B"], 0, [0, 1]),
        (["y", " x "], 0, [1, 0]),
        (["B", "1"], 0, None),
    ],
)
def test_labels_are_numbers_letters_or_texts_throughout(written, labels, first, places):
    path = written("a.jsonl", [row(label) for label in labels])
    task = ChoiceTask(first_label=first)
    if places is None:
        with pytest.raises(BertwrightError, match=r"row 1: .*'B', which does not name one of the 2 choices by its num"):
            task.read(path)
    else:
        assert [example.label for example in task.read(path)] == places


def test_numbers_are_numbers_also_where_endings_are(written, caplog):
    path = written("a.jsonl", [row("1", ["1", "0"]), row("0")])
    assert [example.label for example in ChoiceTask().read(path)] == [1, 0]
    assert not caplog.records
    path = written("b.jsonl", [row("1", ["1", "0"])])
    with caplog.at_level(logging.WARNING):
        assert [example.label for example in ChoiceTask().read(path)] == [1]
    assert "taken for numbers" in caplog.text


def test_endings_that_are_the_same_are_said_once(written, caplog):
    path = written("a.jsonl", [row(0, ["x", "x"]), row(1, ["x", "x", "y"]), row(1)])
    with caplog.at_level(logging.WARNING):
        assert len(ChoiceTask().read(path)) == 3
    assert [record.getMessage() for record in caplog.records] == [f"{path}: in 2 rows two choices are the same"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (row(0, ["x"]), r"row 1: only one choice, 'x'"),
        (row(0, []), r"row 1: no choices"),
        (row(0, ["x", " ", "y"]), r"choice 1 of column 'choices' is empty"),
        (row(0, ["x", None]), r"choice 1 of column 'choices' is empty"),
        (row(0, ["x", 5]), r"choice 1 of column 'choices' must be text, not 5"),
        (row(0, {"text": ["x"]}) | {"choices": {"x": 1}}, r"must hold a list of texts, not \{'x': 1\}\n.*--choice-col"),
        (row(0) | {"choices": None}, r"must hold a list of texts, not ''"),
        (row(2), r"column 'label' holds 2, .* by its number\n.*0 to 1 \(--first-label\)"),
        (row(-1), r"column 'label' holds -1"),
        (row(0.5), r"column 'label' holds 0\.5"),
        (row(True), r"column 'label' holds True"),
        (row([0]), r"column 'label' holds \[0\]"),
        (row("z"), r"column 'label' holds 'z'"),
        (row("x", ["x", "x"]), r"column 'label' holds 'x'"),
        (row(10**400), r"column 'label' holds 1000"),
        (row(""), r"row 1: column 'label' is empty"),
        (row(None), r"row 1: column 'label' is empty"),
        (row(0) | {"prompt": ""}, r"column 'prompt' is empty"),
        ({"prompt": "p", "choice": ["x", "y"], "label": 0}, r"no column 'choices' \(did you mean 'choice'\?\)"),
    ],
)
def test_bad_rows_are_named(written, content, message):
    with pytest.raises(BertwrightError, match=message):
        ChoiceTask().read(written("a.jsonl", [content]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("why,x,,z,0\n", r"row 2: column 'e1' is empty"),
        ("why,,,,0\n", r"row 2: no choices"),
        ("why,x,,,0\n", r"row 2: only one choice"),
        ("why,x,y,,2\n", r"row 2: column 'label' holds '2', which does not name one of the 2"),
        ("why,x,y,z,\n", r"row 2: column 'label' is empty"),
    ],
)
def test_bad_cells_are_named(written, content, message):
    with pytest.raises(BertwrightError, match=message):
        COLUMNS.read(written("a.csv", "prompt,e0,e1,e2,label\n" + content))


def test_missing_columns_name_their_flags(written):
    path = written("a.csv", "prompt,e0,e1,label\nwhy,x,y,0\n")
    with pytest.raises(BertwrightError, match=r"no column 'e2' .*\n.*--choice-columns"):
        COLUMNS.read(path)
    with pytest.raises(BertwrightError, match=r"no column 'question'.*\n.*--stem-column"):
        replace(COLUMNS, stem_column="question").read(path)
    with pytest.raises(BertwrightError, match=r"no column 'choices'"):
        ChoiceTask().read(path)


def test_columns_of_endings_are_two_or_more():
    for columns in (("a",), ("a", "a")):
        with pytest.raises(BertwrightError, match="choice_columns"):
            ChoiceTask(choice_columns=columns)


def test_nested_values_are_refused(written):
    deep = json.loads("[" * 900 + "]" * 900)
    for content in (row(0) | {"choices": {"x": deep}}, row(0, ["x", deep]), row(deep)):
        with pytest.raises(BertwrightError, match="row 1: "):
            ChoiceTask().read(written("a.jsonl", [content]))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", " ", "A", "0", "1", "x", "好"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(choices=["1", "0"], label="1", typed=0)
@given(choices=st.lists(st.sampled_from(["x", "A", "1"]), max_size=3) | _VALUES, label=_VALUES, typed=_VALUES)
def test_any_values_are_a_question_or_refused(tmp_path, choices, label, typed):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "choices": choices, "label": label}), encoding="utf-8")
    ask = ChoiceTask().example
    for make in (lambda: ChoiceTask().read(path)[0], lambda: ask(("p", choices)), lambda: ask(typed)):
        try:
            made = make()
        except BertwrightError:
            pass
        else:
            assert len(made.choices) > 1
            assert all(choice.strip() for choice in made.choices)
            assert made.label is None or 0 <= made.label < len(made.choices)


# What a user types


def test_a_question_is_a_pair_or_a_mapping():
    expected = Example("p", choices=("x", "y"))
    assert ChoiceTask().example(("p", ["x", "y"])) == expected
    assert ChoiceTask().example({"prompt": "p", "choices": ("x", "y")}) == expected
    with_stem = ChoiceTask(stem_column="question")
    assert with_stem.example({"prompt": "p", "stem": "s", "choices": ["x", "y"]}) == replace(expected, text_pair="s")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a text", "text 7: expected 'prompt' and 'choices'"),
        (None, "expected 'prompt' and 'choices'"),
        (("p", "xy"), "'choices' must be a list of texts, not 'xy'"),
        (("p", ["x"]), "only one choice"),
        (("p", ["x", ""]), r"choices\[1\] is empty"),
        (("p", ["x", 1]), r"choices\[1\] must be text"),
        ((" ", ["x", "y"]), "'prompt' is empty"),
        ((1, ["x", "y"]), "'prompt' must be text, not 1"),
        ({"prompt": "p"}, "'choices' is missing"),
        ({"prompt": "p", "choice": []}, r"unknown key 'choice' \(did you mean 'choices'\?\)"),
        ({"prompt": "p", "choices": ["x", "y"], "stem": "s"}, "unknown key 'stem'"),
    ],
)
def test_what_is_no_question(given, message):
    with pytest.raises(BertwrightError, match=message):
        ChoiceTask().example(given, where="text 7")


# Inputs


def test_every_ending_is_a_sequence_of_its_own():
    features = encoded(Example("a b", "c", 1, choices=("d", "e f")), 16)
    assert [shown(each) for each in features] == ["[CLS] a b [SEP] c d [SEP]", "[CLS] a b [SEP] c e f [SEP]"]
    assert features[1].token_type_ids == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [(each.target, each.way_back) for each in features] == [(1, 0), (1, 1)]
    assert [ChoiceTask().marks(each) for each in features] == [{}, {0: "right"}]


def test_chinese_stems_join_as_they_would_without_a_space():
    joined = encoded(Example("a", "今天", choices=("好", "b")), 16)
    assert joined[0].input_ids == WORDPIECE.encode("a", "今天好").input_ids


def test_cutting_takes_as_many_tokens_as_encode_does_and_from_the_stem_before_the_ending(caplog):
    example = Example(PROMPT, "k l m n o p", choices=("q r", "s t", "u"))
    with caplog.at_level(logging.WARNING):
        features = encoded(example, 11)
    plain = WORDPIECE.encode(PROMPT, "k l m n o p q r", max_length=11)
    assert shown(features[0]) == "[CLS] a b c d [SEP] k l q r [SEP]"
    assert features[0].token_type_ids == plain.token_type_ids
    assert shown(features[2]) == "[CLS] a b c d [SEP] k l m u [SEP]"
    assert "3 of 3 inputs were longer than 11 tokens" in caplog.text
    assert "look the same" not in caplog.text


def test_endings_that_cutting_makes_the_same_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        features = encoded(Example("a", choices=("b c d e f", "b c d e g")), 6)
    assert shown(features[0]) == shown(features[1])
    assert "of 1 of 1 examples, choices look the same" in caplog.text


@pytest.mark.parametrize("stride", [0, 1, 3])
def test_windows_show_the_whole_prompt_with_whole_endings(stride):
    example = Example(PROMPT, "k", 0, choices=("l m", "n"))
    features = encoded(example, 10, windows=True, stride=stride)
    assert not any(each.truncated for each in features)
    assert all(len(each.input_ids) <= 10 for each in features)
    for place, ending in ((0, "k l m"), (1, "k n")):
        parts = [shown(each).split(" [SEP] ") for each in features if each.way_back == place]
        prompts = [part[0].split()[1:] for part in parts]
        assert {part[1].removesuffix(" [SEP]") for part in parts} == {ending}
        assert sorted({word for words in prompts for word in words}) == PROMPT.split()
        shared = min(stride, len(prompts[0]) // 2)
        assert all(one[-shared:] == other[:shared] for one, other in pairwise(prompts) if shared)


def test_short_prompts_need_one_window():
    assert len(encoded(Example("a", None, 0, choices=("b", "c")), 10, windows=True)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": -1}, r"stride -1"),
        ({"stride": 0, "choices": ("k " * 30, "l")}, r"row 9: max_length leaves no room"),
    ],
)
def test_windows_that_cannot_be(options, message):
    choices = options.pop("choices", ("k l m", "n"))
    with pytest.raises(BertwrightError, match=message):
        encoded(Example(PROMPT, None, 0, "file, row 9", choices=choices), 10, windows=True, **options)


# Loss and answers


@pytest.fixture
def asked():
    """Three choices in two windows each, then two choices in one."""
    task = ChoiceTask(windows=True, stride=0)
    examples = [Example(PROMPT, None, 2, choices=("k", "l", "m")), Example("a", None, 0, choices=("k", "l"))]
    features = task.encode(examples, WORDPIECE, 9)
    logits = torch.randn(8, 1)
    assert [feature.way_back for feature in features] == [0, 0, 1, 1, 2, 2, 0, 1]
    return task, examples, features, logits


def test_the_loss_is_of_the_mean_over_windows_among_an_examples_own_endings(asked):
    task, _, features, logits = asked
    batch = task.collate(features)
    first, second = logits[:6, 0].view(3, 2).mean(1), logits[6:, 0]
    expected = F.cross_entropy(first, torch.tensor(2)) + F.cross_entropy(second, torch.tensor(0))
    [term] = task.loss(logits, batch).losses.values()
    assert term.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert {"loss": term.count} == task.counts(batch) == {"loss": 2}


def test_answers_are_the_likeliest_endings(asked):
    task, examples, features, logits = asked
    first, second = task.decode(list(logits.split(1)), features, examples)
    scores = logits[:6, 0].view(3, 2).mean(1).softmax(0)
    assert first["scores"] == pytest.approx(scores.tolist())
    assert first["choice"] == int(scores.argmax())
    assert first["answer"] == examples[0].choices[first["choice"]]
    assert first["score"] == max(first["scores"])
    assert len(second["scores"]) == 2
    assert task.decode([], [], []) == []


def test_the_temperature_makes_answers_as_sure_as_they_are_right():
    torch.manual_seed(0)
    task = ChoiceTask()
    sizes = [2 + index % 3 for index in range(3000)]
    scores = [2 * torch.randn(size) for size in sizes]
    gold = [int(torch.multinomial(each.softmax(0), 1)) for each in scores]
    examples = [
        Example("a", None, right, choices=tuple("klmn"[:size])) for size, right in zip(sizes, gold, strict=True)
    ]
    features = task.encode(examples, WORDPIECE, 9)
    logits = list((3 * torch.cat(scores)).unsqueeze(1).split(1))
    calibrated = task.calibrate(logits, features, examples)
    assert calibrated.temperature == pytest.approx(3, rel=0.1)
    before, after = (each.decode(logits, features, examples) for each in (task, calibrated))
    assert [each["choice"] for each in before] == [each["choice"] for each in after]
    error, mended = (
        task.details(each, examples)["calibration"]["expected_calibration_error"] for each in (before, after)
    )
    assert mended < 0.04 < error
    assert calibrated.details(after, examples)["calibration"]["temperature"] == calibrated.temperature
    with pytest.raises(BertwrightError, match="temperature must be positive"):
        ChoiceTask(temperature=0.0)


def answer(choice, score=0.75):
    return {"choice": choice, "answer": "", "score": score, "scores": []}


def test_scores_errors_and_places():
    task = ChoiceTask()
    examples = [Example("p", label=label, choices=("x", "y", "z")[:count]) for label, count in ((0, 2), (1, 2), (2, 3))]
    answers = [answer(0), answer(0), answer(0)]
    assert task.score(answers, examples) == {"accuracy": pytest.approx(1 / 3)}
    assert task.details(answers, examples)["confusion"] == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert task.degenerate(answers, examples) == "takes choice 0 of every dev example, which is right for 33% of them"
    assert task.degenerate([answer(0), answer(1), answer(0)], examples) is None
    assert task.degenerate(answers[:1], examples[:1]) is None
    assert [task.error(*each) for each in zip(answers, examples, strict=True)] == [0.0, 0.75, 0.75]
    assert task.chance_loss(examples) == pytest.approx((0.6931472 * 2 + 1.0986123) / 3)
    with pytest.raises(BertwrightError, match="no label"):
        task.learn([Example("p", choices=("x", "y"))])


# Real files


def test_codah_is_read_whole(shared_data, caplog):
    endings = ("e0", "e1", "e2", "e3")
    task = ChoiceTask(choice_columns=endings, columns=("category", "prompt", *endings, "label"))
    with caplog.at_level(logging.WARNING):
        examples = task.read(shared_data / "tasks/en/CODAH/full_data.tsv")
    assert len(examples) == 2776
    assert [sum(each.label == place for each in examples) for place in range(4)] == [689, 684, 697, 706]
    assert {len(each.choices) for each in examples} == {4}
    assert "in 3 rows two choices are the same" in caplog.text


# C3


def test_c3_is_read_as_published(tmp_path):
    questions = [
        {"question": "女的是什么意思？", "choice": ["他会来", "他不来", "不知道"], "answer": "他不来"},
        {"question": "他们在哪儿？", "choice": ["学校", "医院"], "answer": "医院"},
    ]
    path = tmp_path / "c3-d-train.json"
    path.write_text(json.dumps([[["男：他来吗？", "女：不来了。"], questions, "1-1"]], ensure_ascii=False), "utf-8")
    first, second = ChoiceTask().read(path)
    assert first.text == second.text == "男：他来吗？\n女：不来了。"
    assert (first.text_pair, first.choices, first.label) == ("女的是什么意思？", ("他会来", "他不来", "不知道"), 1)
    assert (second.choices, second.label) == (("学校", "医院"), 1)
    assert second.where.endswith("c3-d-train.json, [0][1][1]")
    assert [example.label for example in ChoiceTask().read(path, labelled=False)] == [None, None]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{}", "expected a list of documents, found"),
        ("[", "not valid JSON"),
        ("[]", "there is no question in it"),
        ('[[["a"], 3, "x"]]', r"\[0\]\[1\]: expected a list of questions, found 3"),
        ('[[["a"]]]', r"\[0\]\[1\]: expected a list of questions, found null"),
        ('[[[""], [], "x"]]', r"\[0\]\[0\]: expected a text that is not empty"),
        ('[[["a"], [{"question": "q", "choice": ["b"], "answer": "b"}], "x"]]', r"\[0\]\[1\]\[0\].*choice"),
        ('[[["a"], [{"question": "q", "choice": ["b", "c"], "answer": "d"}], "x"]]', r"\[0\]\[1\]\[0\].*'d'"),
    ],
)
def test_a_flawed_c3_file_is_refused(tmp_path, document, message):
    path = tmp_path / "c3.json"
    path.write_text(document, encoding="utf-8")
    with pytest.raises(BertwrightError, match=message):
        ChoiceTask().read(path)
