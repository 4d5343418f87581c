"""The task `tag`: its files, its words, its windows, its answers and its scores."""

import gzip
import json
import logging
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.options import TagOptions
from bertwright.predict import Predictor
from bertwright.tasks.base import Example
from bertwright.tasks.entities import conll_report, tags_of
from bertwright.tasks.tagged_files import read_tagged, write_conll
from bertwright.tasks.tagging import TagTask, adopt, word_windows
from bertwright.tasks.words import Entity, chunks_of, join_words, lines_of, split_words
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

PIECES = "eu rejects german call to peter black ##burn . , 北 京 的 a ##a b c d e"
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *PIECES.split()], TextRules(lowercase=True))
CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\nGerman JJ B-MISC\n\nPeter NNP B-PER\nBlackburn NNP I-PER\n"


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(folder: Path, name: str, content: object, **options) -> list[Example]:
    return TagTask(**options).read(write(folder, name, content))


def refused(folder: Path, name: str, content: object, *words: str, **options) -> None:
    with pytest.raises(BertwrightError) as caught:
        read(folder, name, content, **options)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def words(example: Example) -> list[str]:
    return [example.text[start:end] for start, end in example.words]


def named(example: Example) -> list[tuple[str, str]]:
    return [(example.text[start:end], label) for start, end, label in example.label]


# ---- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EU rejects.", "EU rejects ."),
        ("  AL-AIN (3.5%), U.S. a.m. end.", "AL-AIN ( 3.5 % ) , U.S. a.m. end ."),
        ("Smith's Smith’s 's dogs'", "Smith 's Smith ’s ' s dogs '"),
        ('"Wait..." -- he said', '" Wait ... " -- he said'),
        ("我在NBA，打球2次。", "我 在 NBA ， 打 球 2 次 。"),
        ("(U.S.) ... ?!", "( U.S. ) ... ? !"),
        ("\u200b x\u3000y", "\u200b x y"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_raw_text_is_split_into_words(text, expected):
    assert [text[start:end] for start, end in split_words(text)] == expected.split(" ")


@given(st.text())
def test_the_words_of_a_text_hold_all_of_it_but_white_space(text):
    places = split_words(text)
    assert "".join(text[start:end] for start, end in places) == "".join(text.split())
    assert all(end <= start for (_, end), (start, _) in pairwise(places))


@pytest.mark.parametrize(
    ("given_words", "text"),
    [
        (["EU", "rejects", "."], "EU rejects ."),
        (["北", "京", "2", "0", "0", "8", "年"], "北京2008年"),
        (["北京", "的", "2008", "NBA"], "北京的 2008 NBA"),
        (["I", "?"], "I ?"),
        (["他", "：", "hi"], "他： hi"),
    ],
)
def test_words_are_joined_as_their_language_joins_them(given_words, text):
    joined, places = join_words(given_words)
    assert joined == text
    assert [joined[start:end] for start, end in places] == given_words


# ---- files of a word a line


def test_conll_columns(tmp_path):
    first, second = read(tmp_path, "train.txt", CONLL)
    assert (first.text, second.text) == ("EU rejects German", "Peter Blackburn")
    assert first.label == (Entity(0, 2, "ORG"), Entity(11, 17, "MISC"))
    assert named(second) == [("Peter Blackburn", "PER")]
    assert first.where.endswith("train.txt, row 3")


def test_a_document_is_one_example_of_lines(tmp_path):
    text = CONLL + "\n-DOCSTART- -X- O\n\nPeter NNP B-PER\n"
    first, second = read(tmp_path, "train.conll", text, document_context=True)
    assert first.text == "EU rejects German\nPeter Blackburn"
    assert lines_of(first) == [(0, 3), (3, 5)]
    assert named(first) == [("EU", "ORG"), ("German", "MISC"), ("Peter Blackburn", "PER")]
    assert second.text == "Peter"


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "I-PER I-PER B-PER O I-LOC"),
        ("IOB2", "B-PER I-PER B-PER O B-LOC"),
        ("BIOES", "B-PER E-PER S-PER O S-LOC"),
        ("BIOES", "B-PER L-PER U-PER O U-LOC"),
        ("BMES", "B-PER E-PER S-PER O B-LOC"),
    ],
)
def test_every_scheme_means_the_same(tmp_path, scheme, tags, caplog):
    more = "\n\na B-X\nb M-X\nc E-X\n" if scheme == "BMES" else ""
    rows = "\n".join(f"{word} {tag}" for word, tag in zip("abcde", tags.split(), strict=True))
    with caplog.at_level(logging.INFO):
        example = read(tmp_path, "x.bio", rows + more)[0]
    assert named(example) == [("a b", "PER"), ("c", "PER"), ("e", "LOC")]
    assert f"the tags are written as {scheme}" in caplog.text


