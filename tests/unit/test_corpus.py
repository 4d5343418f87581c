"""Files to documents to sentences, and every way in which a file can be wrong."""

import gzip
import json
import logging
import lzma
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bertwright.errors import BertwrightError
from bertwright.text.corpus import Reading, documents, find_files, read_texts
from bertwright.text.sentences import split_sentences

TWO_DOCUMENTS = "First line.\nSecond line.\n\n \nAnother text.\n"


def pack(data: bytes, suffix: str) -> bytes:
    if suffix == ".zst":
        return zstandard.ZstdCompressor().compress(data)
    return {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix](data)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_reads_text_and_json_lines_packed_or_not(tmp_path: Path, suffix: str) -> None:
    rows = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(["One. Two.", "三。四！"]))
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(TWO_DOCUMENTS.encode(), suffix))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(rows.encode(), suffix))
    assert list(documents([tmp_path])) == [
        ["First line.", "Second line."],
        ["Another text."],
        ["One.", "Two."],
        ["三。", "四！"],
    ]


def test_several_compressed_streams_in_one_file(tmp_path: Path) -> None:
    for suffix in (".gz", ".xz", ".zst"):
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(pack(b"One.\n\n", suffix) + pack(b"Two.\n", suffix))
        assert list(read_texts(path)) == ["One.\n", "Two.\n"]


def test_finds_files_sorted_and_once(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = [tmp_path / "b.txt", tmp_path / "deep" / "a.jsonl.xz", tmp_path / "deep" / "er" / "c.TXT"]
    for file in [*files, tmp_path / "deep" / "picture.png"]:
        file.touch()
    assert find_files([tmp_path]) == sorted(files)
    assert find_files([tmp_path / "**" / "*.txt", tmp_path, files[0]]) == sorted(files)


def test_a_file_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("Text.\n")
    assert find_files([tmp_path / "a[1].txt"]) == [tmp_path / "a[1].txt"]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffOne.\r\n\r\nTwo.\r\n".encode())
    (tmp_path / "b.jsonl").write_bytes('\ufeff{"text": "Three."}\r\n'.encode())
    assert list(documents([tmp_path])) == [["One."], ["Two."], ["Three."]]


def test_gb18030_is_recognised_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Title\n中文文本，很好。\n第二句。\n".encode("gb18030"))
    with caplog.at_level(logging.WARNING):
        assert list(documents([path])) == [["Title", "中文文本，很好。", "第二句。"]]
    assert "GB18030" in caplog.text
    assert str(path) in caplog.text


def test_empty_texts_and_broken_surrogates_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n\n{"text": "half \\ud83d, whole \\ud83d\\ude00"}\n{"text": " "}\n')
    with caplog.at_level(logging.WARNING):
        assert list(read_texts(path)) == ["half \ufffd, whole 😀"]
    assert "2 rows whose text is empty" in caplog.text
    assert "in 1 rows" in caplog.text


def write_parquet(path: Path, columns: dict[str, list[Any]], **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), str(path), **options)
    return path


@pytest.mark.parametrize("row_group_size", [1, 7, 64, 1000])
def test_parquet_is_read_row_by_row(tmp_path: Path, row_group_size: int) -> None:
    texts = [f"Text {number}.\nMore." for number in range(200)]
    path = write_parquet(tmp_path / "A.Parquet", {"id": range(200), "text": texts}, row_group_size=row_group_size)
    assert find_files([tmp_path]) == [path]
    reading = Reading()
    assert list(read_texts(path, reading=reading)) == texts
    assert reading.share == 1


def test_a_row_group_as_large_as_the_file_is_not_held_as_a_whole(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [rng.randbytes(2500).hex() for _ in range(8000)]  # 40 MB
    path = write_parquet(tmp_path / "a.parquet", {"text": texts}, row_group_size=10_000, use_dictionary=False)
    pyarrow = pytest.importorskip("pyarrow")
    held = [pyarrow.total_allocated_bytes() for _ in read_texts(path)]
    assert len(held) == len(texts)
    assert max(held) < 20_000_000


def test_parquet_kinds_of_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import pyarrow

    texts = ["One.", None, "", " \n", "二。", "Three. 😀"]
    for name, kind in (("a", pyarrow.string()), ("b", pyarrow.large_string())):
        write_parquet(tmp_path / f"{name}.parquet", {"text": pyarrow.array(texts, kind)})
    write_parquet(tmp_path / "c.parquet", {"text": pyarrow.array(texts).dictionary_encode()})
    with caplog.at_level(logging.WARNING):
        assert list(documents([tmp_path])) == [["One."], ["二。"], ["Three.", "😀"]] * 3
    assert caplog.text.count("3 rows whose text is empty") == 3


def test_another_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"text": [1, 2], "body": ["One.", "Two."]})
    (tmp_path / "b.jsonl").write_text('{"text": 3, "body": "Three."}\n')
    (tmp_path / "c.txt").write_text("Four.\n")
    assert list(documents([tmp_path], text_column="body")) == [["One."], ["Two."], ["Three."], ["Four."]]


