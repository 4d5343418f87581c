"""The commands about data itself, and the suites over several sets: check, score, glue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from bertwright.cli import console, view
from bertwright.cli.console import print_json
from bertwright.cli.corpus import check_raw
from bertwright.cli.flags import Output, Switch, TaskChanges, Training
from bertwright.cli.task_view import print_check, print_per_class
from bertwright.config import FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.messages import Lang, language, say


def check(
    files: list[str],
    /,
    *,
    task: str | None = None,
    vocab: Path | None = None,
    against: Annotated[list[Path], Parameter(consume_multiple=True, negative="")] = [],  # noqa: B006
    workers: int = 0,
    dev: Path | None = None,
    init: Path | None = None,
    max_length: int = 0,
    changes: TaskChanges = TaskChanges(),
    lang: Lang | None = None,
    output: Output = Output(),
) -> None:
    """Look at data before anything is trained: a corpus, or with --task a file of labelled examples.

    Of a corpus: encoding, sentences, scripts, doubtful characters, copies, dev sets in it. Of labelled examples:
    balance, doubles, contradictions, what would be cut.

    Args:
        files: Of a corpus: text files (.txt, .jsonl; also .gz, .xz, .zst), folders or patterns. With --task: one file.
        task: classify, regress, choice, qa or tag, or MODULE:CLASS of your own.
        vocab: Of a corpus: vocabulary or model folder, to tell how it fits.
        against: Of a corpus: files of examples or texts (.csv, .tsv, .json, .jsonl, .parquet, .txt) not to be in it.
        workers: Of a corpus: processes; 0: one per processor core. The result is the same for any number.
        dev: With --task: examples of the same kind, to find those that are in both files.
        init: With --task: model or vocabulary folder, to tell lengths and show examples token by token.
        max_length: Longest input, tokens; 0: the task's usual one, of a corpus 128.
        lang: Language of what is shown, en or zh; by default that of the locale.
    """
    strange = {"--vocab": vocab, "--against": against, "--workers": workers} if task else {
        "--dev": dev, "--init": init, "a change of a task's options": changes.to_json()}  # fmt: skip
    if wrong := [name for name, value in strange.items() if value]:
        kind = "of labelled examples (--task)" if task else "of a corpus (no --task)"
        fix = f"leave out {wrong[0]}" if task else "name the --task, or use --vocab and --against"
        raise BertwrightError(f"{wrong[0]} has no meaning in a check {kind}", fix=fix)
    if task is None:
        check_raw(files, vocab, against, max_length, workers, language(lang), output)
        return
    if len(files) != 1:
        raise BertwrightError(f"--task wants one file of labelled examples, not {len(files)}", fix="check each alone")
    _check_labelled(Path(files[0]), task, dev, init, max_length, changes, language(lang), output)


def _check_labelled(
    file: Path, task: str, dev: Path | None, init: Path | None, max_length: int, changes: TaskChanges, lang: Lang,
    output: Output,
) -> None:  # fmt: skip
    from bertwright.tasks import task_from_json
    from bertwright.tasks.checking import check_examples
    from bertwright.tasks.own import trust
    from bertwright.text.wordpiece import WordPiece

    if ":" in task:
        trust(task.partition(":")[0])
    asked = task_from_json({"name": task, "options": changes.to_json()})
    examples = asked.read(file)
    asked = asked.learn(examples)
    others = asked.read(dev) if dev else []
    wordpiece = WordPiece.load(init) if init else None
    features = asked.encode(examples, wordpiece, max_length or asked.usual_length) if wordpiece else []
    found = check_examples(asked, examples, features, wordpiece, dev=others)
    print_json(found.to_json()) if output.json else print_check(found, lang, console.out)


def score(
    kind: str,
    /,
    *,
    predictions: Path,
    data: Path | None = None,
    changes: TaskChanges = TaskChanges(),
    output: Output = Output(),
) -> None:
    """Score a file of predictions by the official rules, whoever made them.

    Args:
        kind: squad, cmrc, conll; a task of GLUE, such as MRPC; or classify, regress, choice, qa, tag.
        predictions: SQuAD's object of answers by id, GLUE's TSV, CoNLL columns, or the lines that `predict` prints.
        data: File of the right answers; CoNLL columns may hold both.
    """
    from bertwright.scoring import score_predictions

    scores = score_predictions(kind, data, predictions, **changes.to_json())
    if output.json:
        print_json(scores)
        return
    per_class = scores.pop("per_class", {})
    view.print_facts(scores)
    print_per_class(per_class)


def glue(
    folder: Path,
    /,
    *,
    init: Path,
    out: Path,
    tasks: Annotated[list[str], Parameter(consume_multiple=True, negative="")] = [],  # noqa: B006
    grid: Literal["paper"] | None = None,
    seeds: int = 1,
    resume: Switch = False,
    config: Path | None = None,
    dials: Annotated[FinetuneConfig, Training] = FinetuneConfig(),
    output: Output = Output(),
) -> None:
    """Fine-tune, score and answer every task of GLUE that is there, and make the leaderboard's submission.zip.

    Args:
        folder: Holds a folder for each task, as downloaded: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI, AX.
        init: Model folder to start each task from, or a name on the hub.
        out: Folder for a run of each task, glue.json and submission.zip.
        tasks: Names of the tasks; by default all that are there.
        grid: Try all of the paper's settings for each task, and keep the best on dev.
        seeds: Runs of each setting, with neighbouring seeds.
        resume: Go on with what is in --out.
        config: JSON file of training settings, such as another run's config.json.
    """
    from bertwright.glue import SUBMISSION_FILE, run_glue
    from bertwright.report import write_report
    from bertwright.training.finetune import finetune
    from bertwright.training.trials import finetune_trials

    single = grid is None and seeds == 1
    tune = finetune if single else finetune_trials

    def train_one(*args: Any, out: Path, **given: Any) -> Any:
        result = tune(*args, out=out, **given)
        write_report(out, lang=language())
        return result

    shown = view.TrainingView(language(), quiet=output.quiet)
    with shown:
        report = run_glue(
            folder,
            init,
            out,
            tasks=tasks or None,
            config=dials,
            options={} if single else {"grid": grid, "seeds": seeds},
            train_one=train_one,
            resume=resume,
            on_event=shown,
        )
    if output.json:
        print_json(report)
        return
    view.print_facts({name: each["scores"] for name, each in report["tasks"].items()})
    view.print_facts(report["dev"])
    console.err.print(say("saved", language(), path=out / SUBMISSION_FILE))
