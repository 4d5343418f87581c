"""The rules of the house that no linter knows."""

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from bertwright.batch import Batch

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES_OF_FILE = 400
MOST_LINES_OF_FUNCTION = 60
GROUND = (
    "cluster",
    "errors",
    "config",
    "files",
    "messages",
    "messages_corpus",
    "options",
    "processes",
    "recipes",
    "data.check",
    "text.characters",
    "text.corpus",
    "text.vocabulary",
    "text.wordpiece",
)

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_public_name_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module says what it is"
    assert [name for name, node in _public(tree.body) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES_OF_FILE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_FUNCTION} == {}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_name_is_bound(path: Path) -> None:
    """The linters' rules for this are off: they take the names of tensor axes in annotations for variables."""
    bound, used = {*dir(builtins), "__file__", "__name__"}, set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import() | ast.ImportFrom():
                bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                bound.add(name)
    assert used - bound == set()


def test_every_dial_says_what_it_turns() -> None:
    tree = ast.parse((ROOT / "src/bertwright/config.py").read_text(encoding="utf-8"))
    mute = [
        f"{node.name}.{field.target.id}"
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for field, following in zip(node.body, [*node.body[1:], None], strict=True)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant))
    ]
    assert mute == []


def test_the_package_exports_what_it_says() -> None:
    package = import_module("bertwright")
    assert package.__all__ == sorted(package.__all__)
    assert {"Bert", "Predictor", "build_shards", "evaluate", "finetune", "pretrain", "train_vocabulary"} <= {
        *package.__all__
    }
    for name in package.__all__:
        value = getattr(package, name)
        assert value.__name__ == name, "a module of that name would stand in its way"
        assert value.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'Brt'"):
        _ = package.Brt


def test_the_ground_floor_leaves_torch_alone() -> None:
    script = (
        "import sys\n" + "".join(f"import bertwright.{name}\n" for name in GROUND) + "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"], ["--version"]])
def test_help_does_not_wait_for_torch(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "bertwright", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "bertwright.cli" in imported
    assert imported & {"torch", "numpy", "sklearn", "matplotlib", "transformers"} == set()


def test_a_wrong_shape_is_refused() -> None:
    good = Batch.pack([[1, 2, 3], [4]], [[0, 0, 1], [0]])
    with pytest.raises(TypeCheckError, match="position_ids"):
        Batch(
            input_ids=good.input_ids,
            token_type_ids=good.token_type_ids,
            position_ids=torch.zeros(5, dtype=torch.long),
            cu_seqlens=good.cu_seqlens,
            max_length=good.max_length,
        )
    with pytest.raises(TypeCheckError, match="input_ids"):
        Batch(
            input_ids=torch.zeros(4),
            token_type_ids=good.token_type_ids,
            position_ids=good.position_ids,
            cu_seqlens=good.cu_seqlens,
            max_length=good.max_length,
        )


def test_the_documentation_is_whole_in_both_languages() -> None:
    english, chinese = ({path.name for path in (ROOT / "docs" / language).glob("*.md")} for language in ("en", "zh"))
    assert english == chinese
    assert english, "there is documentation at all"


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets is not None
    shown = subprocess.run(["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    assert [name for name in targets[1].split() if f"make {name} " not in shown] == []


def test_every_dependency_is_pinned() -> None:
    pins = (ROOT / "requirements/constraints.txt").read_text(encoding="utf-8")
    pinned = {line.split("==")[0] for line in pins.splitlines() if "==" in line}
    project = import_module("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    names = {re.split(r"[^A-Za-z0-9_-]", need)[0].lower().replace("_", "-") for need in wanted}
    assert names - pinned == set()