def test_parquet_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "columns.parquet", {"id": [1], "texts": ["a"]})
    write_parquet(tmp_path / "numbers.parquet", {"text": [1, 2]})
    write_parquet(tmp_path / "empty.parquet", {"text": ["", None]})
    data = write_parquet(tmp_path / "whole.parquet", {"text": ["text"] * 99}).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[:-20])
    (tmp_path / "not.parquet").write_text("text")
    for name, message, fix in (
        ("columns", "no column 'text' (did you mean 'texts'?), but 'id', 'texts'", "--text-column"),
        ("numbers", "row 1: expected a string under 'text', but it is int", "--text-column"),
        ("empty", "no text in this file", "remove it"),
        ("cut", "not readable as Parquet", "download the file again"),
        ("not", "not readable as Parquet", "download the file again"),
    ):
        with pytest.raises(BertwrightError) as caught:
            list(read_texts(tmp_path / f"{name}.parquet"))
        assert message in str(caught.value)
        assert f"{name}.parquet" in str(caught.value)
        assert fix in str(caught.value.fix)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BertwrightError, match=r"need the package pyarrow\n.*pip install 'bertwright\[data\]'"):
        list(read_texts(tmp_path / "whole.parquet"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_a_watch_sees_how_far_the_reading_is(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(0)
    rows = [json.dumps({"text": rng.randbytes(20_000).hex()}) for _ in range(100)]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack("\n".join(rows).encode(), suffix))
    reading = Reading()
    assert reading.share == 0
    shares = [reading.share for _ in read_texts(path, reading=reading)]
    assert shares == sorted(shares)
    assert shares[0] < 0.4
    assert abs(shares[49] - 0.5) < 0.4
    assert shares[-1] == 1


BAD_FILES = {
    "empty.txt": (b"", "no text in this file"),
    "blank.txt": (b"\n \n\n", "no text in this file"),
    "empty.jsonl": (b'{"text": ""}\n', "no text in this file"),
    "picture.txt": (b"GIF89a\n\x00\x00", "row 2: binary data"),
    "utf16.txt": ("Text\n".encode("utf-16"), "row 1: UTF-16"),
    "latin.txt": ("Fine.\nnaïve café\n".encode("latin-1"), "row 2: byte 0xef is not UTF-8"),
    "mixed.txt": ("中文。\n".encode() + "中文。\n".encode("gb18030"), "row 2: byte 0xd6 is not UTF-8"),
    "no_text.jsonl": (
        b'{"text": "a"}\n{"body": "b"}\n',
        "row 2: expected a string under 'text', but its keys are 'body'",
    ),
    "near.jsonl": (b'{"Text": "b"}\n', "but its keys are 'Text' (did you mean 'Text'?)"),
    "null.jsonl": (b'{"text": null}\n', "row 1: expected a string under 'text', but it is NoneType"),
    "list.jsonl": (b'["text"]\n', "row 1: expected a JSON object, found list"),
    "half.jsonl": (b'{"text": "a"}\n{"text": "b\n', "row 2: not valid JSON"),
    "cut.txt.gz": (gzip.compress(b"Text.\n" * 9999)[:-20], "damaged compressed data"),
    "cut.txt.xz": (lzma.compress(b"Text.\n" * 9999)[:-20], "damaged compressed data"),
    "cut.txt.zst": (zstandard.ZstdCompressor().compress(b"Text.\n" * 9999)[:-3], "damaged compressed data"),
    "not.txt.gz": (b"plain text\n", "damaged compressed data"),
    "not.txt.xz": (b"plain text\n", "damaged compressed data"),
    "not.txt.zst": (b"plain text\n", "damaged compressed data"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BertwrightError) as caught:
        list(documents([tmp_path / name]))
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert caught.value.fix or name == "list.jsonl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", "no such file, folder or pattern"),
        ("*.jsonl", "no such file, folder or pattern"),
        ("nothing", "no corpus file in this folder"),
        ("book.pdf", "not a kind of corpus file"),
    ],
)
def test_a_path_without_corpus_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "book.pdf").touch()
    with pytest.raises(BertwrightError, match=message) as caught:
        find_files([tmp_path / name])
    assert name in str(caught.value)


SPLITS = [
    "Dr. Smith paid $3.50.| He left.",
    "It grew 3.5 % in the U.S.| The rest shrank.",
    "The U.S. Army met J. R. R. Tolkien at 4 a.m. sharp.| Why?| Nobody knows!",
    "He works at Acme Inc. in Boston.| So does she.",
    "See Fig. 3 and No. 5, e.g. the one by Jones et al. (1999).| It is clear.",
    "The answer is no.| He sat.| The sun set.",
    '"Stop!" he cried.| "Why?"| She ran.',
    "“It is over.”| (He was wrong.)| Then … it began.",
    "Wait... what?| Really...| Yes.",
    "It is cited.[12][3]| This is not.[4]",
    "Visit example.com or read v1.2.3 today.| Thanks.",
    "1. Introduction",
    "World War II ended in 1945.| Peace came.",
    "他说：“你好！”|然后走了。|真的吗？！|是的……|好；|走吧",
    "「来吧。」|他说。|《前进！》，一部电影。",
    "价格是3.5元。|他用ASCII标点!|对吗?|对.",
    "他来自U.S.A.公司。",
    "Первое предложение.| Второе предложение!",
    "no full stop",
]


