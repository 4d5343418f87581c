"""Tables as people have them: Parquet, odd line ends, separators and encodings, and what damaged ones are told."""

import csv
import gzip
import json
import logging
import math
import sys
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertwright.errors import BertwrightError
from bertwright.tasks.tables import EXTENSIONS, LONGEST_CELL, Row, read_table

COLUMNS = {"text": "text", "label": "label"}
PAIR = ("a", "b", "label")


@pytest.fixture
def parquet(tmp_path):
    """Write a Parquet file of these columns."""
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
    from pyarrow import parquet as writer

    def write(columns, name="a.parquet", **options):
        writer.write_table(pyarrow.table(columns), str(tmp_path / name), **options)
        return tmp_path / name

    return write


def values(path, columns=COLUMNS, **options):
    return [tuple(row.values.values()) for row in read_table(path, columns, **options)]


# Parquet


def test_parquet_gives_the_rows_of_the_other_kinds(parquet):
    path = parquet({"more": [[1], []], "label": [1, 0], "text": ["good", "很好"]})
    assert read_table(path, COLUMNS) == [
        Row(f"{path}, row 1", {"text": "good", "label": "1"}),
        Row(f"{path}, row 2", {"text": "很好", "label": "0"}),
    ]


def test_parquet_labels_are_numbers_truths_or_categories(parquet):
    import pyarrow

    categories = pyarrow.array(["x", "y"]).dictionary_encode()
    for labels, expected in (([1.5, 2.0], "1.5"), ([True, False], "true"), (categories, "x")):
        assert values(parquet({"text": ["a", "b"], "label": labels}))[0] == ("a", expected)


def test_parquet_lists_are_raw_values(parquet):
    path = parquet({"text": ["a", "b"], "label": [["x", "y"], None]})
    assert values(path, raw=["label"]) == [("a", ["x", "y"]), ("b", "")]


def test_large_parquet_files_come_in_order(parquet):
    path = parquet({"text": [f"t{number}" for number in range(5_000)], "label": [0] * 5_000}, row_group_size=700)
    rows = read_table(path, COLUMNS)
    assert [row.values["text"] for row in rows] == [f"t{number}" for number in range(5_000)]
    assert rows[-1].where == f"{path}, row 5,000"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"txt": ["a"], "label": [1]}, r"a\.parquet: no column 'text' \(did you mean 'txt'\?\).*\n.*--text-column"),
        ({"text": ["a", None], "label": [1, 2]}, r"row 2: column 'text' is empty"),
        ({"text": ["a", "b"], "label": [1.0, None]}, r"row 2: column 'label' is empty"),
        ({"text": ["a"], "label": [math.nan]}, r"row 1: column 'label' is empty"),
        ({"text": [b"a"], "label": [1]}, r"row 1: column 'text' must hold text"),
        ({"text": [7], "label": [1]}, r"row 1: column 'text' must hold text, not 7"),
        ({"text": ["a"], "label": [{"x": 1}]}, r"row 1: column 'label' must hold text, not \{'x': 1\}"),
        ({"text": [], "label": []}, "the file has no rows"),
    ],
)
def test_parquet_rows_that_cannot_be_used(parquet, columns, message):
    with pytest.raises(BertwrightError, match=message):
        read_table(parquet(columns), COLUMNS)


