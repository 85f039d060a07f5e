"""The tape: values, the flat list that ops write to, and the reversed loop that differentiates it.

This room knows torch and the extension, and nothing of ops, networks, compiled steps or training; all of those enter it
here. To read it, take the files in this order; each names only what the ones before it have introduced:

    errors, extension, forks, mode  what can go wrong; the C++ side; forked processes; what a thread records
    tape, graph                    Leaf, Entry, Tape: the list itself, and how it prints; the list as ``grad_fn``
    backward                       the one reversed loop over it
    incoming, methods, protocols   what raw values may come in; what a Tensor is to Python, NumPy and torch
    tensor                         Tensor: data, gradient, its place on the tape
    record, failures, op           an op's rules and what a call saves; what a failed call says; ``@op`` itself
"""

from .extension import _C  # isort: skip  # before everything: says what to do where the extension cannot be loaded
from .absent import absent, mark_absent
from .backward import active_entries, gather, nonfinite_index, pull, replay
from .errors import (
    ArgumentError,
    CompileError,
    DTypeError,
    GradcheckError,
    IndexShapeError,
    LinAlgError,
    MutationError,
    NonFiniteError,
    OpError,
    OutOfMemoryError,
    PathError,
    ShapeError,
    StateError,
    TapeError,
    TapegradError,
)
from .failures import calling
from .foreign import from_torch, in_replay
from .forks import fork_safe_lock
from .incoming import FLOATS, Ints, from_array, integers, known_dtype, on_cpu, plain
from .mode import detect_anomaly, enable_grad, is_grad_enabled, mode, no_grad, set_grad_enabled
from .notes import Note, Stats, calls_of_modules
from .op import Array, Arrays, caller, is_integers, op, with_integers
from .protocols import functions, put
from .record import Op, arithmetic, either, kernel, registry, sum_over, verify
from .spelled import also
from .tape import (
    DTYPE_NAMES,
    PACKAGE,
    Entry,
    Leaf,
    Node,
    Tape,
    bytes_text,
    describe,
    entry_of,
    next_slot,
    shape_of,
    slot,
)
from .tensor import RemovableHandle, Tensor, raw, seed, tensor_argument, to_torch

__all__ = [
    "DTYPE_NAMES",
    "FLOATS",
    "PACKAGE",
    "_C",
    "ArgumentError",
    "Array",
    "Arrays",
    "CompileError",
    "DTypeError",
    "Entry",
    "GradcheckError",
    "IndexShapeError",
    "Ints",
    "Leaf",
    "LinAlgError",
    "MutationError",
    "Node",
    "NonFiniteError",
    "Note",
    "Op",
    "OpError",
    "OutOfMemoryError",
    "PathError",
    "RemovableHandle",
    "ShapeError",
    "StateError",
    "Stats",
    "Tape",
    "TapeError",
    "TapegradError",
    "Tensor",
    "absent",
    "active_entries",
    "also",
    "arithmetic",
    "bytes_text",
    "caller",
    "calling",
    "calls_of_modules",
    "describe",
    "detect_anomaly",
    "either",
    "enable_grad",
    "entry_of",
    "fork_safe_lock",
    "from_array",
    "from_torch",
    "functions",
    "gather",
    "in_replay",
    "integers",
    "is_grad_enabled",
    "is_integers",
    "kernel",
    "known_dtype",
    "mark_absent",
    "mode",
    "next_slot",
    "no_grad",
    "nonfinite_index",
    "on_cpu",
    "op",
    "plain",
    "pull",
    "put",
    "raw",
    "registry",
    "replay",
    "seed",
    "set_grad_enabled",
    "shape_of",
    "slot",
    "sum_over",
    "tensor_argument",
    "to_torch",
    "verify",
    "with_integers",
]
