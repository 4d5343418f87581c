"""The page of fine-tuning results, in English and in Chinese, from the files that `finetune_sets.py` keeps.

print(page(Path("benchmarks/results/fine-tuning"), "en"))
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

Figures = dict[str, Any]
"""One data set's file."""
Lang = Literal["en", "zh"]

NAMES = {
    "accuracy": ("accuracy", "准确率"),
    "mcc": ("Matthews correlation", "马修斯相关系数"),
    "f1": ("F1", "F1"),
    "exact": ("exact match", "完全匹配"),
    "pearson": ("Pearson", "皮尔逊"),
    "spearman": ("Spearman", "斯皮尔曼"),
}
"""Metrics as people write them."""

MISSING = "–"

HEAD = {
    "en": """# Fine-tuning results, beside transformers' Trainer

The same encoder, the same examples, the same learning rate, epochs, batch size, longest input, warm-up (0.1), linear
decay and weight decay (0.01) on both sides; the scores are those after the last epoch, by the same official metrics.
Everything else is each side's own default. The command, every run and every figure are in
`benchmarks/results/fine-tuning`. [中文](fine-tuning.zh.md)

```
python benchmarks/finetune_sets.py --zh-init RUN/model
python benchmarks/finetune_sets.py --table en
```
""",
    "zh": """# 微调结果，与 transformers 的 Trainer 并列

两边用同一个编码器、同样的样本、同样的学习率、轮数、批大小、最大长度、预热（0.1）、线性衰减与权重衰减（0.01）；
得分取最后一轮之后，用同一套官方指标。其余都是各自的默认值。命令、每次运行与全部数字在
`benchmarks/results/fine-tuning`。[English](fine-tuning.md)

```
python benchmarks/finetune_sets.py --zh-init RUN/model
python benchmarks/finetune_sets.py --table zh
```
""",
}

MADE_BY = {
    "en": "{machines} Mean ± standard deviation over seeds; scores × 100.\n",
    "zh": "{machines} 得分为各随机种子的均值 ± 标准差，乘以 100。\n",
}

SPEED_NOTE = {
    "en": """Training alone: reading, encoding and evaluation are left out on both sides. Both were run one after
the other, with nothing else running, on {threads} threads, over {examples} examples of each set. The ratio is between
what users of either get there without asking, {ours} here and fp32 there. The other columns are ours in fp32, and the
peer in bf16, and as tutorials have it, with its inputs padded to the longest allowed. Examples a second:
""",
    "zh": """只计训练：两边都不算读取、编码与评测。两边先后运行，机器上没有别的程序，
{threads} 个线程，每个数据集 {examples} 个样本。倍数比较的是两边用户不加任何选项时得到的：
我们是 {ours}，对方是 fp32。其余几列是我们的 fp32、对方的 bf16，以及对方像教程里那样
把输入补齐到最大长度。每秒样本数：
""",
}

WORDS = {
    "en": {
        "scores": "Scores",
        "speed": "Speed",
        "trained": "What was trained",
        "spoilt": "Runs that came to nothing",
        "score_head": ("data set", "score", "seeds", "Bertwright", "Trainer", "difference"),
        "speed_head": (
            "data set", "Bertwright", "Trainer", "ratio", "Bertwright fp32", "Trainer bf16", "Trainer `max_length`"
        ),
        "dials_head": ("data set", "examples", "epochs", "learning rate", "batch size", "longest input", "encoder"),
        "seeds": "{ours} and {peer}",
        "shape": "{layers} layers, {width} wide",
    },
    "zh": {
        "scores": "得分",
        "speed": "速度",
        "trained": "训练了什么",
        "spoilt": "没有学到东西的运行",
        "score_head": ("数据集", "指标", "种子数", "Bertwright", "Trainer", "差"),
        "speed_head": (
            "数据集", "Bertwright", "Trainer", "倍数", "Bertwright fp32", "Trainer bf16", "Trainer `max_length`"
        ),
        "dials_head": ("数据集", "样本", "轮数", "学习率", "批大小", "最大长度", "编码器"),
        "seeds": "{ours} 与 {peer}",
        "shape": "{layers} 层，宽 {width}",
    },
}  # fmt: skip

SPEED_CASES = ("ours", "peer", "ours fp32", "peer bf16", "peer max_length")
"""Both sides as their users get them, and otherwise; what is compared stands next to each other."""


