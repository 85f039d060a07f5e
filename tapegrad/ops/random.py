"""Random numbers: counter-based (Philox4x32-10), the same on every machine and for any number of threads.

A generator is a seed and an offset. A random op takes both, draws from the blocks that start at the offset, and moves
the offset on; whoever knows (seed, offset) can draw the same numbers again, which is how the gradient of `dropout` and
`checkpoint` get theirs without saving them.

Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..core import (
    _C,
    FLOATS,
    ArgumentError,
    Array,
    DTypeError,
    Ints,
    ShapeError,
    Tensor,
    describe,
    either,
    fork_safe_lock,
    integers,
    mode,
    on_cpu,
    op,
    raw,
    tensor_argument,
    verify,
)
from .create import dense
from .shape import sizes

__all__ = [
    "Generator",
    "bernoulli",
    "default_generator",
    "dropout",
    "manual_seed",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
]


class _Draws(threading.local):
    """What this thread's random ops drew: noted in `log`, or taken from `again` instead of drawn anew."""

    log: list[tuple[int, int]] | None = None
    again: Iterator[tuple[int, int]] | None = None


draws = _Draws()


class Generator:
    """A stream of random numbers: ``seed`` and ``offset`` are its whole state.

    Parameters
    ----------
    seed : 0 <= seed < 2**64; or the device, as torch's generator takes it, which is the CPU
    """

    device = torch.device("cpu")

    def __init__(self, seed: Any = 0, *, device: Any = None) -> None:
        if isinstance(seed, str | torch.device):  # Generator("cpu")
            seed, device = 0, seed
        on_cpu(device, "Generator")
        self._lock = fork_safe_lock()
        if mode.tracer is not None:
            mode.tracer.fresh.append(self)
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed`` from its beginning."""
        seed = integers(seed, "manual_seed", "seed")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"manual_seed: seed must be an int; got {seed!r}")
        self._no_jump("manual_seed()")
        self.seed = seed % 2**64
        self.offset = 0
        return self

    def initial_seed(self) -> int:
        """The seed that the stream began with."""
        return self.get_state()[0]

    def get_state(self) -> tuple[int, int]:
        """(seed, offset)."""
        state: tuple[int, int] = _C.locked(self._lock, lambda: (self.seed, self.offset))
        return state

    def set_state(self, state: tuple[int, int]) -> None:
        """Continue from a state that `get_state` gave."""
        self._no_jump("set_state()")
        _C.locked(self._lock, self._set, state)

    def _set(self, state: tuple[int, int]) -> None:
        self.seed, self.offset = state

    def advance(self, blocks: int) -> tuple[int, int]:
        """Go ``blocks`` blocks on. Returns the state before."""
        before: tuple[int, int] = _C.locked(self._lock, self._advance, blocks)
        return before

    def _advance(self, blocks: int) -> tuple[int, int]:
        at = self.seed, self.offset
        if mode.tracer is not None:
            mode.tracer.take(self, at, blocks)  # first, so that it can put the state back
        self.offset = (at[1] + blocks) % 2**64
        return at

    def _no_jump(self, what: str) -> None:
        """A replay goes on in the stream from where it stands; only a generator made in the step starts anew."""
        if mode.tracer is not None and self not in mode.tracer.fresh:
            mode.tracer.refuse(f"{what} inside the step; seed before it")

    def take(self, numel: int, dtype: torch.dtype) -> tuple[int, int]:
        """Reserve the blocks for ``numel`` numbers of ``dtype``: (seed, offset of the first)."""
        at = next(draws.again) if draws.again is not None else self.advance(_C.random_blocks(numel, dtype))
        if draws.log is not None:
            draws.log.append(at)
        return at

    def __getstate__(self) -> tuple[int, int]:
        return self.get_state()

    def __setstate__(self, state: tuple[int, int]) -> None:
        self._no_jump("copying a generator")
        self._lock = fork_safe_lock()
        self.seed, self.offset = state

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, offset={self.offset})"


default_generator = Generator(time.time_ns())


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, which every random function uses unless it is given another; returns it.

    torch's generator, which orders the batches of a `tapegrad.utils.data.DataLoader`, is seeded too.
    """
    torch.default_generator.manual_seed(seed % 2**63)
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the clock and return that seed."""
    default_generator.manual_seed(time.time_ns())
    return default_generator.seed


def _float(dtype: torch.dtype | None, name: str) -> torch.dtype:
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in FLOATS:
        raise DTypeError(f"{name}: dtype must be float32 or float64; got {dtype}")
    return dtype


def _numel(size: Sequence[int], name: str) -> int:
    n = 1
    for extent in size:
        if extent < 0:
            raise ShapeError(f"{name}: sizes must not be negative; got {list(size)}")
        n *= extent
    return n


def raw_uniform(size: Sequence[int], dtype: torch.dtype | None, generator: Generator | None, name: str) -> torch.Tensor:
    """Raw uniform numbers in [0, 1): what `rand` and the initialisers draw."""
    dtype = _float(dtype, name)
    at = (generator or default_generator).take(_numel(size, name), dtype)
    return _C.random_uniform(list(size), dtype, *at)


def raw_normal(size: Sequence[int], dtype: torch.dtype | None, generator: Generator | None, name: str) -> torch.Tensor:
    """Raw standard normal numbers (Box-Muller): what `randn` and the initialisers draw."""
    dtype = _float(dtype, name)
    at = (generator or default_generator).take(_numel(size, name), dtype)
    return _C.random_normal(list(size), dtype, *at)


def _by_keyword(size: tuple[Any, ...], named: dict[str, Any], what: str) -> tuple[Any, ...]:
    """The sizes, which may stand behind ``size=`` too."""
    if named:
        if size or list(named) != ["size"]:
            raise TypeError(f"{what}: expected sizes, or size=; got unexpected {', '.join(named)}")
        size = (integers(named["size"], what, "size"),)
    return size


def rand(
    *size: Ints,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    layout: Any = torch.strided,
    pin_memory: bool = False,
    **named: Any,
) -> Tensor:
    """Uniform numbers in [0, 1) of the given size, float32 unless ``dtype`` says float64."""
    on_cpu(device, "rand")
    dense(layout, "rand")
    shape = sizes(_by_keyword(size, named, "rand"), "rand")
    return Tensor(raw_uniform(shape, dtype, generator, "rand"), requires_grad)


def randn(
    *size: Ints,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    layout: Any = torch.strided,
    pin_memory: bool = False,
    **named: Any,
) -> Tensor:
    """Standard normal numbers of the given size, float32 unless ``dtype`` says float64."""
    on_cpu(device, "randn")
    dense(layout, "randn")
    shape = sizes(_by_keyword(size, named, "randn"), "randn")
    return Tensor(raw_normal(shape, dtype, generator, "randn"), requires_grad)


def randint(
    low: Ints = None,
    high: Ints = None,
    size: Ints = None,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    layout: Any = torch.strided,
    pin_memory: bool = False,
) -> Tensor:
    """Integers, uniform in [low, high), of the given size; ``randint(high, size)`` starts at 0. int64 by default."""
    on_cpu(device, "randint")
    dense(layout, "randint")
    if low is None or high is None:  # randint(5, size=...), randint(high=5, size=...)
        low, high = 0, low if high is None else high
    elif size is None:  # randint(high, size)
        low, high, size = 0, low, high
    if size is None or high is None or not low < high:
        raise ArgumentError(f"randint: low = {low} must be below high = {high}, and size be given; got size {size}")
    shape = sizes((size,), "randint")
    at = (generator or default_generator).take(_numel(shape, "randint"), torch.int64)
    values = _C.random_int(low, high, shape, *at)
    return Tensor(values if dtype is None else values.to(dtype), requires_grad)


def randint_like(
    input: Any,
    low: int,
    high: Ints = None,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
) -> Tensor:
    """`randint` with the shape and (unless given) the dtype of the input; ``randint_like(input, high)`` starts at 0."""
    like = input.detach() if isinstance(input, torch.Tensor) else input  # only its shape and dtype are read
    x = tensor_argument(like, "randint_like", "input")
    low, high = (0, low) if high is None else (low, high)
    options = {"generator": generator, "requires_grad": requires_grad, "device": device}
    return randint(low, high, tuple(x.shape), dtype=dtype or x.dtype, **options)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.int64,
    requires_grad: bool = False,
    device: Any = None,
    layout: Any = torch.strided,
    pin_memory: bool = False,
) -> Tensor:
    """A random permutation of 0 .. n - 1, int64 unless ``dtype`` says otherwise."""
    on_cpu(device, "randperm")
    dense(layout, "randperm")
    source, offset = (generator or default_generator).take(n, torch.int64)
    return Tensor(_C.permutation(n, source, offset).to(dtype), requires_grad)


def rand_like(
    input: Any,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    layout: Any = torch.strided,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """`rand` with the shape and (unless given) the dtype of the input."""
    like = input.detach() if isinstance(input, torch.Tensor) else input  # only its shape and dtype are read
    size = tuple(tensor_argument(like, "rand_like", "input").shape)
    return rand(size, generator=generator, dtype=dtype or input.dtype, requires_grad=requires_grad, device=device)


def randn_like(
    input: Any,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    layout: Any = torch.strided,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """`randn` with the shape and (unless given) the dtype of the input."""
    like = input.detach() if isinstance(input, torch.Tensor) else input  # only its shape and dtype are read
    size = tuple(tensor_argument(like, "randn_like", "input").shape)
    return randn(size, generator=generator, dtype=dtype or input.dtype, requires_grad=requires_grad, device=device)


# --- samples of other distributions, as constants -----------------------------------------------------------------


def bernoulli(input: Any, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with probability ``input`` (or, with the input's shape, ``p``), else 0; in the input's dtype. A constant."""
    value = tensor_argument(input, "bernoulli", "input").data
    chance = value if p is None else torch.full_like(value, p)
    verify(
        (chance >= 0) & (chance <= 1), lambda: ArgumentError("bernoulli: probabilities must lie in [0, 1], none is NaN")
    )
    dtype = chance.dtype if chance.dtype in FLOATS else torch.float32
    drawn = raw_uniform(chance.shape, dtype, generator, "bernoulli")
    return Tensor((drawn < chance).to(value.dtype))


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Ints = None,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
) -> Tensor:
    """``mean + std * n`` with standard normal n: of one ``size`` for two numbers, else of the common shape.

    ``torch.normal``. A constant: no gradient passes to mean or std.
    """
    if not isinstance(mean, Tensor | torch.Tensor) and not isinstance(std, Tensor | torch.Tensor):
        if size is None:
            raise ArgumentError("normal: size must be given for a mean and std that are numbers")
        drawn = randn(size, generator=generator, dtype=dtype, device=device)
        return Tensor(drawn.data * std + mean, requires_grad=requires_grad)
    values = [raw(v.detach() if hasattr(v, "detach") else v, "normal", n) for v, n in ((mean, "mean"), (std, "std"))]
    centre, scale = torch.broadcast_tensors(*[torch.as_tensor(v, dtype=_common(values)) for v in values])  # type: ignore[no-untyped-call]
    verify(scale >= 0, lambda: ArgumentError("normal: std must not be negative"))
    return Tensor(centre + scale * raw_normal(centre.shape, centre.dtype, generator, "normal"))


