"""Resolve every dependency anew and write the exact versions to constraints.txt: `make lock`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
HEADER = "# The exact versions that Bertwright is tested with. `make lock` rewrites this file.\n"


def resolve() -> list[str]:
    """Return `name==version` of all that the project and its extras need, without installing any of it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        report = Path(folder) / "report.json"
        options = ["--quiet", "--dry-run", "--ignore-installed", "--report", report]
        wanted = [TORCH, "hatchling", "editables", f"{HERE.parent}[dev,track]"]
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", *options, *wanted], check=True)
        found = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    # A local version such as 2.13.0+cpu names one build; the pin allows each of them.
    return sorted(
        f"{item['name'].lower().replace('_', '-')}=={item['version'].split('+')[0]}"
        for item in found
        if item["name"] != "bertwright"
    )


if __name__ == "__main__":
    (HERE / "constraints.txt").write_text(HEADER + "\n".join(resolve()) + "\n", encoding="utf-8")
