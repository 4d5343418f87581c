"""One optimizer step of pre-training (MLM + NSP, 128 tokens at most) beside Hugging Face's `BertForPreTraining`.

    python benchmarks/bench_pretrain.py --model mini
    python benchmarks/bench_pretrain.py --model base --data shards

Both start from the same weights and see the same examples with the same masks, prepared beforehand; dropout is on. The
peer's form: each step's examples padded to the longest of them, the quicker of its attentions `sdpa` and `eager` (tried
in bf16), bf16 by autocast, fused AdamW, clipping. Ours is the training loop itself, `bertwright.training.loop.fit`.
Speed counts real tokens, never padding.

fp32 has two peers: as it comes, and with products sent to oneDNN, a setting of torch that its users may know.
The peer lives in a process of its own, as its users run it: what `machine.prepare` sets for a process is part of ours.
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import common
from bertwright.batch import Batch
from bertwright.config import DataConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.data.loader import PretrainLoader, StepBatch
from bertwright.data.shards import ShardSet
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.objectives import MaskedLMAndNextSentence
from bertwright.recipes import get_recipe
from bertwright.text.wordpiece import WordPiece
from bertwright.training.loop import evaluate_means

CORPUS = common.SHARED / "corpora" / "en-wikipedia-featured.jsonl.xz"
VOCAB = common.SHARED / "vocab" / "bert-base-uncased-vocab.txt"
DOCUMENTS = 200
BATCH_TOKENS = {"mini": 4_096, "base": 2_048}
PAIRS = [
    ("bertwright bf16", "transformers bf16"),
    ("bertwright fp32", "transformers fp32"),
    ("bertwright fp32", "transformers fp32 oneDNN"),
]


def few_shards(folder: Path) -> Path:
    """Build shards of the corpus's first documents."""
    few = folder / "few.jsonl"
    with lzma.open(CORPUS, "rb") as corpus:
        few.write_bytes(b"".join(itertools.islice(corpus, DOCUMENTS)))
    build_shards([few], WordPiece.load(VOCAB), folder / "shards", DataConfig(max_length=128), workers=1)
    return folder / "shards"


class Steps:
    """The first steps of a loader, drawn once: a stream for the training loop whose position counts steps."""

    def __init__(self, loader: PretrainLoader, count: int) -> None:
        self.steps: list[StepBatch] = []
        position = 0
        for number in range(count):
            drawn = loader.batches_at(position)
            position = drawn.next_position
            self.steps.append(StepBatch(drawn.micro_batches, number + 1, drawn.num_tokens, drawn.num_examples))

    def batches_at(self, position: int) -> StepBatch:
        return self.steps[position]

    @property
    def batches(self) -> list[Batch]:
        return [batch for step in self.steps for batch in step.micro_batches]


def padded(batch: Batch) -> dict[str, Tensor]:
    """Return a batch as the peer takes it."""
    sizes = batch.cu_seqlens.diff().tolist()
    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.targets["masked_rows"]] = batch.targets["masked_labels"]
    rows = {"input_ids": batch.input_ids, "token_type_ids": batch.token_type_ids, "labels": labels}
    rows["attention_mask"] = torch.ones_like(batch.input_ids)
    stacked = {
        name: pad_sequence(list(row.split(sizes)), batch_first=True, padding_value=-100 if name == "labels" else 0)
        for name, row in rows.items()
    }
    return stacked | {"next_sentence_label": batch.targets["next_sentence_label"]}


