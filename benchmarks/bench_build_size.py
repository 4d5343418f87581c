"""How fast a large corpus becomes shards under a cap for memory, and how much memory all processes really take.

    python benchmarks/bench_build_size.py --gigabytes 10 --ram 1GB

The corpus is made from the text of another one, repeated; in every repetition some words of each document are drawn
anew from the document, and numbers are counted on, so that no two documents are the same. It is removed at the end.
Memory is sampled a few times a second: the sum over the command and its processes of what each has for itself, shared
pages counted in parts (PSS), interpreters included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DEFAULTS = {
    "corpus": SHARED / "corpora" / "en-wikipedia-featured.jsonl.xz",
    "vocab": SHARED / "vocab" / "bert-base-uncased-vocab.txt",
    "out": Path(__file__).resolve().parent / "results" / "build-size.json",
}
SECONDS_BETWEEN_SAMPLES = 0.25
CHANGED_WORDS = 0.02


def make_corpus(source: Path, path: Path, size: int) -> int:
    """Write a JSON Lines corpus of about `size` bytes of text; return how many documents it has."""
    from bertwright.text.corpus import read_texts

    rng, written, documents = random.Random(0), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            for text in read_texts(source):
                words = text.split(" ")
                for _ in range(int(CHANGED_WORDS * len(words))):
                    words[rng.randrange(len(words))] = rng.choice(words)
                words.append(str(documents))
                changed = " ".join(words)
                file.write(json.dumps({"text": changed}, ensure_ascii=False) + "\n")
                written += len(changed) if changed.isascii() else len(changed.encode())
                documents += 1
                if written >= size:
                    break
    return documents


def family(pid: int) -> list[int]:
    """Return a process and all that it started, and they."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it has ended
                continue
            children[parent].append(int(entry.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found


def memory(pid: int) -> int:
    """Return what a process has for itself, bytes, shared pages in parts; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def build(corpus: Path, vocab: Path, out: Path, ram: str, workers: int) -> dict[str, float]:
    """Run the command and watch it."""
    command = [sys.executable, "-m", "bertwright", "data", "build", corpus, "--vocab", vocab, "--out", out]
    limits = ["--ram", ram, "--workers", workers]
    started, before = time.perf_counter(), os.times()
    peak, largest, most = 0, 0, 0
    with subprocess.Popen([*map(str, [*command, *limits])], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            each = [memory(pid) for pid in family(process.pid)]
            peak, largest, most = max(peak, sum(each)), max(largest, *each), max(most, len(each))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if process.returncode:
        raise SystemExit(f"the build ended with status {process.returncode}")
    after = os.times()
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        "peak_megabytes": peak / 1e6,
        "peak_megabytes_of_largest_process": largest / 1e6,
        "processes": most,
    }


def main() -> None:
    """Measure, print and save."""
    import common

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=Path, default=default)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of text")
    parser.add_argument("--ram", default="1GB")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="folder with room for corpus and shards, 1.7 times the text")
    options = parser.parse_args()
    if not options.corpus.exists():
        raise SystemExit(f"no corpus at {options.corpus}: name one with --corpus")
    description = common.describe_machine()
    scratch = Path(tempfile.mkdtemp(dir=options.scratch))
    try:
        corpus, size = scratch / "corpus.jsonl", round(options.gigabytes * 1e9)
        documents = make_corpus(options.corpus, corpus, size)
        figures = build(corpus, options.vocab, scratch / "shards", options.ram, options.workers)
        manifest = json.loads((scratch / "shards/manifest.json").read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(scratch)
    figures["megabytes_per_second"] = size / 1e6 / figures["seconds"]
    figures["megabytes_per_processor_second"] = size / 1e6 / figures["processor_seconds"]
    results = {
        "what": "a large corpus to shards under a cap for memory",
        **description,
        "corpus": {"made_from": options.corpus.name, "text_bytes": size, "documents": documents},
        "ram": options.ram,
        "examples": manifest["counts"]["train"]["examples"],
        "build": figures,
    }
    for name, value in figures.items():
        print(f"{name:<34} {value:12,.1f}")
    common.save(options.out, results)


if __name__ == "__main__":
    main()
