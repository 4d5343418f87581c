"""A WordPiece vocabulary, and how text becomes its ids and back.

The rules are those of google-research/bert `tokenization.py` as the `tokenizers` package implements them: clean, set
Chinese characters apart, strip accents and lower the case if uncased, split at white space and punctuation, then take
the longest known piece from the left. A cache from chunks of text to their ids stands in front of it all.

    wordpiece = WordPiece.load("model/")
    wordpiece.ids("unaffable")                    # [14477, 20961, 3468]
    wordpiece.encode("Paris is a [MASK].")        # [CLS] ... [SEP], with offsets
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bertwright.config import read_json
from bertwright.errors import BertwrightError, nearest
from bertwright.files import explain_os_errors
from bertwright.text.chunks import cut

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""What every vocabulary holds, in Google's order."""
MAX_WORD_CHARACTERS = 100
"""Longer words are [UNK]. Differs: 200 in google-research/bert `WordpieceTokenizer`; everybody else says 100."""

_CACHED_CHUNKS = 1 << 19
_CACHED_CHARACTERS = 32
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoding:
    """One model input: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`."""

    input_ids: list[int]
    """Vocabulary ids."""
    token_type_ids: list[int]
    """0 up to the first [SEP], 1 after it."""
    offsets: list[tuple[int, int]]
    """Start and end of each token in its own text (a or b), characters; (0, 0) for [CLS] and [SEP]."""
    truncated: bool
    """Whether tokens were cut off to fit."""


