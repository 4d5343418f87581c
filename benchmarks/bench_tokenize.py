"""How fast text becomes ids and offsets beside the `tokenizers` package, on the same text in turns, on one core.

    python benchmarks/bench_tokenize.py --out benchmarks/results/tokenize.json

Megabytes of UTF-8 per processor second. Every turn is a fresh process, so our caches are empty at first (cold); the
second pass finds them full (warm). The peer is `encode_batch_fast` for ids, and `encode_batch` for special tokens and
offsets: as it returns, and with its ids and offsets read into Python lists, which ours are from the start. Ids are made
of all texts in one call; offsets of a thousand at a time, which are let go before the next. Ids are compared with the
peer's; with Google's rules they may differ in rare characters, and the texts that do are counted.

Then what texts of about a megabyte cost that mean harm: processor seconds, None where `--limit` was not enough.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

BASE = Path(__file__).resolve().parent
SHARED = BASE.parents[1] / "shared" / "data"
PAIRS = {
    "ids, cold": ("ids, cold", "tokenizers, ids"),
    "ids, warm": ("ids, warm", "tokenizers, ids"),
    "ids as lists, warm": ("ids as lists, warm", "tokenizers, ids read"),
    "offsets, cold": ("offsets, cold", "tokenizers, offsets"),
    "offsets, warm": ("offsets, warm", "tokenizers, offsets"),
    "offsets, cold, the peer's read": ("offsets, cold", "tokenizers, offsets read"),
    "offsets, warm, the peer's read": ("offsets, warm", "tokenizers, offsets read"),
}
"""Ratios: ours and the peer's. `offsets` is all of `encode`: special tokens, ids and offsets."""
BATCH = 1_000
HOSTILE = {
    "one word": "a" * 1_000_000,
    "one word of pieces": "abcdexyz" * 125_000,
    "words of 192 letters": ("abcdexyz" * 24 + " ") * 5_180,
    "10^5 accents": "a" + "\u0301" * 100_000,
    "accents to be sorted": "a" + "\u0301\u0323" * 250_000,
    "accents that stay": "a" + "\u0301\u302e\u0323" * 143_000,
    "Σ and accents": "Σ" * 250_000 + "\u0301" * 250_000,
    "Σ": "Σ" * 500_000,
    "Chinese": "中" * 333_333,
    "dots": "." * 1_000_000,
    "brackets": "[" * 1_000_000,
    "[MASK]": "[MASK]" * 166_666,
    "nothing": "\u200b" * 333_333,
    "blanks": "\t\u2028" * 250_000,
    "all characters": "".join(map(chr, (*range(32, 0xD800), *range(0xE000, 0x50000)))),
}

WHO = ("google", "hf", "tokenizers")
"""Who encodes hostile texts: we with either rules, and the peer."""


def load_wordpiece(vocab: Path, style: str) -> Any:
    """Read a released uncased vocabulary, with the rules of either style."""
    from bertwright.text.rules import TextRules
    from bertwright.text.wordpiece import WordPiece

    rules = TextRules(lowercase=True) if style == "google" else TextRules.hugging_face(lowercase=True)
    return WordPiece(WordPiece.load(vocab, lowercase=True).tokens, rules)


