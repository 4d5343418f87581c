"""Vocabularies in and out, encodings, and text back from ids."""

import errno
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from bertwright.errors import BertwrightError, DiskFullError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, AddedToken, WordPiece

TOKENS = [
    *SPECIAL_TOKENS,
    *"abcdefghij",
    "##b",
    "##c",
    "[",
    "]",
    "mask",
    "中",
    "文",
    "un",
    "##aff",
    "##able",
    ".",
    "hello",
]


@pytest.fixture
def wordpiece() -> WordPiece:
    return WordPiece(TOKENS, TextRules(lowercase=True))


def names(wordpiece: WordPiece, ids: list[int]) -> list[str]:
    return [wordpiece.tokens[number] for number in ids]


def test_takes_the_longest_piece_from_the_left(wordpiece: WordPiece) -> None:
    assert names(wordpiece, wordpiece.ids("Unaffable ÀBC, 中文")) == [
        "un", "##aff", "##able", "a", "##b", "##c", "[UNK]", "中", "文",
    ]  # fmt: skip


def test_special_tokens_count_in_encode_alone(wordpiece: WordPiece) -> None:
    assert names(wordpiece, wordpiece.ids("a [MASK]")) == ["a", "[", "mask", "]"]
    assert names(wordpiece, wordpiece.encode("a [MASK].").input_ids) == ["[CLS]", "a", "[MASK]", ".", "[SEP]"]


@pytest.mark.parametrize(("rules", "longest"), [(TextRules(True), 200), (TextRules.hugging_face(lowercase=True), 100)])
def test_longer_words_are_unknown(rules: TextRules, longest: int) -> None:
    wordpiece = WordPiece(TOKENS, rules)
    assert len(wordpiece.ids("a" + "b" * (longest - 1))) == longest
    assert wordpiece.ids("a" + "b" * longest) == [wordpiece.unk_id]


def test_half_a_surrogate_pair_is_dropped(wordpiece: WordPiece) -> None:
    assert wordpiece.ids("a\ud83d b") == wordpiece.ids("a b")
    assert wordpiece.encode("\ud83da").offsets == [(0, 0), (1, 2), (0, 0)]


def test_pairs_segments_and_offsets(wordpiece: WordPiece) -> None:
    encoding = wordpiece.encode("  À bc", "中文")
    assert names(wordpiece, encoding.input_ids) == ["[CLS]", "a", "b", "##c", "[SEP]", "中", "文", "[SEP]"]
    assert encoding.token_type_ids == [0, 0, 0, 0, 0, 1, 1, 1]
    assert encoding.offsets == [(0, 0), (2, 3), (4, 5), (5, 6), (0, 0), (0, 1), (1, 2), (0, 0)]
    assert not encoding.truncated


@pytest.mark.parametrize(
    ("a", "b", "max_length", "kept"),
    [
        ("a b c d e", None, 5, "abc"),
        ("a b c d e", "f g", 8, "abc|fg"),
        ("a b", "f g h i j", 7, "ab|fg"),
        ("a b c d e", "f g h i j", 10, "abcd|fgh"),
        ("a b", "f g", 7, "ab|fg"),
    ],
)
def test_the_longer_segment_is_cut_first(
    wordpiece: WordPiece, a: str, b: str | None, max_length: int, kept: str
) -> None:
    encoding = wordpiece.encode(a, b, max_length=max_length)
    segments = "".join(names(wordpiece, encoding.input_ids)).removeprefix("[CLS]").split("[SEP]")[:-1]
    assert "|".join(segments) == kept
    assert encoding.truncated == (len(kept.replace("|", "")) < len((a + (b or "")).replace(" ", "")))


def test_max_length_without_room_is_refused(wordpiece: WordPiece) -> None:
    with pytest.raises(BertwrightError, match="at least 5"):
        wordpiece.encode("a", "b", max_length=4)
    assert wordpiece.encode("", max_length=2).input_ids == [wordpiece.cls_id, wordpiece.sep_id]


@pytest.mark.parametrize(
    ("text", "neat"),
    [
        ("it ' s a well - known fact , isn ' t it ?", "it's a well-known fact, isn't it?"),
        ("( 3 . 5 ) , [MASK] !", "(3.5), [MASK]!"),
        ("（ 你 好 ） “ 中 文 ” 。", "（你好）“中文”。"),
    ],
)
def test_decode_makes_neat_text(text: str, neat: str) -> None:
    wordpiece = WordPiece(sorted({*SPECIAL_TOKENS, *text.split()}), TextRules(lowercase=True))
    assert wordpiece.decode(list(map(wordpiece.convert, text.split()))) == neat
    assert wordpiece.encode(neat).input_ids == wordpiece.encode(text).input_ids


def test_decode_joins_pieces_and_drops_nothing(wordpiece: WordPiece) -> None:
    ids = wordpiece.encode("unaffable hello. 中文").input_ids
    assert wordpiece.decode(ids) == "[CLS] unaffable hello.中文[SEP]"
    assert wordpiece.decode([wordpiece.convert("##b"), wordpiece.convert("##c")]) == "##bc"
    assert wordpiece.decode([]) == ""