class WordPiece:
    """A vocabulary and how text becomes its ids.

    Args:
        tokens: the entries in order of their ids; must hold `SPECIAL_TOKENS`, and nothing twice.
        lowercase: lower the case and strip accents.

    Raises:
        BertwrightError: a special token is missing, or an entry is empty or there twice.
    """

    def __init__(self, tokens: Sequence[str], *, lowercase: bool) -> None:
        self.tokens = list(tokens)
        self.lowercase = lowercase
        self._id_of = {token: number for number, token in enumerate(self.tokens)}
        if len(self._id_of) < len(self.tokens) or "" in self._id_of:
            token, count = Counter(self.tokens).most_common(1)[0]
            what = f"the entry {token!r} is there {count} times" if count > 1 else "an entry is empty"
            raise BertwrightError(what, where=f"vocabulary, row {self.tokens.index(token if count > 1 else '') + 1:,}")
        if missing := [token for token in SPECIAL_TOKENS if token not in self._id_of]:
            raise BertwrightError(f"special tokens are missing: {', '.join(missing)}", where="vocabulary")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(self._id_of.__getitem__, SPECIAL_TOKENS)
        self._chunks = _ChunkCache(self.plain_tokenizer, lowercase)

    def __reduce__(self) -> Any:
        return _rebuild, (self.tokens, self.lowercase)

    @classmethod
    def load(cls, path: str | Path, *, lowercase: bool | None = None) -> WordPiece:
        """Read a vocabulary from a model folder, a `vocab.txt` or a `tokenizer.json`.

        Args:
            path: the file, or the folder it lies in.
            lowercase: overrides what `tokenizer_config.json` or `tokenizer.json` beside it say. Where nobody says it, a
                vocabulary without upper-case letters is taken as uncased, and the log says so.

        Raises:
            BertwrightError: nothing is there, it is no BERT vocabulary, or it is damaged.
        """
        path = Path(path)
        folder = path if path.is_dir() else path.parent
        if path.is_dir():
            path = next((file for file in (path / "vocab.txt", path / "tokenizer.json") if file.exists()), path)
        if not path.is_file():
            what = (
                "neither vocab.txt nor tokenizer.json is in this folder" if path.is_dir() else "no such file or folder"
            )
            raise BertwrightError(what, where=path, fix="make a vocabulary with: bertwright vocab CORPUS --out DIR")
        _require_plain_rules(folder)
        tokens = _tokens_of_json(path) if path.suffix == ".json" else _tokens_of_text(path)
        if lowercase is None:
            lowercase = _declared_casing(folder)
        if lowercase is None:
            lowercase = not any(token != token.lower() for token in tokens if not token.startswith("["))
            _logger.info("%s: taken as %s, from its entries", path, "uncased" if lowercase else "cased")
        try:
            return cls(tokens, lowercase=lowercase)
        except BertwrightError as error:
            raise BertwrightError(
                error.what, where=f"{path}, {error.where}", fix="this is no BERT vocabulary"
            ) from None

    def save(self, folder: Path) -> None:
        """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, a `BertTokenizer` to transformers.

        Raises:
            DiskFullError: there was no room; what was there before is intact.
            BertwrightError: the place may not be written.
        """
        config = {
            "cls_token": "[CLS]",
            "do_lower_case": self.lowercase,
            "mask_token": "[MASK]",
            "model_max_length": 512,
            "pad_token": "[PAD]",
            "sep_token": "[SEP]",
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer",
            "unk_token": "[UNK]",
        }
        contents = {
            "vocab.txt": self._text_bytes(),
            "tokenizer.json": (self._marked.to_str(pretty=True) + "\n").encode(),
            "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        }
        with explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = {name: folder / f".{name}.tmp" for name in contents}
            try:
                for name, content in contents.items():
                    unfinished[name].write_bytes(content)
                for name, file in unfinished.items():
                    file.replace(folder / name)
            finally:
                for file in unfinished.values():
                    file.unlink(missing_ok=True)

    @property
    def vocab_size(self) -> int:
        """Entries."""
        return len(self.tokens)

    @cached_property
    def sha256(self) -> str:
        """Of the bytes of `vocab.txt` and the casing: what shards and checkpoints know their vocabulary by."""
        casing = b"uncased" if self.lowercase else b"cased"
        return hashlib.sha256(self._text_bytes() + b"\0" + casing).hexdigest()

    def convert(self, token: str) -> int:
        """Return the id of a token.

        Raises:
            BertwrightError: the token is not in the vocabulary.
        """
        if (number := self._id_of.get(token)) is None:
            raise BertwrightError(f"no such token in the vocabulary: {token!r}{nearest(token, self.tokens)}")
        return number

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without [CLS] and [SEP]; `[MASK]` written in it is three ordinary tokens."""
        return self.ids_of_many([text])[0]

    def ids_of_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `ids` does."""
        find = self._chunks.__getitem__
        return [np.frombuffer(b"".join(map(find, text.split(" "))), np.uint32).tolist() for text in texts]

    def flat_ids_of_many(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return all ids end to end (uint32) and how many belong to each text (int64); the fastest way in."""
        find = self._chunks.__getitem__
        packed = [b"".join(map(find, text.split(" "))) for text in texts]
        lengths = np.fromiter(map(len, packed), np.int64, len(packed)) // np.dtype(np.uint32).itemsize
        return np.frombuffer(b"".join(packed), np.uint32), lengths

    def encode(self, text: str, pair: str | None = None, *, max_length: int | None = None) -> Encoding:
        """Turn what a user wrote into one model input.

        Args:
            text: segment A; a special token written in it, such as `[MASK]`, is that token.
            pair: segment B.
            max_length: tokens at most, specials included; the longer segment loses tokens at its end first.
                Differs: `tokenizers` leaves the odd token to B, google-research/bert `_truncate_seq_pair` and we to A.

        Raises:
            BertwrightError: `max_length` has no room for a token of each segment.
        """
        segments = [text] if pair is None else [text, pair]
        parts = [self._marked.encode(_encodable(segment), add_special_tokens=False) for segment in segments]
        lengths = [len(part.ids) for part in parts]
        room = sum(lengths) if max_length is None else max_length - 1 - len(parts)
        if room < len(parts) and sum(lengths) > room:
            raise BertwrightError(f"max_length {max_length} is too short", fix=f"give at least {1 + 2 * len(parts)}")
        truncated = sum(lengths) > room
        while sum(lengths) > room:
            lengths[0 if lengths[0] > lengths[-1] or len(parts) == 1 else 1] -= 1
        input_ids, token_type_ids, offsets = [self.cls_id], [0], [(0, 0)]
        for segment, (part, length) in enumerate(zip(parts, lengths, strict=True)):
            input_ids += [*part.ids[:length], self.sep_id]
            token_type_ids += [segment] * (length + 1)
            offsets += [*part.offsets[:length], (0, 0)]
        return Encoding(input_ids, token_type_ids, offsets, truncated)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids: pieces joined, spaces where English wants them, none between Chinese characters."""
        words: list[str] = []
        for number in ids:
            token = self.tokens[number]
            if token.startswith("##") and len(token) > 2 and words:
                words[-1] += token[2:]
            else:
                words.append(token)
        return _tidy(" ".join(words))

    @cached_property
    def plain_tokenizer(self) -> Tokenizer:
        """The plain twin of the cache: it knows no special tokens."""
        model = models.WordPiece(self._id_of, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARACTERS)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=self.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    @cached_property
    def _marked(self) -> Tokenizer:
        """The tokenizer as it is saved: special tokens written in the text are those tokens."""
        tokenizer = Tokenizer.from_str(self.plain_tokenizer.to_str())
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls_id), ("[SEP]", self.sep_id)],
        )
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        return tokenizer

    def _text_bytes(self) -> bytes:
        return "".join(token + "\n" for token in self.tokens).encode()