def test_tags_that_break_their_scheme_are_counted(tmp_path, caplog):
    text = "a B-PER\nb I-PER\n\na B-PER\n\na O\nb I-LOC\n"
    assert named(read(tmp_path, "x.bio", text)[2]) == [("b", "LOC")]
    assert "1 of 3 sentences do not follow IOB2" in caplog.text


def test_comments_and_numbered_rows(tmp_path, caplog):
    wnut = "# id 12 domain=train\n@paul\tO\n# \tO\nEmpire\tB-location\n\n#\tO\nParis\tB-location\n"
    assert [words(each) for each in read(tmp_path, "wnut.conll", wnut)] == [["@paul", "#", "Empire"], ["#", "Paris"]]
    coner = write(tmp_path, "coner.conll", "# id 12 domain=dev\neli _ _ B-PER\n\n# _ _ O\n")
    for labelled in (True, False):
        assert [words(each) for each in TagTask().read(coner, labelled=labelled)] == [["eli"], ["#"]]
    row = "{}\t{}\t_\t{}\t_\t_\t0\t_\t_\t_\n"
    rows = [row.format(*each) for each in (("1-2", "zum", "_"), (1, "zu", "ADP"), (2, "dem", "DET"), ("2.1", "x", "_"))]
    text = "# newdoc\n# text = zum\n" + "".join(rows)
    examples = read(tmp_path, "x.conllu", text, scheme="plain", token_column=1, tag_column=3)
    assert [named(each) for each in examples] == [[("zu", "ADP"), ("dem", "DET")]]
    assert "2 rows" in caplog.text
    refused(tmp_path, "x.conllu", text, "CoNLL-U", "--token-column 1", scheme="plain", tag_column=3)


def test_files_may_be_compressed_have_windows_line_ends_and_other_columns(tmp_path):
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"O 1 a\r\nB-PER 2 b\r\n\r\n"))
    (example,) = TagTask(token_column=2, tag_column=0).read(tmp_path / "x.txt.gz")
    assert named(example) == [("b", "PER")]


def test_plain_tags_are_taken_as_they_are(tmp_path):
    examples = read(tmp_path, "x.txt", CONLL, scheme="plain", tag_column=1)
    assert named(examples[0]) == [("EU", "NNP"), ("rejects", "VBZ"), ("German", "JJ")]
    task = TagTask(scheme="plain").learn(examples)
    assert (task.labels, task.best_by) == (("JJ", "NNP", "VBZ"), "accuracy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EU B-ORG\nrejects\n", ("row 2", "expected 2 columns", "found 1")),
        ("EU B-ORG\n O\n", ("row 2", "found 1")),
        ("EU B-ORG\n\u3000 O\n", ("row 2", "white space")),
        ("EU\tB-ORG\n\tO\n", ("row 2", "white space ('')")),
        ("EU\tB-ORG\nx\t\n", ("row 2", "a tag is empty")),
        ("EU B-ORG\nx PER\n", ("row 2", "'PER'")),
        ("EU ORG\nx O\n", ("mark no entities: 'ORG'", "--scheme plain")),
        ("EU\nx\n", ("there are 1 columns",)),
        ("-DOCSTART- O\n\n", ("nothing to tag",)),
        ("", ("nothing to tag",)),
        ("EU B-ORG\rx O\r", ("CR alone",)),
    ],
)
def test_what_is_wrong_with_columns_is_said_with_its_row(tmp_path, text, expected):
    refused(tmp_path, "x.conll", text, "x.conll", *expected)


