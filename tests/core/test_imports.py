"""Imports run downwards only, and torch's own autograd is used nowhere."""

import ast
import functools
import os
import sys
from pathlib import Path

import pytest

import tapegrad

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tapegrad"

# The core's files from the bottom up: each imports from the ones before it only.
CORE = (
    "absent",
    "attributes",
    "errors",
    "spelled",
    "extension",
    "forks",
    "mode",
    "notes",
    "tape",
    "foreign",
    "graph",
    "backward",
    "incoming",
    "methods",
    "protocols",
    "tensor",
    "record",
)
CORE += ("failures", "op", "__init__")

# The rooms from the bottom up; a room imports from rows below its own, or from its own row.
ROWS = [
    ("_C",),
    ("core",),
    ("ops",),
    ("derivatives", "distributions"),
    ("nn", "optim"),
    ("data", "files"),
    ("compiled",),
    ("export",),
    ("training",),
    (
        "accelerator",
        "amp",
        "autograd",
        "backends",
        "compiler",
        "cuda",
        "distributed",
        "hub",
        "jit",
        "linalg",
        "multiprocessing",
        "profiler",
        "settings",
        "sparse",
        "special",
        "testing",
        "utils",
    ),  # torch's names
    ("sklearn", "show"),
    ("callbacks", "func", "mirrors", "neighbours", "plot", "random"),  # names of files below
    ("__init__",),
    ("__main__",),
]
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}

# Rooms that others enter by their door alone. The doors of ops, nn, optim and data are what users see; what other rooms
# share with those and users do not need, they take from the file it is in.
DOORS = {"core", "derivatives", "compiled", "export", "training", "files"}
FACADES = {"callbacks.py", "func.py", "plot.py"}

# Imports that run upwards when a function is called, or for a type: (file, room).
SHOWN = {(f"{file}.py", "show") for file in ("core/protocols", "core/tape", "compiled/step", "nn/module")}
WRITTEN_DOWN = {("nn/sequential.py", "training"), ("nn/sequential.py", "compiled"), *SHOWN}


def files():
    return sorted(path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi"))


def room(path):
    """The name in ROWS that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].partition(".")[0]


def imported(node, path):
    """The package's own modules that an import statement takes, each as its parts below the package."""
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("tapegrad.")]
    package = ["tapegrad", *path.relative_to(PACKAGE).parts[:-1]]
    if node.level:
        base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
    else:
        base = (node.module or "").split(".")
    if base[0] != "tapegrad":
        return []
    if len(base) == 1:
        return [(alias.name,) for alias in node.names]
    folder = PACKAGE.joinpath(*base[1:])
    inner = [a.name for a in node.names if (folder / f"{a.name}.py").exists() and a.name not in offered(folder)]
    return [(*base[1:], name) for name in inner] or [tuple(base[1:])]


@functools.cache
def offered(folder):
    """The names that a room's door offers; a file may have the name of the one thing it makes."""
    tree = ast.parse((folder / "__init__.py").read_text())
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def walk(node, inside_function=False, for_types=False):
    """(import statement, whether it waits for a call or a type checker) of a file."""
    for child in ast.iter_child_nodes(node):
        types = for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside_function or types
        yield from walk(child, inside_function or isinstance(child, ast.FunctionDef | ast.Lambda), types)


def imports():
    """(file, parts of the module it imports, whether the import waits) of every import within the package."""
    for path in files():
        for node, waits in walk(ast.parse(path.read_text())):
            for parts in imported(node, path):
                yield path, parts, waits


def upward():
    """(file relative to the package, room, whether the import waits) of every import that does not run downwards."""
    for path, parts, waits in imports():
        if LEVEL.get(parts[0], len(ROWS)) > LEVEL[room(path)]:
            yield str(path.relative_to(PACKAGE)), parts[0], waits


def test_every_room_has_its_row():
    assert {room(path) for path in files()} - set(LEVEL) == set()
    assert {path.stem for path in (PACKAGE / "core").iterdir() if path.suffix == ".py"} == set(CORE)


def test_imports_run_downwards_only():
    assert {(file, name) for file, name, waits in upward() if not waits} == set()


def test_imports_that_wait_and_run_upwards_are_written_down():
    assert {(file, name) for file, name, waits in upward() if waits} == WRITTEN_DOWN


def test_the_core_has_no_circle():
    """Not for types either: no file of the core imports one that stands above it, whenever that may be."""
    for path, parts, _ in imports():
        if room(path) == "core" and (str(path.relative_to(PACKAGE)), parts[0]) not in SHOWN:
            assert parts[0] in ("core", "_C"), path
            if parts[0] == "core":
                assert CORE.index(parts[1]) < CORE.index(path.stem) or path.suffix == ".pyi", (path, parts)


def test_rooms_are_entered_by_their_doors():
    inner = {
        (str(path.relative_to(PACKAGE)), parts)
        for path, parts, _ in imports()
        if parts[0] in DOORS and room(path) != parts[0] and len(parts) > 1 and path.name not in FACADES
    }
    assert inner == set()


def test_the_reader_of_imports_sees_them_all():
    source = (
        "import tapegrad.nn\nfrom . import func\nfrom .core import op, tape\nfrom tapegrad.ops import add\nimport ast\n"
    )
    nodes = [node for node, _ in walk(ast.parse(source))]
    found = [parts for node in nodes for parts in imported(node, PACKAGE / "__init__.py")]
    assert found == [("nn",), ("func",), ("core", "tape"), ("ops",)]
    (deep,) = ast.parse("from ..core.tensor import Tensor").body
    assert imported(deep, PACKAGE / "ops" / "shape.py") == [("core", "tensor")]


@pytest.mark.parametrize("folder", ["tapegrad", "csrc"])
def test_torchs_autograd_is_named_nowhere(folder):
    sources = [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".pyi", ".h", ".cpp", ".txt")]
    assert sources
    words = ("torch.autograd", "torch/csrc/autograd", "torch::autograd", "from torch import autograd", ".backward_hook")
    for path in sources:
        text = path.read_text()
        assert not [word for word in words if word in text], path.relative_to(ROOT)


def test_no_test_puts_the_source_folder_on_the_path():
    """An installed package is what the suite tests, and what workers that the tests start (joblib's) import."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if Path(tapegrad.__file__).parents[1] != ROOT and str(ROOT) not in given:
        assert str(ROOT) not in sys.path