def test_save_load_and_transformers_agree(tmp_path: Path, wordpiece: WordPiece) -> None:
    from transformers import AutoTokenizer

    text, pair = "Unaffable [MASK] hello.", "中文 ÀBC"
    for lowercase in (True, False):
        ours = WordPiece(TOKENS, TextRules(lowercase=lowercase))
        ours.save(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        encoded = theirs(text, pair, return_offsets_mapping=True)
        encoding = ours.encode(text, pair)
        assert encoding.input_ids == encoded["input_ids"]
        assert encoding.token_type_ids == encoded["token_type_ids"]
        assert encoding.offsets == encoded["offset_mapping"]
        assert theirs.model_max_length == 512
        assert WordPiece.load(tmp_path).sha256 == WordPiece.load(tmp_path / "vocab.txt").sha256 == ours.sha256
        theirs.save_pretrained(tmp_path / "again")
        (tmp_path / "again" / "vocab.txt").unlink(missing_ok=True)
        again = WordPiece.load(tmp_path / "again")
        assert again.tokens == ours.tokens
        assert again.rules == replace(ours.rules, max_word_characters=100)  # that library's limit


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, wordpiece: WordPiece) -> None:
    for name in "ab":
        WordPiece(TOKENS, TextRules(lowercase=True)).save(tmp_path / name)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_hash_knows_tokens_and_casing(wordpiece: WordPiece) -> None:
    assert wordpiece.sha256 != WordPiece(TOKENS, TextRules(lowercase=False)).sha256
    assert wordpiece.sha256 != WordPiece([*TOKENS, "more"], TextRules(lowercase=True)).sha256


