"""The commands that use a model, or make another of it: fill, nsp, predict, evaluate, embed, convert.

A model is a folder of any kind that `model.weights` reads, or a name on the hub.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from bertwright.cli import console, view
from bertwright.cli.console import print_json
from bertwright.cli.flags import Output, Switch, TaskChanges
from bertwright.cli.task_view import print_per_class, write_answers
from bertwright.config import Activation, PoolingMode
from bertwright.errors import BertwrightError
from bertwright.messages import language, say

if TYPE_CHECKING:
    from bertwright.tasks import Example, Task

InputFile = Annotated[Path | None, Parameter(allow_leading_hyphen=True)]


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
    view.print_fills(text, answers)


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
    console.out.print(f"[bold]{words}[/]  {answer['score']:.1%}")


def predict(
    model: Path,
    /,
    *texts: str,
    input: InputFile = None,
    format: Literal["jsonl", "squad", "conll"] = "jsonl",
    changes: TaskChanges = TaskChanges(),
    output: Output = Output(),
) -> None:
    """Answer what the model was fine-tuned for: one line of JSON for each input, in their order.

    A model of pairs takes texts two by two (of questions: the question, then its context), one of multiple choice the
    prompt and then its endings.

    Args:
        model: Model folder that `bertwright finetune` wrote, or one of Hugging Face's, or a name on the hub.
        texts: The texts; or use --input.
        input: A file as for training, without labels; or .txt with one text a line; - reads lines of standard input.
        format: jsonl; squad: one object of answers by id, as SQuAD's scorer reads it; conll: words and tags in columns.
    """
    from bertwright.predict import Predictor

    if bool(texts) == (input is not None):
        found = "texts and --input together" if texts else "no text"
        raise BertwrightError(found, fix='bertwright predict MODEL "a text" or bertwright predict MODEL --input FILE')
    changes.import_trusted()
    predictor = Predictor.load(model, options=changes.to_json() or None)
    task = predictor.require_task()
    if input is None:
        examples = task.examples(task.typed(texts))
    elif (lines := _lines(input)) is not None and not task.reads_text_files:
        examples = [_asked(task, line, f"{input}, row {number:,}") for number, line in enumerate(lines, start=1)]
    elif lines is not None and str(input) == "-":
        examples = task.examples(lines)
    else:
        examples = task.read(input, labelled=False)
    write_answers(task, examples, predictor.predict_examples(examples), format)


def evaluate(
    model: Path,
    /,
    *,
    data: Path,
    changes: TaskChanges = TaskChanges(),
    out: Path | None = None,
    output: Output = Output(),
) -> None:
    """Score a fine-tuned model on labelled examples.

    Args:
        model: Model folder that `bertwright finetune` wrote.
        data: A file of labelled examples, as for training.
        out: Folder for evaluation.json (scores, and what lies behind them) and predictions.jsonl.
    """
    from bertwright.evaluation import evaluate as run

    changes.import_trusted()
    evaluation = run(model, data, options=changes.to_json())
    if out is not None:
        evaluation.save(out)
    if output.json:
        print_json({**evaluation.scores, "num_examples": len(evaluation.examples), **evaluation.details})
    else:
        view.print_facts({**evaluation.scores, "num_examples": len(evaluation.examples)})
        view.print_confusion(evaluation.labels, evaluation.confusion)
        print_per_class(evaluation.details.get("per_class", {}))


def embed(
    model: Path,
    /,
    *texts: str,
    input: InputFile = None,
    text_column: str = "text",
    out: Path,
    pooling: PoolingMode | Literal["tokens"] | None = None,
    layers: Annotated[list[int], Parameter(consume_multiple=True, negative="")] = [-1],  # noqa: B006
    normalize: bool | None = None,
    output: Output = Output(),
) -> None:
    """Turn texts into vectors, without fine-tuning, and write them to a NumPy file.

    Args:
        model: Model folder, one of sentence-transformers' included, or a name on the hub.
        texts: The texts; or use --input.
        input: CSV, TSV or JSONL file with a column of texts, or .txt with one a line; - reads lines of standard input.
        text_column: Column of the text in --input.
        out: The .npz file: `embeddings` [texts, width]; with tokens `vectors`, `cu_seqlens`, `input_ids`, `offsets`.
        pooling: How the vectors of a text's tokens become one; `tokens` keeps them all. By default as the folder says,
            or mean.
        layers: Whose outputs: 0 the embeddings', 1 the first layer's, -1 the last one's; several give a further axis.
        normalize: Scale vectors to length 1; by default as the folder says.
    """
    from bertwright.embedding import Embedder

    if bool(texts) == (input is not None):
        found = "texts and --input together" if texts else "no text"
        raise BertwrightError(
            found, fix='bertwright embed MODEL "a text" --out F.npz, or bertwright embed MODEL --input FILE --out F.npz'
        )
    if pooling == "tokens" and normalize is not None:
        raise BertwrightError("--normalize is for one vector a text, not for tokens", fix="leave it out")
    chosen = list(texts) if input is None else _lines(input) or _column(input, text_column)
    if out.suffix != ".npz":
        raise BertwrightError("the file must be called .npz", where=out, fix=f"--out {out.with_suffix('.npz')}")
    embedder = Embedder.load(
        model, pooling=None if pooling == "tokens" else pooling, normalize=normalize, layers=layers
    )
    shapes = embedder.save(chosen, out, tokens=pooling == "tokens")
    if output.json:
        print_json({"path": str(out), **shapes})
    else:
        view.print_facts({"path": str(out), **{name: "×".join(map(str, shape)) for name, shape in shapes.items()}})


def convert(
    source: Path,
    out: Path,
    /,
    *,
    to: Literal["hf", "google", "sentence-transformers"] = "hf",
    pooling: PoolingMode | None = None,
    hidden_act: Activation | None = None,
    lenient: Switch = False,
    output: Output = Output(),
) -> None:
    """Write a model in another format, with a proof sheet: where every tensor went, and that the numbers are the same.

    Args:
        source: Folder of Hugging Face's, Google's TensorFlow files or sentence-transformers, or a name on the hub.
        out: Folder to write; new or empty.
        to: hf: Hugging Face's; google: bert_config.json, vocab.txt and bert_model.ckpt for TensorFlow 1;
            sentence-transformers.
        pooling: For sentence-transformers; by default as the source says, or mean.
        hidden_act: What `gelu` means in a Google checkpoint: gelu_new if it was trained with the later code.
        lenient: Only warn about heads that the source's configuration promises and its weights lack.
    """
    from bertwright.export import convert as run

    conversion = run(source, out, to=to, pooling=pooling, hidden_act=hidden_act, lenient=lenient)
    if output.json:
        print_json({"path": str(out), **conversion.to_json()})
        return
    if not output.quiet:
        view.print_sheet(conversion, language())
    console.err.print(say("saved", language(), path=out))


def _asked(task: Task, line: str, where: str) -> Example:
    """Return what one line asks; tabs in it are between texts."""
    parts = line.split("\t")
    try:
        given = task.typed(parts)
    except BertwrightError as error:
        raise BertwrightError(error.what, where=where, fix=error.fix) from None
    if given == parts:  # every word is a text of its own: a tab is white space
        given = [line]
    if len(given) != 1:
        fix = "one a line; take tabs out of texts, or save them as .jsonl"
        raise BertwrightError(f"its tabs make {len(given)} questions of this line", where=where, fix=fix)
    return task.example(given[0], where=where)


def _lines(input: Path) -> list[str] | None:
    """Return the texts of standard input or of a .txt file, one a line; None: it is a table."""
    from bertwright.text.corpus import decode_lines, read_lines

    if str(input) == "-":
        lines, where = decode_lines(sys.stdin.buffer, "standard input"), "standard input"
    elif input.suffix == ".txt":
        lines, where = read_lines(input), str(input)
    else:
        return None
    texts = [line.rstrip("\n") for line in lines]
    if not texts:
        raise BertwrightError("no text", where=where, fix="give one text a line")
    return texts


def _column(path: Path, column: str) -> list[str]:
    from bertwright.tasks.tables import read_table

    return [row.values["text"] for row in read_table(path, {"text": column})]
