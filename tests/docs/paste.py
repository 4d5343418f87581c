"""Run the documentation and paste what its commands print: `make docs`.

In README.md and docs/en, and with the locale of China in their Chinese twins, the output of a console block that shows
any is replaced by what its commands print today. Blocks marked `long` are left alone: run them and paste by hand.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from test_pages import FENCE, PAGES, Block, in_chinese

MOST_LINES = 40


def run_block(block: Block, folder: Path, locale: str) -> str:
    """Run a block's commands and return the block with their output, or as it was if it shows none."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LC_ALL": "",
        "LC_MESSAGES": locale,
        "NO_COLOR": "1",
        "COLUMNS": "110",
        "PYTHONUTF8": "1",
    }
    shell = ["bash", "-c"] if block.kind == "console" else [sys.executable, "-c"]
    shown = []
    for command in block.commands if block.kind == "console" else [block.text]:
        ran = subprocess.run([*shell, command], cwd=folder, env=environment, capture_output=True, text=True)
        expected = 1 if block.mode == "refused" else 0
        if ran.returncode != expected:
            sys.exit(f"status {ran.returncode} instead of {expected}: {command}\n{ran.stderr}")
        lines = (ran.stderr + ran.stdout).rstrip().splitlines()
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], "…"]
        shown += [line.rstrip() for line in ("$ " + command.replace("\n", "\n> ")).splitlines() + lines]
    has_output = any(not line.startswith(("$", ">")) for line in block.text.splitlines())
    return "\n".join(shown) + "\n" if block.kind == "console" and has_output else block.text


def paste(page: Path, locale: str) -> None:
    """Renew the output shown on a page."""
    with tempfile.TemporaryDirectory() as folder:

        def renew(match: re.Match[str]) -> str:
            block = Block(*match.groups())
            if block.kind not in ("console", "python") or block.mode == "long":
                return match[0]
            return f"```{block.kind}{' ' * bool(block.mode)}{block.mode}\n{run_block(block, Path(folder), locale)}```"

        page.write_text(FENCE.sub(renew, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for page in [page for page in PAGES if not sys.argv[1:] or page.name in sys.argv[1:]]:
        print(page)
        paste(page, "C")
        paste(in_chinese(page), "zh_CN.UTF-8")
