"""How fast raw text becomes shards, and shards become masked batches; how much memory it takes.

    python benchmarks/bench_data.py --corpus en-wikipedia.jsonl.xz --vocab vocab/ --out benchmarks/results/data.json

Wall figures need an idle machine; processor figures (bytes per second of processor time, over all processes) hold up on
a busy one. Memory is the peak of the reading process and of the largest worker, interpreter included.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DEFAULTS = {
    "corpus": SHARED / "corpora" / "en-wikipedia-featured.jsonl.xz",
    "vocab": SHARED / "vocab" / "bert-base-uncased-vocab.txt",
    "out": Path(__file__).resolve().parent / "results" / "data.json",
}


def build(corpus: Path, vocab: Path, out: Path, workers: int) -> dict[str, float]:
    """Build the shards in this process and say what it took."""
    from bertwright.config import DataConfig
    from bertwright.data.build import build_shards
    from bertwright.text.wordpiece import WordPiece

    wordpiece = WordPiece.load(vocab)
    start = time.perf_counter()
    manifest = build_shards([corpus], wordpiece, out, DataConfig(), workers=workers)
    seconds = time.perf_counter() - start
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "seconds": seconds,
        "processor_seconds": own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime,
        "peak_megabytes_reader": own.ru_maxrss / 1e3,
        "peak_megabytes_worker": others.ru_maxrss / 1e3,
        "random_next_share": manifest.counts["train"].random_next_share,
        "examples": manifest.counts["train"].examples,
    }


def load(folder: Path, seconds: float = 5.0) -> dict[str, float]:
    """Draw batches for a while: gathering, masking and packing on one core."""
    from bertwright.data.loader import PretrainLoader
    from bertwright.data.shards import ShardSet

    start = time.perf_counter()
    shards = ShardSet.open(folder)
    loader = PretrainLoader(shards.split("train"), wordpiece=shards.wordpiece)
    position = loader.batches_at(0).next_position
    first = time.perf_counter() - start
    tokens, started, processor = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        step = loader.batches_at(position)
        position, tokens = step.next_position, tokens + step.num_tokens
    return {
        "tokens_per_second": tokens / (time.perf_counter() - started),
        "tokens_per_processor_second": tokens / (time.process_time() - processor),
        "seconds_to_open_and_first_batch": first,
    }


def text_bytes(corpus: Path) -> int:
    """Return the UTF-8 bytes of the corpus's text: what the speed is measured in."""
    from bertwright.text.corpus import find_files, read_texts

    return sum(len(text.encode()) for path in find_files([corpus]) for text in read_texts(path))


def in_fresh_process(*arguments: object) -> dict[str, float]:
    """Run one part of this script by itself, so that its memory is its own."""
    command = [sys.executable, __file__, "--part", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print and save."""
    import common  # not at the top: torch would count as the builder's memory

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=Path, default=default)
    options = parser.parse_args()
    if not options.corpus.exists():
        raise SystemExit(f"no corpus at {options.corpus}: name one with --corpus")
    description = common.describe_machine()
    size = text_bytes(options.corpus)
    scratch = Path(tempfile.mkdtemp())
    try:
        builds = {}
        for workers in (1, 2):
            figures = in_fresh_process("build", options.corpus, options.vocab, scratch / str(workers), workers)
            figures["megabytes_per_second"] = size / 1e6 / figures["seconds"]
            figures["megabytes_per_processor_second"] = size / 1e6 / figures["processor_seconds"]
            builds[f"{workers}_workers"] = figures
        results = {
            "what": "text to shards, shards to masked batches",
            **description,
            "corpus": {"name": options.corpus.name, "text_bytes": size},
            "build": builds,
            "loader": in_fresh_process("load", scratch / "1"),
        }
    finally:
        shutil.rmtree(scratch)
    common.save(options.out, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part, first, *rest = sys.argv[2:]
        if part == "load":
            print(json.dumps(load(Path(first))))
        else:
            vocab, out, workers = rest
            print(json.dumps(build(Path(first), Path(vocab), Path(out), int(workers))))
    else:
        main()