def test_other_mistakes_of_files(tmp_path):
    refused(tmp_path, "x.conll", "a O\n", "no column 5", tag_column=5)
    refused(tmp_path, "x.csv", "a,O\n", ".conll", ".jsonl")
    with pytest.raises(BertwrightError, match="no such file"):
        TagTask().read(tmp_path / "none.txt")


def test_unlabelled_files(tmp_path):
    task = adopt(["O", "B-PER"])
    alone = task.read(write(tmp_path, "a.conll", "EU\nrejects\n\nPeter\n"), labelled=False)
    assert [words(each) for each in alone] == [["EU", "rejects"], ["Peter"]]
    assert [words(each) for each in task.read(write(tmp_path, "b.txt", CONLL), labelled=False)] == [
        ["EU", "rejects", "German"],
        ["Peter", "Blackburn"],
    ]
    lines = task.read(write(tmp_path, "c.txt", "hello world\n\nhow are\n"), labelled=False)
    assert [words(each) for each in lines] == [["hello", "world"], ["how", "are"]]
    rows = '{"text": "EU rejects."}\n{"tokens": ["a", "b"]}\n'
    assert [words(each) for each in task.read(write(tmp_path, "d.jsonl", rows), labelled=False)] == [
        ["EU", "rejects", "."],
        ["a", "b"],
    ]
    for name in "abcd":
        path = next(tmp_path.glob(f"{name}.*"))
        assert {each.label for each in task.read(path, labelled=False)} == {None}
    known = TagTask(scheme="plain", labels=("NNP", "VBZ", "JJ"), tag_column=1)
    assert len(known.read(tmp_path / "b.txt", labelled=False)[0].words) == 3


# ---- files of records


def test_records_of_words_and_of_texts(tmp_path):
    rows = [
        {"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]},
        {"text": "EU rejects German", "entities": [{"start": 11, "end": 17, "label": "MISC"}]},
        {"text": "EU rejects", "label": [[0, 2, "ORG"]], "id": 3},
        {"text": "EU rejects", "spans": []},
        {"text": "EU ", "entities": [{"id": 1, "start_offset": 0, "end_offset": 3, "label": "ORG"}]},
    ]
    expected = [[("EU", "ORG")], [("German", "MISC")], [("EU", "ORG")], [], [("EU", "ORG")]]
    assert [named(each) for each in read(tmp_path, "x.jsonl", "\n".join(map(json.dumps, rows)))] == expected
    assert [named(each) for each in read(tmp_path, "x.json", rows)] == expected


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"tokens": [["EU", "rejects"], ["b"]], "tags": [["B-ORG", "O"], ["O"]]})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert [named(each) for each in TagTask().read(tmp_path / "x.parquet")] == [[("EU", "ORG")], []]
    refused(tmp_path, "y.parquet", "no", "not readable as Parquet")
    with pytest.raises(BertwrightError, match="no such file"):
        TagTask().read(tmp_path / "none.parquet")


