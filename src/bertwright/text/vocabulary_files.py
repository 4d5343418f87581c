"""A vocabulary on disk: Google's `vocab.txt`, and Hugging Face's `tokenizer.json` and `tokenizer_config.json`.

Which rules a folder means, in this order:

1. `tokenizer_config.json` says `"bertwright_rules": "google"`: ours, Google's rendering.
2. There is a `tokenizer.json` or a `tokenizer_config.json`: Hugging Face's rendering, with what `tokenizer.json` says.
3. A `vocab.txt` alone: Google's rendering.

    wordpiece = load_wordpiece(Path("bert-base-uncased"))
    save_wordpiece(wordpiece, Path("model"))
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken as HuggingFaceToken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from bertwright.config import read_json
from bertwright.errors import BertwrightError
from bertwright.files import explain_os_errors
from bertwright.text.rules import TextRules, bert_normalizer
from bertwright.text.wordpiece import SPECIAL_TOKENS, AddedToken, WordPiece

_RULES_KEY = "bertwright_rules"
_FLAGS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "split_chinese"}
"""Keys of `tokenizer_config.json`, and the fields of `TextRules` that they mean."""
_NORMALIZER = {"lowercase": "lowercase", "strip_accents": "strip_accents", "handle_chinese_chars": "split_chinese",
               "clean_text": "clean_text"}  # fmt: skip
"""Keys of `tokenizer.json`'s normalizer, likewise."""
_logger = logging.getLogger(__name__)


def load_wordpiece(path: Path, *, lowercase: bool | None = None) -> WordPiece:
    """Read a vocabulary from a model folder, a `vocab.txt` or a `tokenizer.json`.

    Args:
        path: the file, or the folder it lies in.
        lowercase: overrides what the files say. Where nobody says it, a vocabulary without upper-case Latin letters is
            taken as uncased, and the log says so.

    Raises:
        BertwrightError: nothing is there, it is no BERT vocabulary, it is damaged, or its files contradict each other.
    """
    folder = path if path.is_dir() else path.parent
    file = _vocabulary_file(path)
    settings = _read_if_there(folder / "tokenizer_config.json")
    described = _read_if_there(folder / "tokenizer.json")
    tokens, added = _read_tokens(file, folder, described)
    rules = _rules(settings, described, folder)
    if lowercase is None:
        lowercase = rules.lowercase if settings.keys() & _FLAGS or described else None
    if lowercase is None:
        lowercase = not any("A" <= char <= "Z" for token in tokens if not token.startswith("[") for char in token)
        _logger.info("%s: taken as %s, from its entries", file, "uncased" if lowercase else "cased")
    try:
        return WordPiece(tokens, replace(rules, lowercase=lowercase), added=added)
    except BertwrightError as error:
        raise BertwrightError(error.what, where=f"{file}, {error.where}", fix="this is no BERT vocabulary") from None