def measure_speed(text: Path, vocab: Path, style: str, *, ours_first: bool) -> dict[str, Any]:
    """Encode the lines of a text once in each way; to be called in a fresh process."""
    from bertwright.text.vocabulary_files import to_tokenizers

    wordpiece = load_wordpiece(vocab, style)
    peer = to_tokenizers(wordpiece)
    texts = [line for line in text.read_text(encoding="utf-8").split("\n") if line.strip()]
    megabytes = sum(len(line.encode()) for line in texts) / 1e6
    speeds: dict[str, float] = {}
    ids: dict[str, list[bytes]] = {}
    offsets: dict[str, list[bytes]] = {}

    def timed(name: str, work: Callable[[], Any], seconds_before: float = 0.0) -> tuple[Any, float]:
        start = time.process_time()
        result = work()
        seconds = time.process_time() - start + seconds_before
        speeds[name] = megabytes / seconds
        return result, seconds

    def in_batches(name: str, encode: Callable[[list[str]], Any], reads: bool) -> None:
        ids[name], offsets[name] = [], []
        seconds = seconds_of_encode = 0.0
        for first in range(0, len(texts), BATCH):
            start = time.process_time()
            batch = encode(texts[first : first + BATCH])
            encoded = time.process_time()
            rows = [(each.ids, each.offsets) for each in batch] if reads else batch
            seconds_of_encode += encoded - start
            seconds += time.process_time() - start
            ids[name] += packed(row[1:-1] for row, _ in rows)
            offsets[name] += packed(row for _, row in rows)
        speeds[name] = megabytes / seconds_of_encode
        if reads:
            speeds[f"{name} read"] = megabytes / seconds

    def ours() -> None:
        timed("ids, cold", lambda: wordpiece.flat_ids_of_many(texts))
        timed("ids, warm", lambda: wordpiece.flat_ids_of_many(texts))
        lists, _ = timed("ids as lists, warm", lambda: wordpiece.ids_of_many(texts))
        ids["ours"] = packed(lists)
        del lists
        fresh = load_wordpiece(vocab, style)
        for name in ("offsets, cold", "offsets, warm"):
            in_batches(name, lambda batch: [(each.input_ids, each.offsets) for each in map(fresh.encode, batch)], False)

    def theirs() -> None:
        batch, seconds = timed("tokenizers, ids", lambda: peer.encode_batch_fast(texts, add_special_tokens=False))
        lists, _ = timed("tokenizers, ids read", lambda: [each.ids for each in batch], seconds)
        ids["theirs"] = packed(lists)
        del batch, lists
        in_batches("tokenizers, offsets", peer.encode_batch, True)

    for work in (ours, theirs) if ours_first else (theirs, ours):
        work()
    if not ids["ours"] == ids["offsets, cold"] == ids["offsets, warm"]:
        raise SystemExit("encode has other ids than ids_of_many")
    if offsets["offsets, cold"] != offsets["offsets, warm"]:
        raise SystemExit("a full cache gives other offsets than an empty one")
    return {
        "megabytes": megabytes,
        "texts": len(texts),
        "speeds": speeds,
        "texts_that_differ": count_different(ids["ours"], ids["theirs"]),
        "texts_whose_offsets_differ": count_different(offsets["offsets, cold"], offsets["tokenizers, offsets"]),
    }


def packed(rows: Iterable[Sequence[Any]]) -> list[bytes]:
    """Return rows of numbers as bytes: to be compared, and nothing the garbage collector has to look at."""
    import numpy as np

    return [np.array(row, np.int32).tobytes() for row in rows]


def count_different(ours: list[bytes], theirs: list[bytes]) -> int:
    """Count the texts of which we make something else."""
    return sum(one != other for one, other in zip(ours, theirs, strict=True))


def measure_harm(name: str, vocab: Path, who: str, limit: int) -> None:
    """Print the seconds for the ids of a hostile text, then those for its offsets; the system ends what takes longer.

    Args:
        name: of the text.
        vocab: an uncased vocabulary.
        who: `google` or `hf`, which are ours, or `tokenizers`.
        limit: processor seconds for each.
    """
    from bertwright.text.vocabulary_files import to_tokenizers

    text = HOSTILE[name]
    wordpiece = load_wordpiece(vocab, "google" if who == "google" else "hf")
    if who == "tokenizers":
        peer = to_tokenizers(wordpiece)
        works = [
            lambda: peer.encode_batch_fast([text], add_special_tokens=False)[0].ids,
            lambda: peer.encode_batch([text])[0].offsets,
        ]
    else:
        works = [lambda: wordpiece.flat_ids_of_many([text])[0], lambda: wordpiece.encode(text).offsets]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for work in works:
        start = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(start) + limit, resource.RLIM_INFINITY))
        result = work()
        print(json.dumps({"seconds": time.process_time() - start, "tokens": len(result)}), flush=True)
        del result


def in_fresh_process(*arguments: object) -> tuple[int, list[Any]]:
    """Run one measurement alone on one core; return the exit status and the lines it printed."""
    alone = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--part", *map(str, arguments)]
    output = subprocess.run(command, env=os.environ | alone, stdout=subprocess.PIPE, text=True)
    return output.returncode, [json.loads(line) for line in output.stdout.splitlines()]


