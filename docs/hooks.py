"""What a build does besides: pages take sections of the README and source text, and print what their code prints; the
reference, and pages as `show` writes them, are made.

In a page, a line of its own:

    <!-- readme: The tape -->               the section of the README under that heading
    <!-- page: CONTRIBUTING.md -->          a whole file
    <!-- source: tapegrad/core/backward.py replay -->    a function or class, or the whole file
    <!-- prints -->                         after a python block: what it prints; the blocks of a page share their names
    <!-- errors -->                         the tree of errors
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from docstrings import as_markdown  # the file beside this

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n(.*?)```\n(\s*<!-- prints -->)?", re.DOTALL)

# Files of the repository that are pages of the site, too.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "bench/results/ops.md": "ops.md",
    "examples/README.md": "examples.md",
}
PICTURES = {"examples/pictures": "pictures", "bench/pictures": "figures"}
REPOSITORY_ONLY = ("bench/results/README.md", ".py", ".ipynb")  # links to these become plain text

API = {
    "core": (
        "core.tensor:Tensor",
        "core.tape:Tape",
        "core.tape:Entry",
        "core.op:op",
        "core.mode",
        "core.errors",
        "settings",
    ),
    "derivatives": ("derivatives",),
    "optim": ("optim",),
    "compiled": (
        "compiled:compile",
        "compiled.step:Compiled",
        "compiled.together:run_together",
        "compiled.profile:Profile",
    ),
    "training": ("training", "data", "plot"),
    "distributions": ("distributions",),
    "files": ("files", "export.export"),
    "sklearn": ("sklearn",),
    "ops": ("ops", "linalg"),
    "nn": ("nn", "nn.utils"),
}
TITLES = {
    "core": "Tensors and the tape",
    "derivatives": "Derivatives",
    "optim": "Optimizers and schedules",
    "compiled": "Compiled steps",
    "training": "Training and data",
    "distributions": "Distributions",
    "files": "Files and export to C",
    "sklearn": "scikit-learn",
    "ops": "Ops",
    "nn": "Networks",
}
INNER = {"module", "checks", "registries", "arguments", "streams", "spellings", "defined", "optimizer", "packing"}


# --- the hooks -----------------------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """The reference, the pictures, and the pages that `show` writes."""
    from mkdocs.structure.files import File

    for name, rooms in API.items():
        files.append(File.generated(config, f"api/{name}.md", content=reference(name, rooms)))
    for folder, place in PICTURES.items():
        for picture in sorted((ROOT / folder).glob("*.png")):
            files.append(File.generated(config, f"{place}/{picture.name}", content=picture.read_bytes()))
    for name, text in shown().items():
        files.append(File.generated(config, f"assets/{name}.html", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A page with what its lines ask for."""
    return with_output(expanded(markdown))


# --- what lines ask for --------------------------------------------------------------------------------------------


def expanded(markdown: str) -> str:
    """A page with sections, files and source text in their places."""
    markdown = re.sub(r"^<!-- readme: (.*) -->$", lambda m: section(m[1]), markdown, flags=re.M)
    markdown = re.sub(r"^<!-- page: (.*) -->$", lambda m: linked((ROOT / m[1]).read_text(), m[1]), markdown, flags=re.M)
    markdown = re.sub(r"^<!-- errors -->$", lambda m: errors(), markdown, flags=re.M)
    return re.sub(r"^<!-- source: (\S+)(?: (\S+))? -->$", lambda m: source(m[1], m[2]), markdown, flags=re.M)


def section(heading: str) -> str:
    """The README's text under a heading, without it."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text(), re.M | re.S)
    if found is None:
        raise ValueError(f"the README has no section '{heading}'")
    return linked(found[1].strip(), "README.md")


def linked(text: str, file: str) -> str:
    """A file's text, its links those of the site."""

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        if "://" in target or target.startswith("#"):
            return match[0]
        path = str((ROOT / file).parent.joinpath(target).resolve().relative_to(ROOT))
        if path in PAGES or path.startswith("docs/"):
            return f"[{words}]({PAGES.get(path, path.removeprefix('docs/'))})"
        for folder, place in PICTURES.items():
            if path.startswith(folder):
                return f"[{words}]({place}/{Path(path).name})"
        if path.endswith(REPOSITORY_ONLY):
            return f"`{path}`" if path.endswith((".py", ".ipynb")) else f"{words} (`{path}`)"
        raise ValueError(f"{file} links to {target}, which is no page of the site: see docs/hooks.py")

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def source(file: str, name: str | None) -> str:
    """A function or class of a file, or the file, as it stands there."""
    text = (ROOT / file).read_text()
    kind = {".py": "python", ".h": "cpp", ".cpp": "cpp"}[Path(file).suffix]
    if name is not None:
        for node in ast.walk(ast.parse(text)):
            if getattr(node, "name", None) == name:
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
                text = textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))
                break
        else:
            raise ValueError(f"{file} has no {name}")
    return f'```{kind} title="{file}"\n{text.rstrip()}\n```'