def test_label_studio(tmp_path, caplog):
    value = {"start": 0, "end": 2, "text": "EU", "labels": ["ORG"]}
    annotation = {"result": [{"value": value, "type": "labels"}, {"value": {"choices": ["x"]}, "type": "choices"}]}
    record = {"id": 1, "data": {"text": "EU rejects"}, "annotations": [annotation, annotation]}
    (example,) = read(tmp_path, "x.json", [record])
    assert named(example) == [("EU", "ORG")]
    assert "1 texts had several annotations" in caplog.text
    assert "1 results of Label Studio" in caplog.text
    moved = {"data": {"text": "An EU"}, "annotations": [annotation]}
    refused(tmp_path, "x.json", [record, moved], "record 2", "'An', not 'EU'")
    refused(tmp_path, "x.json", [{"data": {"text": "An EU"}, "annotations": []}], "record 1", "no annotation")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words, but 1 tags"),
        ({"tokens": ["a", "b"], "ner_tags": [0, 3]}, "not 0"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "word 2 is ' '"),
        ({"tokens": ["a"], "tags": ["X"]}, "'X'"),
        ({"tokens": []}, "a list of words"),
        ({"tokens": ["a"]}, "'ner_tags'"),
        ({"text": "  ", "entities": []}, "the text is '  '"),
        ({"content": "x"}, "['content']"),
        ({"text": "a b", "entities": [[0, 9, "X"]]}, "leaves the text of 3 characters"),
        ({"text": "a b", "entities": [[2, 2, "X"]]}, "is empty"),
        ({"text": "a b", "entities": [[1, 2, "X"]]}, "no text"),
        ({"text": "a b", "entities": [[0, 3, "X"], [2, 3, "Y"]]}, "overlap"),
        ({"text": "a b", "entities": [[0, "1", "X"]]}, "numbers of characters"),
        ({"text": "a b", "entities": [{"start": 0, "end": 1}]}, "one label"),
        ({"text": "a b", "entities": "X"}, "a list of entities"),
        (["a"], "expected a JSON object"),
    ],
)
def test_what_is_wrong_with_a_record_is_said_with_its_row(tmp_path, record, expected):
    good = json.dumps({"text": "a b", "entities": []})
    refused(tmp_path, "x.jsonl", f"{good}\n\n{json.dumps(record)}\n", expected, "x.jsonl")


def test_no_record_and_no_json(tmp_path):
    refused(tmp_path, "x.jsonl", "{\n", "row 1", "JSON")
    refused(tmp_path, "x.json", '{"text": "a"}\n{"text": "b"}\n', ".jsonl")
    refused(tmp_path, "x.json", {"text": "a"}, "a list of records")
    refused(tmp_path, "x.jsonl", '{"text": "a", "entities": []}', "no plain tags", scheme="plain")


def test_half_a_character_is_mended(tmp_path, caplog):
    (example,) = read(tmp_path, "x.jsonl", '{"text": "a \\ud83d EU", "entities": [[4, 6, "ORG"]]}')
    assert example.text == "a \ufffd EU"
    assert named(example) == [("EU", "ORG")]
    assert "1 halves of surrogate pairs became U+FFFD" in caplog.text


def test_white_space_around_entities_is_taken_off_and_counted(tmp_path, caplog):
    (example,) = read(tmp_path, "x.jsonl", '{"text": "an EU law", "entities": [[2, 6, "ORG"]]}')
    assert example.label == (Entity(3, 5, "ORG"),)
    assert "1 entities had white space" in caplog.text


def test_an_entity_inside_a_word_trains_the_word_but_is_scored_as_written(tmp_path, caplog):
    rows = {"text": "pro-EU law", "entities": [[4, 6, "ORG"], [7, 10, "X"]]}
    examples = read(tmp_path, "x.jsonl", json.dumps(rows))
    assert "1 entities begin or end inside a word" in caplog.text
    assert examples[0].label[0] == (4, 6, "ORG")
    assert chunks_of(examples[0]) == ([(0, 1, "ORG"), (1, 2, "X")], 1)
    task = TagTask().learn(examples)
    perfect = logits_of(task, examples, [["B-ORG", "B-X"]])
    predictions = task.decode(*perfect, examples)
    assert task.score(predictions, examples) == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 1.0}
    assert task.error(predictions[0], examples[0]) == 2


# ---- the task


def logits_of(task: TagTask, examples: list[Example], tags: list[list[str]], max_length: int = 64):
    """Logits that say these tags, and the features they are of."""
    features = task.encode(examples, WORDPIECE, max_length)
    wanted = [[task.labels.index(tags[each.example_index][word]) for word in each.way_back] for each in features]
    return [10.0 * torch.nn.functional.one_hot(torch.tensor(row), len(task.labels)) for row in wanted], features