def page(folder: Path, lang: Lang) -> str:
    """Return the page in Markdown."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    found = [figures for figures in found if figures["runs"]]
    if not found:
        raise SystemExit(f"no figures in {folder} yet")
    found.sort(key=lambda figures: (figures["language"], figures["title"]))
    words = WORDS[lang]
    parts = [HEAD[lang], _made_by(found, lang), f"## {words['scores']}\n", _scores(found, lang)]
    if any(figures["speed"] for figures in found):
        parts += [f"## {words['speed']}\n", _speed_note(found, lang), _speeds(found, lang)]
    parts += [f"## {words['trained']}\n", _dials(found, lang)]
    if problems := _problems(found):
        parts += [f"## {words['spoilt']}\n", problems]
    return "\n".join(parts).rstrip("\n")


def runs_of(figures: Figures, side: str) -> list[Figures]:
    """Return the runs of one side, by seed."""
    return [run for name, run in sorted(figures["runs"].items()) if name.startswith(f"{side},")]


def _made_by(found: Sequence[Figures], lang: Lang) -> str:
    versions = [run["made_by"]["versions"] for figures in found for run in figures["runs"].values()]
    machines = {
        f"{each['processor']}, torch {each['torch']}, transformers {each['transformers']}." for each in versions
    }
    return MADE_BY[lang].format(machines=" ".join(sorted(machines)))


def _scores(found: Sequence[Figures], lang: Lang) -> str:
    rows = []
    for figures in found:
        for of in (name for name in figures["examples"] if name != "train"):
            for metric in figures["metrics"]:
                ours, peer = (
                    [run["scores"][of][metric] * 100 for run in runs_of(figures, side)] for side in ("ours", "peer")
                )
                difference = f"{statistics.fmean(ours) - statistics.fmean(peer):+.1f}" if ours and peer else MISSING
                name = NAMES[metric][lang == "zh"] + (f", {of}" if of != "dev" else "")
                seeds = str(len(ours))
                if len(ours) != len(peer):
                    seeds = WORDS[lang]["seeds"].format(ours=len(ours), peer=len(peer))
                rows.append((figures["title"], name, seeds, _mean(ours), _mean(peer), difference))
    return _table(WORDS[lang]["score_head"], rows)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _speed_note(found: Sequence[Figures], lang: Lang) -> str:
    precisions = {run["precision"] for figures in found for run in runs_of(figures, "ours")}
    threads = {str(each["made_by"]["threads"]) for figures in found for each in figures["speed"].values()}
    counts = {f"{each['examples']:,}" for figures in found for each in figures["speed"].values()}
    several = {"ours": precisions, "threads": threads, "examples": counts}
    return SPEED_NOTE[lang].format(**{name: " / ".join(sorted(values)) for name, values in several.items()})


def _speeds(found: Sequence[Figures], lang: Lang) -> str:
    rows = []
    for figures in found:
        if not figures["speed"]:
            continue
        ours, peer, *others = (figures["speed"].get(case, {}).get("examples_per_second") for case in SPEED_CASES)
        ratio = f"**{ours / peer:.1f}×**" if ours and peer else MISSING
        rows.append((figures["title"], _rate(ours), _rate(peer), ratio, *map(_rate, others)))
    return _table(WORDS[lang]["speed_head"], rows)


def _rate(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _dials(found: Sequence[Figures], lang: Lang) -> str:
    rows = []
    for figures in found:
        dials, sizes, encoder = figures["dials"], figures["examples"], figures["encoder"]
        counts = " / ".join(f"{sizes[name]:,}" for name in sizes)
        values = (dials["epochs"], f"{dials['lr']:g}", dials["batch_size"], dials["max_length"])
        shape = WORDS[lang]["shape"].format(**encoder)
        rows.append((figures["title"], f"{counts} ({' / '.join(sizes)})", *map(str, values), shape))
    return _table(WORDS[lang]["dials_head"], rows)


def _problems(found: Sequence[Figures]) -> str:
    lines = [
        f"- {figures['title']}, {name}: the model {problem}"
        for figures in found
        for name, run in figures["runs"].items()
        for problem in run.get("problems", [])
    ]
    return "\n".join(lines) + ("\n" if lines else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:" for _ in head[1:]]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))