def test_damaged_parquet_files_are_named(parquet, written, tmp_path):
    whole = parquet({"text": [f"text {number}" for number in range(3_000)], "label": [1] * 3_000}).read_bytes()
    for damaged in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2], b"text,label\na,1\n", gzip.compress(whole)):
        with pytest.raises(BertwrightError, match=r"b\.parquet: not readable as Parquet"):
            read_table(written("b.parquet", damaged), COLUMNS)
    zeros = whole[:100] + bytes(len(whole) // 2) + whole[100 + len(whole) // 2 :]
    with pytest.raises(BertwrightError, match=r"b\.parquet.*not readable as Parquet"):
        read_table(written("b.parquet", zeros), COLUMNS)
    with pytest.raises(BertwrightError, match="no such file"):
        read_table(tmp_path / "c.parquet", COLUMNS)
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(BertwrightError, match="not readable as Parquet"):
        read_table(tmp_path / "d.parquet", COLUMNS)


def test_parquet_without_pyarrow_says_what_to_install(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BertwrightError, match=r"need the package pyarrow\n.*pip install 'bertwright\[data\]'"):
        read_table(written("a.parquet", b"PAR1"), COLUMNS)


def test_dots_in_names_of_parquet_columns_are_ordinary(parquet):
    path = parquet({"a.b": ["x"], "a": [{"b": "y"}], "label": [1]})
    assert values(path, {"text": "a.b", "label": "label"}) == [("x", "1")]


# Line ends, separators, encodings


def test_lines_of_old_macs_are_named(written):
    for name, content in (("a.csv", "text,label\ra,1\r"), ("a.tsv", "text\tlabel\ra\t1\r")):
        with pytest.raises(BertwrightError, match=r"lines end in CR alone: tr '\\r' '\\n'"):
            read_table(written(name, content), COLUMNS)
    with pytest.raises(BertwrightError, match="lines end in CR alone"):
        read_table(written("a.jsonl", '{"text": "a", "label": 1}\r{"text": "b", "label": 1}\r'), COLUMNS)


def test_a_carriage_return_inside_a_text_is_text(written):
    assert values(written("a.tsv", "text\tlabel\na\rb\t1\n")) == [("a\rb", "1")]
    assert values(written("a.csv", 'text,label\n"a\rb",1\n')) == [("a\rb", "1")]


def test_txt_files_have_tabs(written):
    content = "one\ttwo\t0\nthree\tfour\t1\n"
    assert values(written("a.txt", content), {"a": "a", "label": "label"}, header=PAIR) == [
        ("one", "0"),
        ("three", "1"),
    ]
    assert values(written("a.txt", "text\tlabel\na\t1\n")) == [("a", "1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "one\ttwo\t0\n", r"row 1: expected 3 columns, found 1\n.*separated by '\\t': rename it to \.tsv"),
        ("a.csv", "one;two;0\n", r"separated by ';': save it with commas"),
        ("a.tsv", "one,two,0\n", r"separated by ',': rename it to \.csv"),
        ("a.tsv", "one\ttwo\t0\na\tb\n", r"row 2: expected 3 columns, found 2\n.*save it as \.jsonl"),
        ("a.tsv", "one\ttwo\t0\na\tb\t0\t\n", r"row 2: expected 3 columns, found 4"),
        ("a.tsv", "one\ttwo\t0\na\n", r"row 2: expected 3 columns, found 1\n.*save it as \.jsonl"),
        ("a.tsv", "a\tb\tlabel\none\ttwo\t0\n", r"row 1: this line names the columns\n.*leave out --columns"),
        ("a.tsv", "", "the file has no rows"),
    ],
)
def test_files_without_header_that_are_otherwise(written, name, content, message):
    with pytest.raises(BertwrightError, match=message):
        read_table(written(name, content), {"text": "a", "label": "label"}, header=PAIR)


def test_given_names_of_columns_are_checked(written):
    path = written("a.tsv", "one\ttwo\t0\n")
    with pytest.raises(BertwrightError, match=r"--columns: no column 'text'; there is 'a', 'b', 'label'"):
        read_table(path, COLUMNS, header=PAIR)
    with pytest.raises(BertwrightError, match=r"--columns: 2 columns are named 'text'"):
        read_table(path, COLUMNS, header=("text", "text", "label"))


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_rows_of_empty_cells_are_left_out_and_counted(written, caplog, name, separator):
    lines = ["text,label", "a,1", ",", "", " , ", "b,0", ","]
    path = written(name, "\n".join(lines).replace(",", separator) + "\n")
    with caplog.at_level(logging.WARNING):
        assert values(path) == [("a", "1"), ("b", "0")]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: left out 3 rows of which every cell is empty"
    ]


@pytest.mark.parametrize("extension", EXTENSIONS[:3])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_refused(written, extension, encoding):
    wanted = "UTF-16|binary" if encoding.startswith("utf-16-") or encoding == "utf-32" else "UTF-16"
    with pytest.raises(BertwrightError, match=rf"row 1: ({wanted}).*\n.*save it as UTF-8"):
        read_table(written(f"a{extension}", "text,label\n很好,1\n".encode(encoding)), COLUMNS)


def test_columns_that_are_not_wanted_may_be_anything(written):
    assert values(written("a.csv", "text,note,note,,label\na,,x,,1\n")) == [("a", "1")]
    line = '{"text": "a", "label": 1, "x": NaN, "y": {"z": [Infinity]}}\n'
    assert values(written("a.jsonl", line)) == [("a", "1")]


