"""The commands of `bertwright`, in the order of a model's life.

Flags are the fields of the dataclasses in `config`, flattened; their docstrings are the help.
Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from bertwright.cli import view
from bertwright.cli.view import TrainingView, err, print_json
from bertwright.config import DataConfig, FinetuneConfig, Language, MaskingConfig, PretrainConfig, VocabConfig
from bertwright.config import from_dict, read_json
from bertwright.errors import BertwrightError
from bertwright.messages import language, say


@Parameter(name="*", group="Output")
@dataclass(frozen=True, kw_only=True)
class Output:
    """What every command's screen looks like."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as JSON on standard output."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """Show errors, warnings and the result alone."""
    debug: Annotated[bool, Parameter(negative="")] = False
    """After an error, also show where in the code it happened."""

    def __post_init__(self) -> None:
        view.log_to_console(quiet=self.quiet)


Flat = Parameter(name="*")
Dials = Annotated[PretrainConfig, Parameter(name="*", group="Training")]


def vocab(
    corpus: list[str],
    /,
    *,
    out: Path,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    threads: int = 0,
    config: Annotated[VocabConfig, Flat] = VocabConfig(),
    output: Output = Output(),
) -> None:
    """Train a WordPiece vocabulary on raw text.

    Args:
        corpus: Text files (.txt, .jsonl; also .gz, .xz, .zst), folders or patterns.
        out: Folder for vocab.txt, tokenizer.json and tokenizer_config.json.
        overwrite: Replace a vocabulary that is already there.
        threads: Processor threads; 0: all. The result is the same for any number.
    """
    from bertwright.text.vocabulary import train_vocabulary

    if (out / "vocab.txt").exists() and not overwrite:
        raise BertwrightError(
            "there is a vocabulary already", where=out, fix="choose another --out, or add --overwrite"
        )
    with view.stage_bar(quiet=output.quiet) as progress:
        trained = train_vocabulary(corpus, config, threads=threads or None, progress=progress)
    trained.wordpiece.save(out)
    report = {**trained.report, "path": str(out)}
    if output.json:
        print_json(report)
    else:
        view.print_scores(report)


def data_build(
    corpus: list[str],
    /,
    *,
    vocab: Path,
    out: Path,
    workers: int = 0,
    config: Annotated[DataConfig, Flat] = DataConfig(),
    output: Output = Output(),
) -> None:
    """Turn raw text into memory-mapped shards of examples.

    Args:
        corpus: Text files (.txt, .jsonl; also .gz, .xz, .zst), folders or patterns.
        vocab: Folder of a vocabulary (or of a model), or a vocab.txt.
        out: Folder for the shards; it must be empty or absent.
        workers: Processes; 0: one per processor core. The result is the same for any number.
    """
    from bertwright.data.build import build_shards
    from bertwright.text.wordpiece import WordPiece

    wordpiece = WordPiece.load(vocab)
    with view.stage_bar(quiet=output.quiet) as progress:
        manifest = build_shards(corpus, wordpiece, out, config, workers=workers or None, progress=progress)
    facts = {**_counts(manifest), "path": str(out)}
    print_json(facts) if output.json else view.print_scores(facts)


def data_show(
    shards: Path, index: int, /, *, split: str = "train", epoch: int = 0, seed: int = 0, output: Output = Output()
) -> None:
    """Show one example: tokens, segments, what is masked and how, and the next-sentence label.

    Args:
        shards: Folder that `bertwright data build` wrote.
        index: Which example, from 0.
        split: train or held_out.
        epoch: Masks are drawn anew in every epoch: the one to show.
        seed: The training seed the masks are drawn from.
    """
    from bertwright.data.show import describe_example
    from bertwright.data.shards import ShardSet

    example = describe_example(ShardSet.open(shards), index, MaskingConfig(), seed=seed, epoch=epoch)
    if output.json:
        print_json(dataclasses.asdict(example))
    else:
        view.print_example(example, language(), title=f"{shards} [{index}]")