def test_labels_are_learnt(tmp_path):
    examples = read(tmp_path, "x.txt", CONLL)
    assert TagTask().learn(examples).labels == ("O", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert TagTask(scheme="bioes").learn(examples[1:]).labels == ("O", "B-PER", "I-PER", "E-PER", "S-PER")
    assert TagTask().learn(examples).config_keys()["id2label"]["1"] == "B-MISC"
    with pytest.raises(BertwrightError, match="not one entity"):
        TagTask().learn(read(tmp_path, "x.txt", "a O\nb O\n"))


def test_the_feature_based_approach_has_another_head():
    config = BertConfig(vocab_size=WORDPIECE.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=16)  # fmt: skip
    task = TagTask(labels=("O", "B-X", "I-X"), features="concat-last-4", lstm_layers=1, lstm_size=8, stride=1)
    predictor = Predictor(Bert(config, {task.head_name: task.head(config)}), WORDPIECE, task)
    assert [len(each["tags"]) for each in predictor.predict(["b c", "b " * 30])] == [2, 30]
    with pytest.raises(BertwrightError, match="even"):
        TagTask(lstm_size=7)


def test_a_label_that_training_has_not_seen_is_refused(tmp_path):
    task = TagTask().learn(read(tmp_path, "x.txt", CONLL))
    with pytest.raises(BertwrightError, match=r"row 2.*unknown tag 'B-LOC'"):
        task.read(write(tmp_path, "dev.txt", "\na B-LOC\n"))


def test_rows_are_the_first_pieces_and_every_word_has_one():
    task = adopt(["O", "B-PER", "I-PER"])
    example = task.example(["Peter", "Blackburn", "\u200b", "unheard"])
    (feature,) = task.encode([example], WORDPIECE, 16)
    tokens = [WORDPIECE.tokens[number] for number in feature.input_ids]
    assert tokens == ["[CLS]", "peter", "black", "##burn", "[UNK]", "[UNK]", "[SEP]"]
    assert (feature.rows, feature.way_back, feature.target) == ([1, 2, 4, 5], [0, 1, 2, 3], None)


@given(st.lists(st.integers(1, 6), max_size=40), st.integers(6, 14), st.integers(0, 5))
def test_windows_show_every_word_where_it_has_most_context(sizes, room, stride):
    windows = word_windows(sizes, room, stride)
    assert sorted(word for *_, own in windows for word in own) == list(range(len(sizes)))
    starts = [sum(sizes[:word]) for word in range(len(sizes) + 1)]
    context = {}
    for first, after, own in windows:
        assert 0 < starts[after] - starts[first] <= room
        assert own
        for word in range(first, after):
            context.setdefault(word, []).append(min(starts[word] - starts[first], starts[after] - starts[word + 1]))
    for first, after, own in windows:
        for word in own:
            assert min(starts[word] - starts[first], starts[after] - starts[word + 1]) == max(context[word])
    for (_, after, _), (first, _, _) in pairwise(windows):
        assert starts[after] - starts[min(first, after)] <= stride


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=12).filter(str.strip)


@given(st.lists(st.lists(WORD, min_size=1, max_size=12), min_size=1, max_size=4))
def test_as_many_tags_come_out_as_words_went_in(sentences):
    task = TagTask(labels=("O", "B-X", "I-X"), stride=1)
    examples = [task.example(sentence) for sentence in sentences]
    for max_length in (7, 200):
        features = task.encode(examples, WORDPIECE, max_length)
        logits = [torch.randn(len(feature.rows), 3) for feature in features]
        predictions = task.decode(logits, features, examples)
        assert [len(each["tags"]) for each in predictions] == [len(sentence) for sentence in sentences]
        for example, prediction in zip(examples, predictions, strict=True):
            for found in prediction["entities"]:
                assert found["word"] == example.text[found["start"] : found["end"]]


def test_a_word_longer_than_a_window_is_cut_and_counted(caplog):
    task = TagTask(labels=("O", "B-X"), stride=1)
    features = task.encode([task.example(["b", "a" * 20, "c"])], WORDPIECE, 8)
    assert [word for feature in features for word in feature.way_back] == [0, 1, 2]
    assert max(len(feature.input_ids) for feature in features) == 8
    assert "inputs were longer than 8 tokens and were cut" in caplog.text


