"""The command line: one verb per command; each parses, calls the Python function of the same name, and prints.

Nothing heavy is imported before a command runs: `bertwright --help` answers without torch.

    bertwright demo
    bertwright pretrain mini --data shards --out run --steps 20000
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from bertwright.cli import commands, labelled, models
from bertwright.cli import finetune as tuning
from bertwright.cli import reproduce as experiments
from bertwright.cli.console import err, print_error
from bertwright.cli.flags import settings_from, whole_numbers
from bertwright.config import FinetuneConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.messages import language, say
from bertwright.processes import is_first

app = App(
    name="bertwright",
    help="BERT end to end: from raw text to a served model, in English and Chinese.",
    version=lambda: importlib.metadata.version("bertwright"),
    help_format="plaintext",
    config=whole_numbers,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
vocab = App(
    name="vocab", help="Train a WordPiece vocabulary on raw text, or add a domain's words to a model's.", sort_key=1
)
data = App(name="data", help="Build shards of examples from raw text, and look at them.", sort_key=2)
finetune = App(
    name="finetune",
    help="Fine-tune an encoder on a task, with one added layer.",
    sort_key=6.5,
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),  # --columns a b c
)

# In the order of a model's life, which is the order of `bertwright --help`.
app.command(commands.demo, sort_key=0)
app.command(vocab)
vocab.default(commands.vocab)
vocab.command(commands.vocab_extend, name="extend")
app.command(data)
data.command(commands.data_build, name="build")
data.command(commands.data_show, name="show")
app.command(commands.pretrain, sort_key=3, config=(settings_from(PretrainConfig), whole_numbers))
app.command(commands.plan, sort_key=2.5, config=(settings_from(PretrainConfig), whole_numbers))
app.command(models.fill, sort_key=4)
app.command(models.nsp, sort_key=5)
app.command(labelled.check, sort_key=6)
app.command(finetune)
for each in (tuning.classify, tuning.regress, tuning.choice, tuning.qa, tuning.tag):
    finetune.command(each, config=(settings_from(FinetuneConfig), whole_numbers))
OWN_TASK = "MODULE:CLASS"
"""What the help calls the command for a task of one's own; people type the name of their class in its place."""
finetune.command(tuning.own, name=OWN_TASK, config=(settings_from(FinetuneConfig), whole_numbers))
app.command(models.predict, sort_key=7)
app.command(models.evaluate, sort_key=8)
app.command(labelled.score, sort_key=9)
app.command(labelled.glue, sort_key=10, config=(settings_from(FinetuneConfig), whole_numbers))
app.command(experiments.reproduce, sort_key=10.5)
app.command(commands.report, sort_key=11)
app.command(models.embed, sort_key=12)
app.command(models.convert, sort_key=13)


def run(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: the words after `bertwright`.

    Returns:
        The exit status: 0; 1 after an error, of which one message was printed; 128 + signal after one (130: Ctrl-C).
    """
    match argv:
        case ["finetune", task, *_] if ":" in task and task != OWN_TASK:
            argv = ["finetune", OWN_TASK, *argv[1:]]
    try:
        app(list(argv), exit_on_error=False, print_error=False, help_on_error=False)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader has gone (`bertwright predict ... | head`): nothing is left to say, nor a place to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        resumable = bool({*argv[:1]} & {"pretrain", "finetune", "glue"})
        building = [*argv[:2]] == ["data", "build"] or [*argv[:1]] == ["reproduce"]
        key = "stopped" if resumable else "build_stopped" if building else "interrupted"
        err.print("\n" + say(key, language()))
        return 128 + signal.SIGINT
    except Exception as error:
        interrupted = getattr(error, "signal", None)
        if "--debug" in argv:
            traceback.print_exc()
        if is_first() or getattr(error, "everybody_says_so", False):
            explain(error)
        return 1 if interrupted is None else 128 + interrupted


def explain(error: Exception) -> None:
    """Print one clear message for an exception: what, where, what to type."""
    match error:
        case BertwrightError():
            print_error(error.what, where=error.where, fix=error.fix)
        case CycloptsError():
            chain = " ".join(error.command_chain or ())
            what = str(error).split(" Available commands:")[0].rstrip(".")
            print_error(what, fix=f"bertwright {chain} --help".replace("  ", " "))
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            print_error("the disk is full; what was saved before is intact", where=error.filename,
                        fix="free some space, then type the same command again (--resume for training)")  # fmt: skip
        case PermissionError():
            print_error(
                "permission denied", where=error.filename, fix="choose another place, or change its owner or mode"
            )
        case FileNotFoundError():
            print_error("no such file or folder", where=error.filename)
        case FileExistsError() | NotADirectoryError():
            print_error("a file is in the way of a folder", where=error.filename, fix="choose another place")
        case OSError():
            print_error(error.strerror or str(error), where=error.filename)
        case _ if _is_out_of_memory(error):
            print_error("not enough memory", fix="lower --micro-batch-tokens (in another --out) or --workers")
        case _:
            print_error(f"something unexpected happened ({type(error).__name__}: {error})",
                        fix="type the same command with --debug to see where, and please report it")  # fmt: skip


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def main() -> NoReturn:
    """Run the command that was typed and exit with its status."""
    sys.exit(run(sys.argv[1:]))