class Peer:
    """Hugging Face's model under a plain training loop with the calls its Trainer makes."""

    def __init__(self, folder: Path, config: PretrainConfig) -> None:
        from transformers import BertForPreTraining

        self.batches = torch.load(folder / "batches.pt")
        self.model = BertForPreTraining.from_pretrained(folder)
        decayed = [parameter for parameter in self.model.parameters() if parameter.ndim >= 2]
        plain = [parameter for parameter in self.model.parameters() if parameter.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, eps=config.eps, fused=True)
        self.clip_norm = config.clip_norm

    @torch.inference_mode()
    def first_loss(self, dtype: torch.dtype) -> float:
        self.model.eval()
        return float(self._loss(self.batches[0], dtype))

    def _loss(self, batch: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss: Tensor = self.model(**batch).loss
        return loss

    def train(self, dtype: torch.dtype, library: common.Library = "default", steps: int | None = None) -> float:
        self.model.train()
        start = time.perf_counter()
        with common.fp32_products(library):
            for batch in self.batches[:steps]:
                self._loss(batch, dtype).backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        return time.perf_counter() - start

    def choose_attention(self) -> str:
        """Take the quicker of the peer's two attentions."""
        seconds = {}
        for name in ("eager", "sdpa"):
            self.model.set_attn_implementation(name)
            self.train(torch.bfloat16, steps=1)
            seconds[name] = self.train(torch.bfloat16, steps=1)
        best = min(seconds, key=seconds.__getitem__)
        self.model.set_attn_implementation(best)
        return best


def check(model: Bert, peer: common.InOwnProcess, first: Batch, dtype: torch.dtype, tolerance: float) -> dict[str, Any]:
    """Make sure that both models say the same of the first batch."""
    model.compute_dtype = dtype
    means = evaluate_means(model, MaskedLMAndNextSentence(), [first])
    ours, theirs = means["mlm_loss"] + means["nsp_loss"], peer.call("first_loss", dtype)
    return common.require_close("loss", [ours], [theirs], tolerance)


def measure(shards: ShardSet, options: argparse.Namespace) -> dict[str, Any]:
    """Compare one shape of model on the first examples of shards."""
    machine.prepare(options.threads)
    description = common.describe_machine("transformers")
    tokens = options.batch_tokens or BATCH_TOKENS.get(options.model, 2_048)
    config = PretrainConfig(
        steps=options.steps, batch_tokens=tokens, micro_batch_tokens=tokens, log_every=options.steps, eval_every=0
    )
    loader = PretrainLoader(
        shards.split("train"), wordpiece=shards.wordpiece, batch_tokens=tokens, micro_batch_tokens=tokens
    )
    stream = Steps(loader, options.steps)
    inputs = [padded(batch) for batch in stream.batches]
    shape, objective = get_recipe(options.model).model, MaskedLMAndNextSentence()
    model = Bert(shape, objective.heads(shape))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        torch.save(inputs, Path(folder) / "batches.pt")
        peer = common.InOwnProcess(options.threads, Peer, Path(folder), config)
    checks = {
        "fp32": check(model, peer, stream.batches[0], torch.float32, 1e-5),
        "bf16": check(model, peer, stream.batches[0], torch.bfloat16, 1e-2),
    }
    attention = peer.call("choose_attention")

    def ours(dtype: torch.dtype) -> float:
        model.compute_dtype = dtype
        return common.train(model, objective, stream, config, options.steps)

    peaks = common.product_peaks()
    result = common.compare(
        {
            "bertwright bf16": lambda: ours(torch.bfloat16),
            "transformers bf16": lambda: peer.call("train", torch.bfloat16),
            "bertwright fp32": lambda: ours(torch.float32),
            "transformers fp32": lambda: peer.call("train", torch.float32),
            "transformers fp32 oneDNN": lambda: peer.call("train", torch.float32, "onednn"),
        },
        PAIRS,
        options.repeats,
    )
    peaks = {name: max(peaks[name], later) for name, later in common.product_peaks().items()}
    real, in_all = sum(batch.num_tokens for batch in stream.batches), sum(x["input_ids"].numel() for x in inputs)
    common.rates(result, "tokens", real, common.useful_flops(model, stream.batches), peaks)
    workload = {
        "model": options.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps_per_turn": options.steps,
        "sequences_per_step": [batch.num_sequences for batch in stream.batches],
        "real_tokens": real,
        "tokens_with_padding": in_all,
        "peer_attention": attention,
    }
    return {"what": "pre-training step", **description, "workload": workload, "checks": checks, "peaks": peaks} | result


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="a recipe (default: mini)")
    parser.add_argument("--data", type=Path, help="shards of at most 128 tokens; default: built from a few documents")
    parser.add_argument("--batch-tokens", type=int, help="tokens in a step; default: 4,096 for mini, 2,048 for others")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps in a turn (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--threads", type=int, default=0, help="default: torch's choice")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/pretrain-MODEL.json")
    options = parser.parse_args()
    if options.data is None and not CORPUS.exists():
        raise SystemExit(f"no corpus at {CORPUS}: name shards with --data")
    with tempfile.TemporaryDirectory() as folder:
        shards = ShardSet.open(options.data or few_shards(Path(folder)))
        result = measure(shards, options)
    common.print_ratios(result)
    common.save(options.out or common.BASE / "results" / f"pretrain-{options.model}.json", result)


if __name__ == "__main__":
    main()
