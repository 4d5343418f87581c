"""Examples on disk: flat token files and tables of ranges, memory-mapped, under a manifest that can prove them.

A shard folder holds `manifest.json`, the vocabulary, and for every shard of the splits `train` and `held_out` two
files: `train-00000.tokens` (little-endian uint16, or uint32 for vocabularies beyond 65,536) and `train-00000.examples`
(`EXAMPLE_DTYPE`). Built for whole word masking, it has a third: `train-00000.words`, a byte for every token, 1 where
the token goes on with the word of the token before it. Opening maps the files and reads none of them.

    shards = ShardSet.open("shards")
    shards.split("train").example(0)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt

from bertwright.config import DataConfig, MaskingConfig
from bertwright.data.pairs import EXAMPLE_DTYPE, Examples, num_specials
from bertwright.errors import BertwrightError
from bertwright.files import sha256_of
from bertwright.json_values import from_dict, read_json
from bertwright.text.wordpiece import WordPiece

FORMAT_VERSION = 1
SPLITS = ("train", "held_out")
_COUNTED_AT_ONCE = 1 << 24
_REBUILD = "build it again with `bertwright data build`"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a split holds."""

    documents: int = 0
    """Documents with at least one token."""
    empty_documents: int = 0
    """Documents without a token, left out."""
    single_sentence_documents: int = 0
    """Documents of one sentence; under `next_sentence_rule="paper"` they serve as random B alone."""
    sentences: int = 0
    """Sentences with at least one token."""
    tokens: int = 0
    """Tokens of the text, without specials."""
    unknown_tokens: int = 0
    """[UNK] among them."""
    examples: int = 0
    """Examples cut from them."""
    example_tokens: int = 0
    """Tokens of all examples, specials included: what one epoch trains on."""
    random_next: int = 0
    """Examples whose B is random."""
    words: int = 0
    """Words of the text; 0 where the shards do not know them."""
    chinese_tokens: int = 0
    """Tokens that are a Chinese character, in shards that know words."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def random_next_share(self) -> float:
        """Share of the examples whose B is random."""
        return self.random_next / max(1, self.examples)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says of a shard folder."""

    config: DataConfig
    """How the documents were cut."""
    vocabulary: dict[str, Any]
    """`sha256` and `size` of the vocabulary."""
    corpus: list[dict[str, Any]]
    """`name` and `bytes` of every corpus file, in reading order."""
    counts: dict[str, Counts]
    """What each split holds."""
    files: dict[str, dict[str, Any]]
    """`bytes` and `sha256` of every file, by name."""
    segmenter: dict[str, Any] | None = None
    """What the words depend on beside `config.whole_word`: a package's version; a lexicon's `sha256` and `words`."""

    def save(self, folder: Path) -> None:
        """Write `manifest.json`."""
        counts = {split: asdict(self.counts[split]) for split in SPLITS}
        for split in SPLITS:
            counts[split]["random_next_share"] = round(self.counts[split].random_next_share, 6)
        values = asdict(self) | {"counts": counts}
        text = json.dumps(
            {"format": "bertwright-shards", "version": FORMAT_VERSION} | values, indent=2, ensure_ascii=False
        )
        (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `manifest.json`.

        Raises:
            BertwrightError: there is none, or it is not one this version reads.
        """
        path = folder / "manifest.json"
        if not path.is_file():
            raise BertwrightError("no shards here: manifest.json is missing", where=folder, fix=_REBUILD)
        values = read_json(path)
        found = values.get("format"), values.get("version")
        if found != ("bertwright-shards", FORMAT_VERSION):
            raise BertwrightError(
                f"expected bertwright-shards version {FORMAT_VERSION}, found {found}", where=path, fix=_REBUILD
            )
        names = [field.name for field in fields(Counts)]
        try:
            # Shards of earlier versions count no words.
            counts = {split: {"words": 0, "chinese_tokens": 0} | values["counts"].get(split, {}) for split in SPLITS}
            return cls(
                config=from_dict(DataConfig, values["config"], where=path),
                vocabulary=values["vocabulary"],
                corpus=values["corpus"],
                counts={split: Counts(**{name: counts[split][name] for name in names}) for split in SPLITS},
                files=values["files"],
                segmenter=values.get("segmenter"),
            )
        except KeyError as error:
            raise BertwrightError(f"{error} is missing", where=path, fix=_REBUILD) from None


class RawExample(NamedTuple):
    """The bare token ids of an example, without [CLS] and [SEP]."""

    a: UInt[np.ndarray, "La"]
    b: UInt[np.ndarray, "Lb"] | None
    """None in single-segment shards."""
    next_sentence_label: int | None
    """0: B follows A; 1: B is random; None in single-segment shards."""
    a_goes_on: Bool[np.ndarray, "La"] | None = None
    """Whether each token of A goes on with the word of the token before it; None where the shards know no words."""
    b_goes_on: Bool[np.ndarray, "Lb"] | None = None
    """Likewise of B."""


class _Shard(NamedTuple):
    tokens: UInt[np.ndarray, "N"]
    examples: Examples
    goes_on: Bool[np.ndarray, "N"] | None


class Split:
    """All examples of one split, numbered from 0 across its shards.

    Args:
        name: `train` or `held_out`.
        config: how the examples were cut.
        shards: their tokens and tables, in order.
    """

    def __init__(self, name: str, config: DataConfig, shards: Sequence[_Shard]) -> None:
        self.name = name
        self.config = config
        self._shards = shards
        self._starts = np.cumsum([0, *(len(shard.examples) for shard in shards)])
        self._paired = config.objective == "mlm+nsp"
        self._longest = config.max_length - num_specials(config)

    def cropped(self, max_length: int) -> Split:
        """Return the same examples cut to `max_length` tokens, specials included.

        Of a pair, the end of A and the start of B stay, half of the tokens each where both are long enough.
        """
        crop = Split(self.name, self.config, self._shards)
        crop._longest = max_length - num_specials(self.config)
        return crop

    def masks_words(self, masking: MaskingConfig) -> bool:
        """Tell whether whole words are predicted: as the dial says, or else where the shards know words.

        Raises:
            BertwrightError: the dial asks for words that the shards do not know.
        """
        knows = bool(self.config.whole_word)
        if masking.whole_word and not knows:
            raise BertwrightError(
                "the shards do not know which tokens are one word",
                fix="build them with `bertwright data build --whole-word HOW`, or leave out --whole-word here",
            )
        return knows and masking.whole_word is not False

    def __len__(self) -> int:
        return int(self._starts[-1])

    def lengths(self) -> UInt[np.ndarray, "E"]:
        """Return every example's length in tokens, specials included, as uint16."""
        return self._lengths

    @cached_property
    def _lengths(self) -> UInt[np.ndarray, "E"]:
        specials = np.uint16(num_specials(self.config))
        parts = [shard.examples["a_length"] + shard.examples["b_length"] for shard in self._shards]
        lengths = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)
        return np.minimum(lengths, np.uint16(self._longest)) + specials

    def token_counts(self, vocab_size: int) -> Int[np.ndarray, "V"]:
        """Return how often each id occurs in the texts of the split, specials left out."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for shard in self._shards:
            for start in range(0, len(shard.tokens), _COUNTED_AT_ONCE):
                counts += np.bincount(shard.tokens[start : start + _COUNTED_AT_ONCE], minlength=vocab_size)
        return counts

    def example(self, index: int) -> RawExample:
        """Return one example.

        Raises:
            BertwrightError: there is no such example.
        """
        if not 0 <= index < len(self):
            raise BertwrightError(f"no example {index:,}: {self.name} holds {len(self):,}, numbered from 0")
        return self.gather(np.array([index]))[0]

    def gather(self, indices: Int[np.ndarray, "B"]) -> list[RawExample]:
        """Return several examples, in the order asked for; their arrays are views of the files."""
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        found = []
        for number, row in zip(numbers.tolist(), (indices - self._starts[numbers]).tolist(), strict=True):
            tokens, examples, goes_on = self._shards[number]
            a_start, a_length, b_start, b_length, label = examples[row].item()
            if a_length + b_length > self._longest:
                a_kept = min(a_length, max(self._longest // 2, self._longest - b_length))
                a_start, a_length, b_length = a_start + a_length - a_kept, a_kept, self._longest - a_kept
            a, b = slice(a_start, a_start + a_length), slice(b_start, b_start + b_length)
            paired = (tokens[b], label) if self._paired else (None, None)
            words = () if goes_on is None else (goes_on[a], goes_on[b] if self._paired else None)
            found.append(RawExample(tokens[a], *paired, *words))
        return found


class ShardSet:
    """A shard folder, opened.

    Args:
        folder: where it lies.
        manifest: what it says of itself.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> ShardSet:
        """Open a shard folder, after a look at the size of every file.

        Args:
            folder: what `build_shards` wrote.
            verify: read every file and compare its sha256 with the manifest's.

        Raises:
            BertwrightError: no shards, another format, or a missing or damaged file, which is named.
        """
        folder = Path(folder)
        manifest = Manifest.load(folder)
        for name, record in manifest.files.items():
            path = folder / name
            if not path.is_file():
                raise BertwrightError("file is missing from the shards", where=path, fix=_REBUILD)
            size = path.stat().st_size
            if size != record["bytes"]:
                raise BertwrightError(
                    f"file is damaged: {size:,} bytes instead of {record['bytes']:,}", where=path, fix=_REBUILD
                )
            if verify and sha256_of(path) != record["sha256"]:
                raise BertwrightError("file is damaged: its sha256 is not the manifest's", where=path, fix=_REBUILD)
        return cls(folder, manifest)

    def split(self, name: str) -> Split:
        """Map the shards of `train` or `held_out`; a small corpus may have an empty `held_out`."""
        assert name in SPLITS, name
        stems = sorted(file.removesuffix(".examples") for file in self.manifest.files if _belongs(file, name))
        dtype = token_dtype(self.manifest.vocabulary["size"])
        words = bool(self.manifest.config.whole_word)
        shards = [
            _Shard(
                _map(self.folder / f"{stem}.tokens", dtype),
                _map(self.folder / f"{stem}.examples", EXAMPLE_DTYPE),
                _map(self.folder / f"{stem}.words", np.dtype(bool)) if words else None,
            )
            for stem in stems
        ]
        return Split(name, self.manifest.config, shards)

    @cached_property
    def wordpiece(self) -> WordPiece:
        """The vocabulary that the shards were built with, kept in their folder."""
        wordpiece = WordPiece.load(self.folder)
        self.check_vocabulary(wordpiece)
        return wordpiece

    def check_vocabulary(self, wordpiece: WordPiece) -> None:
        """Make sure that a vocabulary is the one the shards were built with.

        Raises:
            BertwrightError: it is another one.
        """
        if wordpiece.sha256 != self.manifest.vocabulary["sha256"]:
            raise BertwrightError(
                f"the shards were built with another vocabulary: {self.manifest.vocabulary['size']:,} entries, "
                f"sha256 {self.manifest.vocabulary['sha256'][:12]}…, not {wordpiece.vocab_size:,} entries, "
                f"sha256 {wordpiece.sha256[:12]}…",
                where=self.folder,
                fix="use the vocabulary in the shard folder, or build the shards again with the other one",
            )


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the narrowest type that holds every id: uint16 or uint32, little-endian."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def write_shard(
    folder: Path,
    stem: str,
    tokens: UInt[np.ndarray, "N"],
    examples: Examples,
    goes_on: Bool[np.ndarray, "N"] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write one shard's files, two or with words three; return their records for the manifest."""
    records = {}
    arrays = {".tokens": tokens, ".examples": examples} | ({} if goes_on is None else {".words": goes_on})
    for suffix, array in arrays.items():
        data = array.tobytes()
        (folder / f"{stem}{suffix}").write_bytes(data)
        records[stem + suffix] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return records


def _belongs(file: str, split: str) -> bool:
    return file.startswith(f"{split}-") and file.endswith(".examples")


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    # A plain array over the mapping: slices of np.memmap itself cost ten times as much.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
