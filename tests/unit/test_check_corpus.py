"""A look at a raw corpus: every finding provoked and not, copies of known similarity, leaks, bounded memory."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from bertwright.cli import run
from bertwright.data.check import CorpusCheck, check_corpus
from bertwright.data.check.duplicates import SHINGLE, SIMILAR, Duplicates, Fingerprints, fingerprints
from bertwright.data.check.frequent import Frequent
from bertwright.data.check.leaks import Sought, Text, read_strings
from bertwright.data.check.part import Document, Examiner, Work, histogram
from bertwright.data.check.shingles import joined, units_of, wholes, windows
from bertwright.data.check.state import MOST_IN_A_FILE, PART_CHARACTERS, Reader, State
from bertwright.errors import BertwrightError
from bertwright.text.characters import KINDS, CharacterKinds, chinese_forms, code_points, kind_of
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

Write = Callable[[str, str | bytes], Path]

ENGLISH = (
    "The wheelwright took the old wheel off the cart. He looked at the broken spokes for a long while.",
    "Oak is a hard wood and grows slowly in poor soil. Coopers make barrels of it, and wrights make ships.",
    "Nobody in the village knew when the mill was built. Its stones came up the river on a barge.",
)
CHINESE = (
    "车轮是人类最重要的发明之一，出现在五千多年以前。最早的车轮是用整块木板做成的。",
    "橡木是一种坚硬的木材，在贫瘠的土壤里生长得很慢。人们用它来造船和做酒桶。",
    "村里没有人知道磨坊是什么时候建成的。磨盘是用驳船沿着河水运上来的。",
)


def corpus(folder: Path, documents: list[str] | tuple[str, ...]) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def look(folder: Path, documents: list[str] | tuple[str, ...], *words: WordPiece, **asked: Any) -> CorpusCheck:
    return check_corpus([corpus(folder, documents)], *words, workers=1, **asked)


def found_by(check: CorpusCheck) -> list[str]:
    return [finding["what"] for finding in check.findings]


# Characters


@pytest.mark.parametrize(
    ("chars", "kind"),
    [
        ("aZéßＡ", "latin"), ("中々〇", "han"), ("あアー", "kana"), ("한", "hangul"), ("Жя", "cyrillic"),
        ("λ", "greek"), ("عَ", "arabic"), ("ש", "hebrew"), ("हि", "devanagari"), ("ก", "thai"), ("ა", "other_letters"),
        ("3½٣", "digits"), (".，“-", "punctuation"), ("+€😀\u200d\ufe0f", "symbols"), ("\t\n \u3000", "space"),
        ("\ufffd", "replacement"), ("\0\x07\x0b", "control"), ("\ue000", "private"), ("\ud800", "half_surrogate"),
        ("\u200b\ufeff\u00ad", "invisible"),
    ],
)  # fmt: skip
def test_kinds_of_characters(chars: str, kind: str) -> None:
    assert {kind_of(char) for char in chars} == {kind}
    table = CharacterKinds()
    for _ in range(2):  # filled, and then looked up
        assert [KINDS[number] for number in table.of(code_points(chars))] == [kind] * len(chars)


def test_simplified_and_traditional_characters() -> None:
    assert chinese_forms(code_points("国门發國里中aé😀")).tolist() == [1, 1, 2, 2, 0, 0, 0, 0, 0]


# Shingles

TEXTS = st.lists(st.text("ab中 ,.Aé", max_size=12), max_size=6)


def plain_units(text: str) -> list[str]:
    """The plain twin of `units_of`."""
    units, word = [], ""
    for char in text.casefold() + " ":
        if char in "abé":
            word += char
            continue
        units += [word] * bool(word) + [char] * (char == "中")
        word = ""
    return units


@given(TEXTS, st.integers(1, 4))
@settings(deadline=None)
def test_runs_are_equal_where_their_words_are(texts: list[str], size: int) -> None:
    plain = [plain_units(text) for text in texts]
    units = units_of(texts)
    assert units.lengths.tolist() == [len(each) for each in plain]
    assert units.is_character.tolist() == [unit == "中" for each in plain for unit in each]
    runs = [
        (text, tuple(each[at : at + size])) for text, each in enumerate(plain) for at in range(len(each) - size + 1)
    ]
    made = windows(units, size)
    assert made.texts.tolist() == [text for text, _ in runs]
    assert_same_partition([words for _, words in runs], made.hashes.tolist())
    assert_same_partition([tuple(each) for each in plain], wholes(units).tolist())


def assert_same_partition(things: list[tuple[str, ...]], hashes: list[int]) -> None:
    assert len(things) == len(hashes)
    assert len({*things}) == len({*hashes}) == len({*zip(things, hashes, strict=True)})


def test_sentences_joined_are_their_document() -> None:
    apart = units_of(["One cat.", "Two dogs", "", "Three birds!"])
    whole = units_of(["one cat two dogs", "three birds"])
    assert wholes(joined(apart, np.array([2, 4]))).tolist() == wholes(whole).tolist()


def test_letters_in_another_order_are_another_word() -> None:
    assert len({*units_of(["ab ba abc acb " + "x" * 63 + "yz " + "x" * 63 + "zy"]).hashes.tolist()}) == 6


# Copies


def find_duplicates(texts: list[str], most: int = 1 << 10, shown: int = 5) -> Duplicates:
    table = Fingerprints(most)
    table.add(fingerprints(units_of(texts), np.zeros(len(texts), np.int64), np.arange(1, len(texts) + 1)))
    return table.duplicates(shown)


def pair_of(similarity: float, seed: int, *, chinese: bool, shingles: int = 400) -> tuple[list[str], float]:
    """Two texts whose sets of shingles overlap by about so much, and by exactly how much."""
    draw = random.Random(seed)
    if chinese:
        make, glue = (lambda: chr(draw.randrange(0x4E00, 0x9FA5))), ""
    else:
        make, glue = (lambda: "".join(draw.choices("abcdefghij", k=7))), " "
    shared = round(2 * shingles * similarity / (1 + similarity))
    first = [make() for _ in range(shingles + SHINGLE - 1)]
    second = first[: shared + SHINGLE - 1] + [make() for _ in range(shingles - shared)]
    one, other = ({*zip(*(words[at:] for at in range(SHINGLE)), strict=False)} for words in (first, second))
    return [glue.join(first), glue.join(second)], len(one & other) / len(one | other)


@pytest.mark.parametrize("chinese", [False, True])
@pytest.mark.parametrize(("similarity", "is_near"), [(0.95, True), (0.92, True), (0.6, False), (0.3, False)])
def test_near_copies_are_found_from_the_stated_similarity(*, similarity: float, is_near: bool, chinese: bool) -> None:
    for seed in range(8):
        texts, true = pair_of(similarity, seed, chinese=chinese)
        assert abs(true - similarity) < 0.01
        found = find_duplicates(["Something else stands here, which nobody else says.", *texts])
        assert (found.exact, found.near) == (0, int(is_near))
        for pair in found.near_pairs:
            assert (pair.first, pair.second) == ((0, 2), (0, 3))
            assert abs(pair.similarity - true) < 0.12  # more than four standard deviations of 128 hashes
            assert pair.similarity >= SIMILAR


def test_exact_copies_differ_in_case_punctuation_and_space_at_most() -> None:
    found = find_duplicates(
        ["The cat sat.", "A dog", "the  CAT, sat", "the cat sat down", "The cat sat.", "中文。", "中 文"]
    )
    assert (found.exact, found.near, found.compared) == (3, 0, 7)
    assert [(pair.first[1], pair.second[1]) for pair in found.exact_pairs] == [(1, 3), (1, 5), (6, 7)]


def test_a_copy_of_a_near_copy_is_an_exact_one() -> None:
    texts, _ = pair_of(0.95, 1, chinese=False)
    found = find_duplicates([*texts, texts[1]])
    assert (found.exact, found.near) == (1, 1)


def test_fingerprints_stay_within_their_memory_and_keep_shares() -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefgh", k=30)) for _ in range(3000)]
    table = Fingerprints(most=500)
    for start in range(0, 3000, 100):
        batch = texts[start : start + 100] * 2  # each twice
        table.add(fingerprints(units_of(batch), np.zeros(200, np.int64), np.arange(200)))
        assert table.capacity <= 500
    found = table.duplicates()
    assert found.is_sample
    assert 100 < found.compared <= 500
    assert 2 * found.exact == found.compared, "copies are held together or not at all"


def test_more_at_once_than_fits() -> None:
    texts = [f"text number {number} of many others like it" for number in range(300)]
    assert find_duplicates(texts, most=20).compared <= 20


# The most frequent


@given(st.lists(st.dictionaries(st.sampled_from("abcdefghijkl"), st.integers(1, 9)), max_size=20))
def test_counts_are_never_too_high_and_little_too_low(batches: list[dict[str, int]]) -> None:
    held, true = Frequent(3), Counter[str]()
    for batch in batches:
        held.add(batch)
        true.update(batch)
        assert len(held) < 6
    seen = dict(held.top(12))
    assert all(count - held.missed <= seen.get(text, 0) <= count for text, count in true.items())


def test_what_is_frequent_outlives_what_is_not() -> None:
    held = Frequent(10)
    for number in range(1000):
        held.add({"often": 1, f"once {number}": 1})
    assert held.top(1, fewest=2)[0][0] == "often"
    assert held.top(5, fewest=1000 - held.missed)[0][1] >= 1000 - held.missed


# Leaks

SECRET = "It was the best of times, it was the worst of times, it was the age of wisdom."
SHORT = "Nobody sells blue apples at seven in winter"
SECRET_ZH = "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。寒来暑往，秋收冬藏。闰余成岁，律吕调阳。云腾致雨，露结为霜。"


@pytest.mark.parametrize("secret", [SECRET, SHORT, SECRET_ZH, SECRET_ZH[:25]])
def test_a_leak_is_found_whatever_surrounds_it(tmp_path: Path, written: Write, secret: str) -> None:
    dev = written("dev.csv", f'text,label\n"{secret}",1\nshort,0\n')
    check = look(tmp_path, (*ENGLISH, *CHINESE, f"{ENGLISH[0]} {secret.upper()}! {ENGLISH[1]}"), against=[dev])
    [facts] = check.facts["against"]
    assert (facts["found"], facts["texts"], facts["too_short"]) == (1, 6, 5)
    assert facts["shown"][0]["where"] == f"{dev}, row 2"
    assert facts["shown"][0]["in_corpus"].endswith("row 7")
    assert {"what": "leak", "file": str(dev), "found": 1, "judged": 1} in check.findings


@pytest.mark.parametrize("secret", [SECRET, SHORT, SECRET_ZH, SECRET_ZH[:25]])
def test_a_text_that_shares_fewer_words_is_no_leak(tmp_path: Path, written: Write, secret: str) -> None:
    dev = written("dev.csv", f'text,label\n"{secret}",1\n')
    broken = secret.replace("worst", "last").replace("apples", "pears").replace("辰宿", "星辰")
    check = look(tmp_path, (*ENGLISH, broken), against=[dev])
    assert check.facts["against"][0]["found"] == 0
    assert "leak" not in found_by(check)


def test_only_too_short_texts_are_said(tmp_path: Path, written: Write) -> None:
    check = look(tmp_path, ENGLISH, against=[written("dev.txt", "A few words.\n")])
    assert found_by(check) == ["too_short"]


def test_strings_of_every_kind_of_file(written: Write) -> None:
    files = {
        "a.json": '{"data": [{"title": "One", "paragraphs": [{"context": "Two"}]}, 3, "One"]}',
        "a.jsonl": '{"a": "One"}\n\n{"b": ["Two", 4]}\n',
        "a.tsv": 'One\t""\nTwo\t \n',
        "a.csv": '"One"\n"Two"\n',
        "a.txt": "One\n\nTwo\n",
    }
    strings = {name: read_strings(written(name, content), 5) for name, content in files.items()}
    for name, texts in strings.items():
        assert [text.text for text in texts if text.text != '""'] == ["One", "Two"], name
        assert {text.file for text in texts} == {5}
    assert strings["a.json"][1].where.endswith("a.json, data[0].paragraphs[0].context")
    assert strings["a.jsonl"][1].where.endswith("row 3")


def test_strings_of_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {
        "id": [7, 8],
        "text": ["One", None],
        "answers": [{"text": ["Two", "One"]}, {"text": []}],
        "raw": [b"x", b""],
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "dev.parquet")
    texts = read_strings(tmp_path / "dev.parquet", 3)
    assert [(text.text, text.file) for text in texts] == [("One", 3), ("Two", 3)]
    assert [text.where for text in texts] == [f"{tmp_path}/dev.parquet, row 1"] * 2
    parquet.write_table(pyarrow.table({"id": [7]}), tmp_path / "numbers.parquet")
    with pytest.raises(BertwrightError, match="no text in this file"):
        read_strings(tmp_path / "numbers.parquet")


def test_a_dev_set_in_parquet_is_found_in_the_corpus(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": [SECRET]}), tmp_path / "dev.parquet")
    assert "leak" in found_by(look(tmp_path, [*ENGLISH, SECRET], against=[tmp_path / "dev.parquet"]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.json", "{", "not valid JSON"), ("a.jsonl", '{"a": "b"}\n[', "row 2"), ("a.csv", "", "no text in this file"),
     ("a.txt", b"\xff\xfe", "not UTF-8"), ("a.parquet", "x", "Parquet")],
)  # fmt: skip
def test_files_to_check_against_that_cannot_be_read(written: Write, name: str, content: Any, words: str) -> None:
    with pytest.raises(BertwrightError, match=words):
        read_strings(written(name, content))


def test_every_text_that_holds_a_run_is_found_in_its_first_document() -> None:
    sought = Sought([Text(0, "1", SECRET), Text(0, "2", "no"), Text(1, "3", f"Well, {SECRET}")])
    assert sought.sizes.tolist() == [13, 0, 13]
    assert sought.find(units_of(["nothing", SECRET, SECRET])) == [(0, 1), (2, 1)]


# Findings


def test_a_clean_corpus_has_no_findings(tmp_path: Path) -> None:
    for number, documents in enumerate((ENGLISH, CHINESE)):
        (folder := tmp_path / str(number)).mkdir()
        check = look(folder, documents, against=[])
        assert check.findings == []
        assert check.problems == 0
    assert check.facts["sentences"]["of_characters"]
    assert check.facts["chinese"] == {"simplified_documents": 3, "traditional_documents": 0}
    assert check.facts["characters"]["han"] > 0.8


LINE = "Share this page with all of your friends"
PROVOKED = {
    "one_document": ENGLISH[:1],
    "no_pairs": ("A single sentence here.", "Another one there."),
    "mostly_single": (*ENGLISH[:1], "A single sentence here.", "Another one there."),
    "exact_copies": (*ENGLISH, ENGLISH[0]),
    "near_copies": (*ENGLISH, *pair_of(0.95, 0, chinese=False)[0]),
    "repeated_line": [f"{text}\n{LINE}" for text in (*ENGLISH, *CHINESE)],
    "damaged": (*ENGLISH, "The cafÃ© was closed. We went home."),
    "stray": (*ENGLISH, "Zero\u200bwidth is here. It is not seen."),
    "mixed_chinese": (*CHINESE, "車輪是人類最重要的發明之一。國際貿易發展。", "歷史學習。電腦網絡。"),
    "no_text": ("", " "),
}


@pytest.mark.parametrize("what", PROVOKED)
def test_every_finding_can_be_provoked(tmp_path: Path, what: str) -> None:
    assert what in found_by(look(tmp_path, PROVOKED[what]))
    others = {other for other in PROVOKED if what in found_by(look(tmp_path, PROVOKED[other]))}
    assert others <= {what, "exact_copies", "near_copies", "no_pairs", "mostly_single"}, "it says something of its own"


@pytest.mark.parametrize(
    ("text", "kind"),
    [("naÃ¯ve", "mojibake"), ("â€œquotedâ€\x9d", "mojibake"), ("ï»¿text", "mojibake"), ("锟斤拷", "mojibake"),
     ("a\ufffdb", "replacement"), ("\ud83d", "half_surrogate"), ("a\x08b", "control"), ("\uf8ff", "private")],
)  # fmt: skip
def test_doubtful_characters_are_named_with_their_row(tmp_path: Path, text: str, kind: str) -> None:
    check = look(tmp_path, (*ENGLISH, f"Before. {text} is here."))
    doubt = check.facts["doubtful"][kind]
    assert doubt["where"].endswith("corpus.jsonl, row 4")
    assert doubt["documents"] == 1
    json.dumps(doubt, ensure_ascii=False).encode()  # can be printed


def test_what_looks_like_mojibake_and_is_none(tmp_path: Path) -> None:
    check = look(tmp_path, ("NÃO! Âge, SÃO PAULO. Ça va, à bientôt. 5 €. Ân và Âu.", "烫手的山芋，屯田。鈥", *ENGLISH))
    assert check.facts["doubtful"] == {}


def test_rows_inside_a_block_of_text_are_counted(written: Write) -> None:
    path = written("a.txt", "One.\nTwo.\n\nThree.\nFour.\nBad \ufffd.\n")
    assert check_corpus([path], workers=1).facts["doubtful"]["replacement"]["where"] == f"{path}, row 6"


def test_figures(tmp_path: Path) -> None:
    check = look(tmp_path, ("One cat. Two dogs. Three birds sat.", "Lone sentence.", " "))
    documents, sentences = check.facts["documents"], check.facts["sentences"]
    assert (documents["count"], documents["empty"], documents["single_sentence"]) == (2, 1, 1)
    assert documents["characters"] == 35 + 14
    assert documents["longest"]["characters"] == 35
    assert documents["sentences_histogram"] == {"1": 1, "2-3": 1}
    assert documents["characters_histogram"] == {"1": 0, "2-3": 0, "4-7": 0, "8-15": 1, "16-31": 0, "32-63": 1}
    assert (sentences["count"], sentences["mean_length"], sentences["of_characters"]) == (4, 2.25, False)


@given(st.lists(st.integers(1, 2**39), max_size=30))
def test_histogram_counts_binary_digits(numbers: list[int]) -> None:
    plain = Counter(number.bit_length() - 1 for number in numbers)
    assert {
        place: count for place, count in enumerate(histogram(np.array(numbers, np.int64)).tolist()) if count
    } == plain


def test_repeated_lines_are_counted_once_a_document(tmp_path: Path) -> None:
    check = look(tmp_path, [f"{text}\n{LINE}\n{LINE}" for text in ENGLISH])
    assert check.facts["repeated_lines"] == [{"line": LINE, "documents": 3}]


def test_a_vocabulary_that_fits_and_one_that_does_not(tmp_path: Path) -> None:
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    known = ["the", "cat", "sat", "on", "mat", ".", *letters, *(f"##{letter}" for letter in letters)]
    wordpiece = WordPiece([*SPECIAL_TOKENS, *known], TextRules(lowercase=True))
    good = look(tmp_path, ("The cat sat. The cat sat on.", "On the mat. The cat."), wordpiece)
    assert good.findings == []
    assert good.facts["vocabulary"]["pieces_per_word"] == 1
    assert good.facts["next_sentence"]["tokens"] == 16
    bad = look(tmp_path, ("The dog ran. Dog 猫 ran.", "Dog ran on. 猫 猫 狗. Zebra."), wordpiece)
    assert found_by(bad) == ["unknown", "fragmented"]
    facts = bad.facts["vocabulary"]
    assert facts["unknown_characters"] == [{"character": "猫", "count": 3}, {"character": "狗", "count": 1}]
    assert facts["split_words"][0] == {"word": "dog → d ##o ##g", "count": 3}
    assert facts["scripts"]["han"] == {
        "words": 4, "pieces": 4, "unknown": 4, "pieces_per_word": 1.0, "unknown_share": 1.0
    }  # fmt: skip
    assert facts["unknown_tokens"] == 4
    assert facts["scripts"]["latin"]["pieces"] == 3 * 3 + 3 * 3 + 2 + 5


# Files


def test_all_that_cannot_be_read_is_listed_and_the_rest_is_read(written: Write, tmp_path: Path) -> None:
    written("a.jsonl", '{"text": "Good. One."}\n{"txt": "no"}\n{"text": 3}\nnot json\n{"text": "Good. Two."}\n')
    written("b.txt", b"Good. Three.\n\n\xff\xfe bad\n\nGood. Four.\n")
    written("c.txt", b"PK\0\0")
    written("d.txt.gz", b"\x1f\x8b\x08\0 damaged")
    written("e.txt", "")
    check = check_corpus([tmp_path], workers=1)
    assert check.facts["documents"]["count"] == 4
    places = [Path(each["where"]).name for each in check.facts["problems"]["shown"]]
    assert places == ["a.jsonl, row 2", "a.jsonl, row 3", "a.jsonl, row 4", "b.txt, row 3", "c.txt, row 1",
                      "d.txt.gz, after row 0", "e.txt"]  # fmt: skip
    assert check.findings[0] == {"what": "unreadable", "count": 7}


def test_problems_without_end_are_counted(written: Write) -> None:
    check = check_corpus([written("a.jsonl", "no\n" * 500)], workers=1)
    assert (check.problems, len(check.facts["problems"]["shown"])) == (500, MOST_IN_A_FILE)


def test_encodings(written: Write, tmp_path: Path) -> None:
    written("a.txt", "\n".join(CHINESE).encode("gb18030"))
    written("b.txt", "\ufeff" + ENGLISH[0])
    check = check_corpus([tmp_path], workers=1)
    assert check.facts["files"]["encodings"] == {"GB18030": 1, "UTF-8": 1}
    assert check.facts["files"]["with_byte_order_mark"] == 1
    assert check.problems == 0


def test_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="no such file"):
        check_corpus([tmp_path / "none.txt"])
    with pytest.raises(BertwrightError, match="workers"):
        check_corpus([corpus(tmp_path, ENGLISH)], workers=-1)
    with pytest.raises(BertwrightError, match="max_length"):
        look(tmp_path, ENGLISH, max_length=4)


# Size


def chatter(characters: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(5000)]
    documents, size = [], 0
    while size < characters:
        lines = [" ".join(draw.choices(words, k=draw.randint(4, 30))).capitalize() + "." for _ in range(40)]
        documents.append("\n".join([*lines, LINE]))
        size += len(documents[-1])
    return documents


def test_the_result_is_the_same_for_any_number_of_workers(tmp_path: Path, written: Write) -> None:
    documents = chatter(int(3.2 * PART_CHARACTERS), 0)
    documents[-1] = documents[1]
    path, dev = corpus(tmp_path, documents), written("dev.txt", documents[2].split("\n")[0])
    alone, together = (check_corpus([path], against=[dev], workers=workers).to_json() for workers in (1, 2))
    assert alone == together
    assert alone["duplicates"]["exact"] == 1
    assert alone["against"][0]["found"] == alone["against"][0]["texts"] - alone["against"][0]["too_short"]


def test_what_is_kept_does_not_grow_with_the_corpus() -> None:
    state, examine = State(most_documents=100, remembered=300), Examiner(None, None, 128)
    sizes = []
    for number in range(12):
        documents = [Document(0, row, 0, text) for row, text in enumerate(chatter(60_000, number), start=1)]
        state.add(examine(Work(number, documents)))
        sizes.append((state.fingerprints.capacity, len(state.lines), len(state.split_words)))
    assert max(sizes) <= (100, 600, 600)
    assert state.lines.missed > 0
    assert state.lines.top(1)[0][0] == LINE
    assert state.total.documents == sum(state.total.document_characters.tolist()) > 100


def test_a_corpus_is_read_in_parts_and_a_huge_document_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One line of text.\n" * 500_000)
    reader = Reader([tmp_path / "a.txt"])
    sizes = [sum(len(document.text) for document in work.documents) for work in reader.works()]
    assert sum(sizes) == 9_000_000
    assert max(sizes) < 5 * PART_CHARACTERS
    assert reader.cut == 1


# The command


def test_the_command_shows_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str], written: Write) -> None:
    path = corpus(tmp_path, PROVOKED["damaged"])
    dev = written("dev.csv", f"text\n{SHORT}\n")
    for lang, words in (("en", "What to do"), ("zh", "建议")):
        assert run(["check", str(path), "--against", str(dev), "--workers", "1", "--lang", lang]) == 0
        assert words in capsys.readouterr().out
    assert run(["check", str(path), "--workers", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [finding["what"] for finding in shown["findings"]] == ["damaged"]
    path.write_text(path.read_text() + "no json\n")
    assert run(["check", str(path), "--workers", "1", "--lang", "zh"]) == 1
    shown = capsys.readouterr()
    assert "1 处无法读取" in shown.out
    assert "row 5" in shown.err


def test_every_finding_has_words_and_lines_fit_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for what, documents in PROVOKED.items():
        corpus(Path(), documents)
        for lang in ("en", "zh"):
            assert run(["check", "corpus.jsonl", "--workers", "1", "--lang", lang]) == (what == "no_text"), what
            figures = capsys.readouterr().out.split("\n\n")[:-1]
            assert max(cell_len(line) for part in figures for line in part.splitlines()) <= 100


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["corpus.jsonl", "--dev", "a.csv"], "--dev"),
        (["corpus.jsonl", "--init", "a"], "--init"),
        (["corpus.jsonl", "--text-column", "a"], "task's options"),
        (["corpus.jsonl", "--task", "classify", "--vocab", "a"], "--vocab"),
        (["corpus.jsonl", "b.csv", "--task", "classify"], "one file"),
        (["train.csv"], "--task"),
    ],
)
def test_flags_of_the_other_kind_of_check_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert run(["check", *words]) == 1
    assert told in capsys.readouterr().err


def test_labelled_examples_are_checked_as_before(written: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = written("train.csv", "text,label\na,1\nb,2\na,2\n")
    for lang, words in (("en", "with another answer"), ("zh", "答案不一致")):
        assert run(["check", str(path), "--task", "classify", "--lang", lang]) == 0
        assert words in capsys.readouterr().out
