"""What a person sees: the live view of training, coloured examples, and tables.

with TrainingView(lang="en") as view:
    pretrain(..., on_event=view)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bertwright.cli.console import err, out
from bertwright.cli.task_view import print_check
from bertwright.messages import LEARNT, Lang, is_pretraining, say, score_label, score_names, score_text

if TYPE_CHECKING:
    from bertwright.data.progress import BuildState
    from bertwright.data.show import ExampleView
    from bertwright.export import Conversion
    from bertwright.text.extension import Extension

Event = Mapping[str, Any]

SEGMENT_STYLES = ("cyan", "magenta")
STATE_STYLES = {
    "special": "dim",
    "mask": "bold reverse yellow",
    "random": "bold reverse red",
    "kept": "bold underline green",
}


@contextmanager
def stage_bar(*, quiet: bool = False) -> Iterator[Callable[[str, float], None]]:
    """Show a bar for work that reports `(stage, share done)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda stage, share: progress.update(task, description=stage, completed=share)


@contextmanager
def build_bar(lang: Lang, *, quiet: bool = False, line_seconds: float = 10.0) -> Iterator[Callable[[BuildState], None]]:
    """Show how far a build of shards has come: a bar in a terminal, a line every few seconds elsewhere.

    Args:
        lang: language of the words.
        quiet: show nothing.
        line_seconds: time from the start to the first plain line, and between two of them at least.
    """
    last = time.monotonic()

    def tell(state: BuildState) -> None:
        nonlocal last
        words = build_words(state, lang)
        progress.update(task, description=words, completed=state.share)
        if not quiet and not err.is_terminal and time.monotonic() - last >= line_seconds:
            last = time.monotonic()
            err.print(f"{state.share:.0%} · {words}")

    columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task("", total=1.0)
        yield tell


def build_words(state: BuildState, lang: Lang) -> str:
    """Return what a build has done so far: text, documents, examples, speed and the time that is left."""
    words = [
        decimal(state.text_bytes),
        say("build_documents", lang, count=state.documents),
        say("build_examples", lang, count=state.examples),
    ]
    if state.bytes_per_second is not None:
        words.append(f"{state.bytes_per_second / 1e6:.1f} MB/s")
    if state.seconds_left is not None:
        words.append(f"{say('left', lang)} {clock(state.seconds_left)}")
    return " · ".join(words)


class TrainingView:
    """Training's events as a live panel in a terminal, as a line every few seconds elsewhere.

    Args:
        lang: language of the words.
        quiet: show nothing.
        line_seconds: shortest time between two plain lines of training figures.
    """

    def __init__(self, lang: Lang, *, quiet: bool = False, line_seconds: float = 10.0) -> None:
        self.lang = lang
        self.quiet = quiet
        self.line_seconds = line_seconds
        self.started = False
        self.steps = 0
        self.train: Event = {}
        self.held_out: Event = {}
        self._first: tuple[int, float] | None = None
        self._last_line = float("-inf")
        self._live = None if quiet or not err.is_terminal else Live(console=err, refresh_per_second=4, transient=False)

    def __enter__(self) -> TrainingView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take one event; see `training.loop` for their kinds."""
        kind = event["kind"]
        self.started |= kind == "start"
        if self.quiet:
            return
        if kind == "start":
            self.steps, self.train, self.held_out, self._first = event["steps"], {}, {}, None
        elif kind == "train":
            self.train = event
            self._first = self._first or (event["step"], time.monotonic())
        elif kind == "eval":
            self.held_out = event
        elif kind == "check":
            print_check(event["check"], self.lang, err)
        if kind == "message":
            err.print(escape(event["text"]), style="dim")
        elif self._live:
            self._live.update(self._panel())
        elif kind == "eval" or (kind == "train" and self._is_due(event)):
            err.print(self._evaluation() if kind == "eval" else self._line())

    def _is_due(self, event: Event) -> bool:
        now = time.monotonic()
        due = now - self._last_line >= self.line_seconds or event["step"] == self.steps
        self._last_line = now if due else self._last_line
        return due

    def _line(self) -> Text:
        parts = [self._step(), *scores(self.train, self.lang), *self._pace()]
        return Text(" · ").join(Text.from_markup(part) for part in parts)

    def _evaluation(self) -> Text:
        name = say("held_out" if is_pretraining(self.held_out) else "dev", self.lang)
        parts = [
            f"[bold]{name}[/] {say('step', self.lang)} {self.held_out['step']:,}",
            *scores(self.held_out, self.lang),
        ]
        return Text(" · ").join(Text.from_markup(part) for part in parts)

    def _panel(self) -> RenderableType:
        bar = Table.grid(padding=(0, 1))
        done = self.train.get("step", 0)
        bar.add_row(
            Text.from_markup(self._step()),
            ProgressBar(total=max(self.steps, 1), completed=done, width=32),
            Text(f"{done / max(self.steps, 1):.0%}"),
            Text.from_markup(self._left()),
        )
        figures = Text("   ").join(Text.from_markup(part) for part in scores(self.train, self.lang))
        pace = Text(" · ").join(Text.from_markup(part) for part in self._pace()[:-1])
        return Group(bar, figures, pace, *([self._evaluation()] if self.held_out else []))

    def _step(self) -> str:
        return f"{say('step', self.lang)} [bold]{self.train.get('step', 0):,}[/]/{self.steps:,}"

    def _left(self) -> str:
        step = self.train.get("step", 0)
        if self._first is None or step <= self._first[0]:
            return f"{say('left', self.lang)} –"
        seconds = (time.monotonic() - self._first[1]) / (step - self._first[0]) * (self.steps - step)
        return f"{say('left', self.lang)} [bold]{clock(seconds)}[/]"

    def _pace(self) -> list[str]:
        row, words = self.train, []
        if "lr" in row:
            words.append(f"lr {row['lr']:.1e}")
        if "grad_norm" in row:
            words.append(f"{say('gradient', self.lang)} {row['grad_norm']:.2f}")
        if "tokens_per_second" in row:
            words.append(f"{row['tokens_per_second']:,.0f} {say('tokens_per_second', self.lang)}")
        if row.get("mfu"):
            words.append(say("of_peak", self.lang, share=row["mfu"]))
        return [*words, self._left()]


def scores(row: Event, lang: Lang) -> list[str]:
    """Return the loss and scores of a row as marked-up text; of pre-training, those of tokens and of NSP apart."""
    found: list[str] = []
    for key in (*LEARNT, ""):
        prefix, words = f"{key}_" if key else "", []
        name = f"[bold {'magenta' if key == 'nsp' else 'cyan'}]{key.upper()}[/] " if key else ""
        if f"{prefix}loss" in row:
            words.append(f"{say('loss', lang)} [bold]{row[f'{prefix}loss']:.3f}[/]")
        if prefix and f"{prefix}accuracy" in row:
            words.append(f"{say('accuracy', lang)} [bold]{row[f'{prefix}accuracy']:.1%}[/]")
        if not prefix and not found:
            words += [
                f"{escape(score_label(each, lang))} [bold]{score_text(each, row[each])}[/]" for each in score_names(row)
            ]
        if words:
            found.append(name + " ".join(words))
    return found


def clock(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_example(view: ExampleView, lang: Lang, *, title: str) -> None:
    """Print an example: its two segments in two tints, and under each token to be guessed what really stood there.

    Without colour the three kinds still differ: [MASK] over the original, another token over it, or the original twice.
    Where words are known, the tokens of one stand without a blank between them.
    """
    to_guess = sum(token.state in ("mask", "random", "kept") for token in view.tokens)
    facts = [title, say("tokens", lang, count=len(view.tokens)), say("to_guess", lang, count=to_guess)]
    if view.next_sentence_label is not None:
        label = say("not_next" if view.next_sentence_label else "is_next", lang)
        facts.append(say("next_sentence", lang, label=f"[bold]{label}[/]"))
    if view.whole_word:
        facts.append(say("whole_words", lang, how=escape(view.whole_word)))
    out.print(" · ".join(facts))
    for segment, name in enumerate(("segment_a", "segment_b")):
        cells: list[tuple[Text, Text]] = []
        for token in (token for token in view.tokens if token.segment == segment):
            cell = _cell(token.shown, token.state, token.original, SEGMENT_STYLES[segment])
            if token.goes_on:
                cells[-1][0].append_text(cell[0])
                cells[-1][1].append_text(cell[1])
            else:
                cells.append(cell)
        if cells:
            out.print(f"[{SEGMENT_STYLES[segment]}]▌ {say(name, lang)}[/]")
            _print_cells(cells, width=min(out.width, 120))
    marks = (("[MASK]", "mask"), ("other", "random"), ("same", "kept"))
    legend = Text(say("legend", lang) + " ", style="dim")
    for number, (sample, state) in enumerate(marks):
        legend.append(" · " if number else "").append(sample, style=STATE_STYLES[state])
        legend.append(f" {say(f'legend_{state}', lang)}")
    out.print(legend)


def _cell(shown: str, state: str, original: str, tint: str) -> tuple[Text, Text]:
    guessed = state in ("mask", "random", "kept")
    return Text(shown, style=STATE_STYLES.get(state, tint)), Text(original if guessed else "", style="italic")


def _print_cells(cells: Sequence[tuple[Text, Text]], *, width: int) -> None:
    """Print cells side by side, each as wide as the wider of its two lines, in rows no wider than the screen."""
    rows: list[list[tuple[Text, Text]]] = [[]]
    used = 0
    for cell in cells:
        size = max(cell_len(part.plain) for part in cell) + 1
        if rows[-1] and used + size > width - 2:
            rows.append([])
            used = 0
        rows[-1].append(cell)
        used += size
    for row in rows:
        for line in (0, 1):
            text = Text("  ")
            for cell in row:
                size = max(cell_len(part.plain) for part in cell) + 1
                text.append_text(cell[line]).append(" " * (size - cell_len(cell[line].plain)))
            if line == 0 or text.plain.strip():
                text.rstrip()
                out.print(text)


def print_fills(text: str, answers: Sequence[Any], *, known: str | None = None) -> None:
    """Print the likeliest tokens for each gap, with their probabilities.

    Args:
        text: with one [MASK] or several.
        answers: what `Predictor.fill` returned.
        known: the right answer, marked where it occurs.
    """
    gaps = answers if answers and isinstance(answers[0], list) else [answers]
    for number, gap in enumerate(gaps, start=1):
        head = Text(text if len(gaps) == 1 else f"{text}  ({number}/{len(gaps)})", style="bold")
        head.highlight_words(["[MASK]"], STATE_STYLES["mask"])
        out.print(head)
        for answer in gap:
            mark = " ✓" if answer["token_str"] == known else ""
            bar = "█" * max(1, round(24 * answer["score"]))
            word = str(answer["token_str"]) + mark
            line = Text(f"{answer['score']:8.1%}  ").append(word + " " * max(0, 16 - cell_len(word)), style="bold cyan")
            out.print(line.append(f" {bar}", style="cyan"))


def print_before_after(sample: Mapping[str, Any], lang: Lang) -> None:
    """Print one gap and what two models put into it, one line each; the right answer is green."""
    head = Text(sample["text"], style="bold")
    head.highlight_words(["[MASK]"], STATE_STYLES["mask"])
    out.print(head)
    for key in ("before", "after"):
        line = Text(f"  {say(f'report_{key}', lang)}{'：' if lang == 'zh' else ': '}", style="dim")
        for guess in sample[key]:
            style = "bold green" if guess["token_str"] == sample["answer"] else "default"
            line.append(f"{guess['token_str']} ", style=style).append(f"{guess['score']:.1%}   ", style="dim")
        out.print(line)


def print_facts(values: Mapping[str, Any], indent: str = "") -> None:
    """Print names and figures in two columns, groups of them under their name."""
    plain = {name: value for name, value in values.items() if isinstance(value, (int, float, str, bool))}
    width = max(map(len, plain), default=0)
    for name, value in values.items():
        if name in plain:
            shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
            out.print(Text(f"{indent}{name:<{width}}  ").append(shown, style="bold"))
        elif isinstance(value, Mapping):
            out.print(Text(indent + name))
            print_facts(value, indent + "  ")


def print_new_words(extension: Extension, lang: Lang, most: int = 20) -> None:
    """Print the best new words, what they were cut into, and what they save; then the figures of the whole corpus."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for key in ("extend_word", "extend_pieces"):
        table.add_column(say(key, lang))
    for key in ("extend_count", "extend_saved"):
        table.add_column(say(key, lang), justify="right")
    for each in extension.words[:most]:
        pieces = " ".join(extension.old.tokens[number] for number in each.pieces)
        table.add_row(Text(each.word, style="bold"), Text(pieces), f"{each.count:,}", f"{each.tokens_saved:,}")
    out.print(table)
    if (rest := len(extension.words) - most) > 0:
        out.print(Text(say("report_more", lang, count=rest), style="dim"))
    before, after = extension.report["before"], extension.report["after"]
    lines = [say(f"extend_{name}", lang, before=before[name], after=after[name])
             for name in ("tokens_per_word", "unknown_words")]  # fmt: skip
    for line in (say("extend_entries", lang, **extension.report), *lines):
        out.print(Text(line))


def print_confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Print a confusion matrix: a row per right label, a column per predicted one."""
    if not counts or len(labels) > 12:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for label in labels:
        table.add_column(Text(label), justify="right")
    for row, label in enumerate(labels):
        cells = [f"[bold green]{n}[/]" if n and row == column else str(n) for column, n in enumerate(counts[row])]
        table.add_row(Text(label, style="dim"), *cells)
    out.print(table)


def print_sheet(conversion: Conversion, lang: Lang) -> None:
    """Print what became of every tensor, and the proof that the numbers are the same."""
    rows = [
        (row.source, row.target or f"– {row.note}", "×".join(map(str, row.shape)) or "1", row.dtype)
        for row in conversion.rows
    ]
    titles = [say(key, lang) for key in ("sheet_source", "sheet_target", "sheet_shape", "sheet_type")]
    widths = [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
    for style, row in [("bold", titles), *(("", row) for row in rows)]:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        out.print(Text("  ".join(cells).rstrip(), style=style))
    moved = sum(row.target is not None for row in conversion.rows)
    left = len(conversion.rows) - moved
    out.print(say("sheet_counts", lang, moved=moved, left=left))
    for head, key in (("mlm", "sheet_mlm"), ("nsp", "sheet_nsp")):
        there = head in conversion.heads
        out.print(f"{say(key, lang)}: {say('sheet_there' if there else f'sheet_no_{head}', lang)}")
    if others := sorted(set(conversion.heads) - {"mlm", "nsp"}):
        out.print(f"{say('sheet_heads', lang)}: {', '.join(others)}")
    if "pooler" in conversion.sheet.fresh:
        out.print(say("sheet_no_pooler", lang))
    if conversion.sheet.described.ignored:
        out.print(say("sheet_ignored", lang, keys=", ".join(conversion.sheet.described.ignored)))
    out.print(say("sheet_parity", lang, difference=f"{conversion.largest_difference:g}"))
