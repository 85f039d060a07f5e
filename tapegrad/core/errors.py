"""The exception tree: every error the package raises on purpose, under one root.

A message names the op, the argument, what was expected and what came:
``conv2d: weight.shape[1] = 8 must equal input.shape[1] / groups = 3``. Each class is also the built-in
exception a Python user would catch for that kind of mistake, and a ``RuntimeError`` as torch's mostly are.
"""

from __future__ import annotations

import torch


class TapegradError(Exception):
    """Root of the tree: ``except tg.TapegradError`` catches whatever tapegrad raises on purpose."""


class ShapeError(TapegradError, ValueError, RuntimeError):
    """Sizes, dimensions or strides that do not fit the op."""


class IndexShapeError(ShapeError, IndexError):
    """A dimension or an index outside the tensor; also an ``IndexError``, as Python's own protocols expect."""


class ArgumentError(TapegradError, ValueError, RuntimeError):
    """An argument or hyper-parameter outside what it may be."""


class StateError(TapegradError, RuntimeError, ValueError):
    """A state dict that does not fit the module or optimizer, or a file that holds none; nothing was changed."""


class OpError(TapegradError, RuntimeError):
    """A failure inside torch that is neither about shapes nor dtypes; its own message is kept."""


class LinAlgError(OpError, torch.linalg.LinAlgError):  # type: ignore[name-defined,misc]
    """A matrix without the inverse or factorisation asked for; also torch's ``torch.linalg.LinAlgError``."""


class OutOfMemoryError(TapegradError, MemoryError):
    """A result for which there is no memory; nothing was changed."""


class PathError(TapegradError, OSError):
    """A file that cannot be written; what was there has not changed."""


class DTypeError(TapegradError, TypeError, RuntimeError):
    """A dtype or device the op cannot work with."""


class TapeError(TapegradError, RuntimeError):
    """A derivative was asked for that the tape cannot give: no record, released values, a non-scalar loss."""


class MutationError(TapeError):
    """A value saved for backward was changed in place before backward read it."""


class CompileError(TapegradError, RuntimeError):
    """A step that cannot be compiled, with the line and the reason."""


class NonFiniteError(TapegradError, ArithmeticError):
    """Raised inside ``detect_anomaly()`` by the first entry that produced a NaN or an infinity."""


class GradcheckError(TapegradError, AssertionError):
    """An analytic derivative that differs from the numeric one, with input, element and both values."""
