"""The whole life of a BERT in miniature, offline: corpus, vocabulary, shards, pre-training, fine-tuning, report.

The text is real English that every Python carries: its manual (`pydoc_data.topics`) and the docstrings of its standard
library. Sources are parsed, never imported.

    run_demo(Path("bertwright-demo"), lang="en")
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import json
import random
import re
import shutil
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.cli import console, view
from bertwright.config import BertConfig, DataConfig, FinetuneConfig, PretrainConfig, VocabConfig
from bertwright.errors import BertwrightError
from bertwright.messages import Lang, say
from bertwright.text.sentences import split_sentences

# Families of modules: those a classifier learns from, and those it is tested on. What a Python lacks is passed over.
FAMILIES: dict[str, tuple[str, str]] = {
    "network": (
        "email http/cookies http/cookiejar http/server imaplib ipaddress mailbox nntplib poplib smtplib socket "
        "socketserver ssl telnetlib urllib/parse urllib/error urllib/robotparser webbrowser wsgiref xmlrpc",
        "ftplib http/client urllib/request",
    ),
    "windows": (
        "idlelib tkinter/__init__ tkinter/colorchooser tkinter/commondialog tkinter/dialog tkinter/dnd "
        "tkinter/filedialog tkinter/font tkinter/messagebox tkinter/scrolledtext tkinter/simpledialog tkinter/tix",
        "tkinter/ttk",
    ),
    "numbers": (
        "_pydecimal _strptime calendar colorsys fractions numbers random bisect",
        "statistics datetime _pydatetime",
    ),
    "concurrency": (
        "asyncio concurrent multiprocessing/connection multiprocessing/context multiprocessing/managers "
        "multiprocessing/process multiprocessing/reduction multiprocessing/resource_sharer "
        "multiprocessing/shared_memory multiprocessing/util queue sched selectors _threading_local",
        "threading multiprocessing/pool subprocess",
    ),
    "files": (
        "_pyio bz2 filecmp fileinput genericpath glob gzip lzma ntpath os pathlib posixpath tarfile tempfile",
        "shutil zipfile",
    ),
    "code": (
        "ast bdb dataclasses dis distutils doctest enum functools importlib inspect lib2to3 pkgutil pydoc symtable "
        "tokenize traceback typing",
        "pdb unittest",
    ),
}

# Sentences in the manner of the documentation, and the word that is hidden in each.
GAPS = (
    ("Return True if the two objects are equal, [MASK] otherwise.", "false"),
    ("If the file does not [MASK], an exception is raised.", "exist"),
    ("This module [MASK] classes for reading and writing files.", "provides"),
    ("The second [MASK] is the name of the function.", "argument"),
    ("Return a [MASK] of all the names in the package.", "list"),
    ("The loop ends when the condition [MASK] false.", "is"),
)

VOCAB = VocabConfig(size=6_000)
DATA = DataConfig(max_length=32, next_sentence_rule="paper", held_out_prob=0.03)
# What lets attention form within minutes: short examples, initial weights as wide as 256 columns call for (0.02 suits
# 768), small steps, and Adam's bias correction, without which the first thousand steps are taken two to three times
# too large.
MODEL = BertConfig(
    num_hidden_layers=2,
    hidden_size=256,
    num_attention_heads=4,
    intermediate_size=1_024,
    max_position_embeddings=64,
    initializer_range=0.05,
)
PRETRAIN = PretrainConfig(
    steps=4_000,
    batch_tokens=1_024,
    lr=1e-3,
    warmup_ratio=0.1,
    beta2=0.98,
    bias_correction=True,
    dropout=0.0,
    eval_every=1_000,
    checkpoint_every=2_000,
)
FINETUNE = FinetuneConfig(epochs=3, lr=1e-3, max_length=64)
LABELLED = 150
"""Examples of each family that the classifier learns from: few, as labels are in life."""
MINUTES = 4


@dataclass(frozen=True)
class Docstring:
    """A docstring of the standard library."""

    module: str
    """Path of its module without `.py`, such as `email/message`."""
    text: str


def standard_library() -> list[Docstring]:
    """Read the docstrings of the standard library, tests left out, in the order of module names.

    Raises:
        BertwrightError: this Python carries no sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    found = []
    for file in sorted(root.rglob("*.py")):
        module = file.relative_to(root).with_suffix("")
        if left_out.isdisjoint(module.parts):
            found += [Docstring(module.as_posix(), text) for text in _docstrings(file)]
    if not found:
        raise BertwrightError("this Python carries no standard library sources", where=root, fix="use another Python")
    return found


