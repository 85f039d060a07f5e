"""Initial values. Every function fills a tensor in place, without recording, and returns it.

``fan_in`` and ``fan_out`` of a weight [OUT, IN, ...] are IN and OUT times the size of the receptive field. The random
numbers come from `tapegrad.Generator` (the default one unless ``generator=`` is given).
"""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from ..core import _C, ShapeError, StateError, TapeError, Tensor, functions, plain
from ..ops.random import Generator, raw_normal, raw_uniform
from .checks import one_of, require
from .parameter import UninitializedParameter

T = TypeVar("T", bound=Tensor)

_GAINS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), 1.0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid"), 1.0),
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}


class _Local(threading.local):
    skip = False


_local = _Local()


@contextmanager
def skipped() -> Iterator[None]:
    """Inside, this thread's initialisers draw nothing and fill nothing: for layers whose values are copied in next."""
    before, _local.skip = _local.skip, True
    try:
        yield
    finally:
        _local.skip = before


def _target(tensor: Tensor, name: str) -> torch.Tensor:
    """The storage to fill, of a Tensor or (``weight.data``) a torch tensor."""
    if isinstance(tensor, torch.Tensor):
        return plain(tensor, f"{name}: tensor")
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: tensor must be a Tensor; got {type(tensor).__name__}")
    if isinstance(tensor, UninitializedParameter):
        raise StateError(f"{name}: tensor has no values yet; call the lazy layer with an input first")
    if not tensor.is_leaf:
        raise TapeError(f"{name}: tensor must be a leaf; got the recorded output of an op")
    return tensor.data


def _fans(tensor: Tensor, name: str) -> tuple[int, int]:
    """(fan_in, fan_out)."""
    shape = _target(tensor, name).shape
    if len(shape) < 2:
        raise ShapeError(f"{name}: tensor must have at least 2 dimensions [OUT, IN, ...]; got shape {list(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps a signal's size through a nonlinearity.

    1 for linear, convolutions and sigmoid, 5/3 for tanh, sqrt(2) for relu, sqrt(2 / (1 + param**2)) for leaky_relu
    (slope ``param``, default 0.01), 3/4 for selu. Raises ArgumentError for another name.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        is_number = isinstance(slope, int | float) and not isinstance(slope, bool)
        require(is_number, "calculate_gain", "param", "be a number", slope)
        return math.sqrt(2 / (1 + slope**2))
    one_of(nonlinearity, (*_GAINS, "leaky_relu"), "calculate_gain", "nonlinearity")
    return _GAINS[nonlinearity]


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform numbers in [a, b)."""
    return _uniform(tensor, a, b, generator, "uniform_")


def _uniform(tensor: T, a: float, b: float, generator: Generator | None, name: str) -> T:
    data = _target(tensor, name)
    require(a <= b, name, "a", f"not exceed b = {b}", a)
    if not _local.skip:
        data.copy_(raw_uniform(data.shape, data.dtype, generator, name).mul_(b - a).add_(a))
    return tensor


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> T:
    """Normal numbers with the given mean and standard deviation."""
    return _normal(tensor, mean, std, generator, "normal_")


def _normal(tensor: T, mean: float, std: float, generator: Generator | None, name: str) -> T:
    data = _target(tensor, name)
    require(std >= 0, name, "std", "not be negative", std)
    if not _local.skip:
        data.copy_(raw_normal(data.shape, data.dtype, generator, name).mul_(std).add_(mean))
    return tensor


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Generator | None = None
) -> T:
    """Normal numbers, those outside [a, b] drawn again: by the inverse of the distribution function, and clamped."""
    data = _target(tensor, "trunc_normal_")
    if not _local.skip:
        low, high = (math.erf((edge - mean) / std / math.sqrt(2)) for edge in (a, b))  # 2 cdf - 1
        data.copy_(raw_uniform(data.shape, data.dtype, generator, "trunc_normal_").mul_(high - low).add_(low))
        data.erfinv_().mul_(std * math.sqrt(2)).add_(mean).clamp_(min=a, max=b)
    return tensor


def constant_(tensor: T, val: float) -> T:
    """Every element ``val``."""
    _target(tensor, "constant_").fill_(val)
    return tensor


def zeros_(tensor: T) -> T:
    """Every element 0."""
    _target(tensor, "zeros_").zero_()
    return tensor


def ones_(tensor: T) -> T:
    """Every element 1."""
    _target(tensor, "ones_").fill_(1)
    return tensor


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Uniform in [-a, a] with ``a = gain * sqrt(6 / (fan_in + fan_out))``.

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks (2010).
    """
    bound = math.sqrt(3) * _xavier_std(tensor, gain, "xavier_uniform_")
    return _uniform(tensor, -bound, bound, generator, "xavier_uniform_")


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Generator | None = None) -> T:
    """Normal with ``std = gain * sqrt(2 / (fan_in + fan_out))``. Source: Glorot and Bengio (2010)."""
    return _normal(tensor, 0.0, _xavier_std(tensor, gain, "xavier_normal_"), generator, "xavier_normal_")


def _xavier_std(tensor: Tensor, gain: float, name: str) -> float:
    fans = sum(_fans(tensor, name))
    return gain * math.sqrt(2 / fans) if fans else 0.0