def test_quirks_of_glue_are_read(written):
    content = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said " no .\t" yes " .\n0\t7\t8\t"\tb"\n'
    wanted = {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}
    assert values(written("msr_paraphrase_train.txt", content), wanted) == [
        ('He said " no .', '" yes " .', "1"),
        ('"', 'b"', "0"),
    ]
    short = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n4\t5\tHow?\n"
    with pytest.raises(BertwrightError, match=r"train\.tsv, row 3: expected 6 columns, found 3"):
        read_table(written("train.tsv", short), {"text": "question1", "label": "is_duplicate"})
    with pytest.raises(BertwrightError, match=r"row 2: column 'question2' is empty"):
        read_table(written("b.tsv", short.replace("\tb\t", "\t\t")), {"text": "question1", "text_pair": "question2"})


# JSON Lines


def test_values_as_deep_as_json_may_be_are_refused(written):
    for depth in (10, 800, 900, *range(930, 1000, 3), 2_000):
        for line in ('{"text": %s, "label": 1}', '{"text": "a \\ud800", "label": %s}', "[%s]"):
            with pytest.raises(BertwrightError, match=r"row 1: (not valid JSON|column|expected)"):
                read_table(written("a.jsonl", line % ("[" * depth + "]" * depth)), COLUMNS)


def test_a_number_of_hundreds_of_digits_is_a_label(written):
    number = "9" * 400
    assert values(written("a.jsonl", f'{{"text": "a", "label": {number}}}')) == [("a", number)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "label": 1, "text": "b"}', r"row 1: the key 'text' is there twice"),
        ('{"text": "a", "label": NaN}', r"row 1: column 'label' is empty"),
        ('{"text": "a", "label": Infinity}', r"row 1: column 'label' must hold text, not inf"),
        ('{"text": "a", "label": 1e999}', r"must hold text, not inf"),
        ('{"text": ["a"], "label": 1}', r"column 'text' must hold text, not \['a'\]"),
        (f'{{"text": "a", "label": {"9" * 5_000}}}', r"row 1: not valid JSON"),
        ('[{"text": "a", "label": 1}]', r"row 1: expected a JSON object, found \[.*\n.*without brackets"),
        ("{", r"row 1: not valid JSON.*\n.*one JSON object a line"),
        ('"text"', r"expected a JSON object, found 'text'"),
        ("{}", r"no column 'text'; there is "),
    ],
)
def test_json_that_means_nothing(written, line, message):
    with pytest.raises(BertwrightError, match=message):
        read_table(written("a.jsonl", line + "\n"), COLUMNS)


def test_half_a_character_is_replaced_and_counted(written, caplog):
    lines = [
        '{"text": "a \\ud83d", "label": 1}',
        '{"text": "\\ud83d\\ude00", "label": 1}',
        '{"text": "\\uDE00 x", "label": 1}',
    ]
    with caplog.at_level(logging.WARNING):
        found = values(written("a.jsonl", "\n".join(lines)))
    assert found == [("a \ufffd", "1"), ("😀", "1"), ("\ufffd x", "1")]
    assert "2 halves of surrogate pairs became U+FFFD" in caplog.text


# Size


def test_long_texts_are_no_mistake(written):
    text = "word " * 100_000
    assert values(written("a.csv", f"text,label\n{text},1\n")) == [(text, "1")]
    assert values(written("a.csv", f'text,label\n"{text}",1\n')) == [(text, "1")]
    assert csv.field_size_limit() == 131_072


