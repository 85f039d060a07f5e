"""torch's errors, and Python's own, as exceptions of our tree: ones that name the op."""

from __future__ import annotations

from typing import Any

import torch

from .errors import (
    ArgumentError,
    CompileError,
    DTypeError,
    IndexShapeError,
    LinAlgError,
    OpError,
    OutOfMemoryError,
    ShapeError,
    TapegradError,
)
from .tape import Entry, describe

SHAPE_WORDS = (
    "duplicate dims",
    "chunks",
    "3D",
    "size",
    "shape",
    "dimension",
    "dim ",
    "broadcast",
    "must match",
    "out of bounds",
    "index",
    "target",
)
FOREIGN = (RuntimeError, ValueError, OverflowError, MemoryError)  # torch's and Python's own, which name no op of ours
MEMORY_WORDS = ("allocate memory", "alloc_cpu", "bad_alloc", "bad allocation")
DTYPE_WORDS = (
    "dtype",
    "scalar type",
    "not implemented for",
    "data type",
    "Float",
    "Double",
    "Long",
    "Bool",
    "bool tensor",
)


def from_torch(name: str, error: Exception, actual: str) -> Exception:
    """torch's own message as an exception of our tree: OutOfMemoryError, TypeError or ShapeError."""
    if isinstance(error, TapegradError):
        return error
    says = str(error).strip().split("\n")[0]
    if isinstance(error, MemoryError) or any(words in says for words in MEMORY_WORDS):
        return OutOfMemoryError(f"{name}: not enough memory ({actual})")
    kind = TypeError if isinstance(error, TypeError) else ShapeError
    return kind(f"{name}: {says} ({actual})")


# What a gradient rule may raise that is not the user's: of these, or torch's own.
_KINDS: tuple[tuple[type[Exception], type[TapegradError]], ...] = (
    (MemoryError, OutOfMemoryError),
    (torch.linalg.LinAlgError, LinAlgError),  # type: ignore[attr-defined]
    (IndexError, IndexShapeError),
    (ArithmeticError, ArgumentError),
    (TypeError, DTypeError),
    (ValueError, ShapeError),
    (RuntimeError, OpError),
)


def _kind(error: Exception, says: str) -> type[Exception] | None:
    """The class of our tree for `error`; None for one that is the user's own."""
    if isinstance(error, TapegradError):
        return None if isinstance(error, CompileError) else type(error)
    if type(error).__module__.partition(".")[0] not in ("builtins", "torch"):
        return None
    if any(words in says for words in MEMORY_WORDS):
        return OutOfMemoryError
    kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), None)
    if kind is OpError:
        return DTypeError if any(w in says for w in DTYPE_WORDS) else ShapeError if _of_shape(says) else OpError
    return kind


def _of_shape(says: str) -> bool:
    return any(words in says for words in SHAPE_WORDS)


def in_backward(entry: Entry, g: Any, error: Exception) -> Exception:
    """The exception to raise from `error`, which the gradient rule of an entry raised, given ``g``.

    It names the entry's op and its line. The user's own exceptions stay what they are.
    """
    says = str(error).strip().split("\n")[0]
    kind = _kind(error, says)
    if kind is None or entry.op.runs_users_code or says.startswith(f"{entry.op.name}: "):
        return error
    if kind is OutOfMemoryError:
        says = "not enough memory"
    given = ", ".join(describe(getattr(one, "data", one)) for one in (g if isinstance(g, list) else [g]))
    return kind(f"{entry.op.name}: backward: {says} (g = {given}, recorded at {entry.source})")


def in_replay(name: str, source: str, error: Exception) -> Exception:
    """The exception to raise from `error`, which a call of a compiled step raised."""
    says = str(error).strip().split("\n")[0]
    kind = _kind(error, says)
    if kind is None or isinstance(error, TapegradError):
        return error
    return kind(f"{name}: {says} (in a compiled step, recorded at {source})")


def in_sum(one: Any, other: Any, error: Exception) -> Exception:
    """The exception to raise from `error`, which the sum of two contributions to a gradient raised."""
    shown = " + ".join(describe(getattr(g, "data", g)) for g in (one, other))
    return from_torch("backward", error, f"adding gradients {shown}")