def _docstrings(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # test data that is wrong on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def prose(text: str) -> Iterator[str]:
    """Yield the paragraphs that are English, not code, tables or dialogues with the interpreter, each on one line."""
    for paragraph in re.split(r"\n\s*\n", text):
        line = " ".join(paragraph.split())
        letters = sum(character.isalpha() or character == " " for character in line)
        if ">>>" not in line and line.count(" ") >= 3 and letters >= 0.85 * len(line):
            yield line


def write_corpus(path: Path, docstrings: list[Docstring]) -> int:
    """Write the manual and the docstrings as text, one sentence a line, a blank line between documents.

    Args:
        path: the text file.
        docstrings: as `standard_library` read them; those of the modules kept for testing are left out.

    Returns:
        The number of documents.
    """
    from pydoc_data import topics

    unseen = {module for _, dev in FAMILIES.values() for module in dev.split()}
    documents: dict[str, list[str]] = {f"topic {name}": list(prose(text)) for name, text in topics.topics.items()}
    for docstring in docstrings:
        if not _within(docstring.module, unseen):
            documents.setdefault(docstring.module, []).extend(prose(docstring.text))
    texts = [
        "\n".join(sentence for line in lines for sentence in split_sentences(line)) for lines in documents.values()
    ]
    texts = [text for text in texts if text]
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return len(texts)


def write_labelled(train: Path, dev: Path, docstrings: list[Docstring]) -> tuple[int, int]:
    """Write the first paragraph of docstrings with their family; dev has other modules than train, and no same text.

    Returns:
        The number of examples in train and in dev.
    """
    seen: set[str] = set()
    sizes = []
    for path, part in ((train, 0), (dev, 1)):
        rows = []
        for family, modules in FAMILIES.items():
            wanted = set(modules[part].split())
            texts = []
            for docstring in docstrings:
                if _within(docstring.module, wanted):
                    text = next(prose(docstring.text), None)
                    if text is not None and text not in seen:
                        seen.add(text)
                        texts.append(text)
            if path == train and len(texts) > LABELLED:
                texts = random.Random(family).sample(texts, LABELLED)
            rows += [(text, family) for text in texts]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        sizes.append(len(rows))
    return sizes[0], sizes[1]


def _within(module: str, names: set[str]) -> bool:
    """Tell whether a module is one of those named or lies in a package of that name."""
    return module in names or any(parent.as_posix() in names for parent in Path(module).parents)


def run_demo(out: Path, *, lang: Lang = "en", quiet: bool = False) -> Path:
    """Live the whole life, saying what happens at each stage.

    Args:
        out: folder for everything; what an earlier demo left there is replaced.
        lang: language of the words.
        quiet: show results alone.

    Returns:
        The report.
    """
    from bertwright.training.loop import TrainingInterrupted

    try:
        return Demo(_empty(out), lang, quiet).run()
    except TrainingInterrupted as stopped:
        stopped.fix = "the same command starts the demo again"
        raise


class Demo:
    """The stages, one method each, and the folder they share."""

    def __init__(self, out: Path, lang: Lang, quiet: bool) -> None:
        self.out = out
        self.lang = lang
        self.quiet = quiet
        self.stages = 0

    def run(self) -> Path:
        """Run every stage; return the report."""
        start = time.monotonic()
        self._tell("demo_welcome", minutes=MINUTES)
        sizes = self.corpus()
        self.vocabulary()
        self.data()
        self.pretrain()
        self.fill()
        report = self.finetune(*sizes)
        minutes = (time.monotonic() - start) / 60
        self._note("demo_done", minutes=minutes, path=self.out)
        console.out.print(f"  [bold]{report}[/]")
        self._note("demo_try")
        for line in (
            f'bertwright fill {self.out}/pretrain/model "Return the [MASK] of the list."',
            f'bertwright predict {self.out}/finetune/model "Open a connection to the server."',
            f"bertwright data show {self.out}/shards 7",
        ):
            console.out.print(f"  {line}", style="green", markup=False)
        return report

    def corpus(self) -> tuple[int, int]:
        """Write corpus.txt, train.csv and dev.csv; return the number of labelled examples in the last two."""
        self._stage("corpus")
        docstrings = standard_library()
        path = self.out / "corpus.txt"
        documents = write_corpus(path, docstrings)
        self._note("demo_corpus_done", documents=documents, characters=len(path.read_text(encoding="utf-8")), path=path)
        return write_labelled(self.out / "train.csv", self.out / "dev.csv", docstrings)

    def vocabulary(self) -> None:
        """Train the vocabulary."""
        from bertwright.text.vocabulary import train_vocabulary

        self._stage("vocab")
        with view.stage_bar(quiet=self.quiet) as progress:
            trained = train_vocabulary([self.out / "corpus.txt"], VOCAB, progress=progress)
        self.wordpiece = trained.wordpiece
        self.wordpiece.save(self.out / "vocab")
        text = "an unbuffered connection"
        pieces = " ".join(self.wordpiece.tokens[number] for number in self.wordpiece.ids(text))
        self._note("demo_vocab_done", size=self.wordpiece.vocab_size, text=text, pieces=pieces)

    def data(self) -> None:
        """Build the shards and show one example."""
        from bertwright.data.build import build_shards
        from bertwright.data.shards import ShardSet
        from bertwright.data.show import describe_example

        self._stage("data")
        with view.build_bar(self.lang, quiet=self.quiet) as progress:
            manifest = build_shards(
                [self.out / "corpus.txt"], self.wordpiece, self.out / "shards", DATA, progress=progress
            )
        counts = manifest.counts["train"]
        self._note("demo_data_done", examples=counts.examples, tokens=counts.example_tokens)
        example = describe_example(ShardSet.open(self.out / "shards"), 7, PRETRAIN.masking)
        view.print_example(example, self.lang, title=f"{self.out / 'shards'} [7]")

    def pretrain(self) -> None:
        """Pre-train, from weights that are kept for the comparison."""
        from bertwright.model.bert import Bert
        from bertwright.objectives import OBJECTIVES
        from bertwright.training.pretrain import pretrain

        model = dataclasses.replace(MODEL, vocab_size=self.wordpiece.vocab_size)
        untrained = Bert(model, OBJECTIVES[PRETRAIN.objective]().heads(model), seed=PRETRAIN.seed)
        untrained.save_pretrained(self.out / "untrained", self.wordpiece)
        parameters = sum(parameter.numel() for parameter in untrained.parameters()) / 1e6
        self._stage("pretrain", layers=model.num_hidden_layers, parameters=parameters)
        with view.TrainingView(self.lang, quiet=self.quiet) as shown:
            pretrain(model, PRETRAIN, data=self.out / "shards", out=self.out / "pretrain", on_event=shown)

    def fill(self) -> None:
        """Fill gaps with the untrained and the pre-trained model."""
        from bertwright.predict import Predictor

        self._stage("fill")
        models = {
            "before": Predictor.load(self.out / "untrained"),
            "after": Predictor.load(self.out / "pretrain/model"),
        }
        samples: list[dict[str, Any]] = []
        for text, answer in GAPS:
            guesses = {name: model.fill(text, top_k=3) for name, model in models.items()}
            samples.append({"text": text, "answer": answer, **guesses})
            view.print_before_after(samples[-1], self.lang)
        (self.out / "pretrain/samples.json").write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")

    def finetune(self, num_train: int, num_dev: int) -> Path:
        """Fine-tune from both starting points, print the gain, and write the report."""
        from bertwright.report import Comparison, part_of, write_page

        self._stage("finetune", train=num_train, dev=num_dev)
        pretrained = self._classifier("demo_from_pretrained", self.out / "finetune")
        unlearned = self._classifier("demo_from_random", self.out / "finetune-random", random_weights=True)
        with (self.out / "dev.csv").open(encoding="utf-8", newline="") as file:
            counts = Counter(row["label"] for row in csv.DictReader(file))
        majority = max(counts.values()) / num_dev
        self._note(
            "demo_gain", gain=100 * (pretrained - unlearned), pretrained=pretrained, random=unlearned, majority=majority
        )
        parts = [part_of(self.out / "pretrain", self.lang)]
        for key, folder in (("demo_from_pretrained", "finetune"), ("demo_from_random", "finetune-random")):
            title = f"{say('report_finetune', self.lang)}: {say(key, self.lang)}"
            parts.append(part_of(self.out / folder, self.lang, title=title))
        rows = [("demo_from_pretrained", pretrained), ("demo_from_random", unlearned), ("demo_majority", majority)]
        comparison = Comparison(say("accuracy", self.lang), [(say(key, self.lang), value) for key, value in rows])
        return write_page(
            self.out / "report.html", say("demo_title", self.lang), parts, lang=self.lang, comparison=comparison
        )

    def _classifier(self, key: str, out: Path, *, random_weights: bool = False) -> float:
        from bertwright.tasks.sentence import ClassifyTask
        from bertwright.training.finetune import finetune

        if not self.quiet:
            console.out.print(f"[bold]{say(key, self.lang)}[/]")
        with view.TrainingView(self.lang, quiet=self.quiet) as shown:
            result = finetune(
                ClassifyTask(),
                FINETUNE,
                train=self.out / "train.csv",
                dev=self.out / "dev.csv",
                init=self.out / "pretrain/model",
                out=out,
                random_weights=random_weights,
                on_event=shown,
            )
        return result.scores["accuracy"]

    def _stage(self, name: str, **values: object) -> None:
        self.stages += 1
        if not self.quiet:
            console.out.print()
            console.out.rule(f"[bold]{self.stages}  {say(f'demo_stage_{name}', self.lang)}", align="left", style="blue")
            self._tell(f"demo_{name}", **values)

    def _tell(self, key: str, **values: object) -> None:
        if not self.quiet:
            console.out.print(
                say(key, self.lang, **values), soft_wrap=False, style="italic", width=min(console.out.width, 100)
            )

    def _note(self, key: str, **values: object) -> None:
        console.out.print(say(key, self.lang, **values), markup=False)


def _empty(out: Path) -> Path:
    """Make an empty folder where nothing or an earlier demo was."""
    mark = out / ".bertwright-demo"
    if mark.exists():
        shutil.rmtree(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BertwrightError("something else is here already", where=out, fix="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return out