def with_output(markdown: str) -> str:
    """Run a page's blocks in order, in one namespace; print what is asked for."""
    if "<!-- prints -->" not in markdown:
        return markdown
    names: dict[str, Any] = {"__name__": "page"}

    def run(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match[1], "page.py", "exec"), names)
        text = f"```python\n{match[1]}```\n"
        return text + (f"\n```text\n{printed.getvalue().rstrip()}\n```\n" if match[2] else "")

    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where a block's files go
        try:
            return BLOCK.sub(run, markdown)
        finally:
            os.chdir(before)


def errors() -> str:
    """Every error, what Python's own it is too, and when it is raised."""
    from tapegrad.core import errors as module

    rows = ["| error | is also | |", "|---|---|---|"]
    for name, kind in vars(module).items():
        if inspect.isclass(kind) and issubclass(kind, module.TapegradError):
            also = [f"`{base.__name__}`" for base in kind.__bases__ if base is not module.TapegradError]
            rows.append(f"| `{name}` | {', '.join(also)} | {' '.join((kind.__doc__ or '').split())} |")
    return "\n".join(rows).replace("``", "`")


# --- generated pages -----------------------------------------------------------------------------------------------


def reference(name: str, rooms: tuple[str, ...]) -> str:
    """A page of the reference: the files of some rooms, each under its first line; of ``room:name`` the name alone."""
    parts = [f"# {TITLES[name]}\n"]
    for room in rooms:
        if ":" in room:
            identifier = f"tapegrad.{room.replace(':', '.')}"
            options = "show_root_heading: true, show_root_full_path: false, show_root_toc_entry: true, heading_level: 2"
            parts.append(f"::: {identifier}\n    options: {{{options}}}\n")
            continue
        path = ROOT.joinpath("tapegrad", *room.split("."))
        inside = [p for p in sorted(path.glob("*.py")) if path.is_dir() and p.stem != "__init__"]
        for file in inside or [path.with_suffix(".py") if not path.is_dir() else path / "__init__.py"]:
            tree = ast.parse(file.read_text())
            public = [node for node in tree.body if not getattr(node, "name", "_").startswith("_")]
            documented = [node for node in public if hasattr(node, "body") and ast.get_docstring(node)]
            if not documented or (file.stem in INNER and room != "nn"):
                continue
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            title = (ast.get_docstring(tree) or module).split("\n\n")[0].split(". ")[0].replace("\n", " ").rstrip(".")
            parts.append(f"## {title}\n\n::: {module}\n    options:\n      show_docstring_description: true\n")
            parts += made_by_calls(module, tree)
    return "\n".join(parts)


def made_by_calls(module: str, tree: ast.Module) -> list[str]:
    """Public functions that no `def` makes (``exp = unary(...)``), with their docstrings."""
    parts, loaded = [], importlib.import_module(module)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call):
            name = node.targets[0].id
            made = getattr(loaded, name, None)
            if name in getattr(loaded, "__all__", ()) and inspect.isfunction(made) and made.__doc__:
                signature = str(inspect.signature(made)).replace("'", "")
                text = as_markdown(inspect.cleandoc(made.__doc__))
                parts.append(f"### {name}\n\n```python\n{name}{signature}\n```\n\n{text}\n")
    return parts


def shown() -> dict[str, str]:
    """A tape and a step, as `show` writes them."""
    import tapegrad as tg

    tg.manual_seed(0)
    x, labels = tg.data.disk(100, seed=1)
    model = tg.nn.Sequential(tg.nn.Linear(2, 25), tg.nn.ReLU(), tg.nn.Linear(25, 25), tg.nn.ReLU(), tg.nn.Linear(25, 2))
    optimizer, loss_fn = tg.optim.Adam(model.parameters()), tg.nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    with tempfile.TemporaryDirectory() as folder:
        paths = {
            "tape": model.show(x, path=f"{folder}/tape.html"),
            "step": tg.compile(step).show(x, labels, path=f"{folder}/step.html"),
        }
        texts = {name: Path(path).read_text() for name, path in paths.items()}
    return {name: re.sub(r'"file://[^"]*"', '""', text) for name, text in texts.items()}  # of whoever builds
