"""The page of results, written from the JSON files of the last run of each report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..cli import REPORTS
from .record import Result

PAGE = "README.md"
COMMAND = "python bench reports --out bench/results"


def write_page(folder: Path) -> None:
    """README.md of the folder, from the r*.json in it."""
    results = []
    for name in REPORTS:
        path = folder / f"{name}.json"
        if path.exists():
            results.append(json.loads(path.read_text()))
    (folder / PAGE).write_text(page(results))


def page(results: Sequence[Result]) -> str:
    """The page as Markdown."""
    machines = list(dict.fromkeys(describe(one) for one in results))
    seconds = sum(one["seconds"] for one in results)
    lines = [
        "# The reports' results",
        "",
        f"Written by `{COMMAND}`; not edited by hand. Everything here comes from the JSON files beside this page.",
        "",
        *[f"- {machine}" for machine in machines],
        f"- {', '.join(one['report'] for one in results)} in {seconds / 60:.1f} minutes, PyTorch's share included",
        "",
        "Both sides start from the same weights and see the same batches. tapegrad trains through `tg.compile`,",
        "PyTorch eagerly with its fused optimizers. Printed figures are those of a report's authors, with their",
        "own framework and the PyTorch of the time. ± is the sample standard deviation over runs.",
    ]
    for one in results:
        lines += section(one, show_machine=len(machines) > 1)
    return "\n".join(lines) + "\n"


def describe(result: Result) -> str:
    """The machine of a result, on one line."""
    machine = result["environment"]
    quick = " (a quick run, with fewer runs and steps)" if result["quick"] else ""
    return (
        f"{machine['processor']} ({machine['isa']}), {machine['threads']} processes of one thread, "
        f"Python {machine['python']}, torch {machine['torch']}, tapegrad {machine['tapegrad']}{quick}"
    )


def section(result: Result, show_machine: bool) -> list[str]:
    """One report."""
    lines = ["", f"## {result['report'].upper()}. {result['title']}", ""]
    lines += [f"- {condition}" for condition in result["conditions"]]
    if show_machine:
        lines.append(f"- {describe(result)}")
    for one in result["tables"]:
        lines += ["", f"**{one['caption']}**", "", *markdown(one["columns"], one["rows"])]
    if result["goals"]:
        rows = [[goal["goal"], goal["found"], "yes" if goal["met"] else "**no**"] for goal in result["goals"]]
        lines += ["", *markdown(["Wanted", "Found", "Met"], rows)]
    for picture in result["pictures"]:
        lines += ["", f"![{picture['caption']}]({picture['file']})", "", f"*{picture['caption']}*"]
    return lines


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, numbers to the right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return [f"| {' | '.join(row)} |" for row in [columns, rule, *rows]]
