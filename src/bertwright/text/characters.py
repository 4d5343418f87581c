"""Characters by kind: the script of a letter, digits, punctuation, and those that should not be in a text.

    table = CharacterKinds()
    counts = np.bincount(table.of(code_points("Él 你好")), minlength=len(KINDS))
    dict(zip(KINDS, counts))["han"]      # 2

Scripts are told by the Unicode names of the running Python; simplified and traditional Chinese by whether the national
character sets of 1980 and 1984 have a character: GB 2312 holds 国 and not 國, Big5 the other way round.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

SCRIPTS = (
    "latin", "han", "kana", "hangul", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai", "other_letters",
)  # fmt: skip
"""Kinds of letters, with the marks that belong to them."""
DOUBTFUL = ("replacement", "control", "private", "half_surrogate", "invisible")
"""Kinds that should not be in a text: U+FFFD; controls other than tabs and line ends; characters without a meaning of
their own; halves of a pair; zero-width characters other than joiners."""
KINDS = (*SCRIPTS, "digits", "punctuation", "symbols", "space", "other", *DOUBTFUL)
"""All of them; a kind's number is its place here."""

_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_UNMET = 255
_BY_CATEGORY = {
    "Nd": "digits", "No": "digits", "Nl": "digits", "Cc": "control", "Cf": "invisible", "Co": "private",
    "Cs": "half_surrogate", "Zs": "space", "Zl": "space", "Zp": "space",
}  # fmt: skip
_BY_NAME = {
    "CJK": "han", "IDEOGRAPHIC": "han", "HIRAGANA": "kana", "KATAKANA": "kana",
    **{script.upper(): script for script in SCRIPTS},
}  # fmt: skip
_JOINERS = "\u200c\u200d"
_FIRST_HAN, _LAST_HAN = 0x4E00, 0x9FFF


def kind_of(char: str) -> str:
    """Return the kind of a character, one of `KINDS`."""
    category = unicodedata.category(char)
    if char in "\t\n\r" or char in _JOINERS:
        return "space" if char not in _JOINERS else "symbols"
    if char == "\ufffd":
        return "replacement"
    if category[0] == "P":
        return "punctuation"
    name = unicodedata.name(char, "")
    if category[0] == "S" or "VARIATION SELECTOR" in name:
        return "symbols"
    if category[0] in "LM" or name.startswith("IDEOGRAPHIC NUMBER"):
        words = name.replace("-", " ").split()
        return next((_BY_NAME[word] for word in words[:2] if word in _BY_NAME), "other_letters")
    return _BY_CATEGORY.get(category, "other")


class CharacterKinds:
    """A table from code points to kinds, filled as characters are met."""

    def __init__(self) -> None:
        self._kinds = np.full(0x110000, _UNMET, np.uint8)

    def of(self, points: np.ndarray) -> np.ndarray:
        """Return the kind of each code point, as its place in `KINDS`."""
        kinds: np.ndarray = self._kinds[points]
        if (unmet := kinds == _UNMET).any():
            for point in np.unique(points[unmet]).tolist():
                self._kinds[point] = _NUMBER[kind_of(chr(point))]
            kinds = self._kinds[points]
        return kinds


def code_points(text: str) -> np.ndarray:
    """Return the code points of a text, half surrogates too (uint32, not to be written to)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def chinese_forms(points: np.ndarray) -> np.ndarray:
    """Return 1 for each code point that only simplified Chinese has, 2 for one only traditional has, else 0."""
    inside = (points >= _FIRST_HAN) & (points <= _LAST_HAN)
    forms: np.ndarray = _forms()[np.where(inside, points - _FIRST_HAN, _LAST_HAN - _FIRST_HAN)]
    return forms  # the last character is in neither set, and stands for all that are not Chinese


@cache
def _forms() -> np.ndarray:
    has = {
        charset: np.array([len(chr(point).encode(charset, "ignore")) > 0 for point in range(_FIRST_HAN, _LAST_HAN + 1)])
        for charset in ("gb2312", "big5")
    }
    only_one = has["gb2312"] != has["big5"]
    return np.where(only_one, np.where(has["gb2312"], 1, 2), 0).astype(np.uint8)
