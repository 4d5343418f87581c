"""New words: which are taken, which ids they get, what is counted, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.config import VocabConfig
from bertwright.errors import BertwrightError
from bertwright.text.corpus import find_files
from bertwright.text.extension import extend
from bertwright.text.rules import TextRules
from bertwright.text.vocabulary import count_corpus, train_vocabulary
from bertwright.text.wordpiece import SPECIAL_TOKENS, AddedToken, WordPiece

RULES = TextRules(lowercase=True)
LETTERS = "abcdefghij"


def vocabulary(*tokens: str, slots: int = 0) -> WordPiece:
    """Specials, slots in front of [UNK] as in released vocabularies, all letters, and these."""
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    unused = [f"[unused{slot}]" for slot in range(slots)]
    return WordPiece(["[PAD]", *unused, *SPECIAL_TOKENS[1:], *letters, *tokens], RULES)


def taken(wordpiece: WordPiece, counts: dict[str, int], *, size: int = 100, min_count: int = 1) -> list[str]:
    return [each.word for each in extend(wordpiece, counts, size=size, min_count=min_count).words]


def test_what_was_unknown_comes_first_then_what_saves_most_then_the_alphabet() -> None:
    counts = {"abc": 10, "ab": 21, "ba": 20, "cab": 10, "字": 2, "典": 3, "xa": 3, "a": 900, "abcd": 1}
    assert taken(vocabulary(), counts) == ["xa", "典", "字", "ab", "abc", "ba", "cab", "abcd"]
    assert taken(vocabulary(), counts, min_count=3) == ["xa", "典", "ab", "abc", "ba", "cab"]
    assert taken(vocabulary(), counts, size=4) == ["xa", "典", "字", "ab"]
    assert taken(vocabulary(), dict(reversed(counts.items()))) == taken(vocabulary(), counts)


def test_slots_are_filled_first_and_everything_else_keeps_its_id() -> None:
    old = vocabulary("ab", slots=2)
    extension = extend(old, {"abc": 9, "cd": 8, "ef": 7, "gh": 6}, size=3, min_count=1)
    new = extension.wordpiece
    assert [each.word for each in extension.words] == ["abc", "cd", "ef"]
    assert extension.ids == (1, 2, old.vocab_size)
    assert new.vocab_size == old.vocab_size + 1
    kept = [number for number in range(old.vocab_size) if number not in (1, 2)]
    assert [new.tokens[number] for number in kept] == [old.tokens[number] for number in kept]
    assert [new.pieces(word) for word in ("abc", "cd", "ef")] == [[1], [2], [old.vocab_size]]
    assert [old.tokens[piece] for piece in extension.words[0].pieces] == ["ab", "##c"]
    assert extension.report["slots_filled"] == 2
    assert extension.report["appended"] == 1


def test_figures_are_those_of_the_corpus() -> None:
    counts = {"abc": 10, "d": 5, "字": 5}
    report = extend(vocabulary(), counts, size=1, min_count=1).report
    assert report["before"] == {"tokens": 40, "tokens_per_word": 2.0, "unknown_words": 5}
    assert report["after"] == {"tokens": 40, "tokens_per_word": 2.0, "unknown_words": 0}
    report = extend(vocabulary(), counts, size=9, min_count=1).report
    assert report["after"] == {"tokens": 20, "tokens_per_word": 1.0, "unknown_words": 0}
    assert "2 words instead of 9" in report["why_fewer"]


def test_shares_are_of_all_places_where_a_piece_stands() -> None:
    extension = extend(vocabulary(), {"aba": 3, "ab": 1, "a": 4}, size=1, min_count=1)
    places = Counter({"a": 8, "##b": 4, "##a": 3})
    assert [extension.old.tokens[piece] for piece in extension.words[0].pieces] == ["a", "##b", "##a"]
    assert extension.shares == ((3 / places["a"], 3 / places["##b"], 3 / places["##a"]),)


def test_a_word_that_breaks_longer_ones_is_left_out() -> None:
    # `abcx`: ab ##cx. With `abc` in the vocabulary its rest, `##x`, is no piece, and the word would be [UNK].
    wordpiece = vocabulary("ab", "##cx")
    assert taken(wordpiece, {"abc": 5, "de": 3, "abcx": 2}, size=1) == ["de"]
    # `abcdefg`: a ##bcdefg. With `ab` it would be seven pieces but one: dear, if it is common and `ab` is rare.
    wordpiece = vocabulary("##bcdefg")
    assert taken(wordpiece, {"ab": 5, "cd": 4, "abcdefg": 2}, size=1) == ["cd"]
    assert taken(wordpiece, {"ab": 9, "cd": 4, "abcdefg": 2}, size=1) == ["ab"]


def test_nothing_is_added_twice_nor_where_it_cannot_be_found() -> None:
    base = vocabulary()
    old = WordPiece([*base.tokens, "covid"], RULES, added=[AddedToken("covid")], num_pieces=base.vocab_size)
    with pytest.raises(BertwrightError, match="no room for new words: there is no"):
        taken(old, {"ab": 3})
    base = vocabulary(slots=1)
    old = WordPiece([*base.tokens, "abba"], RULES, added=[AddedToken("abba")], num_pieces=base.vocab_size)
    extension = extend(old, {"abba": 9, "ab": 3, "ba": 2}, size=5, min_count=1)
    assert [each.word for each in extension.words] == ["ab"]
    assert extension.wordpiece.tokens[-1] == "abba"
    assert extension.wordpiece.added == old.added
    assert "leave no room but in its slots" in extension.report["why_fewer"]
    too_long = "ab" * RULES.max_word_characters
    with pytest.raises(BertwrightError, match="longer than 200 characters"):
        taken(vocabulary(), {too_long: 50})


@pytest.mark.parametrize(
    ("counts", "flags", "words"),
    [
        ({"a": 5}, {}, "each of the 1 different words of the corpus is one token already"),
        ({"ab": 4, "cd": 3}, {"min_count": 5}, "the commonest ('ab') occurs 4 times, fewer than 5"),
        ({"ab": 4}, {"size": 0}, "size must be at least 1, not 0"),
        ({"ab": 4}, {"min_count": 0}, "min_count must be at least 1, not 0"),
    ],
)
def test_nothing_to_add_says_why(counts: dict[str, int], flags: dict[str, int], words: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        taken(vocabulary(), counts, **flags)
    assert words in str(caught.value)


def test_nothing_that_would_do_no_harm() -> None:
    with pytest.raises(BertwrightError, match="every new word would break longer ones"):
        taken(vocabulary("ab", "##cx"), {"abc": 5, "abcx": 2}, min_count=3)


words = st.dictionaries(st.text("abcx字", min_size=1, max_size=6), st.integers(1, 9), min_size=1, max_size=12)


@settings(deadline=None, max_examples=300)
@given(counts=words, size=st.integers(1, 6), slots=st.integers(0, 3), pieces=st.sets(st.text("abcx", min_size=2)))
def test_the_text_never_gets_longer_nor_less_known(
    counts: dict[str, int], size: int, slots: int, pieces: set[str]
) -> None:
    old = vocabulary(*sorted(pieces), *sorted(f"##{piece}" for piece in pieces), slots=slots)
    cut = {word for word in counts if len(old.pieces(word)) > 1 or old.pieces(word) == [old.unk_id]}
    try:
        extension = extend(old, counts, size=size, min_count=1)
    except BertwrightError:
        return
    new, report = extension.wordpiece, extension.report
    assert 1 <= len(extension.words) <= size
    assert {each.word for each in extension.words} <= cut
    assert all(new.pieces(each.word) == [number] for each, number in zip(extension.words, extension.ids, strict=True))
    assert all(new.pieces(word) != [new.unk_id] for word in counts if old.pieces(word) != [old.unk_id])
    assert report["after"]["tokens"] == sum(count * len(new.pieces(word)) for word, count in counts.items())
    assert report["after"]["unknown_words"] <= report["before"]["unknown_words"]
    # What two new words share of a piece is never more than all of it.
    total = Counter[int]()
    for each, shares in zip(extension.words, extension.shares, strict=True):
        for piece, share in zip(each.pieces, shares, strict=True):
            total[piece] += share
    assert max(total.values()) <= 1 + 1e-9


def test_the_same_words_for_any_order_of_files_and_any_number_of_processes(tmp_path: Path) -> None:
    texts = [
        "A playwright writes plays. Naïve 中文",
        "The cartwright and the playwright. 文中",
        "carts wright Playwright",
    ]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text * (number + 1), encoding="utf-8")
    wordpiece = train_vocabulary([tmp_path / "2.txt"], VocabConfig(size=40)).wordpiece
    found = []
    for names in (["0.txt", "1.txt", "2.txt"], ["2.txt", "0.txt", "1.txt"]):
        files = find_files([tmp_path / name for name in names])
        for threads in (1, 3):
            counts = count_corpus(files, wordpiece.rules, text_column="text", threads=threads, progress=None)
            extension = extend(wordpiece, counts.words, size=4, min_count=1)
            found.append((extension.wordpiece.sha256, extension.words, extension.shares))
    assert found.count(found[0]) == len(found)


def test_words_are_those_of_the_rules_also_where_chinese_is_not_split(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("中文 中文 中文 abc", encoding="utf-8")
    for split, expected in ((True, {"中": 3, "文": 3, "abc": 1}), (False, {"中文": 3, "abc": 1})):
        rules = TextRules(lowercase=True, split_chinese=split)
        counts = count_corpus([tmp_path / "a.txt"], rules, text_column="text", threads=1, progress=None)
        assert counts.words == expected
