"""`bertwright finetune TASK`: one command for each family of tasks, over one function.

The flags of a task are the fields of its class in `bertwright.options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from bertwright.cli import console
from bertwright.cli.commands import finish, training
from bertwright.cli.flags import Output, Switch, TaskChanges, Training
from bertwright.cli.task_view import print_trials
from bertwright.config import FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.json_values import to_dict
from bertwright.messages import language
from bertwright.options import ChoiceOptions, ClassifyOptions, QAOptions, RegressOptions, TagOptions

if TYPE_CHECKING:
    from bertwright.tasks import Task

Asked = Parameter(name="*", group="Task")


@Parameter(name="*", group="Run")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is trained on what, and where it goes."""

    train: Path
    """File of labelled examples to learn from."""
    dev: Path
    """Labelled examples of the same kind to choose the best epoch by."""
    init: Path
    """Model folder to start from, or a name on the hub."""
    out: Path
    """Run folder: metrics.jsonl, model/ (the best epoch), report.html."""
    preset: str | None = None
    """The paper's settings for glue, squad, squad2, swag or conll, or like them for cmrc; flags and --config win."""
    grid: Literal["paper"] | None = None
    """Try all of the paper's batch sizes, learning rates and epochs, and keep the best on dev."""
    seeds: int = 1
    """Runs of each setting, with neighbouring seeds; mean and standard deviation are shown, the best is kept."""
    random_weights: Switch = False
    """Take only shape and vocabulary from --init: what pre-training is to be compared with."""
    resume: Switch = False
    """Go on where the run folder's last checkpoint left off."""
    config: Path | None = None
    """JSON file of training settings, such as another run's config.json."""


def classify(
    *,
    run: RunOptions,
    options: Annotated[ClassifyOptions, Asked] = ClassifyOptions(),
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """Labels for texts or pairs of texts, in CSV, TSV, JSONL or Parquet files: sentiment, topics, entailment."""
    from bertwright.tasks import ClassifyTask

    train(ClassifyTask(**to_dict(options)), run, dials, output)


def regress(
    *,
    run: RunOptions,
    options: Annotated[RegressOptions, Asked] = RegressOptions(),
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """Numbers for texts or pairs of texts, in CSV, TSV, JSONL or Parquet files: how much alike two sentences are."""
    from bertwright.tasks import RegressTask

    train(RegressTask(**to_dict(options)), run, dials, output)


def choice(
    *,
    run: RunOptions,
    options: Annotated[ChoiceOptions, Asked] = ChoiceOptions(),
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """The best of several endings, in CSV, TSV, JSONL or Parquet files: SWAG, CODAH, C3."""
    from bertwright.tasks import ChoiceTask

    train(ChoiceTask(**to_dict(options)), run, dials, output)


def qa(
    *,
    run: RunOptions,
    options: Annotated[QAOptions, Asked] = QAOptions(),
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """Answers to questions, found in their context: SQuAD 1.1 and 2.0, CMRC 2018, DRCD."""
    from bertwright.tasks import QATask

    train(QATask(**to_dict(options)), run, dials, output)


def tag(
    *,
    run: RunOptions,
    options: Annotated[TagOptions, Asked] = TagOptions(),
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """Names in texts, or a tag for every word, in CoNLL columns, JSONL or Label Studio exports: CoNLL-2003, MSRA."""
    from bertwright.tasks import TagTask

    train(TagTask(**to_dict(options)), run, dials, output)


def own(
    task: str,
    /,
    *,
    run: RunOptions,
    option: list[str] = [],  # noqa: B006
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """A task of your own: MODULE:CLASS, a subclass of bertwright.tasks.Task in a module that Python finds from here.

    Args:
        task: Such as my.module:MyTask.
        option: Any field of the class as NAME=VALUE, such as text_column=body; may be repeated.
    """
    from bertwright.tasks import task_from_json
    from bertwright.tasks.own import trust

    trust(task.partition(":")[0])
    train(task_from_json({"name": task, "options": TaskChanges(option=option).to_json()}), run, dials, output)


def train(task: Task, run: RunOptions, dials: FinetuneConfig, output: Output) -> None:
    """Fine-tune once, or over a grid and several seeds, with everything shown."""
    from bertwright.training.finetune import finetune
    from bertwright.training.trials import finetune_trials

    if run.seeds < 1:
        raise BertwrightError(f"--seeds must be at least 1, not {run.seeds}")
    given: dict[str, Any] = {name: getattr(run, name) for name in ("train", "dev", "init", "out")}
    given |= {"random_weights": run.random_weights, "resume": run.resume}
    more: dict[str, Any]
    with training(run.out, output) as on_event:
        if run.grid is None and run.seeds == 1:
            result = finetune(task, dials, **given, on_event=on_event)
            model, scores, more = result.model, result.scores, {"problem": result.problem}
        else:
            trials = finetune_trials(task, dials, **given, grid=run.grid, seeds=run.seeds, on_event=on_event)
            model, scores, more = trials.model, trials.scores, {"trials": trials.rows()}
            if not output.json:
                print_trials(trials.rows(), trials.best_by, language(), console.out)
    finish(run.out, model, scores, output, **more)
