"""How fast vocabularies are trained and text is encoded, beside the `tokenizers` package, on the same text in turns.

    python benchmarks/bench_vocab.py --out benchmarks/results/vocab.json

Training is measured from the same `.txt` file to the vocabulary, by the clock (the peer runs on all cores, ours on one)
and in processor seconds; reading, splitting and encoding in processor seconds of one core. Figures by the clock need an
idle machine; the load average is noted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE = Path(__file__).resolve().parent
SHARED = BASE.parents[1] / "shared" / "data"
SIZE = 30_522


def write_text(corpus: Path, megabytes: float, out: Path) -> int:
    """Write the first documents of a corpus as a `.txt` file and return its bytes."""
    from bertwright.text.corpus import read_texts

    with out.open("w", encoding="utf-8") as file:
        for text in read_texts(corpus):
            file.write(text.strip() + "\n\n")
            if file.tell() >= megabytes * 1e6:
                break
    return out.stat().st_size


def train_ours(path: Path) -> Any:
    """Train with Bertwright."""
    from bertwright.config import VocabConfig
    from bertwright.text.vocabulary import train_vocabulary

    return train_vocabulary([path], VocabConfig(size=SIZE)).wordpiece.tokens


def train_theirs(path: Path) -> Any:
    """Train with the peer, as its documentation says."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train([str(path)], vocab_size=SIZE, min_frequency=2, show_progress=False)
    return sorted(tokenizer.get_vocab())


def compare_training(path: Path, repeats: int) -> dict[str, Any]:
    """Time both trainers in turns."""
    seconds: dict[str, list[float]] = {"bertwright": [], "tokenizers": []}
    processor: dict[str, list[float]] = {"bertwright": [], "tokenizers": []}
    results: dict[str, list[Any]] = {"bertwright": [], "tokenizers": []}
    for _ in range(repeats):
        for name, train in (("bertwright", train_ours), ("tokenizers", train_theirs)):
            start, processor_start = time.perf_counter(), time.process_time()
            results[name].append(train(path))
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - processor_start)
    megabytes = path.stat().st_size / 1e6
    ours, theirs = (statistics.median(seconds[name]) for name in ("bertwright", "tokenizers"))
    return {
        "megabytes": round(megabytes, 2),
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "processor_seconds": {name: [round(value, 2) for value in values] for name, values in processor.items()},
        "bertwright_megabytes_per_second": round(megabytes / ours, 2),
        "tokenizers_megabytes_per_second": round(megabytes / theirs, 2),
        "ratio": round(theirs / ours, 2),
        "same_every_time": {name: all(tokens == runs[0] for tokens in runs) for name, runs in results.items()},
        "entries_in_common": len(set(results["bertwright"][0]) & set(results["tokenizers"][0])),
    }


def train_everything(corpus: Path) -> dict[str, float]:
    """Train on a whole corpus and say what it took."""
    start = time.perf_counter()
    train_ours(corpus)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def compare_encoding(path: Path, vocab: Path) -> dict[str, float]:
    """Megabytes per processor second of reading, splitting, encoding (cache empty, then full), and of the peer."""
    from bertwright.text.corpus import read_texts
    from bertwright.text.rules import TextRules
    from bertwright.text.sentences import split_sentences
    from bertwright.text.vocabulary_files import to_tokenizers
    from bertwright.text.wordpiece import WordPiece

    megabytes = path.stat().st_size / 1e6

    def speed(work: Callable[[], Any], share: float = 1.0) -> tuple[float, Any]:
        start = time.process_time()
        result = work()
        return round(megabytes * share / (time.process_time() - start), 1), result

    rules = TextRules.hugging_face(lowercase=True)  # the peer's own, so that the ids have to agree
    wordpiece = WordPiece(WordPiece.load(vocab, lowercase=True).tokens, rules)
    figures: dict[str, float] = {}
    figures["read"], texts = speed(lambda: list(read_texts(path)))
    figures["split"], documents = speed(lambda: [split_sentences(text) for text in texts])
    figures["encode_cold"], _ = speed(lambda: [wordpiece.flat_ids_of_many(document) for document in documents])
    figures["encode_warm"], _ = speed(lambda: [wordpiece.flat_ids_of_many(document) for document in documents])
    few = documents[: max(1, len(documents) // 4)]
    share = sum(len(s.encode()) for d in few for s in d) / sum(len(s.encode()) for d in documents for s in d)
    sentences = [sentence for document in few for sentence in document]
    batch = to_tokenizers(wordpiece).encode_batch_fast
    figures["tokenizers"], encoded = speed(lambda: batch(sentences, add_special_tokens=False), share)
    same = wordpiece.ids_of_many(sentences) == [encoding.ids for encoding in encoded]
    return {**figures, "ratio_cold": round(figures["encode_cold"] / figures["tokenizers"], 1), "identical": same}


def in_fresh_process(*arguments: object) -> Any:
    """Run one of this file's measurements alone; encoding is on one core, training on all."""
    parallel = "false" if arguments[0] == "encode" else "true"
    command = [sys.executable, __file__, *map(str, arguments)]
    output = subprocess.run(
        command, env=os.environ | {"TOKENIZERS_PARALLELISM": parallel}, capture_output=True, text=True
    )
    if output.returncode:
        raise SystemExit(output.stderr)
    return json.loads(output.stdout)


def main() -> None:
    """Measure, print and save."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        kind, *rest = sys.argv[1:]
        measure = {
            "train": lambda path, repeats: compare_training(Path(path), int(repeats)),
            "all": lambda path: train_everything(Path(path)),
            "encode": lambda path, vocab: compare_encoding(Path(path), Path(vocab)),
        }
        print(json.dumps(measure[kind](*rest)))
        return
    import common

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--en", type=Path, default=SHARED / "corpora" / "en-wikipedia-featured.jsonl.xz")
    parser.add_argument("--zh", type=Path, default=SHARED / "corpora" / "zh-wikipedia-part.jsonl.xz")
    parser.add_argument("--vocab", type=Path, default=SHARED / "vocab", help="folder of the released vocab.txt files")
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=BASE / "results" / "vocab.json")
    options = parser.parse_args()
    if not options.en.exists():
        raise SystemExit(f"{options.en} is not here; name a corpus with --en")
    with tempfile.TemporaryDirectory() as folder:
        en, zh = Path(folder) / "en.txt", Path(folder) / "zh.txt"
        write_text(options.en, options.megabytes, en)
        write_text(options.zh, options.megabytes, zh)
        result = {
            "what": "training a vocabulary, encoding text",
            **common.describe_machine("tokenizers"),
            "train": in_fresh_process("train", en, options.repeats),
            "train_whole_corpus": in_fresh_process("all", options.en),
            "megabytes_per_processor_second": {
                "en": in_fresh_process("encode", en, options.vocab / "bert-base-uncased-vocab.txt"),
                "zh": in_fresh_process("encode", zh, options.vocab / "bert-base-chinese-vocab.txt"),
            },
        }
    common.save(options.out, result)


if __name__ == "__main__":
    main()
