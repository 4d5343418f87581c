"""Where everything is printed: results on standard output, all else on standard error.

`bertwright predict ... > answers.jsonl` works; `NO_COLOR` and pipes are honoured by rich.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


class _Handler(logging.Handler):
    """One line for each message, however long: a terminal wraps it, a file keeps it whole."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(Text(self.format(record)))


def log_to_console(*, quiet: bool) -> None:
    """Show the log on standard error, each message once: everything from INFO on, or warnings alone."""
    handler = _Handler()
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in seen
        seen.add(message)
        return new

    handler.addFilter(is_new)
    logger = logging.getLogger("bertwright")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def print_error(what: str, *, where: str | None = None, fix: str | None = None) -> None:
    """Print one message: what, where, what to type."""
    place = f"[bold]{escape(where)}[/]: " if where else ""
    err.print(f"[bold red]error:[/] {place}{escape(what)}")
    if fix:
        err.print(f"  [green]→[/] {escape(fix)}")


def print_json(value: Any) -> None:
    """Print one line of JSON to standard output, never wrapped nor coloured."""
    out.out(json.dumps(value, ensure_ascii=False), highlight=False)