def _common(values: Sequence[Any]) -> torch.dtype:
    """The dtype of the tensors among values."""
    dtypes = [v.dtype for v in values if isinstance(v, torch.Tensor)]
    return dtypes[0] if len(dtypes) == 1 else torch.promote_types(*dtypes)


def multinomial(
    input: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices of categories, drawn with probabilities proportional to the weights in the rows of ``input``.

    Parameters
    ----------
    input : weights [K] or [N, K], not negative, some positive; float32 or float64
    num_samples : indices a row
    replacement : an index can come more than once; else the row needs so many positive weights

    Returns int64 [num_samples] or [N, num_samples], a constant: with replacement by the inverse of the cumulated
    weights, without by the ``num_samples`` smallest of ``-log(u) / weight`` (Efraimidis and Spirakis, 2006).
    """
    weights = tensor_argument(input, "multinomial", "input").detach().data
    if weights.ndim not in (1, 2) or weights.shape[-1] == 0 or weights.dtype not in FLOATS:
        raise ShapeError(f"multinomial: input must be float [K] or [N, K] with K > 0; got {describe(weights)}")
    if num_samples < 1 or (not replacement and num_samples > weights.shape[-1]):
        raise ArgumentError(
            f"multinomial: num_samples must lie in [1, {weights.shape[-1]}] without replacement; got {num_samples}"
        )
    needed = 1 if replacement else num_samples
    verify(
        (weights >= 0).all(-1) & weights.isfinite().all(-1) & ((weights > 0).sum(-1) >= needed),
        lambda: ArgumentError(f"multinomial: weights must be finite, not negative, and {needed} in a row positive"),
    )
    weights = weights.double()
    if not replacement:
        drawn = raw_uniform(weights.shape, torch.float64, generator, "multinomial")
        return Tensor((-torch.log1p(-drawn) / weights).topk(num_samples, -1, largest=False).indices)
    ends = weights.cumsum(-1)
    drawn = raw_uniform((*weights.shape[:-1], num_samples), torch.float64, generator, "multinomial")
    last = torch.searchsorted(ends, ends[..., -1:].contiguous())  # rounding must not lead beyond a positive weight
    return Tensor(torch.minimum(torch.searchsorted(ends, drawn * ends[..., -1:], right=True), last))


@op(name="dropout", input=lambda g, p, seed, offset: either("dropout", g, p, seed, offset))
def dropout_op(input: Array, p: float, seed: int, offset: int) -> Any:
    """`dropout` at a place of the random stream; its gradient is itself, at the same place."""
    return _C.dropout(input, p, seed, offset)


def dropout(input: Any, p: float = 0.5, training: bool = True, *, generator: Generator | None = None) -> Tensor:
    """Each element 0 with probability ``p``, else multiplied by 1 / (1 - p); the input itself if not ``training``.

    Source: Srivastava et al., Dropout (JMLR 15, 2014). The numbers come from the default generator (`manual_seed`).
    """
    if not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p must lie in [0, 1]; got {p}")
    input = tensor_argument(input, "dropout", "input")
    if not training or p == 0:
        return input  # type: ignore[no-any-return]
    return dropout_op(input, float(p), *(generator or default_generator).take(input.numel(), torch.float32))