class _ChunkCache(dict[str, bytes]):
    """From a chunk between two spaces to its ids as native uint32 bytes.

    A new chunk is cut and its parts are looked up in the same cache; only a part that cannot be cut is tokenized. Some
    100 MB when full.
    """

    def __init__(self, tokenizer: Tokenizer, lowercase: bool) -> None:
        self[""] = b""
        self._tokenizer = tokenizer
        self._lowercase = lowercase

    def __missing__(self, chunk: str) -> bytes:
        parts = cut(chunk, lowercase=self._lowercase)
        if parts[0] == chunk:
            ids = self._tokenizer.encode(_encodable(chunk), add_special_tokens=False).ids
            packed = np.array(ids, dtype=np.uint32).tobytes()
        else:
            packed = b"".join(map(self.__getitem__, parts))
        if len(chunk) <= _CACHED_CHARACTERS and len(self) < _CACHED_CHUNKS:
            self[chunk] = packed
        return packed


def _encodable(text: str) -> str:
    """Return the text with half surrogate pairs, which no encoding can write, as U+FFFD, which WordPiece drops."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def _rebuild(tokens: list[str], lowercase: bool) -> WordPiece:
    return WordPiece(tokens, lowercase=lowercase)


def _tokens_of_text(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BertwrightError(f"not UTF-8 ({error.reason} at byte {error.start:,})", where=path) from None
    return [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]


def _tokens_of_json(path: Path) -> list[str]:
    content = read_json(path)
    model = content.get("model") or {}
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise BertwrightError("its model is not WordPiece", where=path, fix="give the vocabulary of a BERT")
    ids = dict(model["vocab"])
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(ids))):
        raise BertwrightError("its ids are not 0, 1, 2, ...", where=path)
    return tokens


def _require_plain_rules(folder: Path) -> None:
    """Refuse a tokenizer whose words are cut by other rules than BERT's."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    config = read_json(path)
    lowercase = config.get("do_lower_case", True)
    for key, ours in (("strip_accents", lowercase), ("tokenize_chinese_chars", True)):
        if config.get(key) not in (None, ours):
            raise BertwrightError(f"{key} = {config[key]!r} is not supported; {ours!r} is", where=path)
    if "Japanese" in str(config.get("tokenizer_class")):
        raise BertwrightError(f"tokenizer_class {config['tokenizer_class']} is not BERT's own", where=path)


def _declared_casing(folder: Path) -> bool | None:
    for name, keys in (("tokenizer_config.json", ("do_lower_case",)), ("tokenizer.json", ("normalizer", "lowercase"))):
        if (folder / name).is_file():
            value: Any = read_json(folder / name)
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, bool):
                return value
    return None


_CHINESE = r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
_TIDY = (
    (re.compile(rf"(?<={_CHINESE}) | (?={_CHINESE})"), ""),
    (re.compile(r" (?=[.,!?;:%)\]}’”])|(?<=[(\[{$#‘“]) "), ""),
    (re.compile(r"(?<=\w) ?(['’\-–/@_&.]) ?(?=\w)"), r"\1"),
)


def _tidy(text: str) -> str:
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text
