"""Pre-training on one GPU beside Hugging Face's `Trainer`: real tokens per second, and the share of the peak.

    python benchmarks/bench_gpu.py                                         # under eight minutes on an H200
    python benchmarks/bench_gpu.py --cases large-512 --seconds 30
    python benchmarks/bench_gpu.py --device cpu --layers 1 --cases base-128 --documents 5 --batch-tokens 512 --seconds 1
        # no measurement: a trial of the code where there is no GPU

Both train on the same shards, of whole Wikipedia articles with the paper's pair lengths; masks are drawn while training
goes on, dropout is on, bf16. Ours is the training loop as `bertwright pretrain` runs it, its layers compiled. The peer
is `Trainer` with what it offers for speed: bf16, sdpa attention, torch.compile, fused AdamW, batches padded to their
longest and made by worker processes. It is given the same number of places, and padding counts as no result.

First the losses of both on one batch are compared; if they differ, nothing is timed. Then they take turns.
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["BERTWRIGHT_BENCH_GPU"] = "1"

import torch
from torch import Tensor

import common
from bench_pretrain import padded
from bertwright.config import DataConfig, PretrainConfig
from bertwright.data.build import build_shards
from bertwright.data.loader import PretrainLoader
from bertwright.data.shards import ShardSet, Split
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.compiling import compile_layers
from bertwright.model.flops import training_flops
from bertwright.objectives import MaskedLMAndNextSentence
from bertwright.recipes import get_recipe
from bertwright.text.wordpiece import WordPiece
from bertwright.training.loop import evaluate_means, fit

CASES = ("base-128", "base-512", "large-128", "large-512")
BATCH_TOKENS = {"base": 65_536, "large": 32_768}
TOLERANCE = 2e-2
"""Between two losses in bf16, relative."""
WARM_STEPS = 5
"""Steps in which kernels are compiled and memory is found; not timed."""


def build(corpus: Path, vocab: Path, documents: int, length: int, folder: Path) -> ShardSet:
    """Build shards of the corpus's first documents."""
    few = folder / "few.jsonl"
    with lzma.open(corpus, "rb") if corpus.suffix == ".xz" else corpus.open("rb") as lines:
        few.write_bytes(b"".join(itertools.islice(lines, documents)))
    build_shards([few], WordPiece.load(vocab), folder / str(length), DataConfig(max_length=length))
    return ShardSet.open(folder / str(length))


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """A split as the peer reads it: ids without masks."""

    def __init__(self, split: Split, wordpiece: WordPiece) -> None:
        self.split, self.cls_id, self.sep_id = split, wordpiece.cls_id, wordpiece.sep_id

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.split.example(index)
        first = [self.cls_id, *example.a.tolist(), self.sep_id]
        second = [*example.b.tolist(), self.sep_id]
        types = [0] * len(first) + [1] * len(second)
        return {
            "input_ids": first + second,
            "token_type_ids": types,
            "next_sentence_label": example.next_sentence_label,
        }