@pytest.mark.parametrize("text", SPLITS)
def test_splits_sentences(text: str) -> None:
    assert split_sentences(text.replace("|", "")) == [sentence.strip() for sentence in text.split("|")]


@pytest.mark.parametrize(
    "text",
    [
        "今天 天气 很 好 。| 我们 去 公园 玩 。| 真的 吗 ？| 真的 ！",
        "太 好 了 ！ ！| 我们 走 吧 … …| 真的 ？ ！| 第 一 ；| 第 二 。",
        "真的 吗 ？ ”| 他 问 。| “ 是 的 ！ ”| 她 说 。| 「 来 吧 。 」| 他 笑 了 。",
        "（ 这 是 注 。 ）| 下 一 句 。| 价格 是 3.5 元 。| 对 吗 ?| 对 .| 好",
        "他 说 ： “ 好 。 ”| “ 走 吧 。 ”| 《 前进 ！ 》 ， 一 部 电影 。",
    ],
)
def test_white_space_between_chinese_words_changes_no_sentence(text: str) -> None:
    expected = [sentence.strip() for sentence in text.split("|")]
    assert split_sentences(text.replace("|", "")) == expected
    together = [sentence.replace(" ", "") for sentence in expected]
    assert split_sentences(text.replace("|", "").replace(" ", "")) == together


def test_a_quote_that_opens_after_a_blank_is_no_closing_one() -> None:
    assert split_sentences("他走了。 ”再见”，她说。") == ["他走了。", "”再见”，她说。"]


def test_one_sentence_a_line_stays_as_it_is() -> None:
    lines = [
        "Plain line.",
        "Another one without a stop",
        "lower case start.",
        "Mr. X came. Really.",
        *["Long " * 20] * 3,
    ]
    assert split_sentences("\n".join(lines)) == [line.strip() for line in lines]


def test_lower_case_lines_are_not_joined() -> None:
    assert split_sentences("so it goes\nand so on\nfor ever") == ["so it goes", "and so on", "for ever"]


def test_wrapped_lines_are_joined() -> None:
    text = "Return the number of items in the\ncontainer. Raises nothing, but may\nbe slow.\nUse it\nwith care.\n"
    assert split_sentences(text) == [
        "Return the number of items in the container.",
        "Raises nothing, but may be slow.",
        "Use it with care.",
    ]


def test_paragraphs_are_split_and_headings_kept() -> None:
    assert split_sentences("History.\nIt began. It ended.\n\nLegacy\nNobody cared. Nobody asked.") == [
        "History.", "It began.", "It ended.", "Legacy", "Nobody cared.", "Nobody asked.",
    ]  # fmt: skip


def test_google_sample_keeps_its_lines(shared_data: Path) -> None:
    path = shared_data / "corpora" / "google-sample_text.txt"
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    assert list(documents([path])) == [[line.strip() for line in block.split("\n")] for block in blocks]


@pytest.mark.parametrize(
    ("name", "shortest", "longest"), [("en-wikipedia-featured", 90, 190), ("zh-wikipedia-part", 25, 60)]
)
def test_real_sentences_have_a_sensible_length(shared_data: Path, name: str, shortest: int, longest: int) -> None:
    texts = read_texts(shared_data / "corpora" / f"{name}.jsonl.xz")
    sentences = [sentence for text, _ in zip(texts, range(40), strict=False) for sentence in split_sentences(text)]
    assert shortest < sum(map(len, sentences)) / len(sentences) < longest
    endings = sum(sentence[-1] in '.!?。！？；…"”』」)' for sentence in sentences)
    assert endings / len(sentences) > 0.85


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("big5", "我們在這裡學習中文，天氣很好。"), ("euc-jp", "これはにほんごのぶんしょうです。")],
)
def test_other_eastern_encodings_are_refused(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"{text}\n".encode(encoding))
    with pytest.raises(BertwrightError, match=r"row 1: byte 0x.. is not UTF-8"):
        list(read_texts(tmp_path / "a.txt"))


def test_a_json_row_nested_too_deep_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 200_000 + "\n")
    with pytest.raises(BertwrightError, match="row 1"):
        list(read_texts(tmp_path / "a.jsonl"))


HOSTILE = ["a" + "." * 200_000 + "b", "字" + "…." * 100_000 + "b", "A. " * 100_000, "字。" + " " * 200_000 + "b",
           "字" + "。 " * 100_000 + "b", "字。" + " ”" * 100_000 + "b", "字 . " * 50_000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_punctuation_takes_linear_time(text: str) -> None:
    assert "".join(split_sentences(text)).replace(" ", "") == text.replace(" ", "")