def compare_speed(text: Path, vocab: Path, style: str, repeats: int) -> dict[str, Any]:
    """Let turns of fresh processes encode a text, ours first in every other one; return medians."""
    turns = []
    for turn in range(repeats):
        status, lines = in_fresh_process("speed", text, vocab, style, turn % 2)
        if status:
            raise SystemExit(f"the measurement ended with status {status}; its message stands above")
        turns += lines
    speeds = {name: [turn["speeds"][name] for turn in turns] for name in turns[0]["speeds"]}
    ratios = {
        name: [one / other for one, other in zip(speeds[ours], speeds[theirs], strict=True)]
        for name, (ours, theirs) in PAIRS.items()
    }
    counts = {name: value for name, value in turns[0].items() if name != "speeds"}
    return {
        **counts,
        "identical": not any(turn["texts_that_differ"] for turn in turns),
        "megabytes_per_processor_second": {name: statistics.median(values) for name, values in speeds.items()},
        "ratios": {name: {"median": statistics.median(values), "each": values} for name, values in ratios.items()},
        "each": speeds,
    }


def print_speed(title: str, found: dict[str, Any]) -> None:
    """Print the medians of one text: ours, the peer's, the ratio."""
    speeds = found["megabytes_per_processor_second"]
    for name, (ours, theirs) in PAIRS.items():
        ratio = found["ratios"][name]["median"]
        print(f"{title:<12}{name:<32}{speeds[ours]:7.2f}{speeds[theirs]:7.2f}{ratio:7.2f}x")
    print(f"{found['texts_that_differ']:,} of {found['texts']:,} texts differ", flush=True)


def compare_harm(vocab: Path, repeats: int, limit: int) -> dict[str, Any]:
    """Measure every hostile text; the peer is not asked again for what it did not finish."""
    table: dict[str, Any] = {}
    for name, text in HOSTILE.items():
        row: dict[str, Any] = {"megabytes": len(text.encode()) / 1e6}
        for who in WHO:
            turns = []
            while len(turns) < repeats and (not turns or len(turns[-1]) == 2):
                turns.append(in_fresh_process("harm", name, vocab, who, limit)[1])
            row[who] = {
                what: statistics.median(turn[place]["seconds"] for turn in turns) if len(turns[-1]) > place else None
                for place, what in enumerate(("ids", "offsets"))
            } | {"tokens": turns[0][0]["tokens"] if turns[0] else None}
        table[name] = row
        print(f"{name:<22}", *(f"{who}: {_shown(row[who], limit)}" for who in WHO), sep="   ", flush=True)
    return table


def _shown(row: dict[str, Any], limit: int) -> str:
    seconds = [row[what] for what in ("ids", "offsets")]
    return " ".join(f"{each:6.3f}" if each is not None else f"> {limit:4}" for each in seconds)


def main() -> None:
    """Measure, print and save."""
    if sys.argv[1:2] == ["--part"]:
        part, first, vocab, kind, number = sys.argv[2:]
        if part == "speed":
            print(json.dumps(measure_speed(Path(first), Path(vocab), kind, ours_first=bool(int(number)))))
        else:
            measure_harm(first, Path(vocab), kind, int(number))
        return
    import common
    from bench_vocab import write_text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--en", type=Path, default=SHARED / "corpora" / "en-wikipedia-featured.jsonl.xz")
    parser.add_argument("--zh", type=Path, default=SHARED / "corpora" / "zh-wikipedia-part.jsonl.xz")
    parser.add_argument("--vocab", type=Path, default=SHARED / "vocab", help="folder of the released vocab.txt files")
    parser.add_argument("--megabytes", type=float, default=12.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=10, help="processor seconds for a hostile text")
    parser.add_argument("--out", type=Path, default=BASE / "results" / "tokenize.json")
    options = parser.parse_args()
    vocabs = {
        "en": options.vocab / "bert-base-uncased-vocab.txt",
        "zh": options.vocab / "bert-base-chinese-vocab.txt",
    }
    for path in (options.en, options.zh, *vocabs.values()):
        if not path.exists():
            raise SystemExit(f"{path} is not here; name it with --en, --zh, --vocab")
    result = {"what": "text to ids and offsets", **common.describe_machine("tokenizers"), "repeats": options.repeats}
    with tempfile.TemporaryDirectory() as folder:
        result["text"] = {}
        for language, vocab in vocabs.items():
            text = Path(folder) / f"{language}.txt"
            write_text(getattr(options, language), options.megabytes, text)
            for style in ("hf", "google"):
                found = compare_speed(text, vocab, style, options.repeats)
                result["text"][f"{language}, {style}"] = found
                print_speed(f"{language}, {style}", found)
    result["hostile"] = {"limit": options.limit, "seconds": compare_harm(vocabs["en"], options.repeats, options.limit)}
    common.save(options.out, result)


if __name__ == "__main__":
    main()
