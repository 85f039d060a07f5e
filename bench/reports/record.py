"""A report's results as plain data, from which its tables are printed and the page is written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ..common.tables import table

Result = dict[str, Any]


def result(name: str, title: str, conditions: Sequence[str], **data: Any) -> Result:
    """An empty result: what was run, in words, and the figures behind the tables."""
    return {
        "report": name,
        "title": title,
        "conditions": list(conditions),
        "tables": [],
        "goals": [],
        "pictures": [],
        "data": data,
    }


def add_table(result: Result, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table of text cells, the first column being the rows' names."""
    cells = [[str(cell) for cell in row] for row in rows]
    result["tables"].append({"caption": caption, "columns": list(columns), "rows": cells})


def add_goal(result: Result, goal: str, found: str, met: bool) -> None:
    """What was wanted, and what came out."""
    result["goals"].append({"goal": goal, "found": found, "met": bool(met)})


def add_picture(result: Result, file: str, caption: str) -> None:
    """A PNG file beside the JSON."""
    result["pictures"].append({"file": file, "caption": caption})


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean and sample standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def scientific(mean: float, sd: float) -> str:
    """Mean and SD with one power of ten; 0 where both are."""
    if max(mean, sd) == 0:
        return "0 ± 0"
    power = math.floor(math.log10(max(mean, sd)))
    return f"({mean / 10**power:.2f} ± {sd / 10**power:.2f})e{power}"


def text(result: Result) -> str:
    """The result for a terminal."""
    lines = [f"{result['report']}: {result['title']}", *result["conditions"]]
    for one in result["tables"]:
        lines += ["", one["caption"], table(one["columns"], one["rows"])]
    if result["goals"]:
        rows = [[goal["goal"], goal["found"], "met" if goal["met"] else "MISSED"] for goal in result["goals"]]
        lines += ["", table(["wanted", "found", ""], rows)]
    return "\n".join(lines)
