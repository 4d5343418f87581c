"""Flags that commands share, and where the values of those that were not typed come from.

A flag that was typed always wins, also when its value is the default one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from bertwright.cli.view import log_to_console
from bertwright.config import from_dict, read_json
from bertwright.errors import BertwrightError

Switch = Annotated[bool, Parameter(negative="", show_default=False)]
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


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse `--steps 2.5`, which would be rounded in silence."""
    for argument in arguments:
        for token in argument.tokens:
            if argument.hint is int and not re.fullmatch(r"[-+]?[0-9_]+", str(token.value)):
                raise BertwrightError(f"{argument.name} must be a whole number, not {token.value!r}")


def settings_from(kind: type[Any]) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """Return a source of training settings for the flags that were not typed: --config FILE, then the recipe.

    Args:
        kind: the dataclass of the settings.
    """

    def source(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        typed = {argument.name: argument.tokens[0].value for argument in arguments if argument.tokens}
        layers: list[tuple[Mapping[str, Any], str]] = []
        if "--config" in typed:
            layers.append((saved_settings(kind, Path(typed["--config"])), typed["--config"]))
        if "RECIPE" in typed:
            from bertwright.recipes import get_recipe

            layers.append((get_recipe(typed["RECIPE"]).train, f"recipe {typed['RECIPE']}"))
        for values, name in layers:
            Dict(dict(values), source=name, use_commands_as_keys=False)(app, commands, arguments)

    return source


def saved_settings(kind: type[Any], path: Path) -> dict[str, Any]:
    """Read training settings from a file of them, or from a run's config.json, where they lie under `train`."""
    values: dict[str, Any] = read_json(path)
    values = values.get("train", values)
    if not isinstance(values, dict):
        raise BertwrightError("expected an object under 'train'", where=path)
    from_dict(kind, values, where=path)
    return values
