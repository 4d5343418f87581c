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

from bertwright.errors import BertwrightError
from bertwright.files import explain_os_errors
from bertwright.json_values import read_json
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
        lowercase: overrides what the files say. Where nobody says it, a vocabulary without words that begin with an
            upper-case Latin letter is taken as uncased, and the log says so.

    Raises:
        BertwrightError: nothing is there, it is no BERT vocabulary, it is damaged, or its files contradict each other.
    """
    folder = path if path.is_dir() else path.parent
    file = _vocabulary_file(path)
    is_named_so = file.name in ("vocab.txt", "tokenizer.json")  # another file is not of what lies beside it
    settings = _read_if_there(folder / "tokenizer_config.json") if is_named_so else {}
    description = file if file.suffix == ".json" else folder / "tokenizer.json"
    described = _read_if_there(description) if is_named_so or file == description else {}
    tokens, added, num_pieces = _read_tokens(file, settings, described)
    rules = _rules(settings, described, description)
    if lowercase is None:
        lowercase = rules.lowercase if settings.keys() & _FLAGS or described else None
    if lowercase is None:
        lowercase = not any("A" <= token.removeprefix("##")[:1] <= "Z" for token in tokens)  # <S> is no word
        _logger.info("%s: taken as %s, from its entries", file, "uncased" if lowercase else "cased")
    try:
        return WordPiece(tokens, replace(rules, lowercase=lowercase), added=added, num_pieces=num_pieces)
    except BertwrightError as error:
        fix = "put back the file that the model was trained with"
        raise BertwrightError(error.what, where=f"{file}, {error.where}", fix=fix) from None


def save_wordpiece(wordpiece: WordPiece, folder: Path, *, max_length: int = 512) -> None:
    """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, a `BertTokenizer` to transformers.

    Args:
        wordpiece: the vocabulary.
        folder: made if it is not there.
        max_length: longest input of the model, tokens.

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
        "model_max_length": max_length,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": rules.strip_accents,
        "tokenize_chinese_chars": rules.split_chinese,
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }
    contents = {
        "vocab.txt": "".join(token + "\n" for token in wordpiece.tokens[: wordpiece.num_pieces]).encode(),
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
    ids = {token: number for number, token in enumerate(wordpiece.tokens[: wordpiece.num_pieces])}
    model = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=rules.max_word_characters)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = bert_normalizer(rules)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own = {token.content: token for token in wordpiece.added}
    marked = [own.pop(name, AddedToken(name, special=True)) for name in SPECIAL_TOKENS]
    for token in [*marked, *sorted(own.values(), key=lambda token: wordpiece.convert(token.content))]:
        flags = {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word", "special")}
        tokenizer.add_tokens([HuggingFaceToken(token.content, normalized=token.any_case, **flags)])
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


Tokens = tuple[list[str], list[AddedToken], int]
"""The entries in order of their ids, those found as they are written, and how many of all words are cut into."""


def _read_tokens(file: Path, settings: Mapping[str, Any], described: Mapping[str, Any]) -> Tokens:
    if file.suffix == ".json":
        return _tokens_of_json(described, file)
    tokens = _tokens_of_text(file)
    if file.name != "vocab.txt":
        return tokens, [], len(tokens)
    if not described:
        return _with_added(tokens, *_added_of_settings(settings, file.parent), file)
    theirs, added, num_pieces = _tokens_of_json(described, file.with_name("tokenizer.json"))
    for row, (one, other) in enumerate(zip(tokens, theirs, strict=False), start=1):
        if one != other:
            raise BertwrightError(f"row {row:,} is {one!r}, but tokenizer.json says {other!r}", where=file,
                                  fix="remove the file that is not this model's")  # fmt: skip
    if not num_pieces <= len(tokens) <= len(theirs):
        raise BertwrightError(f"{len(tokens):,} entries, but tokenizer.json has {num_pieces:,}", where=file,
                              fix="remove the file that is not this model's")  # fmt: skip
    return theirs, added, num_pieces


def _added_of_settings(settings: Mapping[str, Any], folder: Path) -> tuple[dict[str, AddedToken], dict[str, int]]:
    """Return the tokens added to a `vocab.txt` that no tokenizer.json lies beside, and their ids."""
    entries = settings.get("added_tokens_decoder") or {}
    path = folder / "tokenizer_config.json"
    if not isinstance(entries, dict):
        raise BertwrightError("added_tokens_decoder is not an object", where=path)
    found = [_added_token({**entry, "id": int(number)} if number.isdecimal() else entry, path)
             for number, entry in entries.items() if isinstance(entry, dict)]  # fmt: skip
    ids = {token.content: number for token, number in found}
    added = {token.content: token for token, _ in found if token.content not in SPECIAL_TOKENS}
    for content, number in _read_if_there(folder / "added_tokens.json").items():
        if content not in ids:
            ids[content], added[content] = number, AddedToken(content, any_case=True)
    return added, ids


def _added_token(entry: Any, path: Path) -> tuple[AddedToken, int]:
    content, number = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
    if not isinstance(content, str) or type(number) is not int:
        raise BertwrightError(f"an added token has no content or no id: {entry!r}", where=path)
    flags = {key: bool(entry.get(key)) for key in ("lstrip", "rstrip", "single_word", "special")}
    return AddedToken(content, any_case=bool(entry.get("normalized")), **flags), number


def _tokens_of_text(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BertwrightError(f"not UTF-8 ({error.reason} at byte {error.start:,})", where=path) from None
    return text.rstrip("\n").split("\n")


def _tokens_of_json(content: Mapping[str, Any], path: Path) -> Tokens:
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
    entries = content.get("added_tokens") or []
    if not isinstance(entries, list):
        raise BertwrightError("added_tokens is not a list", where=path)
    found = [_added_token(entry, path) for entry in entries]
    plain = [AddedToken(token, special=True) for token in SPECIAL_TOKENS]
    added = {token.content: token for token, _ in found if token not in plain}
    return _with_added(tokens, added, {token.content: number for token, number in found}, path)


def _with_added(tokens: list[str], added: Mapping[str, AddedToken], ids: Mapping[str, int], path: Path) -> Tokens:
    """Put tokens that were added later behind the vocabulary."""
    num_pieces, tokens = len(tokens), list(tokens)
    places = {token: number for number, token in enumerate(tokens)}
    for token in sorted(ids, key=ids.__getitem__):
        expected = places.get(token, len(tokens))
        if ids[token] != expected:
            raise BertwrightError(f"the added token {token!r} has id {ids[token]}, not {expected:,}", where=path)
        if token not in places:
            tokens.append(token)
    return tokens, list(added.values()), num_pieces


def _rules(settings: Mapping[str, Any], described: Mapping[str, Any], path: Path) -> TextRules:
    if "Japanese" in str(settings.get("tokenizer_class")):
        raise BertwrightError(
            f"tokenizer_class {settings['tokenizer_class']} is not BERT's own",
            where=path.with_name("tokenizer_config.json"),
        )
    said = {field: settings[key] for key, field in _FLAGS.items() if settings.get(key) is not None}
    limit = {"max_word_characters": described["model"].get("max_input_chars_per_word", 100)} if described else {}
    if settings.get(_RULES_KEY) == "google" or not (settings or described):
        return TextRules(**{"lowercase": True, **said, **limit})
    rules = replace(TextRules.hugging_face(lowercase=True), **said)
    if not described:
        return rules
    _require_bert_ends(described.get("post_processor"), path)
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
    meant = replace(rules, **values, **limit)
    for key, field in _FLAGS.items():
        if field in said and getattr(meant.canonical, field) != getattr(replace(meant, **said).canonical, field):
            _logger.warning("%s says %s = %r; tokenizer.json says otherwise, and counts",
                            path.with_name("tokenizer_config.json"), key, settings[key])  # fmt: skip
    return meant


def _require_bert_ends(post_processor: Any, path: Path) -> None:
    """Refuse a tokenizer that puts something else around a text than [CLS] and [SEP]."""
    kind = post_processor.get("type") if isinstance(post_processor, dict) else None
    if post_processor is None:
        _logger.warning("%s says nothing of [CLS] and [SEP]: they are put around texts as BERT's are", path)
    elif kind == "BertProcessing":
        if [post_processor.get(end, [None])[0] for end in ("cls", "sep")] != ["[CLS]", "[SEP]"]:
            raise BertwrightError("its post_processor puts other tokens around a text than [CLS] and [SEP]", where=path)
    elif kind != "TemplateProcessing" or [_template(post_processor, key) for key in ("single", "pair")] != [
        "[CLS]0 A0 [SEP]0", "[CLS]0 A0 [SEP]0 B1 [SEP]1",
    ]:  # fmt: skip
        raise BertwrightError("its post_processor does not make [CLS] A [SEP] B [SEP]", where=path)


def _template(post_processor: Mapping[str, Any], key: str) -> str:
    parts = [next(iter(part.values())) for part in post_processor.get(key) or [] if isinstance(part, dict) and part]
    return " ".join(f"{part.get('id')}{part.get('type_id')}" for part in parts if isinstance(part, dict))
