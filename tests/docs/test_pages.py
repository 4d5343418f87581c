"""What the documentation shows is run.

A fenced block of README.md or docs/ is one of:
    ```console            every line after `$ ` is run, in the page's own folder and order, and must succeed
    ```console refused    likewise, and must end with status 1 and one message
    ```console long       takes too long here: `bertwright` must accept the words, `make` must know the target
    ```python             is run, in the page's own folder; it stands by itself
    anything else         is shown and not run
The Chinese pages show the same commands as the English ones, so one run serves both.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from bertwright.cli import app, run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/en").glob("*.md"))]
FENCE = re.compile(r"^```([a-z]+)[ ]?([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    kind: str
    mode: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What stands after `$ `, each with the lines after `>` that continue it."""
        found: list[str] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif line.startswith(">") and found:
                found[-1] += "\n" + line[2:]
        return found


def blocks(page: Path) -> list[Block]:
    return [Block(*match) for match in FENCE.findall(page.read_text(encoding="utf-8"))]


def in_chinese(page: Path) -> Path:
    return ROOT / "README.zh-CN.md" if page.parent == ROOT else ROOT / "docs/zh" / page.name


def words_of(command: str) -> list[str] | None:
    """The arguments of a plain `bertwright` command, which needs no shell; None for any other."""
    if not command.startswith("bertwright ") or re.search(r"[|<>;&]", command):
        return None
    return shlex.split(command)[1:]


def execute(command: str) -> int:
    words = words_of(command)
    if words is not None:
        with contextlib.suppress(SystemExit):
            return run(words)
        return 0
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", command], env=environment, check=False).returncode


def check_words(command: str) -> None:
    """Accept a command that would take too long, without running it."""
    if command.startswith("make "):
        target = command.split()[1]
        assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), (
            command
        )
    elif (words := words_of(command)) is not None:
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.kind == "python":
            exec(compile(block.text, str(page), "exec"), {"__name__": "page"})
        elif block.kind == "console" and block.mode == "long":
            for command in block.commands:
                check_words(command)
        elif block.kind == "console":
            for command in block.commands:
                assert execute(command) == (1 if block.mode == "refused" else 0), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_both_languages_show_the_same_commands(page: Path) -> None:
    def shown(path: Path) -> list[tuple[str, str, list[str] | str]]:
        runnable = [block for block in blocks(path) if block.kind in ("console", "python")]
        return [(b.kind, b.mode, b.commands if b.kind == "console" else re.sub("#.*", "", b.text)) for b in runnable]

    assert shown(page) == shown(in_chinese(page))


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_every_command(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    commands = [command for command in app.resolved_commands() if not command.startswith("-")]
    assert [command for command in commands if f"`bertwright {command}" not in text] == []
    assert commands, "the command line has commands"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_every_file_of_the_map(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    package = ROOT / "src/bertwright"
    parts = [path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert [part for part in parts if part != "__init__.py" and part not in text] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_message_explained_is_one_we_have(language: str) -> None:
    page = (ROOT / "docs" / language / "files-and-errors.md").read_text(encoding="utf-8")
    table = page[page.index("`no such file, folder or pattern`") :].split("\n\n")[0]
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    messages = re.findall(r"^\|? ?`([^`]+)`", table, re.MULTILINE)
    assert len(messages) > 10
    assert [message for message in messages if message not in sources] == []
