"""Where text may be cut before WordPiece sees it, without changing what comes out.

No rule of BERT's normalizer or splitter looks across a space, an ASCII punctuation mark or a Chinese character. So a
text falls into chunks at its spaces, and a chunk into parts, which repeat so often that each is worth remembering.

    cut("mid-Atlantic,", lowercase=True)    # ['mid', '-', 'atlantic', ',']
"""

from __future__ import annotations

import re

_CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff"
_MARKS = r"!-/:-@\[-`{-~"
_ASCII_PARTS = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]")
_OTHER_PARTS = re.compile(rf"[{_MARKS}{_CHINESE}]|[^{_MARKS}{_CHINESE}]+")
_HAS_CHINESE = re.compile(rf"[{_CHINESE}]")
_CHINESE_CHUNKS = re.compile(rf"[{_CHINESE}]|[^ {_CHINESE}]+")


def chunks_of(text: str) -> list[str]:
    """Return the chunks of a text: what lies between spaces, and each Chinese character."""
    if not text.isascii() and _HAS_CHINESE.search(text):
        return _CHINESE_CHUNKS.findall(text)
    return text.split(" ")


def cut(chunk: str, *, lowercase: bool) -> list[str]:
    """Return the parts of a chunk, which may be tokenized one by one; a part that is ASCII is lowered if asked for."""
    if chunk.isascii() and chunk.isprintable():
        return _ASCII_PARTS.findall(chunk.lower() if lowercase else chunk)
    return _OTHER_PARTS.findall(chunk)
