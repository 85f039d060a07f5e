"""Suite `steps` as text: microseconds a step, ratios beside their goals, planning and compile times, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..common.tables import micro, seconds, table
from ..common.timing import Timing
from .rows import FIGURES, OTHERS, Row, Verdict

SHORT = 15  # letters of a reason that fits its cell


def times(rows: Sequence[Row]) -> str:
    """Microseconds a step of every side, and why a side is missing."""
    lines = [
        [row.name, *[micro(row.figures.get(f)) for f in FIGURES], *[other(row, name) for name in OTHERS], row.choice]
        for row in rows
    ]
    reasons = [f"{row.name}: {name}: {text}" for row in rows for name, text in row.missing.items() if len(text) > SHORT]
    text = table(["us a step", *[f"tg {f}" for f in FIGURES], *OTHERS, "PyTorch's best"], lines)
    return "\n".join([text, *[f"  {reason}" for reason in dict.fromkeys(reasons)]])


def other(row: Row, name: str) -> str:
    if name in row.others:
        return micro(row.others[name])
    return row.missing[name] if len(row.missing[name]) <= SHORT else "not available"


def ratios(rows: Sequence[Row]) -> str:
    """Every goal beside what was reached."""
    lines = [[f"{row.name}, {row.threads} thread(s)", *cells(verdict)] for row in rows for verdict in row.verdicts]
    return table(["other side's time / tapegrad's", "", "ratio", "wanted", ""], lines)


def cells(verdict: Verdict) -> list[str]:
    goal = verdict.goal
    mark = "" if verdict.met else "BELOW"
    return [f"{goal.figure} / {goal.against}", f"{verdict.ratio:.2f}", f"{goal.times:.3g}", mark]


def costs(rows: Sequence[Row]) -> str:
    """Before the first fast step: planning here, compiling elsewhere; and the arena."""
    lines = []
    for row in rows:
        if row.plan is None:
            continue
        plan, compiled = row.plan, row.compile_seconds
        late = plan.seconds > row.planning_wanted
        lines.append(
            [
                row.name,
                seconds(plan.seconds),
                seconds(row.planning_wanted),
                "ABOVE" if late else "",
                seconds(plan.again),
                str(plan.recorded),
                str(plan.instructions),
                f"{plan.arena} of {plan.unshared}",
                *[seconds(compiled[name]) if name in compiled else "" for name in OTHERS[1:]],
            ]
        )
    head = ["", "planning", "wanted", "", "again", "recorded", "instructions", "arena bytes"]
    return table([*head, *OTHERS[1:]], lines)


def plain(row: Row) -> dict[str, Any]:
    """A row as JSON has it."""
    result = asdict(row)
    for group in ("figures", "others"):
        result[group] = {name: figure(timing) for name, timing in getattr(row, group).items()}
    result["verdicts"] = [{**asdict(v.goal), "ratio": v.ratio, "met": v.met} for v in row.verdicts]
    return result


def figure(timing: Timing) -> dict[str, Any]:
    return {"median": timing.median, "spread": timing.spread, "blocks": timing.blocks, "warmup": timing.warmup}
