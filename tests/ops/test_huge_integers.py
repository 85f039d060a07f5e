"""Integers that no memory holds, and that 64 bits do not: torch's value, or an error of the tree that names the op.

Every integer of every sample of the op table, of the layers and of the calls below becomes one of `HUGE` in turn, in a
process of its own with little memory: a crash, a hang and an error that names nothing are told apart there. The suite
runs some samples of each op; ``python tests/ops/test_huge_integers.py`` runs all of them.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

HELPERS = Path(__file__).parent.parent / "helpers"
sys.path[:0] = [] if str(HELPERS) in sys.path else [str(HELPERS)]

from layers import LAYERS  # noqa: E402
from optable import rows  # noqa: E402
from optable.check import Call, Side, raw, tensors  # noqa: E402
from optable.spec import Sample  # noqa: E402

import tapegrad as tg  # noqa: E402
from tapegrad import nn  # noqa: E402

HUGE = [2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), 2**63, 2**64, 2**70]
FEW = [2**31, 2**63 - 1, -(2**63), 2**64]
ROOM = 2**30  # bytes that a case may take
# Any number is one to them, or to their gradients; torch's 64 bits are not a limit.
DEFINED = {"norm", "matrix_power", "Threshold", "roll", "polygamma"}
SECONDS = 5  # that a case may take

X = torch.arange(12.0).reshape(3, 4)
# Products of sizes, and functions outside the table: (name, arguments).
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    *[(name, size) for name in ("zeros", "ones", "empty", "rand", "randn") for size in [(2, 3), ((2, 3),)]],
    *[(name, (2**40, 2**40)) for name in ("zeros", "ones", "empty", "rand", "randn", "eye")],
    ("full", ((2, 3), 1)), ("full", ((2**40, 2**40), 1)), ("full", ((2**32, 2**32, 0), 1)),
    ("arange", (3,)), ("arange", (1, 7, 2)), ("linspace", (0, 1, 5)), ("eye", (3, 2)),
    ("randint", (5, (2, 3))), ("randint", (1, 5, (2, 3))), ("randint", (5, (2**40, 2**40))), ("randperm", (5,)),
    ("expand", (X[:, :1], (3, 4))), ("repeat", (X, (2**40, 2**40))), ("tile", (X, (2**40, 2**40))),
    ("reshape", (X, (2**40, 2**40))), ("reshape", (X, (2**32, 2**32))), ("view", (X, (2**62, 4, 12))),
    ("expand", (X[:1, :1], (2**40, 2**40))), ("pad", (X, (2**62, 2**62))), ("pad", (X, (2**40, 0, 2**40, 0))),
    ("broadcast_to", (X[:1, :1], (2**32, 2**32))), ("manual_seed", (3,)), ("full_like", (X, 3)),
    ("unflatten", (X, 1, (2**32, 2**32))),
    ("conv_transpose2d", (X.expand(1, 1, 3, 4), X.expand(1, 1, 3, 4), None, 2**61)),
]  # fmt: skip
RANDOM = {"rand", "randn", "randint", "randperm", "manual_seed", "empty", "dropout"}


def replaced(tree: Any, new: int) -> Iterator[Any]:
    """`tree` with each of its integers in turn `new`."""
    if isinstance(tree, tuple | list):
        for i, item in enumerate(tree):
            for other in replaced(item, new):
                yield type(tree)([*tree[:i], other, *tree[i + 1 :]])
    elif type(tree) is int:
        yield new


def huge_arguments(args: Any, kwargs: dict[str, Any], values: list[int]) -> Iterator[tuple[Any, dict[str, Any]]]:
    for new in values:
        for changed in replaced(args, new):
            yield changed, kwargs
        for key, value in kwargs.items():
            for other in replaced(value, new):
                yield args, {**kwargs, key: other}


def with_derivatives(side: Side) -> list[Any]:
    """The outputs, and where a gradient for them finds room those of the inputs, recorded or not."""
    small = sum(y.numel() for y in side.outputs) < 2**20
    return [*side.outputs, *side.plain, *side.first] if small else side.outputs


Case = tuple[str, str, Callable[[], list[Any]], Callable[[], list[Any]]]


def op_cases(samples: int | None, values: list[int]) -> Iterator[Case]:
    for name, row in rows.items():
        for sample in row.samples[:samples]:
            for args, kwargs in huge_arguments(sample.args, sample.kwargs, values):
                changed = Sample(args, kwargs)
                row.seeds[changed] = row.seeds[sample]
                call = Call(row, changed, torch.float64)

                def ours(call: Call = call) -> list[Any]:
                    return with_derivatives(call.tapegrad())

                def theirs(call: Call = call) -> list[Any]:
                    return with_derivatives(call.torch())

                yield name, f"{name}{changed!r}", ours, theirs


def layer_cases(values: list[int]) -> Iterator[Case]:
    for name, args, kwargs, inputs in LAYERS:
        for new_args, new_kwargs in huge_arguments(tuple(args), kwargs, values):

            def run(layers: Any, make: Any, name=name, args=new_args, kwargs=new_kwargs, inputs=inputs) -> list[Any]:  # type: ignore[no-untyped-def]
                layer = getattr(layers, name)(*args, **kwargs)
                given = [make(x) for x in inputs]
                for x in given:
                    x.requires_grad_(x.is_floating_point())
                out = [y for y in tensors(layer(*given)) if hasattr(y, "shape")]
                for y in out:
                    if y.requires_grad:
                        y.sum().backward(retain_graph=True)
                grads = [x.grad for x in (*given, *layer.parameters()) if x.grad is not None]
                return [torch.zeros(tuple(y.shape)) for y in (*out, *grads)]  # weights are random

            yield (
                name,
                f"nn.{name}{new_args}{new_kwargs}",
                lambda run=run: run(nn, tg.Tensor),  # type: ignore[misc]
                lambda run=run: run(torch.nn, torch.Tensor.clone),  # type: ignore[misc]
            )


def call_cases(values: list[int]) -> Iterator[Case]:
    for name, given in CALLS:
        for args in [given, *[args for args, _ in huge_arguments(given, {}, values)]]:
            theirs = (
                getattr(torch, name, None) or getattr(torch.nn.functional, name, None) or getattr(torch.Tensor, name)
            )

            def run(function: Any, name: str = name, args: Any = args) -> list[Any]:
                out = tensors(function(*args))
                return [torch.zeros(tuple(y.shape)) if name in RANDOM else y for y in out if hasattr(y, "shape")]

            yield (
                name,
                f"{name}{tuple(list(a.shape) if isinstance(a, torch.Tensor) else a for a in args)}",
                lambda run=run, name=name: run(getattr(tg, name)),  # type: ignore[misc]
                lambda run=run, theirs=theirs: run(theirs),  # type: ignore[misc]
            )


def cases(long: bool) -> Iterator[Case]:
    values = HUGE if long else FEW
    yield from op_cases(None if long else 1, values)
    yield from layer_cases(values if long else values[::2])
    yield from call_cases(HUGE)


def wrong(name: str, ours: Callable[[], list[Any]], theirs: Callable[[], list[Any]]) -> str | None:
    """What is wrong with the outcome of a case, if anything."""
    try:
        got = [raw(y) for y in ours()]
    except (tg.TapegradError, TypeError, IndexError) as error:
        named = re.match(r"[A-Za-z_]\w*(\(\)| \w+)?: |[A-Z]\w+\.\w+ ", str(error))
        return None if named and re.search(r"\d", str(error)) else f"names nothing: {type(error).__name__}: {error}"
    except Exception as error:
        return f"bare {type(error).__name__}: {error}"
    if name == "matrix_power":  # to the power -2**63 torch takes for ever
        return None
    print("torch", flush=True)
    try:
        expected = [raw(y) for y in theirs()]
    except Exception as error:
        if name in DEFINED:
            return None
        return f"gives {[list(y.shape) for y in got]}, torch refuses: {error}"
    if [y.shape for y in got] != [y.shape for y in expected]:
        return f"gives {[list(y.shape) for y in got]}, torch {[list(y.shape) for y in expected]}"
    for y, e in zip(got, expected, strict=True):
        if y.numel() < 10**6 and name not in RANDOM and not torch.allclose(y.double(), e.double(), equal_nan=True):
            return f"gives {y.tolist()}, torch {e.tolist()}"
    return None


def child(first: int, long: bool) -> None:
    """Run the cases from number `first` on, saying before each which it is."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for i, (name, text, ours, theirs) in enumerate(cases(long)):
        if i >= first:
            print(f"case {i} {text}", flush=True)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)  # ends a process that hangs
            says = wrong(name, ours, theirs)
            if says:
                print("wrong", says.split("\n")[0], flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("done", flush=True)


def faults(long: bool) -> list[str]:
    """The cases that go wrong, each with what happened."""
    found, first = [], 0
    while True:
        command = [sys.executable, __file__, "child", str(first), *(["long"] if long else [])]
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(tg.__file__).parents[1]), *sys.path])}
        ran = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        case, in_torch = "", False
        for line in ran.stdout.splitlines():
            word, _, rest = line.partition(" ")
            in_torch = word == "torch"
            if word == "case":
                case = rest
            elif word == "wrong":
                found.append(f"{case}: {rest}")
        if ran.stdout.endswith("done\n"):
            return found
        if not case:
            raise RuntimeError(f"the sweep does not start: {ran.stderr}")
        if not in_torch:
            found.append(f"{case}: ended by {ran.returncode} {ran.stderr[-300:]}")
        first = int(case.split()[0]) + 1


def test_huge_integers() -> None:
    found = faults(long=False)
    assert not found, "\n".join(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(int(sys.argv[2]), sys.argv[3:] == ["long"])
    else:
        found = faults(long=True)
        print("\n".join(found))
        sys.exit(bool(found))
