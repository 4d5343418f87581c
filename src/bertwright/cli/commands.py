"""The commands that make something, in the order of a model's life; `cli.models` has those that use a model.

Flags are the fields of the dataclasses in `config`, flattened; their docstrings are the help.
Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from bertwright.cli import console, view
from bertwright.cli.console import print_json
from bertwright.cli.flags import Engine, Flat, Output, Switch, Training
from bertwright.cli.view import TrainingView
from bertwright.config import BertConfig, DataConfig, MaskingConfig, PretrainConfig, VocabConfig
from bertwright.errors import BertwrightError
from bertwright.messages import Lang, language, say
from bertwright.processes import is_first


def vocab(
    corpus: list[str],
    /,
    *,
    out: Path,
    overwrite: Switch = False,
    text_column: str = "text",
    threads: int = 0,
    config: Annotated[VocabConfig, Flat] = VocabConfig(),
    output: Output = Output(),
) -> None:
    """Train a WordPiece vocabulary on raw text.

    Args:
        corpus: Text files (.txt, .jsonl; also .gz, .xz, .zst; .parquet), folders or patterns.
        out: Folder for vocab.txt, tokenizer.json and tokenizer_config.json.
        overwrite: Replace a vocabulary that is already there.
        text_column: Key or column of the text in .jsonl and .parquet files.
        threads: Processor threads; 0: all. The result is the same for any number.
    """
    from bertwright.text.vocabulary import train_vocabulary

    if out.exists() and not out.is_dir():
        raise BertwrightError("a file is in the way of the vocabulary folder", where=out, fix="choose another --out")
    if (out / "vocab.txt").exists() and not overwrite:
        raise BertwrightError(
            "there is a vocabulary already", where=out, fix="choose another --out, or add --overwrite"
        )
    with view.stage_bar(quiet=output.quiet) as progress:
        trained = train_vocabulary(corpus, config, text_column=text_column, threads=threads or None, progress=progress)
    trained.wordpiece.save(out)
    show_facts({"path": str(out), **trained.report}, output)


def vocab_extend(
    model: Path,
    /,
    *,
    corpus: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    out: Path,
    text_column: str = "text",
    size: int = 1_000,
    min_count: int = 5,
    threads: int = 0,
    output: Output = Output(),
) -> None:
    """Give a model the words of a domain: a new model folder, whose vocabulary no longer cuts them into pieces.

    Args:
        model: Model folder, with any heads or none, or a name on the hub.
        corpus: Text files (.txt, .jsonl, .parquet; also .gz, .xz, .zst), folders or patterns.
        out: Folder for the new model; it must be empty or absent.
        text_column: Key or column of the text in .jsonl and .parquet files.
        size: New words at most; they fill [unusedN] slots first.
        min_count: How often the corpus must have a word.
        threads: Processor threads; 0: all. The result is the same for any number.
    """
    from bertwright.extension import extend_vocabulary

    with view.stage_bar(quiet=output.quiet) as progress:
        extension = extend_vocabulary(
            model,
            corpus,
            out,
            text_column=text_column,
            size=size,
            min_count=min_count,
            threads=threads or None,
            progress=progress,
        )
    if output.json:
        print_json({"path": str(out), **extension.to_json()})
        return
    view.print_new_words(extension, language())
    console.err.print(say("saved", language(), path=out))


def data_build(
    corpus: list[str],
    /,
    *,
    vocab: Path,
    out: Path,
    text_column: str = "text",
    workers: int = 0,
    ram: str | None = None,
    overwrite: Switch = False,
    engine: Engine = "local",
    config: Annotated[DataConfig, Flat] = DataConfig(),
    output: Output = Output(),
) -> None:
    """Turn raw text into memory-mapped shards of examples.

    Stopped in any way, the same command goes on with what is finished.

    Args:
        corpus: Text files (.txt, .jsonl; also .gz, .xz, .zst; .parquet), folders or patterns.
        vocab: Folder of a vocabulary (or of a model), or a vocab.txt.
        out: Folder for the shards; it must be empty or absent.
        text_column: Key or column of the text in .jsonl and .parquet files.
        workers: Processes; 0: one per processor core. The result is the same for any number.
        ram: Memory that all processes together may take, such as 1GB; as many workers are used as fit.
        overwrite: Replace shards that are already there, and what is left of a build with other settings.
        engine: Where they run: on this machine, or on the machines of the Ray cluster at RAY_ADDRESS.
    """
    from bertwright.data.build import build_shards
    from bertwright.text.wordpiece import WordPiece

    wordpiece = WordPiece.load(vocab)
    with view.build_bar(language(), quiet=output.quiet) as progress:
        manifest = build_shards(
            corpus,
            wordpiece,
            out,
            config,
            text_column=text_column,
            workers=workers or None,
            ram=ram,
            overwrite=overwrite,
            engine=engine,
            progress=progress,
        )
    counts = {split: dataclasses.asdict(found) for split, found in manifest.counts.items()}
    for found in counts.values():
        del found["chinese_tokens"]  # what the warnings are about
        if not manifest.config.whole_word:
            del found["words"]
    show_facts({"path": str(out), **counts}, output)


def data_show(
    shards: Path,
    index: int,
    /,
    *,
    split: Literal["train", "held_out"] = "train",
    epoch: int = 0,
    seed: int = 0,
    masking: Annotated[MaskingConfig, Flat] = MaskingConfig(),
    output: Output = Output(),
) -> None:
    """Show one example: tokens, segments, what is masked and how, and the next-sentence label.

    Args:
        shards: Folder that `bertwright data build` wrote.
        index: Which example, from 0.
        split: What training sees, or what is kept for evaluation.
        epoch: Masks are drawn anew in every epoch: the one to show.
        seed: The training seed the masks are drawn from.
    """
    from bertwright.data.shards import ShardSet
    from bertwright.data.show import describe_example

    example = describe_example(ShardSet.open(shards), index, masking, split=split, seed=seed, epoch=epoch)
    if output.json:
        print_json(dataclasses.asdict(example))
    else:
        view.print_example(example, language(), title=f"{shards} [{index}]")


def pretrain(
    recipe: str,
    /,
    *,
    data: Path,
    out: Path,
    long_data: Path | None = None,
    init: Path | None = None,
    resume: Switch = False,
    engine: Engine = "local",
    workers: int = 0,
    budget: str | None = None,
    config: Path | None = None,
    dials: Annotated[PretrainConfig, Training] = PretrainConfig(),
    output: Output = Output(),
) -> None:
    """Pre-train an encoder with MLM and NSP.

    A flag wins over --config, --config over the recipe, the recipe over the defaults shown here.

    Args:
        recipe: Size and settings: base, large, tiny, mini, small, medium, or one of the 24 small sizes, with the
            paper's settings; modern-tiny and so on, with those of today; modern is modern-base.
        data: Folder of shards that `bertwright data build` wrote.
        out: Run folder: checkpoints, metrics.jsonl, model/, report.html.
        long_data: Shards with longer examples of the same vocabulary, for the last steps: see --long-ratio.
        init: Model folder to start from; without it weights are drawn at random.
        resume: Go on where the run folder's last checkpoint left off, to the same weights bit for bit.
        engine: Where to train: in this process (or those of torchrun), or on the Ray cluster at RAY_ADDRESS.
        workers: Processes of --engine ray; 0: one for each GPU, or without any, for each processor core.
        budget: Time for all of it, such as 45min, 2h or 90s: how many steps that is, is measured here. Instead of
            --steps.
        config: JSON file of training settings, such as another run's config.json.
    """
    from bertwright.recipes import get_recipe

    shape = get_recipe(recipe).model
    where: dict[str, Any] = {"data": data, "long_data": long_data, "out": out, "init": init, "resume": resume}
    if budget is not None:
        if engine == "ray":
            raise BertwrightError("--budget measures one process, not a cluster", fix="give --steps instead")
        dials, where["budget_seconds"] = _budgeted(budget, shape, dials, where, output)
    with training(out, output) as on_event:
        if engine == "ray":
            from bertwright.training.ray_engine import pretrain_on_ray

            model = pretrain_on_ray(shape, dials, **where, workers=workers, on_event=on_event)
        else:
            from bertwright.training.pretrain import pretrain as train

            if workers:
                fix = f"add --engine ray, or: torchrun --nproc-per-node {workers} -m bertwright pretrain ..."
                raise BertwrightError("--workers is for --engine ray", fix=fix)
            model = train(shape, dials, **where, on_event=on_event)
    finish(out, model, {}, output)


def _budgeted(
    budget: str, shape: BertConfig, dials: PretrainConfig, where: dict[str, Any], output: Output
) -> tuple[PretrainConfig, float]:
    """Return the settings with the steps that a budget has, and its seconds."""
    from bertwright.training.budget import seconds_of, within_budget

    seconds = seconds_of(budget)
    with view.stage_bar(quiet=output.quiet) as progress:
        dials = within_budget(shape, dials, seconds, **where, progress=progress)
    if not output.quiet:
        console.err.print(say("budget_steps", language(), budget=budget, steps=dials.steps))
    return dials, seconds


def plan(
    recipe: str,
    /,
    *,
    data: Path,
    long_data: Path | None = None,
    init: Path | None = None,
    config: Path | None = None,
    probe_seconds: float = 30.0,
    dials: Annotated[PretrainConfig, Training] = PretrainConfig(),
    output: Output = Output(),
) -> None:
    """Say what a pre-training run will cost, before it: memory, disk, and the time on this machine.

    Flags are those of `pretrain`. Nothing is kept.

    Args:
        recipe: Size and settings, as for `pretrain`.
        data: Folder of shards that `bertwright data build` wrote.
        long_data: Shards with longer examples, as for `pretrain`.
        init: Model folder to start from.
        config: JSON file of training settings, such as another run's config.json.
        probe_seconds: How long training is tried, to measure speed and memory; 0: not at all.
    """
    from bertwright.cli.plan_view import print_plan
    from bertwright.recipes import get_recipe
    from bertwright.training.plan import plan_pretraining

    with view.stage_bar(quiet=output.quiet) as progress:
        where: dict[str, Any] = {"data": data, "long_data": long_data, "init": init}
        shape = get_recipe(recipe).model
        planned = plan_pretraining(shape, dials, **where, probe_seconds=probe_seconds, progress=progress)
    if output.json:
        print_json(planned.to_json())
    else:
        print_plan(planned, language())


def report(run: Path, /, *, lang: Lang | None = None, output: Output = Output()) -> None:
    """Write RUN/report.html anew, also while training still runs.

    Args:
        run: Run folder.
        lang: Language of the page, en or zh; by default that of the locale.
    """
    from bertwright.report import write_report

    console.out.print(str(write_report(run, lang=language(lang))))


def demo(*, out: Path = Path("bertwright-demo"), lang: Lang | None = None, output: Output = Output()) -> None:
    """Live a BERT's whole life in miniature, offline, in a few minutes.

    Args:
        out: Folder for everything it makes.
        lang: Language of the explanations, en or zh; by default that of the locale.
    """
    from bertwright.demo import run_demo

    run_demo(out, lang=language(lang), quiet=output.quiet)


@contextmanager
def training(out: Path, output: Output) -> Iterator[TrainingView]:
    """Show training live, and leave a report behind even where it was stopped."""
    from bertwright.report import write_report

    shown = TrainingView(language(), quiet=output.quiet or not is_first())
    try:
        with shown:
            yield shown
    except BaseException:
        with suppress(Exception):  # what stopped the run is what the user has to hear about
            if shown.started:
                write_report(out, lang=language())
        raise
    if is_first():
        write_report(out, lang=language())


def finish(out: Path, model: Path, scores: dict[str, float], output: Output, **more: Any) -> None:
    """Say where the model and the report lie; `more` is for JSON alone, where the log has said it to people."""
    if not is_first():
        return
    page = out / "report.html"
    if output.json:
        print_json({"model": str(model), "report": str(page), **scores, **more})
        return
    view.print_facts(scores)
    console.err.print(say("saved", language(), path=model))
    console.err.print(say("report", language(), path=page))


def show_facts(facts: dict[str, Any], output: Output) -> None:
    """Print figures by name, as a table or as JSON."""
    print_json(facts) if output.json else view.print_facts(facts)
