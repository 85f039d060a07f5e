"""All ops, one block each, and the one table that makes them methods and operators of `Tensor`. Imports the core.

What stands here is public as ``tg.…``. Rooms above take what is not (shapes of windows, checks) from the file it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from ..core import DTypeError, TapeError, Tensor, also, calling, functions, known_dtype, mark_absent, with_integers
from . import (
    activation,
    aliases,
    attention,
    bessel,
    combinatorics,
    conv,
    create,
    ctc,
    decompositions,
    distances,
    dropouts,
    elementwise,
    factor,
    further,
    gates,
    indexing,
    inplace,
    linalg,
    local_norms,
    loss,
    margins,
    normalization,
    order,
    pool,
    random,
    rearrange,
    reduce,
    resample,
    sampling,
    scatters,
    shape,
    small,
    special,
    spellings,
    strided,
    types,
    volumes,
    windows,
    without_gradient,
)
from .activation import *
from .aliases import *
from .attention import *
from .bessel import *
from .combinatorics import *
from .conv import *
from .create import *
from .ctc import *
from .decompositions import *
from .distances import *
from .dropouts import *
from .elementwise import *
from .factor import *
from .further import *
from .gates import *
from .indexing import *
from .linalg import *
from .local_norms import *
from .loss import *
from .margins import *
from .normalization import *
from .order import *
from .pool import *
from .random import *
from .rearrange import *
from .reduce import *
from .resample import *
from .sampling import *
from .scatters import *
from .shape import *
from .small import *
from .special import *
from .strided import *
from .types import *
from .volumes import *
from .windows import *
from .without_gradient import *

__all__ = [
    *activation.__all__,
    *attention.__all__,
    *conv.__all__,
    *create.__all__,
    *elementwise.__all__,
    *indexing.__all__,
    *linalg.__all__,
    *loss.__all__,
    *normalization.__all__,
    *pool.__all__,
    *random.__all__,
    *reduce.__all__,
    *resample.__all__,
    *shape.__all__,
    *types.__all__,
    *combinatorics.__all__,
    *distances.__all__,
    *dropouts.__all__,
    *gates.__all__,
    *local_norms.__all__,
    *margins.__all__,
    *windows.__all__,
    *special.__all__,
    *aliases.__all__,
    *rearrange.__all__,
    *order.__all__,
    *sampling.__all__,
    *scatters.__all__,
    *strided.__all__,
    *factor.__all__,
    *small.__all__,
    *volumes.__all__,
    *further.__all__,
    *decompositions.__all__,
    *ctc.__all__,
    *bessel.__all__,
    *without_gradient.__all__,
]

for _name in __all__:  # what is no op itself takes a 0-dim integer tensor for an int as the ops do
    _function = globals()[_name]
    if isinstance(_function, FunctionType) and not hasattr(_function, "op"):
        globals()[_name] = with_integers(_function)

for _name, _names in aliases.ARGUMENTS.items():
    globals()[_name] = also(globals()[_name], _names)
functions.update({name: globals()[name] for name in __all__})
spellings.register()


def _is_method(name: str) -> bool:
    return callable(getattr(torch.Tensor, name, None)) and name != "detach"


# torch has these as functions only
_NOT_METHODS = {
    *resample.__all__,
    *sampling.__all__,
    *create.__all__,
    *conv.__all__,
    *attention.__all__,
    *loss.__all__,
    *normalization.__all__,
    *pool.__all__,
    *(name for name in random.__all__ if name not in ("bernoulli", "multinomial")),
    *combinatorics.__all__,
    *distances.__all__,
    *dropouts.__all__,
    *(name for name in gates.__all__ if not hasattr(torch.Tensor, name)),
    *local_norms.__all__,
    *margins.__all__,
    *windows.__all__,
    *(name for name in rearrange.__all__ if not hasattr(torch.Tensor, name)),
    *(name for name in order.__all__ if not hasattr(torch.Tensor, name)),
    *(name for name in aliases.__all__ if not hasattr(torch.Tensor, name)),
    *(n for room in (factor, small) for n in room.__all__ if not hasattr(torch.Tensor, n)),
    *(n for room in (bessel, ctc, further, decompositions, volumes) for n in room.__all__ if not _is_method(n)),
    *(name for name in small.__all__ if hasattr(Tensor, name)),
    *types.__all__,
    *(name for name in without_gradient.__all__ if name not in without_gradient.METHODS_TOO),
    *("linear", "einsum", "linear_recurrence", "cat", "stack", "pad", "constant_pad_nd", "where"),
    *("diagonal_backward", "getitem", "getitem_backward"),
}

# methods that take sizes or dims one by one, too: x.reshape(2, 3)
_SPREAD = ("reshape", "permute", "expand", "repeat", "tile", "flip")

_OPERATORS: dict[str, tuple[Callable[..., Any], bool]] = {  # operator: (op, operands swapped)
    **{f"__{name}__": (op, False) for name, op in (("neg", neg), ("abs", abs), ("invert", bitwise_not))},
    **{f"__{name}__": (op, False) for name, op in (("lt", lt), ("le", le), ("gt", gt), ("ge", ge))},
    **{
        f"__{prefix}{name}__": (op, prefix == "r")
        for prefix in ("", "r")
        for name, op in (
            ("add", add),
            ("sub", sub),
            ("mul", mul),
            ("truediv", div),
            ("floordiv", floor_divide),
            ("mod", remainder),
            ("pow", pow),
            ("matmul", matmul),
            ("lshift", functions["bitwise_left_shift"]),
            ("rshift", functions["bitwise_right_shift"]),
            ("and", bitwise_and),
            ("or", bitwise_or),
            ("xor", bitwise_xor),
        )
    },
}


def _swapped(op: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, other: Any) -> Any:
        return op(other, self)

    return method


def _spread(op: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        one_by_one = hasattr(args[0], "__index__") if args else not kwargs  # an int, or a 0-dim tensor of one
        return op(self, args, **kwargs) if one_by_one else op(self, *args, **kwargs)  # type: ignore[no-any-return]

    method.__name__, method.__doc__ = op.__name__, op.__doc__
    return method


def _view(self: Tensor, *size: Any, dtype: torch.dtype | None = None) -> Tensor:
    """The elements in another shape, in the same memory: ``view(2, -1)``, ``view((2, -1))``; or, given a dtype, the
    bytes as values of that dtype, a constant.
    """
    dtype = size[0] if size and isinstance(size[0], torch.dtype) else dtype
    if dtype is not None:
        if self.requires_grad:
            raise TapeError(f"view: bytes read as {dtype} have no gradient; pass .detach()")
        return Tensor(calling("view", self.data.view, known_dtype(dtype, "view")))
    return view(self, size[0] if len(size) == 1 and not hasattr(size[0], "__index__") else size)


def _compared(op: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, other: Any) -> Any:
        if other is None or isinstance(other, str | list | tuple | dict):
            return NotImplemented
        return op(self, other)

    return method


def _imatmul(self: Tensor, other: Any) -> Any:
    raise TapeError("@=: a matrix product cannot be written in place; write x = x @ w")


def _to(self: Tensor, *args: Any, dtype: torch.dtype | None = None, copy: bool = False, **kwargs: Any) -> Tensor:
    """The values as another dtype: ``to(dtype)``, ``to(other)``; ``to("cpu")`` is the tensor itself.

    Between float32 and float64 this is recorded; integers and bools are constants.
    """
    for arg in args:
        if isinstance(arg, Tensor | torch.Tensor):
            dtype = arg.dtype
        elif isinstance(arg, torch.dtype):
            dtype = arg
        elif isinstance(arg, bool):
            copy = copy or arg
        elif torch.device(arg).type != "cpu":
            raise DTypeError(f"to: device {arg!r} is not the CPU, the only one tapegrad has")
    if dtype is None or dtype is self.dtype:
        return clone(self) if copy else self
    if not dtype.is_floating_point:
        return Tensor(self.data.to(dtype))
    if dtype not in (torch.float32, torch.float64):
        raise DTypeError(f"to: dtype must be float32, float64, an integer type or bool; got {dtype}")
    return to_dtype(self, dtype)


_CASTS = {
    "float": torch.float32,
    "double": torch.float64,
    "long": torch.int64,
    "int": torch.int32,
    "bool": torch.bool,
    "byte": torch.uint8,
    "char": torch.int8,
    "short": torch.int16,
}


def _cast(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return _to(self, dtype)

    method.__doc__ = f"``to({dtype})``."
    return method


METHODS: dict[str, Callable[..., Any]] = {
    **{name: functions[name] for name in __all__ if name not in _NOT_METHODS and name[0].islower()},
    **{name: _spread(functions[name]) for name in _SPREAD},
    "view": _view,
    **{name: _swapped(op) if swap else op for name, (op, swap) in _OPERATORS.items()},
    **inplace.methods(),
    **{name: _cast(dtype) for name, dtype in _CASTS.items()},
    "__eq__": _compared(eq),
    "__ne__": _compared(ne),
    "__getitem__": getitem,
    "__imatmul__": _imatmul,
    "__pos__": lambda self: self,
    "to": _to,
    "where": lambda self, condition, other: where(condition, self, other),
    "unfold": strided.unfold_method,
    "split": also(split, {"split_size": "split_size_or_sections"}),
    "view_as": lambda self, other: view(self, tuple(other.shape)),
    "reshape_as": lambda self, other: reshape(self, tuple(other.shape)),
    "expand_as": lambda self, other: expand(self, tuple(other.shape)),
    "type_as": lambda self, other: _to(self, other.dtype),
    "polygamma": lambda self, n: polygamma(n, self),
    **types.METHODS,
}
for _name, _method in METHODS.items():
    setattr(Tensor, _name, _method)
mark_absent(Tensor)
