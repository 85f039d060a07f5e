"""Imports run downwards only, and torch's own autograd is used nowhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tapegrad"

# From the bottom up; a module imports from rows below its own, or from its own row.
ROWS = [
    ("errors", "_ext", "atomic"),
    ("mode",),
    ("tape",),
    ("backward",),
    ("_methods", "border", "conversions"),
    ("tensor",),
    ("arguments", "explain", "record"),
    ("op",),
    ("ops",),
    ("derivatives", "func", "check", "recompute"),
    ("nn", "optim"),
    ("data", "safetensors", "interchange", "labels"),
    ("replay",),
    ("fit", "plot"),
    ("__init__",),
]
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}

# Imports inside a function that run upwards when it is called: (file, module).
WRITTEN_DOWN: set[tuple[str, str]] = {("nn/sequential.py", "fit")}


def files():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def top(path):
    """The name in ROWS that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node, path):
    """Top-level names of the package's own modules that an import statement takes."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tapegrad.")]
    package = ["tapegrad", *path.relative_to(PACKAGE).parts[:-1]]
    if node.level:
        base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
    else:
        base = (node.module or "").split(".")
    if base[0] != "tapegrad":
        return []
    return [base[1]] if len(base) > 1 else [alias.name for alias in node.names]


def walk(node, inside_function=False):
    """(import statement, is it inside a function) of a file, those under TYPE_CHECKING left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside_function
        yield from walk(child, inside_function or isinstance(child, ast.FunctionDef | ast.Lambda))


def upward():
    """(file relative to the package, module, inside a function) of every import that does not run downwards."""
    for path in files():
        for node, inside in walk(ast.parse(path.read_text())):
            for name in imported(node, path):
                if LEVEL.get(name, 0 if name == "_C" else len(ROWS)) > LEVEL[top(path)]:
                    yield str(path.relative_to(PACKAGE)), name, inside


def test_every_module_has_its_row():
    assert {top(path) for path in files()} - set(LEVEL) == set()


def test_imports_run_downwards_only():
    assert {(file, name) for file, name, inside in upward() if not inside} == set()


def test_function_level_imports_that_run_upwards_are_written_down():
    assert {(file, name) for file, name, inside in upward() if inside} == WRITTEN_DOWN


def test_the_reader_of_imports_sees_them_all():
    source = "import tapegrad.nn\nfrom . import func\nfrom .op import op\nfrom tapegrad.ops import add\nimport torch\n"
    nodes = [node for node, _ in walk(ast.parse(source))]
    found = [name for node in nodes for name in imported(node, PACKAGE / "tape.py")]
    assert found == ["nn", "func", "op", "ops"]
    (deep,) = ast.parse("from ..tensor import Tensor").body
    assert imported(deep, PACKAGE / "ops" / "shape.py") == ["tensor"]


@pytest.mark.parametrize("folder", ["tapegrad", "csrc"])
def test_torchs_autograd_is_named_nowhere(folder):
    sources = [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".pyi", ".h", ".cpp", ".txt")]
    assert sources
    words = ("torch.autograd", "torch/csrc/autograd", "torch::autograd", "from torch import autograd", ".backward_hook")
    for path in sources:
        text = path.read_text()
        assert not [word for word in words if word in text], path.relative_to(ROOT)
