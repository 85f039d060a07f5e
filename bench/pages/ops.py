"""Suite `ops_page`: the table of all ops, written from the registry.

``python bench ops_page --out bench/results`` writes the page that is kept in the repository.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from tapegrad import core
from tapegrad.core import Op, registry

from ..cli import Options

PAGE = "ops.md"
COMMAND = "python bench ops_page --out bench/results"
HEAD = f"""\
# Ops

Written by `{COMMAND}` from the registry; not edited by hand.

- *Gradient of*: the arguments with a gradient rule; none: the op's result is data.
- *Saved*: what stays for backward, when every such argument needs a gradient (shapes alone cost nothing).
- *Second order*: the rules are ops themselves, so that the gradient can be differentiated, to any order.
- *Forward mode*: `func.jvp` transposes the recorded rule, so it has every op whose rules are ops.
- *Forward*, *Backward*: whether a C++ kernel of tapegrad or torch computes it; "fused": one kernel gives the
  gradients of all arguments.

"""
COLUMNS = ("Op", "Gradient of", "Saved", "Second order", "Forward mode", "Forward", "Backward")


def run(options: Options) -> None:
    """Write the page to the folder for results."""
    write(options.out)
    print(f"{len(own_ops())} ops, written to {options.out}: {PAGE}")


def write(folder: Path) -> None:
    (folder / PAGE).write_text(page())


def page() -> str:
    """The table of ops as Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(row(op) for op in own_ops())]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def own_ops() -> list[Op]:
    """The package's ops by name; a user's own are left out."""
    return sorted(
        (op for op in registry.values() if op.call.__module__.startswith("tapegrad.")), key=lambda op: op.name
    )


def row(op: Op) -> tuple[str, ...]:
    """One op's cells."""
    where = "C++" if native(op.forward) else "torch"
    if not op.rules:
        return f"`{op.name}`", "none", "", "", "", where, ""
    rules = [rule.function for rule in op.rules.values()]
    recordable = "yes" if not any(calls_kernels_directly(rule) for rule in rules) else "no"
    saved = ", ".join(f"`{name}`" for name in saves(op)) or "nothing"
    return f"`{op.name}`", ", ".join(op.rules), saved, recordable, recordable, where, backward(op)


def saves(op: Op) -> list[str]:
    """The arrays and outputs that a call keeps for backward."""
    plan = op.plan(sum(1 << i for i, name in enumerate(op.arrays) if name in op.rules))
    return [op.environment[i] for i in plan.hold]


def backward(op: Op) -> str:
    """Who computes the gradients."""
    if op.backward is not None:
        return "C++, fused" if native(op.backward.function) else "torch, fused"
    kernels = {native(rule.function) for rule in op.rules.values()}
    return {(True,): "C++", (False,): "torch"}.get(tuple(kernels), "C++ and torch")


# --- what a function calls ---------------------------------------------------------------------------------------


def native(function: Any) -> bool:
    """Whether a function calls a compiled kernel: itself, through a helper of the package, or through an op."""
    return any(callee is core._C for callee in reachable(function, through_ops=True))


def calls_kernels_directly(function: Any) -> bool:
    """Whether a function calls a compiled kernel that is not inside an op, so that it could not be recorded."""
    return any(callee is core._C for callee in reachable(function, through_ops=False))


def reachable(function: Any, through_ops: bool) -> Iterator[Any]:
    """The functions of the package that a function can call, itself included, and the extension if it is used."""
    seen: set[int] = set()
    queue = [function]
    while queue:
        item = queue.pop()
        if isinstance(item, functools.partial):
            queue += [item.func, *item.args]
            continue
        if hasattr(item, "op"):  # the public function of an op
            item = item.op.forward if through_ops else None
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        if item is core._C or getattr(item, "__module__", None) == core._C.__name__:
            yield core._C
        elif str(getattr(item, "__module__", "")).startswith("tapegrad.ops") and hasattr(item, "__code__"):
            yield item
            queue += mentioned(item, through_ops)


def mentioned(function: Callable[..., Any], through_ops: bool) -> list[Any]:
    """What a function's text names: globals, closed-over values, and ops by their registered names."""
    names: set[str] = set()
    strings: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        strings.update(constant for constant in code.co_consts if isinstance(constant, str))
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    found += [cell.cell_contents for cell in function.__closure__ or ()]
    if through_ops and "either" in names:
        found += [registry[text].forward for text in strings if text in registry]
    return found
