"""Small functions under torch's names, composed of ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, DTypeError, ShapeError, Tensor, raw, tensor_argument
from .elementwise import add, clamp, mul, pow, sub
from .linalg import bmm, matmul
from .rearrange import diag_embed, vstack
from .reduce import sum
from .scatters import index_put
from .shape import flatten, reshape, split, transpose, view
from .special import exp2

__all__ = ["addbmm", "adjoint", "broadcast_shapes", "chain_matmul", "clamp_max", "clamp_min", "conj", "detach"]
__all__ += ["diagflat", "diagonal_scatter", "dsplit", "fill", "float_power", "is_complex", "is_nonzero", "ldexp"]
__all__ += ["positive", "real", "row_stack", "rsub", "sparse_coo_tensor", "split_with_sizes", "spmm", "t", "typename"]
__all__ += ["get_device", "is_signed", "unsafe_chunk", "unsafe_split"]


def clamp_min(input: Any, min: Any) -> Tensor:
    """`clamp` from below."""
    return clamp(input, min)


def clamp_max(input: Any, max: Any) -> Tensor:
    """`clamp` from above."""
    return clamp(input, None, max)


def fill(input: Any, value: Any) -> Tensor:
    """One value, a number or a 0-dim tensor, with the input's shape and dtype."""
    x = tensor_argument(input, "fill", "input")
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError(f"fill: value must be a number or a 0-dim tensor; got shape {list(value.shape)}")
        return mul(Tensor(torch.ones_like(x.data)), value.to(x.dtype))
    return Tensor(torch.full_like(x.data, raw(value, "fill", "value")))


def real(input: Any) -> Tensor:
    """The input itself, which is real."""
    return tensor_argument(input, "real", "input")


def conj(input: Any) -> Tensor:
    """The input itself, which is real."""
    return tensor_argument(input, "conj", "input")


def positive(input: Any) -> Tensor:
    """The input itself."""
    x = tensor_argument(input, "positive", "input")
    if x.dtype is torch.bool:
        raise DTypeError("positive: input must be numbers; got bool")
    return x


def is_complex(input: Any) -> bool:
    """False: Tensors are real."""
    return False


def is_signed(input: Any) -> bool:
    """Whether the dtype has negative numbers."""
    return tensor_argument(input, "is_signed", "input").dtype.is_signed


def is_nonzero(input: Any) -> bool:
    """Whether the one element is not 0."""
    return bool(tensor_argument(input, "is_nonzero", "input"))


def get_device(input: Any) -> int:
    """-1: the CPU."""
    return -1


def typename(obj: Any) -> str:
    """The name of an object's type, of a tensor with its dtype: "torch.FloatTensor"."""
    return str(obj.type()) if isinstance(obj, Tensor) else torch.typename(obj)


def detach(input: Any) -> Tensor:
    """The same values, as a constant."""
    return tensor_argument(input, "detach", "input").detach()


def t(input: Any) -> Tensor:
    """The transpose of a matrix; a vector or 0-dim tensor as it is."""
    x = tensor_argument(input, "t", "input")
    if x.ndim > 2:
        raise ShapeError(f"t: input must have at most 2 dimensions; got shape {list(x.shape)}")
    return transpose(x, 0, 1) if x.ndim == 2 else x


def adjoint(input: Any) -> Tensor:
    """The last two dimensions swapped."""
    return transpose(input, -2, -1)