def test_a_stride_is_refused_only_where_windows_are_needed():
    task = adopt(["O", "B-X"])
    assert task.encode([task.example("b c")], WORDPIECE, 8)
    with pytest.raises(BertwrightError, match="--stride 3"):
        task.encode([task.example("b c d e b c d")], WORDPIECE, 8)
    with pytest.raises(BertwrightError, match="at least 3"):
        task.encode([task.example("b")], WORDPIECE, 2)


def test_entities_are_quoted_from_the_text():
    task = adopt(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    examples = [task.example("Peter Blackburn, 北京!"), task.example(["b", "c"])]
    tags = [["B-PER", "I-PER", "O", "I-LOC", "I-LOC", "O"], ["O", "O"]]
    first, second = task.decode(*logits_of(task, examples, tags), examples)
    assert [(each["entity_group"], each["word"], each["start"], each["end"]) for each in first["entities"]] == [
        ("PER", "Peter Blackburn", 0, 15),
        ("LOC", "北京", 17, 19),
    ]
    expected = torch.tensor([10.0, 0, 0, 0, 0]).softmax(-1)[0].item()
    assert first["entities"][0]["score"] == pytest.approx(expected)
    assert {type(each["score"]) for each in first["entities"]} == {float}
    assert (first["tags"], second) == (tags[0], {"entities": [], "tags": ["O", "O"]})


def test_an_entity_ends_with_its_line_only_where_lines_are_sentences():
    tags = [["B-PER", "I-PER"]]
    for document_context, count in ((True, 2), (False, 1)):
        task = TagTask(labels=("O", "B-PER", "I-PER"), document_context=document_context)
        examples = [task.example("Peter\nBlackburn")]
        (answer,) = task.decode(*logits_of(task, examples, tags), examples)
        assert len(answer["entities"]) == count


def test_windows_of_a_document_are_put_together():
    task = TagTask(labels=("O", "B-X", "I-X"), stride=2)
    examples = [task.example(["a"] * 30), task.example(["b"] * 3)]
    tags = [["B-X", *["I-X"] * 9, *["O"] * 10, "B-X", *["I-X"] * 9], ["O"] * 3]
    logits, features = logits_of(task, examples, tags, max_length=8)
    assert len(features) > 5
    found = task.decode(logits, features, examples)
    assert [each["tags"] for each in found] == tags
    assert [len(each["entities"]) for each in found] == [2, 0]


def test_scores_are_conllevals(tmp_path):
    examples = read(tmp_path, "x.txt", CONLL)
    task = TagTask().learn(examples)
    tags = [["B-ORG", "B-MISC", "I-MISC"], ["B-PER", "I-PER"]]
    predictions = task.decode(*logits_of(task, examples, tags), examples)
    gold = [tags_of(chunks_of(each)[0], len(each.words), "iob2") for each in examples]
    report = conll_report(gold, tags)
    scores = task.score(predictions, examples)
    assert scores == pytest.approx({name: report[name] for name in ("precision", "recall", "f1", "accuracy")})
    assert scores["f1"] == pytest.approx(2 / 3)
    assert task.details(predictions, examples)["per_class"]["ORG"]["f1"] == 1
    assert [task.error(*pair) for pair in zip(predictions, examples, strict=True)] == [2, 0]
    assert task.gold(examples[1]) == [{"entity_group": "PER", "word": "Peter Blackburn", "start": 0, "end": 15}]
    assert task.answers(examples[0]) == ["ORG", "MISC"]
    assert task.degenerate(predictions, examples) is None


def test_plain_scores(tmp_path):
    examples = read(tmp_path, "x.txt", CONLL, scheme="plain", tag_column=1)
    task = TagTask(scheme="plain").learn(examples)
    predictions = task.decode(*logits_of(task, examples, [["NNP", "NNP", "JJ"], ["NNP", "NNP"]]), examples)
    assert task.score(predictions, examples) == {"accuracy": 0.8, "macro_f1": pytest.approx((6 / 7 + 0 + 1) / 3)}
    assert task.details(predictions, examples)["labels"] == ["JJ", "NNP", "VBZ"]
    assert [task.error(*pair) for pair in zip(predictions, examples, strict=True)] == [1, 0]
    assert task.gold(examples[0]) == ["NNP", "VBZ", "JJ"]
    assert predictions[0]["entities"][0]["entity_group"] == "NNP"


def test_a_model_that_finds_nothing_says_so(tmp_path):
    examples = read(tmp_path, "x.txt", CONLL)
    task = TagTask().learn(examples)
    for tag, said in (("O", "none of the 3 entities"), ("B-PER", "every word of dev the tag 'B-PER'")):
        predictions = task.decode(*logits_of(task, examples, [[tag] * 3, [tag] * 2]), examples)
        assert said in task.degenerate(predictions, examples)


def test_the_marks_of_a_feature_are_its_tags(tmp_path):
    examples = read(tmp_path, "x.txt", CONLL)
    task = TagTask().learn(examples)
    assert task.marks(task.encode(examples, WORDPIECE, 16)[1]) == {1: "B-PER", 2: "I-PER"}


@pytest.mark.parametrize(
    ("labels", "scheme", "tags", "expected"),
    [
        (["B-LOC", "O", "I-LOC"], "iob2", ["B-LOC", "I-LOC"], ["b c"]),
        (["O", "I-PER", "I-LOC"], "iob2", ["I-PER", "I-LOC"], ["b", "c"]),
        (["O", "B-P", "I-P", "L-P", "U-P"], "bioes", ["B-P", "L-P"], ["b c"]),
        (["O", "B-P", "M-P", "E-P", "S-P"], "bioes", ["S-P", "M-P"], ["b", "c"]),
        (["[CLS]", "X", "O", "B-P", "I-P"], "iob2", ["I-P", "X"], ["b"]),
        (["NOUN", "VERB"], "plain", ["NOUN", "VERB"], ["b", "c"]),
    ],
)
def test_models_made_elsewhere_are_adopted(labels, scheme, tags, expected):
    task = adopt(labels)
    assert (task.labels, task.scheme) == (tuple(labels), scheme)
    examples = [task.example(["b", "c"])]
    (answer,) = task.decode(*logits_of(task, examples, [tags]), examples)
    assert [each["word"] for each in answer["entities"]] == expected
    assert answer["tags"] == tags


def test_an_adopted_model_is_scored_in_its_own_letters(tmp_path):
    task = adopt(["O", "B-PER", "I-PER", "L-PER", "U-PER"])
    examples = task.read(write(tmp_path, "x.bio", "b B-PER\nc I-PER\nd O\ne B-PER\n"))
    tags = [["B-PER", "L-PER", "O", "U-PER"]]
    scores = task.score(task.decode(*logits_of(task, examples, tags), examples), examples)
    assert set(scores.values()) == {1.0}


@pytest.mark.parametrize("asked", ["", " \n", [], ["a", ""], ["a", 3], {"texts": "a"}, 3, None])
def test_what_cannot_be_tagged_is_refused(asked):
    with pytest.raises(BertwrightError, match="text 1"):
        TagTask().example(asked, where="text 1")


def test_a_text_a_list_and_a_mapping_may_be_asked():
    task = TagTask()
    assert words(task.example("a b.")) == words(task.example(["a", "b", "."])) == ["a", "b", "."]
    assert task.example({"text": "a b."}).text == "a b."
    assert words(task.example({"tokens": ["a", "b"]})) == ["a", "b"]


def test_a_model_of_characters_sees_raw_text_as_characters(tmp_path):
    task = TagTask()
    characters = task.learn(read(tmp_path, "x.txt", "北 B-LOC\n京 I-LOC\n2 O\n0 O\n\na O\n"))
    assert characters.characters
    assert words(characters.example("北京 2008")) == ["北", "京", "2", "0", "0", "8"]
    spans = {"text": "北京 20", "entities": [{"start": 0, "end": 2, "label": "LOC"}]}
    [example] = characters.read(write(tmp_path, "x.jsonl", spans))
    assert (words(example), named(example)) == (["北", "京", "2", "0"], [("北京", "LOC")])
    for text in ("北 B-LOC\n京 I-LOC\n20 O\n", "a B-LOC\nb O\n"):
        learnt = task.learn(read(tmp_path, "x.txt", text))
        assert words(learnt.example("北京 2008")) == ["北", "京", "2008"]
    assert words(task.learn(read(tmp_path, "x.jsonl", spans)).example("2008")) == ["2008"]


def test_the_words_of_a_bare_example_are_found():
    task = adopt(["O", "B-X"])
    bare = [Example("b, c")]
    assert task.decode(*logits_of(task, bare, [["B-X", "O", "O"]]), bare)[0]["tags"] == ["B-X", "O", "O"]


def test_answers_go_back_into_a_conll_file(tmp_path):
    text = CONLL + "\n-DOCSTART- -X- O\n\nto TO O\n"
    for document_context in (False, True):
        examples = read(tmp_path, "x.txt", text, document_context=document_context)
        tags = [tags_of(chunks_of(each)[0], len(each.words), "iob2") for each in examples]
        write_conll(tmp_path / "out.txt", examples, [{"tags": each} for each in tags])
        assert (tmp_path / "out.txt").read_text() == (
            "EU B-ORG B-ORG\nrejects O O\nGerman B-MISC B-MISC\n\n"
            "Peter B-PER B-PER\nBlackburn I-PER I-PER\n\nto O O\n\n"
        )
    write_conll(tmp_path / "out.txt", [Example("New York", words=((0, 8),))], [{"tags": ["B-LOC"]}])
    assert (tmp_path / "out.txt").read_text() == "New_York B-LOC\n\n"


def test_a_model_learns_to_tag_and_answers_the_same_through_windows(tmp_path):
    examples = read(tmp_path, "x.txt", "\n\n".join([CONLL, "Peter NNP B-PER\ncall NN O\n"] * 4))
    task = TagTask(stride=1).learn(examples)
    config = BertConfig(
        vocab_size=WORDPIECE.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = Bert(config, {"tag": task.head(config)})
    batch = task.collate(task.encode(examples, WORDPIECE, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(60):
        step = task.loss(model(batch)["tag"], batch)
        optimizer.zero_grad()
        (step.losses["loss"].total / task.counts(batch)["loss"]).backward()
        optimizer.step()
    predictions = Predictor(model, WORDPIECE, task).predict_examples(examples)
    assert task.score(predictions, examples)["f1"] == 1
    (answer,) = Predictor(model, WORDPIECE, task, max_length=6).predict(["Peter Blackburn rejects German call to EU."])
    assert len(answer["tags"]) == 8


# ---- real data


@pytest.mark.parametrize(
    ("name", "sentences", "entities", "documents"),
    [
        pytest.param("train", 14_041, 23_499, 946, marks=pytest.mark.slow),
        ("valid", 3_250, 5_942, 216),
        ("test", 3_453, 5_648, 231),
    ],
)
def test_conll_2003_has_the_published_counts(shared_data, tmp_path, name, sentences, entities, documents):
    path = shared_data / f"tasks/en/CoNLL-2003/{name}.txt"
    examples = read_tagged(path, TagOptions())
    assert (len(examples), sum(len(each.label) for each in examples)) == (sentences, entities)
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("-DOCSTART-")]
    tags = [tags_of(chunks_of(each)[0], len(each.words), "iob2") for each in examples]
    assert [tag for each in tags for tag in each] == [row[-1] for row in rows]
    assert [word for each in examples for word in words(each)] == [row[0] for row in rows]
    report = conll_report(tags, tags)
    assert (report["f1"], report["accuracy"], report["tokens"]) == (1, 1, len(rows))
    whole = read_tagged(path, TagOptions(document_context=True))
    assert (len(whole), sum(len(each.label) for each in whole)) == (documents, entities)


def test_msra_is_read_as_chinese_text(shared_data):
    examples = TagTask().read(shared_data / "tasks/zh/MSRA-NER/dev.txt")
    assert (len(examples), sum(len(each.label) for each in examples)) == (4_631, 6_192)
    assert named(examples[0])[0][0] in examples[0].text
    chinese = [each.text for each in examples if any("\u4e00" <= char <= "\u9fff" for char in each.text)]
    assert len(chinese) > 4_600
    assert not any(" " in text for text in chinese)