def test_a_quote_that_is_never_closed_does_not_swallow_a_large_file(written):
    path = written("a.csv", 'text,label\n"a,1\n' + "b,0\n" * (LONGEST_CELL // 4))
    with pytest.raises(BertwrightError, match=r"row 2: not valid CSV .*\n.*a double quote that is not closed"):
        read_table(path, COLUMNS)
    assert csv.field_size_limit() == 131_072


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
@pytest.mark.parametrize("start", ["", '"', "{", "text", '{"text": "', "["])
def test_messages_are_short_however_long_the_line(written, name, start):
    for filler in ("x", "x,", "x\t", "[", "\\u12"):
        with pytest.raises(BertwrightError) as caught:
            read_table(written(name, start + filler * 100_000 + "\n"), COLUMNS)
        assert len(str(caught.value)) < 2_500


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_one_long_line_takes_a_few_times_its_size(written, kind):
    size = 8_000_000
    text = "word " * (size // 5)
    line = {"csv": f"{text},1", "tsv": f"{text}\t1", "jsonl": json.dumps({"text": text, "label": 1})}[kind]
    header = {"csv": "text,label\n", "tsv": "text\tlabel\n", "jsonl": ""}[kind]
    path = written(f"a.{kind}", header + line + "\n")
    del line
    tracemalloc.start()
    try:
        assert len(read_table(path, COLUMNS)[0].values["text"]) == size
        assert tracemalloc.get_traced_memory()[1] < (11 if kind == "csv" else 3.2) * size
    finally:
        tracemalloc.stop()


# Anything at all

_PIECES = st.sampled_from(
    [
        *(
            b"text",
            b"label",
            b",",
            b"\t",
            b";",
            b"\n",
            b"\r",
            b'"',
            b'""',
            b"\0",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"{",
            b"}",
        ),
        *(b"[", b"]", b":", b'"text"', b'"label"', b"null", b"NaN", b"1e999", b"\\ud800", b"\\", b" ", b"1", b"a"),
        *("很好".encode(), "很好".encode("gb18030"), b"text,label\n", b"text\tlabel\n"),
        *(b'{"text": "a", "label": 1}\n', b'"\\udfff"'),
    ]
)
_FILES = st.one_of(st.binary(max_size=200), st.lists(_PIECES, max_size=24).map(b"".join))


def outcome(path, **options):
    """Return the rows of a table, or what is said of it; nothing else may happen."""
    try:
        return read_table(path, COLUMNS, **options), ""
    except BertwrightError as error:
        return [], str(error)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.csv.gz", "a.jsonl.xz", "a.tsv.zst"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_FILES, header=st.sampled_from([(), ("text", "label"), ("text", "text")]), raw=st.booleans())
def test_any_bytes_are_a_table_or_refused(tmp_path, name, content, header, raw):
    path = tmp_path / name
    path.write_bytes(content)
    rows, message = outcome(path, header=header, raw=["label"] if raw else [])
    assert rows or str(path) in message or "--columns" in message
    assert message.encode("utf-8") or rows
    for row in rows:
        assert row.values["text"].strip()
        assert row.values["text"].encode("utf-8")
        assert raw or row.values["label"].strip()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_parquet_is_a_table_or_refused(parquet, data):
    path = parquet({"text": ["good", "bad", "很好"], "label": [1, 0, 1]})
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    rows, message = outcome(path)
    assert rows or str(path) in message
    assert all(row.values["text"].strip() for row in rows)


# Real files

SENTENCES = ("sentence1", "sentence2")
REAL = [
    ("en/SST-2/train.tsv", ("sentence", "label"), (), 67_349),
    ("en/SST-2/test.tsv", ("sentence",), (), 1_821),
    ("en/CoLA/train.tsv", ("sentence", "label"), ("source", "label", "mark", "sentence"), 8_551),
    ("en/CoLA/dev.tsv", ("sentence", "label"), ("source", "label", "mark", "sentence"), 1_043),
    ("en/CoLA/test.tsv", ("sentence",), (), 1_063),
    ("en/MRPC/msr_paraphrase_train.txt", ("#1 String", "#2 String", "Quality"), (), 4_076),
    ("en/MRPC/dev.tsv", ("#1 String", "#2 String", "Quality"), (), 408),
    ("en/RTE/train.tsv", (*SENTENCES, "label"), (), 2_490),
    ("en/RTE/test.tsv", SENTENCES, (), 3_000),
    ("en/QNLI/dev.tsv", ("question", "sentence", "label"), (), 5_463),
    ("en/WNLI/train.tsv", (*SENTENCES, "label"), (), 635),
    ("en/AX/diagnostic.tsv", SENTENCES, (), 1_104),
    ("en/STS-B/train.tsv", (*SENTENCES, "score"), (), 5_749),
    ("en/STS-B/dev.tsv", (*SENTENCES, "score"), (), 1_500),
    ("en/STS-B/test.tsv", SENTENCES, (), 1_379),
    ("zh/ChnSentiCorp/train.tsv", ("text_a", "label"), (), 9_600),
    ("zh/AFQMC/train.txt", PAIR, PAIR, 34_334),
    ("zh/AFQMC/dev.txt", PAIR, PAIR, 4_316),
    ("zh/AFQMC/test.txt", PAIR[:2], PAIR[:2], 3_861),
    ("zh/STS-B/sts-b-train.txt", PAIR, PAIR, 5_231),
    ("zh/STS-B/sts-b-dev.txt", PAIR, PAIR, 1_458),
]


@pytest.mark.parametrize(("path", "columns", "header", "count"), REAL, ids=[each[0] for each in REAL])
def test_real_files_are_read_whole(shared_data, caplog, path, columns, header, count):
    with caplog.at_level(logging.WARNING):
        rows = read_table(shared_data / "tasks" / path, {name: name for name in columns}, header=header)
    assert len(rows) == count
    assert not caplog.records