def _counts(manifest: Any) -> dict[str, Any]:
    values = manifest if isinstance(manifest, dict) else dataclasses.asdict(manifest)
    return values.get("counts", values)


def pretrain(
    recipe: str,
    /,
    *,
    data: Path,
    out: Path,
    init: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    dials: Dials = PretrainConfig(),
    output: Output = Output(),
) -> None:
    """Pre-train an encoder with MLM and NSP.

    A flag wins over --config, --config over the recipe, the recipe over the defaults shown here.

    Args:
        recipe: Size and settings: base, large, tiny, mini, small, medium, or one of the 24 small sizes.
        data: Folder of shards that `bertwright data build` wrote.
        out: Run folder: checkpoints, metrics.jsonl, model/, report.html.
        init: Model folder to start from; without it weights are drawn at random.
        resume: Go on where the run folder's last checkpoint left off, to the same weights bit for bit.
        config: JSON file of training settings, such as another run's config.json.
    """
    from bertwright.recipes import get_recipe
    from bertwright.training.pretrain import pretrain as train

    with training(out, output) as on_event:
        model = train(get_recipe(recipe).model, dials, data=data, out=out, init=init, resume=resume, on_event=on_event)
    finish(out, model, {}, output)


def fill(model: Path, text: str, /, *, top_k: int = 5, output: Output = Output()) -> None:
    """Fill the gaps: `bertwright fill MODEL "The capital of France is [MASK]."`.

    Args:
        model: Model folder.
        text: A sentence with one or more [MASK].
        top_k: Answers per gap.
    """
    from bertwright.predict import Predictor

    answers = Predictor.load(model).fill(text, top_k=top_k)
    if output.json:
        print_json(answers)
        return
    gaps = answers if answers and isinstance(answers[0], list) else [answers]
    for number, gap in enumerate(gaps, start=1):
        view.print_fills(text if len(gaps) == 1 else f"{text}  ({number}/{len(gaps)})", gap)


def nsp(model: Path, a: str, b: str, /, *, output: Output = Output()) -> None:
    """Tell whether sentence B follows sentence A.

    Args:
        model: Model folder.
        a: First sentence.
        b: Second sentence.
    """
    from bertwright.predict import Predictor

    answer = Predictor.load(model).next_sentence(a, b)
    if output.json:
        print_json(answer)
        return
    words = say("is_next" if answer["label"] == "IsNext" else "not_next", language())
    view.out.print(f"[bold]{words}[/]  {answer['score']:.1%}")


