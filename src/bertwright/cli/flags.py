"""Flags that commands share, and where the values of those that were not typed come from.

A flag that was typed always wins, also when its value is the default one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from bertwright.cli.console import log_to_console
from bertwright.errors import BertwrightError
from bertwright.json_values import from_dict, read_json

Switch = Annotated[bool, Parameter(negative="", show_default=False)]
Engine = Literal["local", "ray"]
Flat = Parameter(name="*")
Training = Parameter(name="*", group="Training")


@Parameter(name="*", group="Output")
@dataclass(frozen=True, kw_only=True)
class Output:
    """What every command's screen looks like."""

    json: Switch = False
    """Print the result as JSON on standard output."""
    quiet: Switch = False
    """Show errors, warnings and the result alone."""
    debug: Switch = False
    """After an error, also show where in the code it happened."""

    def __post_init__(self) -> None:
        log_to_console(quiet=self.quiet)


@Parameter(name="*", group="Task")
@dataclass(frozen=True, kw_only=True)
class TaskChanges:
    """What a task shall do otherwise than its model folder says."""

    text_column: str | None = None
    """Column of the text; by default the one the model was trained on."""
    text_pair_column: str | None = None
    """Column of the second text; likewise."""
    label_column: str | None = None
    """Column of the label; likewise."""
    columns: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = ()
    """Names of the columns, for a CSV or TSV file whose first line is data already."""
    option: list[str] = field(default_factory=list)
    """Any option of the task as NAME=VALUE, such as null_threshold=1.5; may be repeated."""
    trust: list[str] = field(default_factory=list)
    """Module of a task of somebody's own that the model folder names: it is imported, which runs its code."""

    def import_trusted(self) -> None:
        """Import the modules that are trusted."""
        from bertwright.tasks.own import trust

        for module in self.trust:
            trust(module)

    def to_json(self) -> dict[str, Any]:
        """Return the options that were given.

        Raises:
            BertwrightError: one has no `=`.
        """
        names = ("text_column", "text_pair_column", "label_column", "columns")
        given = {name: getattr(self, name) for name in names if getattr(self, name)}
        for each in self.option:
            name, equals, value = each.partition("=")
            if not equals:
                raise BertwrightError(f"--option wants NAME=VALUE, not {each!r}", fix="--option stride=64")
            given[name.strip().replace("-", "_")] = _value(value)
        return given


def _value(text: str) -> Any:
    """Return what a person means: a number, true, a list, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse `--steps 2.5`, which would be rounded in silence."""
    for argument in arguments:
        for token in argument.tokens:
            if argument.hint in (int, int | None) and not re.fullmatch(r"[-+]?[0-9_]+", str(token.value)):
                raise BertwrightError(f"{argument.name} must be a whole number, not {token.value!r}")


def settings_from(kind: type[Any]) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """Return a source of settings for the flags that were not typed: --config FILE, then the recipe or the preset.

    Args:
        kind: the dataclass of the settings.
    """

    def source(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        typed = {argument.name: argument.tokens[0].value for argument in arguments if argument.tokens}
        layers: list[tuple[Mapping[str, Any], str]] = []
        if "--grid" in typed:
            from bertwright.recipes import GRIDS

            for dial in GRIDS.get(typed["--grid"], {}):
                if (flag := f"--{dial.replace('_', '-')}") in typed:
                    raise BertwrightError(
                        f"--grid {typed['--grid']} tries its own values of {flag}", fix=f"leave out {flag} or --grid"
                    )
        if "--budget" in typed and "--steps" in typed:
            raise BertwrightError("--budget finds the number of steps by itself", fix="leave out --steps or --budget")
        if "--config" in typed:
            flags = {argument.name.removeprefix("--").replace("-", "_") for argument in arguments}
            layers.append((saved_settings(kind, Path(typed["--config"]), commands[-1], flags), typed["--config"]))
        if "RECIPE" in typed:
            from bertwright.recipes import get_recipe

            saved = layers[0][0] if layers else {}
            objective = typed.get("--objective", saved.get("objective", ""))
            layers.append((get_recipe(typed["RECIPE"]).train_for(objective), f"recipe {typed['RECIPE']}"))
        if "--preset" in typed:
            from bertwright.recipes import get_preset

            layers.append((get_preset(typed["--preset"], task=commands[-1]), f"preset {typed['--preset']}"))
        for values, name in layers:
            Dict(dict(values), source=name, use_commands_as_keys=False)(app, commands, arguments)

    return source


def saved_settings(kind: type[Any], path: Path, command: str, flags: Collection[str]) -> dict[str, Any]:
    """Read training settings from a file of them, or from a run's config.json, where they lie under `train`.

    Args:
        kind: the dataclass of the settings.
        path: the file.
        command: of a run of this task, the options that are `flags` are taken too.
        flags: that the command has.
    """
    saved: dict[str, Any] = read_json(path)
    values, task = saved.get("train", saved), saved.get("task")
    if not isinstance(values, dict):
        raise BertwrightError("expected an object under 'train'", where=path)
    from_dict(kind, values, where=path)
    options = task.get("options") if isinstance(task, dict) and task.get("name") == command else None
    known = {name: value for name, value in (options or {}).items() if name in flags and value not in (None, [])}
    return known | values
