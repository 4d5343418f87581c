"""Tags and the chunks they mean, on cases small enough to read; conlleval's rules themselves are in tests/parity."""

import pytest

from bertwright.errors import BertwrightError
from bertwright.tasks.entities import (
    chunks,
    conll_report,
    conll_text,
    detect_scheme,
    entity_details,
    entity_scores,
    tags_of,
)

FOUND = [(0, 3, "PER"), (3, 4, "PER"), (4, 6, "A-B"), (7, 8, "LOC")]
WRITTEN = {
    "iob1": "I-PER I-PER I-PER B-PER I-A-B I-A-B O I-LOC",
    "iob2": "B-PER I-PER I-PER B-PER B-A-B I-A-B O B-LOC",
    "bioes": "B-PER I-PER E-PER S-PER B-A-B E-A-B O S-LOC",
    "bmes": "B-PER M-PER E-PER S-PER B-A-B E-A-B O S-LOC",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_every_scheme_says_the_same(scheme):
    tags = WRITTEN[scheme].split()
    assert chunks(tags) == FOUND
    assert tags_of(FOUND[::-1], 8, scheme) == tags
    assert detect_scheme([tags]) == scheme


def test_plain_tags_are_bare_labels():
    assert tags_of([(0, 2, "N")], 3, "plain") == ["N", "N", "O"]
    assert detect_scheme([["DT", "NN"], ["O", "NN-HL"]]) == "plain"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-X I-X", [(0, 2, "X")]),
        ("I-X I-Y", [(0, 1, "X"), (1, 2, "Y")]),
        ("B-X I-Y", [(0, 1, "X"), (1, 2, "Y")]),
        ("E-X", [(0, 1, "X")]),
        ("E-X E-X I-X", [(0, 1, "X"), (1, 2, "X"), (2, 3, "X")]),
        ("B-X O I-X", [(0, 1, "X"), (2, 3, "X")]),
        ("B-X S-X I-X", [(0, 1, "X"), (1, 2, "X"), (2, 3, "X")]),
        ("B-X L-X U-X", [(0, 2, "X"), (2, 3, "X")]),
        ("[-X I-X ]-X", [(0, 1, "X"), (2, 3, "X")]),
        ("", []),
    ],
)
def test_illegal_sequences_mean_something_too(tags, expected):
    assert chunks(tags.split()) == expected


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["O O"], "iob2"),
        ([], "iob2"),
        (["I-X I-X"], "iob1"),
        (["B-X I-X O B-X", "B-X", "I-X"], "iob2"),  # one slip does not turn the file into iob1
        (["I-X B-X", "I-X O"], "iob1"),
        (["B-X E-X"], "bioes"),
        (["B-X L-X U-X"], "bioes"),
        (["S-X"], "bioes"),
        (["B-X I-X", "S-X M-X"], "bmes"),
    ],
)
def test_scheme_is_detected(sentences, scheme):
    assert detect_scheme([sentence.split() for sentence in sentences]) == scheme


@pytest.mark.parametrize("tag", ["B", "", "B-", "X-PER", "PER", "b-PER", "-", "BPER"])
def test_illegal_tags_are_named_with_their_place(tag):
    with pytest.raises(BertwrightError, match=rf"'{tag}' of word 1 "):
        chunks(["B-PER", tag])
    for read in (detect_scheme, lambda tags: conll_report(tags, [["O"], ["O", "O"]])):
        with pytest.raises(BertwrightError, match=rf"'{tag}' of word 1 of sentence 1 "):
            read([["O"], ["I-PER", tag]])


def test_empty_tag_is_illegal_among_bare_labels_too():
    with pytest.raises(BertwrightError, match="'' of word 1 of sentence 0 "):
        detect_scheme([["NN", ""]])


@pytest.mark.parametrize("found", [[(0, 2, "X"), (1, 3, "X")], [(2, 5, "X")], [(1, 1, "X")], [(-1, 1, "X")]])
def test_chunks_that_no_tags_can_say_are_refused(found):
    with pytest.raises(BertwrightError, match="overlaps"):
        tags_of(found, 4, "iob2")


def test_entity_scores_count_over_all_sentences():
    gold = [{(0, 2, "PER"), (3, 4, "LOC")}, [("ch 1", "LOC"), ("ch 1", "LOC")]]
    predicted = [{(0, 2, "LOC"), (3, 4, "LOC")}, []]
    assert entity_scores(gold, predicted) == pytest.approx({"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5})
    details = entity_details(gold, predicted)
    assert details["counts"] == {"gold": 3, "predicted": 2, "right": 1}
    assert list(details["per_class"]) == ["LOC", "PER"]
    row = {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2, "predicted": 2, "right": 1}
    assert details["per_class"]["LOC"] == pytest.approx(row)


def test_a_share_of_nothing_is_0():
    assert entity_scores([[]], [[]]) == {"precision": 0, "recall": 0, "f1": 0}
    assert entity_scores([[(0, 1, "X")]], [[]]) == {"precision": 0, "recall": 0, "f1": 0}


def test_conll_text_is_as_printed():
    gold, predicted = [["B-NP", "I-NP", "O"], ["B-VP"]], [["B-NP", "I-NP", "B-PP"], ["O"]]
    report = conll_report(gold, predicted)
    assert (report["accuracy"], report["f1"]) == (0.5, 0.5)
    assert conll_text(report).splitlines() == [
        "processed 4 tokens with 2 phrases; found: 2 phrases; correct: 1.",
        "accuracy:  50.00%; precision:  50.00%; recall:  50.00%; FB1:  50.00",
        "               NP: precision: 100.00%; recall: 100.00%; FB1: 100.00  1",
        "               PP: precision:   0.00%; recall:   0.00%; FB1:   0.00  1",
        "               VP: precision:   0.00%; recall:   0.00%; FB1:   0.00  0",
    ]


def test_both_sides_have_the_same_words():
    with pytest.raises(BertwrightError, match="sentence 1"):
        conll_report([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(BertwrightError, match="2 sentences"):
        conll_report([["O"], ["O"]], [["O"]])