def kaiming_uniform_(
    tensor: T,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:
    """Uniform in [-b, b] with ``b = gain * sqrt(3 / fan)``.

    Parameters
    ----------
    a : slope of the leaky_relu that follows (used only with ``nonlinearity="leaky_relu"``)
    mode : "fan_in" keeps the size of the signal forward, "fan_out" that of the gradient backward
    nonlinearity : see `calculate_gain`

    Source: He et al., Delving deep into rectifiers (2015).
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity, "kaiming_uniform_")
    return _uniform(tensor, -bound, bound, generator, "kaiming_uniform_")


def kaiming_normal_(
    tensor: T,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> T:
    """Normal with ``std = gain / sqrt(fan)``; arguments as of `kaiming_uniform_`. Source: He et al. (2015)."""
    std = _kaiming_std(tensor, a, mode, nonlinearity, "kaiming_normal_")
    return _normal(tensor, 0.0, std, generator, "kaiming_normal_")


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str, name: str) -> float:
    one_of(mode, ("fan_in", "fan_out"), name, "mode")
    gain = calculate_gain(nonlinearity, a)
    fan = _fans(tensor, name)[mode == "fan_out"]
    return gain / math.sqrt(fan) if fan else 0.0


def orthogonal_(tensor: T, gain: float = 1, generator: Generator | None = None) -> T:
    """A (semi-)orthogonal matrix times ``gain``; dimensions after the first are taken together.

    The Q of the QR factorization of a normal matrix, columns signed by the diagonal of R so that Q is uniform.
    Source: Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear networks (2013).
    """
    data = _target(tensor, "orthogonal_")
    _fans(tensor, "orthogonal_")
    if data.numel() and not _local.skip:
        rows, columns = data.shape[0], data.numel() // data.shape[0]
        flat = raw_normal((rows, columns), data.dtype, generator, "orthogonal_")
        q, r = _C.on_one_thread(torch.linalg.qr, flat.T if rows < columns else flat)
        q = q * torch.sign(torch.diagonal(r))
        data.copy_((q.T if rows < columns else q).reshape(data.shape).mul(gain))
    return tensor


def eye_(tensor: T) -> T:
    """The identity, in a matrix."""
    values = _target(tensor, "eye_")
    if values.ndim != 2:
        raise ShapeError(f"eye_: tensor must be a matrix; got shape {list(values.shape)}")
    if not _local.skip:
        torch.eye(*values.shape, out=values)
    return tensor


def dirac_(tensor: T, groups: int = 1) -> T:
    """A convolution's weight [OUT, IN, ...] that gives channels on: 1 at the centre of (i, i) of each group, else 0."""
    values = _target(tensor, "dirac_")
    if values.ndim not in (3, 4, 5) or values.shape[0] % groups:
        raise ShapeError(
            f"dirac_: tensor must be [OUT, IN, ...] of 1 to 3 dimensions, OUT divisible by groups = {groups}; "
            f"got shape {list(values.shape)}"
        )
    if not _local.skip:
        values.zero_()
        out = values.shape[0] // groups
        centre = tuple(n // 2 for n in values.shape[2:])
        for g in range(groups):
            for i in range(min(out, values.shape[1])):
                place = (g * out + i, i, *centre)
                values[place] = 1
    return tensor


def sparse_(tensor: T, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> T:
    """A matrix of normal numbers of deviation ``std``, with the share ``sparsity`` of each column 0.

    Source: Martens, Deep learning via Hessian-free optimization (2010).
    """
    values = _target(tensor, "sparse_")
    if values.ndim != 2:
        raise ShapeError(f"sparse_: tensor must be a matrix; got shape {list(values.shape)}")
    normal_(tensor, 0.0, std, generator)
    if not _local.skip and values.numel():
        zeros = math.ceil(sparsity * values.shape[0])
        order = raw_uniform(values.shape, torch.float32, generator, "sparse_").argsort(0)
        values.scatter_(0, order[:zeros], 0.0)
    return tensor


# --- torch's private helpers, which scripts call ------------------------------------------------------------------


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    return _fans(tensor, "_calculate_fan_in_and_fan_out")


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    one_of(mode.lower(), ("fan_in", "fan_out"), "_calculate_correct_fan", "mode")
    return _calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"]


_no_grad_uniform_, _no_grad_normal_, _no_grad_fill_, _no_grad_zero_ = uniform_, normal_, constant_, zeros_
_no_grad_trunc_normal_ = trunc_normal_


def _deprecated(fill: Callable[..., Any]) -> Callable[..., Any]:
    """torch's old name of an initialiser, without the underscore; it warns, as there."""
    new = fill.__name__
    old = new.rstrip("_")

    @functools.wraps(fill)
    def call(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(f"`nn.init.{old}` is deprecated; use `nn.init.{new}`", FutureWarning, stacklevel=2)
        return fill(*args, **kwargs)

    call.__name__ = call.__qualname__ = old
    return call


uniform, normal = _deprecated(uniform_), _deprecated(normal_)
constant, orthogonal = _deprecated(constant_), _deprecated(orthogonal_)
xavier_uniform, xavier_normal = _deprecated(xavier_uniform_), _deprecated(xavier_normal_)
kaiming_uniform, kaiming_normal = _deprecated(kaiming_uniform_), _deprecated(kaiming_normal_)

# what torch's initialisers, called with a Tensor, come to
_OURS = [name for name in globals() if name[0] != "_" == name[-1]]
functions.update({f"torch.nn.init.{name}": globals()[name] for name in _OURS})