@pytest.mark.parametrize(
    ("name", "lowercase"), [("uncased", True), ("cased", False), ("multilingual-cased", False), ("chinese", True)]
)
def test_released_vocabularies_load(
    shared_data: Path, name: str, lowercase: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        wordpiece = WordPiece.load(shared_data / "vocab" / f"bert-base-{name}-vocab.txt")
    assert wordpiece.rules.lowercase == lowercase
    assert "from its entries" in caplog.text
    assert (wordpiece.pad_id, wordpiece.unk_id, wordpiece.cls_id, wordpiece.sep_id, wordpiece.mask_id) == (
        0, 100, 101, 102, 103,
    )  # fmt: skip


def test_casing_is_read_or_told(tmp_path: Path, wordpiece: WordPiece) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    assert WordPiece.load(tmp_path).rules.lowercase
    assert not WordPiece.load(tmp_path, lowercase=False).rules.lowercase
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert not WordPiece.load(tmp_path).rules.lowercase


def test_windows_line_ends_and_a_mark_are_tolerated(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(("\ufeff" + "\r\n".join(TOKENS) + "\r\n").encode())
    assert WordPiece.load(tmp_path).tokens == TOKENS


JSON_MODEL = {"type": "WordPiece", "vocab": {token: number for number, token in enumerate(TOKENS)}}
BAD = {
    "missing": (None, None, "neither vocab.txt nor tokenizer.json"),
    "empty": ("vocab.txt", b"", "row 1: an entry is empty"),
    "blank": ("vocab.txt", ("\n".join(TOKENS[:6]) + "\n\nx\n").encode(), "row 7: an entry is empty"),
    "twice": ("vocab.txt", "\n".join([*TOKENS, "a", "b"]).encode(), "'a' is there 2 times"),
    "no_mask": ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", r"special tokens are missing: \[MASK\]"),
    "binary": ("vocab.txt", b"\xff\xfe\x00a", "not UTF-8"),
    "broken_json": ("tokenizer.json", b"{", "not valid JSON"),
    "bpe": ("tokenizer.json", json.dumps({"model": {"type": "BPE", "vocab": {}}}).encode(), "not WordPiece"),
    "gap": ("tokenizer.json", json.dumps({"model": JSON_MODEL | {"vocab": {"a": 1}}}).encode(), "not 0, 1, 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_vocabulary_is_one_clear_message(tmp_path: Path, name: str) -> None:
    file, content, message = BAD[name]
    if file and content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(BertwrightError, match=message) as caught:
        WordPiece.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_file_and_an_unknown_token(tmp_path: Path, wordpiece: WordPiece) -> None:
    with pytest.raises(BertwrightError, match="no such file or folder"):
        WordPiece.load(tmp_path / "nowhere")
    with pytest.raises(BertwrightError, match="did you mean 'hello'"):
        wordpiece.convert("helo")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, wordpiece: WordPiece) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BertwrightError, match="a file is in the way"):
        wordpiece.save(tmp_path / "file")


def test_another_tokenizer_than_bert_s_is_refused(tmp_path: Path, wordpiece: WordPiece) -> None:
    wordpiece.save(tmp_path)
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(BertwrightError, match="tokenizer_class BertJapaneseTokenizer"):
        WordPiece.load(tmp_path)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_disk_that_fills_leaves_the_vocabulary_that_was_there(
    tmp_path: Path, wordpiece: WordPiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    wordpiece.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "tokenizer.json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError):
        WordPiece([*wordpiece.tokens, "more"], TextRules(lowercase=True)).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def folder_of_transformers(tmp_path: Path, *, lowercase: bool, **added: bool) -> Path:
    """A vocabulary that transformers saved, with tokens that a user added."""
    from tokenizers import AddedToken
    from transformers import BertTokenizer

    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=lowercase)
    tokenizer.add_tokens([AddedToken("un", **added), AddedToken("<E1>", **added), AddedToken("abcx", **added)])
    tokenizer.add_tokens(["<e1>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs/config.json").write_text('{"model_type": "bert"}')
    return tmp_path / "theirs"


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize(
    "added", [{}, {"normalized": False}, {"single_word": True}, {"lstrip": True}, {"rstrip": True}]
)
def test_added_tokens_are_found_as_transformers_finds_them(
    tmp_path: Path, lowercase: bool, added: dict[str, bool]
) -> None:
    from transformers import AutoTokenizer

    folder = folder_of_transformers(tmp_path, lowercase=lowercase, **added)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = WordPiece.load(folder)
    ours.save(tmp_path / "ours")
    again = WordPiece.load(tmp_path / "ours")
    assert again.sha256 == ours.sha256
    texts = [
        "a <E1> b",
        "a <e1> b<e1>",
        "unaffable",
        "unaffable un  ",
        "abcx abcxb Abcx",
        "[MASK]abcx[MASK]",
        "  un  <E1>  ",
    ]
    for text in texts:
        expected = theirs(text, return_offsets_mapping=True)
        for wordpiece in (ours, again):
            encoding = wordpiece.encode(text)
            assert encoding.input_ids == expected["input_ids"], text
            assert encoding.offsets == expected["offset_mapping"], text


def test_a_folder_of_the_slow_tokenizer_keeps_its_added_tokens(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    entries = {str(len(TOKENS)): {"content": "<E1>", "normalized": False, "special": True}}
    entries[str(TOKENS.index("[MASK]"))] = {"content": "[MASK]", "normalized": False, "special": True, "lstrip": True}
    settings = {"do_lower_case": True, "added_tokens_decoder": entries}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    wordpiece = WordPiece.load(tmp_path)
    assert wordpiece.rules == TextRules.hugging_face(lowercase=True)
    encoding = wordpiece.encode("a <E1> <e1>")
    assert encoding.input_ids[1:3] == [wordpiece.convert("a"), len(TOKENS)]
    assert len(TOKENS) not in encoding.input_ids[3:]
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<E1>": len(TOKENS) + 3}))
    with pytest.raises(BertwrightError, match="'<E1>' has id"):
        WordPiece.load(tmp_path)


def test_a_file_under_another_name_speaks_for_itself(tmp_path: Path, wordpiece: WordPiece) -> None:
    other = WordPiece([*TOKENS, "more"], TextRules(True, "hf", strip_accents=False, max_word_characters=7))
    other.save(tmp_path / "other")
    wordpiece.save(tmp_path)
    (tmp_path / "other/tokenizer.json").rename(tmp_path / "mine.json")
    (tmp_path / "other/vocab.txt").rename(tmp_path / "mine.txt")
    assert WordPiece.load(tmp_path / "mine.json").rules == other.rules
    assert WordPiece.load(tmp_path / "mine.txt").tokens == other.tokens
    assert WordPiece.load(tmp_path).tokens == wordpiece.tokens


@pytest.mark.parametrize(
    "change",
    [
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": []},
        {"type": "RobertaProcessing"},
        {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[MASK]", 4]},
    ],
)
def test_other_ends_than_cls_and_sep_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    WordPiece(TOKENS, TextRules.hugging_face(lowercase=True)).save(tmp_path)
    edit(tmp_path / "tokenizer.json", post_processor=change)
    with pytest.raises(BertwrightError, match="post_processor"):
        WordPiece.load(tmp_path)
    edit(
        tmp_path / "tokenizer.json", post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    )
    assert WordPiece.load(tmp_path).tokens == TOKENS


def test_unusual_rules_survive_a_folder(tmp_path: Path) -> None:
    for number, rules in enumerate(
        [
            TextRules(True, max_word_characters=9),
            TextRules(False, clean_text=False),
            TextRules(True, strip_accents=False),
        ]
    ):
        wordpiece = WordPiece(TOKENS, rules)
        wordpiece.save(tmp_path / str(number))
        assert WordPiece.load(tmp_path / str(number)).sha256 == wordpiece.sha256


def test_a_missing_added_token_is_told_at_once() -> None:
    with pytest.raises(BertwrightError, match="added tokens are missing: <x>"):
        WordPiece(TOKENS, TextRules(True), added=[AddedToken("<x>")])