def rsub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``other - alpha * input``."""
    return sub(other, input if alpha == 1 else mul(input, alpha))


def ldexp(input: Any, other: Any) -> Tensor:
    """``input * 2**other``."""
    return mul(input, exp2(tensor_argument(other, "ldexp", "other").to(torch.get_default_dtype())))


def float_power(input: Any, exponent: Any) -> Tensor:
    """``input**exponent`` in float64."""
    both = [x.to(torch.float64) if isinstance(x, Tensor | torch.Tensor) else x for x in (input, exponent)]
    if not any(isinstance(x, Tensor | torch.Tensor) for x in both):
        raise TypeError("float_power: expected a tensor; got two numbers")
    return pow(*both)


# --- shapes ------------------------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Any) -> torch.Size:
    """The shape that tensors of these shapes have after broadcasting."""
    try:
        return torch.broadcast_shapes(*shapes)  # type: ignore[no-any-return, no-untyped-call]
    except (RuntimeError, TypeError) as error:
        raise ShapeError(f"broadcast_shapes: {error}") from error


def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> Any:
    """`split` into parts of the given sizes."""
    return split(input, list(split_sizes), dim)


unsafe_split = split


def unsafe_chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    """`chunk`."""
    return tensor_argument(input, "unsafe_chunk", "input").chunk(chunks, dim)


def dsplit(input: Any, indices_or_sections: Any) -> Any:
    """`tensor_split` along dimension 2."""
    x = tensor_argument(input, "dsplit", "input")
    if x.ndim < 3:
        raise ShapeError(f"dsplit: input must have at least 3 dimensions; got shape {list(x.shape)}")
    if isinstance(indices_or_sections, int) and x.shape[2] % max(indices_or_sections, 1):
        raise ShapeError(f"dsplit: {x.shape[2]} elements cannot be split into {indices_or_sections} equal parts")
    return x.tensor_split(indices_or_sections, 2)


row_stack = vstack


def diagflat(input: Any, offset: int = 0) -> Tensor:
    """A matrix with the elements, flattened, on a diagonal."""
    return diag_embed(flatten(input), offset)


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The input with ``src`` on a diagonal."""
    x, s = tensor_argument(input, "diagonal_scatter", "input"), tensor_argument(src, "diagonal_scatter", "src")
    places = torch.arange(x.numel()).reshape(x.shape).diagonal(offset, dim1, dim2)
    if places.shape != s.shape:
        raise ShapeError(f"diagonal_scatter: src must have shape {list(places.shape)}; got {list(s.shape)}")
    return view(index_put(reshape(x, (-1,)), (places.reshape(-1),), reshape(s, (-1,))), tuple(x.shape))


def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions that broadcasting ``size`` to this shape would add."""
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple | list) else size
    missing = self.ndim - len(shape)
    if missing < 0 or any(n not in (1, m) for n, m in zip(shape, self.shape[missing:], strict=True)):
        raise ShapeError(f"sum_to_size: size {list(shape)} must broadcast to the input's shape {list(self.shape)}")
    dims = [d for d in range(self.ndim) if d < missing or (shape[d - missing] == 1 and self.shape[d] != 1)]
    return reshape(sum(self, dims, True), shape) if dims else self


# --- products ----------------------------------------------------------------------------------------------------


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices, from left to right."""
    product = tensor_argument(matrices[0], "chain_matmul", "matrices")
    for matrix in matrices[1:]:
        product = matmul(product, matrix)
    return product


def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * sum_b batch1[b] @ batch2[b]``."""
    product = sum(bmm(batch1, batch2), 0)
    scaled = product if alpha == 1 else mul(product, alpha)
    return scaled if beta == 0 else add(input if beta == 1 else mul(input, beta), scaled)


def sparse_coo_tensor(
    indices: Any,
    values: Any,
    size: Any = None,
    *,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    check_invariants: bool | None = None,
    is_coalesced: bool | None = None,
) -> Tensor:
    """A dense Tensor with ``values`` [n, ...] added up at ``indices`` [d, n], 0 elsewhere; there is no sparse layout.

    Parameters
    ----------
    indices : int64 [d, n], a column for each value
    size : of the result; without it the least that holds the indices

    Raises
    ------
    ShapeError
        for indices and values that do not fit one another. ArgumentError for indices outside the size.
    """
    place = torch.as_tensor(
        raw(indices, "sparse_coo_tensor", "indices") if hasattr(indices, "shape") else indices
    ).long()
    v = values if isinstance(values, Tensor) else Tensor(torch.as_tensor(values))
    v = v if dtype is None else v.to(dtype)
    if place.ndim != 2 or place.shape[1:] != v.shape[:1]:
        raise ShapeError(
            f"sparse_coo_tensor: indices must be [d, n] and values [n, ...]; got {list(place.shape)}, {list(v.shape)}"
        )
    if size is None:
        size = (*(place.amax(1) + 1).tolist(), *v.shape[1:])
    least, most = place.amin(1).tolist() if place.numel() else [], place.amax(1).tolist() if place.numel() else []
    if any(i < 0 for i in least) or any(i >= n for i, n in zip(most, size, strict=False)):
        raise ArgumentError(f"sparse_coo_tensor: indices must lie within size {list(size)}; got up to {most}")
    dense = index_put(Tensor(torch.zeros(tuple(size), dtype=v.dtype)), tuple(place), v, accumulate=True)
    return dense.detach().requires_grad_() if requires_grad else dense


def spmm(input: Any, mat2: Any) -> Tensor:
    """The product of two matrices."""
    return matmul(input, mat2)