def save_wordpiece(wordpiece: WordPiece, folder: Path) -> None:
    """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, a `BertTokenizer` to transformers.

    Raises:
        DiskFullError: there was no room; what was there before is intact.
        BertwrightError: the place may not be written.
    """
    rules = wordpiece.rules
    settings = {
        _RULES_KEY: rules.style,
        "cls_token": "[CLS]",
        "do_lower_case": rules.lowercase,
        "mask_token": "[MASK]",
        "model_max_length": 512,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": rules.strip_accents,
        "tokenize_chinese_chars": rules.split_chinese,
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }
    contents = {
        "vocab.txt": "".join(token + "\n" for token in wordpiece.tokens).encode(),
        "tokenizer.json": (to_tokenizers(wordpiece).to_str(pretty=True) + "\n").encode(),
        "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode(),
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


def to_tokenizers(wordpiece: WordPiece) -> Tokenizer:
    """Return the nearest that the `tokenizers` package has: the same for `hf` rules, but for rare characters else."""
    rules = wordpiece.rules
    ids = {token: number for number, token in enumerate(wordpiece.tokens)}
    model = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=rules.max_word_characters)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = bert_normalizer(rules)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([HuggingFaceToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    for token in wordpiece.added:
        strips = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
        tokenizer.add_tokens([HuggingFaceToken(token.content, normalized=token.any_case, **strips)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", wordpiece.cls_id), ("[SEP]", wordpiece.sep_id)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _vocabulary_file(path: Path) -> Path:
    if path.is_dir():
        for file in (path / "vocab.txt", path / "tokenizer.json"):
            if file.is_file():
                return file
    elif path.is_file():
        return path
    what = "neither vocab.txt nor tokenizer.json is in this folder" if path.is_dir() else "no such file or folder"
    raise BertwrightError(what, where=path, fix="make a vocabulary with: bertwright vocab CORPUS --out DIR")


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _read_tokens(file: Path, folder: Path, described: Mapping[str, Any]) -> tuple[list[str], list[AddedToken]]:
    """Return the entries in order of their ids, and those that are found in the text as they are written."""
    if file.suffix == ".json":
        tokens, added = _tokens_of_json(read_json(file), file)
        return tokens, added
    tokens = _tokens_of_text(file)
    if file != folder / "vocab.txt":
        return tokens, []
    added_path = folder / "added_tokens.json"
    added_ids = _read_if_there(added_path)
    if not described:
        return _with_added(
            tokens, {token: AddedToken(token, any_case=True) for token in added_ids}, added_ids, added_path
        )
    json_path = folder / "tokenizer.json"
    theirs, added = _tokens_of_json(described, json_path)
    for row, (one, other) in enumerate(zip(tokens, theirs, strict=False), start=1):
        if one != other:
            raise BertwrightError(f"row {row:,} is {one!r}, but tokenizer.json says {other!r}", where=file,
                                  fix="remove the file that is not this model's")  # fmt: skip
    if len(theirs) - len(added) > len(tokens) or len(theirs) < len(tokens):
        raise BertwrightError(f"{len(tokens):,} entries, but tokenizer.json has {len(theirs):,}", where=file,
                              fix="remove the file that is not this model's")  # fmt: skip
    return theirs, added


def _tokens_of_text(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BertwrightError(f"not UTF-8 ({error.reason} at byte {error.start:,})", where=path) from None
    return [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]


def _tokens_of_json(content: Mapping[str, Any], path: Path) -> tuple[list[str], list[AddedToken]]:
    model = content.get("model")
    if (
        not isinstance(model, dict)
        or model.get("type", "WordPiece") != "WordPiece"
        or not isinstance(model.get("vocab"), dict)
    ):
        raise BertwrightError("its model is not WordPiece", where=path, fix="give the vocabulary of a BERT")
    for key, ours in (("unk_token", "[UNK]"), ("continuing_subword_prefix", "##")):
        if model.get(key, ours) != ours:
            raise BertwrightError(f"model.{key} is {model[key]!r}; {ours!r} is supported", where=path)
    limit = model.get("max_input_chars_per_word", 100)
    if type(limit) is not int or limit < 1:
        raise BertwrightError(f"model.max_input_chars_per_word is {limit!r}, not a positive number", where=path)
    ids = dict(model["vocab"])
    if not all(type(number) is int for number in ids.values()):
        raise BertwrightError("its ids are not 0, 1, 2, ...", where=path)
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(ids))):
        raise BertwrightError("its ids are not 0, 1, 2, ...", where=path)
    added, added_ids = {}, {}
    entries = content.get("added_tokens") or []
    if not isinstance(entries, list):
        raise BertwrightError("added_tokens is not a list", where=path)
    for entry in entries:
        token, number = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or type(number) is not int:
            raise BertwrightError(f"an added token has no content or no id: {entry!r}", where=path)
        if token not in SPECIAL_TOKENS:
            flags = {key: bool(entry.get(key)) for key in ("lstrip", "rstrip", "single_word")}
            added[token] = AddedToken(token, any_case=bool(entry.get("normalized")), **flags)
        added_ids[token] = entry["id"]
    return _with_added(tokens, added, added_ids, path)


def _with_added(
    tokens: list[str], added: Mapping[str, AddedToken], ids: Mapping[str, int], path: Path
) -> tuple[list[str], list[AddedToken]]:
    """Put tokens that were added later behind the vocabulary."""
    places = {token: number for number, token in enumerate(tokens)}
    for token in sorted(ids, key=ids.__getitem__):
        if ids[token] != places.get(token, len(tokens)):
            expected = places.get(token, len(tokens))
            raise BertwrightError(f"the added token {token!r} has id {ids[token]}, not {expected:,}", where=path)
        if token not in places:
            tokens = [*tokens, token]
    return tokens, list(added.values())


def _rules(settings: Mapping[str, Any], described: Mapping[str, Any], folder: Path) -> TextRules:
    if "Japanese" in str(settings.get("tokenizer_class")):
        raise BertwrightError(
            f"tokenizer_class {settings['tokenizer_class']} is not BERT's own", where=folder / "tokenizer_config.json"
        )
    said = {field: settings[key] for key, field in _FLAGS.items() if settings.get(key) is not None}
    if settings.get(_RULES_KEY) == "google" or not (settings or described):
        return TextRules(**{"lowercase": True, **said})
    rules = replace(TextRules.hugging_face(lowercase=True), **said)
    if not described:
        return rules
    path = folder / "tokenizer.json"
    normalizer, splitter = (described.get(key) or {} for key in ("normalizer", "pre_tokenizer"))
    for key, part, expected in (("normalizer", normalizer, "BertNormalizer"),
                                ("pre_tokenizer", splitter, "BertPreTokenizer")):  # fmt: skip
        found = part.get("type") if isinstance(part, dict) else part
        if found != expected:
            raise BertwrightError(f"{key} is {found!r}; BERT's is {expected!r}", where=path)
    for key in _NORMALIZER:
        value = normalizer.get(key)
        if value is not None and not isinstance(value, bool):
            raise BertwrightError(f"normalizer.{key} is {value!r}, not true or false", where=path)
    values = {field: normalizer.get(key, getattr(rules, field)) for key, field in _NORMALIZER.items()}
    limit = described["model"].get("max_input_chars_per_word", rules.max_word_characters)
    meant = replace(rules, **values, max_word_characters=limit)
    for key, field in _FLAGS.items():
        if field in said and getattr(meant.canonical, field) != getattr(replace(meant, **said).canonical, field):
            _logger.warning("%s says %s = %r; tokenizer.json says otherwise, and counts",
                            folder / "tokenizer_config.json", key, settings[key])  # fmt: skip
    return meant
