"""Tasks that are no part of Bertwright: a class in a module of somebody's own, known as `my.module:MyTask`.

    bertwright finetune my.module:MyTask --train train.tsv --dev dev.tsv --init MODEL --out run
    import my.module; Predictor.load("run/model")

A model folder that names such a task is loaded where its module is imported already. Nothing is imported because a
folder says so: that would run whatever code it likes.
"""

from __future__ import annotations

import dataclasses
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from bertwright.errors import BertwrightError, nearest
from bertwright.tasks.base import Task


def own_name(kind: type[Task]) -> str:
    """Return what a class is known by: `MODULE:CLASS`, of a script that was started its file's name.

    Raises:
        BertwrightError: it is not at the top of a module, and nobody would find it again.
    """
    if "." in kind.__qualname__:
        what = f"the task {kind.__qualname__} is not at the top of a module: a saved model could not find it again"
        raise BertwrightError(what, where=kind.__module__, fix="move the class out of what it stands in")
    script = _script() if kind.__module__ == "__main__" else None
    return f"{script or kind.__module__}:{kind.__name__}"


def own_task(name: str, *, where: object = None) -> type[Task]:
    """Return the class that `MODULE:CLASS` names, if its module is imported already.

    Args:
        name: as `own_name` gives it.
        where: the file that names it, for messages.

    Raises:
        BertwrightError: the module is not imported, or has no such task.
    """
    module, _, kind = name.partition(":")
    loaded = sys.modules.get("__main__" if module == _script() else module)
    if loaded is None:
        what = f"{name} is a task of somebody's own; its module is not imported, since that runs its code"
        fix = f"if you trust it: import {module} first, or on the command line --trust {module}"
        raise BertwrightError(what, where=where, fix=fix)
    found = getattr(loaded, kind, None)
    if not (isinstance(found, type) and issubclass(found, Task)):
        what = f"no task {kind!r} in {module}{nearest(kind, _tasks(loaded))}"
        raise BertwrightError(what, where=where, fix="name a subclass of bertwright.tasks.Task, as MODULE:CLASS")
    if found.__abstractmethods__:
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise BertwrightError(f"the task {name} lacks {lacking}", where=where, fix="see docs/en/python.md, Own tasks")
    if hidden := [field.name for field in dataclasses.fields(found) if callable(getattr(Task, field.name, None))]:
        what = f"the option {hidden[0]!r} of {name} hides the method of that name"
        raise BertwrightError(what, where=where, fix="give the field another name")
    return found


def trust(module: str) -> None:
    """Import a module at a person's word; one in the current folder is found, too.

    Raises:
        BertwrightError: there is no such module, or it fails.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise BertwrightError(f"module {module} needs {error.name}, which is not there", fix="install it") from None
        fix = "start in the folder that it is in, or install its package"
        raise BertwrightError(f"no module {module!r}", fix=fix) from None
    except Exception as error:
        what = f"module {module} cannot be imported ({type(error).__name__}: {error})"
        raise BertwrightError(what, fix=f"mend it: python -c 'import {module}' says where") from error


def _script() -> str | None:
    """Return the name of the script that Python was started with, as a module would be called."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file).stem if file else None


def _tasks(module: ModuleType) -> list[str]:
    found = vars(module).items()
    return [name for name, each in found if isinstance(each, type) and issubclass(each, Task)]