def finetune_classify(
    *,
    train: Path,
    dev: Path,
    init: Path,
    out: Path,
    text_column: str = "text",
    label_column: str = "label",
    resume: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    dials: Annotated[FinetuneConfig, Parameter(name="*", group="Training")] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """Fine-tune a classifier of single sentences: one added layer, the whole encoder trained.

    A flag wins over --config, --config over the defaults shown here.

    Args:
        train: CSV, TSV or JSONL file of labelled examples to learn from.
        dev: Labelled examples of the same kind to choose the best epoch by.
        init: Model folder to start from.
        out: Run folder: metrics.jsonl, model/ (the best epoch), report.html.
        text_column: Column of the text.
        label_column: Column of the label.
        resume: Go on where the run folder's last checkpoint left off.
        config: JSON file of training settings, such as another run's config.json.
    """
    from bertwright.tasks.sentence import ClassifyTask
    from bertwright.training.finetune import finetune

    task = ClassifyTask(text_column=text_column, label_column=label_column)
    with training(out, output) as on_event:
        result = finetune(task, dials, train=train, dev=dev, init=init, out=out, resume=resume, on_event=on_event)
    finish(out, result.model, result.scores, output)


def predict(
    model: Path, /, *texts: str, input: Path | None = None, text_column: str = "text", output: Output = Output()
) -> None:
    """Classify texts: one JSON line `{"label": ..., "score": ...}` for each, in their order.

    Args:
        model: Model folder that `bertwright finetune` wrote.
        texts: The texts; or use --input.
        input: CSV, TSV or JSONL file with a column of texts, or a .txt file with one a line; - reads lines from standard input.
        text_column: Column of the text in --input.
    """
    from bertwright.predict import Predictor

    given = list(texts) or _read_texts(input, text_column)
    for answer in Predictor.load(model).predict(given):
        print_json(answer)


def evaluate(model: Path, /, *, data: Path, output: Output = Output()) -> None:
    """Score a fine-tuned model on labelled examples.

    Args:
        model: Model folder that `bertwright finetune` wrote.
        data: CSV, TSV or JSONL file with the columns the model was trained on.
    """
    from bertwright.evaluate import evaluate as score

    scores = score(model, data)
    print_json(scores) if output.json else view.print_scores(scores)


def report(run: Path, /, *, lang: str | None = None, output: Output = Output()) -> None:
    """Write RUN/report.html anew, also while training still runs.

    Args:
        run: Run folder.
        lang: Language of the page, en or zh; by default that of the locale.
    """
    from bertwright.report import write_report

    view.out.print(str(write_report(run, lang=language(lang))))


def demo(*, out: Path = Path("bertwright-demo"), lang: str | None = None, output: Output = Output()) -> None:
    """Live a BERT's whole life in miniature, offline, in a few minutes.

    Args:
        out: Folder for everything it makes.
        lang: Language of the explanations, en or zh; by default that of the locale.
    """
    from bertwright.demo import run_demo

    run_demo(out, lang=language(lang))


@contextmanager
def training(out: Path, output: Output) -> Iterator[TrainingView]:
    """Show training live, and leave a report behind even where it was stopped."""
    from bertwright.report import write_report

    try:
        with TrainingView(language(), quiet=output.quiet) as shown:
            yield shown
    finally:
        if (out / "metrics.jsonl").exists():
            write_report(out, lang=language())


def finish(out: Path, model: Path, scores: dict[str, float], output: Output) -> None:
    """Say where the model and the report lie."""
    page = out / "report.html"
    if output.json:
        print_json({"model": str(model), "report": str(page), **scores})
        return
    view.print_scores(scores)
    err.print(say("saved", language(), path=model))
    err.print(say("report", language(), path=page))


def settings_from(kind: type[PretrainConfig] | type[FinetuneConfig]) -> Any:
    """Return a source of values for the flags that were not typed: first --config FILE, then the recipe."""

    def source(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        typed = {argument.name: argument.tokens[0].value for argument in arguments if argument.tokens}
        layers = []
        if "--config" in typed:
            path = Path(typed["--config"])
            layers.append((saved_settings(kind, path), str(path)))
        if "RECIPE" in typed:
            from bertwright.recipes import get_recipe

            layers.append((get_recipe(typed["RECIPE"]).train, f"recipe {typed['RECIPE']}"))
        for values, name in layers:
            Dict(values, source=name, use_commands_as_keys=False)(app, commands, arguments)

    return source


def saved_settings(kind: type[Any], path: Path) -> dict[str, Any]:
    """Read training settings from a file of them, or from a run's config.json where they lie under `train`."""
    values = read_json(path)
    values = values.get("train", values)
    from_dict(kind, values, where=path)
    return values


def register(app: App) -> None:
    """Hang the commands on the application."""
    data = App(name="data", help="Build shards of examples from raw text, and look at them.")
    data.command(data_build, name="build")
    data.command(data_show, name="show")
    finetune = App(name="finetune", help="Fine-tune an encoder on a task with one added layer.")
    finetune.command(finetune_classify, name="classify", config=settings_from(FinetuneConfig))
    app.command(vocab)
    app.command(data)
    app.command(pretrain, config=settings_from(PretrainConfig))
    app.command(fill)
    app.command(nsp)
    app.command(finetune)
    app.command(predict)
    app.command(evaluate)
    app.command(report)
    app.command(demo)


def _read_texts(path: Path | None, column: str) -> list[str]:
    raise NotImplementedError