class Peer:
    """`Trainer` in a process of its own.

    Args:
        folder: a model folder with its tokenizer.
        shards: what it trains on.
        batch_size: examples in a step.
        config: learning rate and the like.
        device: `cuda` or `cpu`.
    """

    def __init__(self, folder: Path, shards: Path, batch_size: int, config: PretrainConfig, device: str) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        opened = ShardSet.open(shards)
        self.device, self.config, self.batch_size = torch.device(device), config, batch_size
        self.examples = Examples(opened.split("train"), opened.wordpiece)
        self.model = transformers.BertForPreTraining.from_pretrained(folder, attn_implementation="sdpa").to(device)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=config.mask_prob)
        self.compiled: Any = None

    @torch.inference_mode()
    def first_loss(self, batch: dict[str, Tensor]) -> float:
        self.model.eval()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return float(self.model(**{name: tensor.to(self.device) for name, tensor in batch.items()}).loss)

    def train(self, steps: int) -> tuple[float, int]:
        """Train, and return the seconds and real tokens of the steps after the first one of them."""
        import transformers

        clock, on_gpu = _Clock(self.device), self.device.type == "cuda"

        class Counting(transformers.Trainer):
            def compute_loss(self, model: Any, inputs: Any, *args: Any, **values: Any) -> Any:
                clock.tokens.append(inputs["attention_mask"].sum())
                return super().compute_loss(model, inputs, *args, **values)

        class Watch(transformers.TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
                clock.step()

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                folder,
                max_steps=steps + 1,
                per_device_train_batch_size=self.batch_size,
                learning_rate=self.config.lr,
                weight_decay=self.config.weight_decay,
                adam_epsilon=self.config.eps,
                max_grad_norm=self.config.clip_norm,
                optim="adamw_torch_fused",
                bf16=True,
                torch_compile=on_gpu,
                use_cpu=not on_gpu,
                dataloader_num_workers=4 if on_gpu else 0,
                dataloader_drop_last=True,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            self.model.train()
            trainer = Counting(
                self.model,
                arguments,
                train_dataset=self.examples,
                data_collator=self.collator,
                callbacks=[Watch()],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        return clock.seconds(), clock.real_tokens()


class _Clock:
    """Time and tokens from the end of the first step on: starting worker processes is nobody's speed."""

    def __init__(self, device: torch.device) -> None:
        self.tokens: list[Tensor] = []
        self._on_gpu = device.type == "cuda"
        self._steps = 0
        self._start = 0.0

    def step(self) -> None:
        self._steps += 1
        if self._steps == 1:
            self._wait()
            self._start = time.perf_counter()

    def seconds(self) -> float:
        self._wait()
        return time.perf_counter() - self._start

    def real_tokens(self) -> int:
        return int(torch.stack(self.tokens[1:]).sum())

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


class Ours:
    """The training loop, with the data loader at work."""

    def __init__(self, model: Bert, loader: PretrainLoader, config: PretrainConfig) -> None:
        self.model, self.loader, self.config = model, loader, config

    def train(self, steps: int) -> tuple[float, int, float]:
        """Train, and return seconds, real tokens, and the share of time spent waiting for data."""
        rows: list[dict[str, Any]] = []
        fit(
            self.model,
            MaskedLMAndNextSentence(),
            self.loader,
            replace(self.config, log_every=steps),
            steps=steps,
            run=common.Unsaved(),
            evaluate=lambda step: {},
            on_event=rows.append,
        )
        row = next(row for row in rows if row["kind"] == "train")
        tokens = round(row["tokens_per_second"] * row["seconds"])
        return row["seconds"], tokens, row["data_seconds"] / row["seconds"]


def measure(case: str, shards: ShardSet, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare losses, then let both take turns."""
    recipe, length = case.split("-")
    device, places = torch.device(options.device), options.batch_tokens or BATCH_TOKENS[recipe]
    config = PretrainConfig(batch_tokens=places, micro_batch_tokens=places, eval_every=0, checkpoint_every=0)
    shape = replace(get_recipe(recipe).model, vocab_size=shards.wordpiece.vocab_size)
    if options.layers:
        shape = replace(shape, num_hidden_layers=options.layers)
    objective = MaskedLMAndNextSentence()
    model = Bert(shape, objective.heads(shape), seed=0)
    model.save_pretrained(folder, wordpiece=shards.wordpiece)
    model.compute_dtype = torch.bfloat16
    model.to(device)
    loader = PretrainLoader(
        shards.split("train"), wordpiece=shards.wordpiece, batch_tokens=places, micro_batch_tokens=places
    )
    first = loader.batches_at(0).micro_batches[0]
    peer = common.InOwnProcess(0, Peer, folder, shards.folder, places // int(length), config, options.device)
    means = evaluate_means(model, objective, [first])
    losses = common.require_close(
        case, [means["mlm_loss"] + means["nsp_loss"]], [peer.call("first_loss", padded(first))], TOLERANCE
    )
    if machine.compiles("auto", device):
        compile_layers(model)
    ours, peak = Ours(model, loader, config), machine.peak_flops(device, torch.bfloat16)
    flops = training_flops(shape, first) / first.num_tokens
    warm = {"bertwright": ours.train(WARM_STEPS), "transformers": peer.call("train", WARM_STEPS)}
    again = {"bertwright": ours.train(WARM_STEPS), "transformers": peer.call("train", WARM_STEPS)}
    steps = {name: max(2, round(options.seconds * WARM_STEPS / again[name][0])) for name in again}
    rates: dict[str, list[float]] = {name: [] for name in warm}
    waiting = []
    for _ in range(options.turns):
        seconds, tokens, share = ours.train(steps["bertwright"])
        rates["bertwright"].append(tokens / seconds)
        waiting.append(share)
        seconds, tokens = peer.call("train", steps["transformers"])
        rates["transformers"].append(tokens / seconds)
        shown = "   ".join(f"{name} {each[-1]:>11,.0f}" for name, each in rates.items())
        print(f"{case:<10} real tokens per second: {shown}", flush=True)
    ratios = [a / b for a, b in zip(rates["bertwright"], rates["transformers"], strict=True)]
    return {
        "losses": losses,
        "batch_tokens": places,
        "layers": shape.num_hidden_layers,
        "compiled": model.row_multiple > 1,
        "share_of_real_tokens_in_a_padded_batch": first.num_tokens / (first.num_sequences * first.max_length),
        "useful_flops_per_token": flops,
        "steps": steps,
        "real_tokens_per_second": rates,
        "median": {name: statistics.median(each) for name, each in rates.items()},
        "mfu": {name: statistics.median(each) * flops / peak for name, each in rates.items()},
        "share_of_time_waiting_for_data": waiting,
        "ratio": {"median": statistics.median(ratios), "each": ratios},
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES, help="recipe and length (default: all)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a turn (default: 8)")
    parser.add_argument("--turns", type=int, default=3, help="of each side (default: 3)")
    parser.add_argument("--most-seconds", type=float, default=420.0, help="no case starts after them (default: 420)")
    parser.add_argument("--corpus", type=Path, default=common.SHARED / "corpora" / "en-wikipedia-featured.jsonl.xz")
    parser.add_argument("--vocab", type=Path, default=common.SHARED / "vocab" / "bert-base-uncased-vocab.txt")
    parser.add_argument("--documents", type=int, default=600, help="of the corpus (default: 600)")
    parser.add_argument("--batch-tokens", type=int, help="places in a step; default: 65,536, for large 32,768")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial, no measurement")
    parser.add_argument("--layers", type=int, help="fewer layers than the recipe has; for a trial")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu.json; of a trial, none")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device: nothing is measured; for a trial of the code: --device cpu")
    if not options.corpus.exists():
        raise SystemExit(f"no corpus at {options.corpus}: name one with --corpus")
    began, on_gpu = time.perf_counter(), options.device == "cuda"
    result = {"what": "pre-training on one GPU", **common.describe_machine("transformers", "accelerate")}
    result |= {"device": torch.cuda.get_device_name() if on_gpu else "cpu, a trial"}
    result |= {"peak_flops": machine.peak_flops(torch.device(options.device), torch.bfloat16), "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        shards: dict[int, ShardSet] = {}
        for case in options.cases:
            if time.perf_counter() - began > options.most_seconds:
                print(f"{case:<10} not measured: --most-seconds have passed", flush=True)
                continue
            length = int(case.split("-")[1])
            if length not in shards:
                shards[length] = build(options.corpus, options.vocab, options.documents, length, Path(folder))
            result["cases"][case] = measure(case, shards[length], options, Path(folder) / case)
            if on_gpu:
                torch.cuda.empty_cache()
    for case, found in result["cases"].items():
        shares = ", ".join(f"{name} {share:.1%} of the peak" for name, share in found["mfu"].items())
        print(f"{case:<10} {found['ratio']['median']:.2f}x   {shares}")
    if options.out or on_gpu:
        common.save(options.out or common.BASE / "results" / "gpu.json", result)


if __name__ == "__main__":
    main()
