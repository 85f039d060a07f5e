"""Stacks, splits, diagonals and products by torch's further names, composed of ops."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, ShapeError, Tensor, integers, tensor_argument
from .create import arange
from .elementwise import where
from .indexing import index_select, pad
from .linalg import dot, matmul
from .reduce import sum
from .shape import (
    as_dims,
    broadcast_to,
    cat,
    flip,
    movedim,
    narrow,
    permute,
    reshape,
    stack,
    transpose,
    unsqueeze,
)
from .shape import diagonal as parts_of_diagonal

__all__ = [
    "addmv",
    "addr",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "broadcast_tensors",
    "column_stack",
    "cross",
    "diag",
    "diag_embed",
    "diff",
    "dstack",
    "fliplr",
    "flipud",
    "hsplit",
    "hstack",
    "inner",
    "kron",
    "meshgrid",
    "ravel",
    "repeat_interleave",
    "rot90",
    "tensor_split",
    "tensordot",
    "trace",
    "vdot",
    "vsplit",
    "vstack",
]


def _tensors(values: Any, name: str) -> list[Tensor]:
    several = values[0] if len(values) == 1 and isinstance(values[0], tuple | list) else values
    return [tensor_argument(v, name, f"tensor {i}") for i, v in enumerate(several)]


def ravel(input: Any) -> Tensor:
    """All elements in one dimension."""
    return reshape(tensor_argument(input, "ravel", "input"), (-1,))


def atleast_1d(*tensors: Any) -> Any:
    """A number as a vector; anything else as it is. A tuple of them for several."""
    found = tuple(x.reshape(1) if x.ndim == 0 else x for x in _tensors(tensors, "atleast_1d"))
    return found[0] if len(tensors) == 1 and not isinstance(tensors[0], tuple | list) else found


def atleast_2d(*tensors: Any) -> Any:
    """A number or vector as a matrix of one row; anything else as it is. A tuple of them for several."""
    found = tuple(x.reshape((1, -1)) if x.ndim < 2 else x for x in _tensors(tensors, "atleast_2d"))
    return found[0] if len(tensors) == 1 and not isinstance(tensors[0], tuple | list) else found


def atleast_3d(*tensors: Any) -> Any:
    """Three dimensions at least: [N] becomes [1, N, 1], [N, M] becomes [N, M, 1]. A tuple of them for several."""
    found = tuple(
        x.reshape((1, -1, 1)) if x.ndim < 2 else unsqueeze(x, -1) if x.ndim == 2 else x
        for x in _tensors(tensors, "atleast_3d")
    )
    return found[0] if len(tensors) == 1 and not isinstance(tensors[0], tuple | list) else found


def hstack(tensors: Sequence[Any]) -> Tensor:
    """Side by side: along dimension 1, vectors along 0."""
    parts = [atleast_1d(t) for t in _tensors((tensors,), "hstack")]
    if not parts:
        raise ArgumentError("hstack: tensors must hold at least one tensor")
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Any]) -> Tensor:
    """One below the other, vectors as rows."""
    return cat([atleast_2d(t) for t in _tensors((tensors,), "vstack")], 0)


def dstack(tensors: Sequence[Any]) -> Tensor:
    """Along the third dimension."""
    return cat([atleast_3d(t) for t in _tensors((tensors,), "dstack")], 2)


def column_stack(tensors: Sequence[Any]) -> Tensor:
    """Side by side, vectors as columns."""
    return hstack([t.reshape((-1, 1)) if t.ndim < 2 else t for t in _tensors((tensors,), "column_stack")])


_MOST_PARTS = 2**24  # tensors are made for them, however short the input


def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Parts along ``dim``: so many of nearly one length, or cut before each of the indices."""
    x = tensor_argument(input, "tensor_split", "input")
    if x.ndim == 0:
        raise ShapeError("tensor_split: input must have at least 1 dimension; got a 0-dim tensor")
    n = x.shape[dim]
    cuts = _cuts(indices_or_sections, "tensor_split")
    if isinstance(cuts, int):
        if not 1 <= cuts <= _MOST_PARTS:
            raise ArgumentError(f"tensor_split: sections must be from 1 to {_MOST_PARTS}; got {cuts}")
        each, more = divmod(n, cuts)
        cuts = [i * each + min(i, more) for i in range(1, cuts)]
    ends = [0, *(min(max(c + n if c < 0 else c, 0), n) for c in cuts), n]
    return tuple(narrow(x, dim, a, max(b - a, 0)) for a, b in itertools.pairwise(ends))


def _cuts(value: Any, name: str) -> Any:
    """A number of parts or a list of indices, either of which may be a tensor."""
    if isinstance(value, Tensor | torch.Tensor) and value.ndim == 1:
        value = value.tolist()
    return integers(value, name, "indices_or_sections")


def _even(x: Tensor, parts: Any, dim: int, name: str) -> tuple[Tensor, ...]:
    parts = _cuts(parts, name)
    if isinstance(parts, int) and (parts < 1 or x.shape[dim] % parts):
        raise ShapeError(f"{name}: {parts} parts must divide the extent {x.shape[dim]} of dimension {dim}")
    return tensor_split(x, parts, dim)


def hsplit(input: Any, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Parts of one width, or cut before each index: along dimension 1, a vector along 0."""
    x = tensor_argument(input, "hsplit", "input")
    if x.ndim == 0:
        raise ShapeError("hsplit: input must have at least 1 dimension; got a 0-dim tensor")
    return _even(x, indices_or_sections, 0 if x.ndim == 1 else 1, "hsplit")


def vsplit(input: Any, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Parts of one height, or cut before each index, along dimension 0."""
    x = tensor_argument(input, "vsplit", "input")
    if x.ndim < 2:
        raise ShapeError(f"vsplit: input must have at least 2 dimensions; got shape {list(x.shape)}")
    return _even(x, indices_or_sections, 0, "vsplit")


def fliplr(input: Any) -> Tensor:
    """Dimension 1 reversed."""
    return flip(tensor_argument(input, "fliplr", "input"), (1,))


def flipud(input: Any) -> Tensor:
    """Dimension 0 reversed."""
    x = tensor_argument(input, "flipud", "input")
    if x.ndim == 0:
        raise ShapeError("flipud: input must have at least 1 dimension; got a 0-dim tensor")
    return flip(x, (0,))


def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """k quarter turns in the plane of two dimensions, from the first towards the second."""
    x = tensor_argument(input, "rot90", "input")
    a, b = as_dims(tuple(dims), x.ndim, "rot90")
    if a == b:
        raise ShapeError(f"rot90: dims must be two different ones; got {tuple(dims)}")
    turns = k % 4
    if turns == 0:
        return x.clone()
    if turns == 2:
        return flip(x, (a, b))
    return flip(transpose(x, a, b), (a,)) if turns == 1 else flip(transpose(x, a, b), (b,))


def repeat_interleave(input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element (or slice along ``dim``) repeated in its place: so often all, or each as ``repeats`` [n] says."""
    x = tensor_argument(input, "repeat_interleave", "input")
    x, along = (reshape(x, (-1,)), 0) if dim is None else (x, dim)
    if not isinstance(repeats, Tensor | torch.Tensor):
        repeats = integers(repeats, "repeat_interleave", "repeats")  # NumPy's too
    if isinstance(repeats, int):
        if repeats < 0:
            raise ArgumentError(f"repeat_interleave: repeats must not be negative; got {repeats}")
        places = arange(x.shape[along]).data.repeat_interleave(repeats)
    else:
        counts = tensor_argument(repeats, "repeat_interleave", "repeats").data
        counts = counts.expand(x.shape[along]) if counts.numel() == 1 else counts
        if counts.ndim != 1 or len(counts) != x.shape[along]:
            raise ShapeError(
                f"repeat_interleave: repeats must have {x.shape[along]} elements; got shape {list(counts.shape)}"
            )
        places = torch.repeat_interleave(counts, output_size=output_size)
    return index_select(x, along, Tensor(places))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Vectors as grids of coordinates: the i-th varies along dimension i ("ij"), or the first two swapped ("xy")."""
    vectors = [atleast_1d(t) for t in _tensors(tensors, "meshgrid")]
    if indexing not in ("ij", "xy"):
        raise ArgumentError(f'meshgrid: indexing must be "ij" or "xy"; got {indexing!r}')
    swap = indexing == "xy" and len(vectors) > 1
    if swap:
        vectors[:2] = vectors[1::-1]
    shape = tuple(v.shape[0] for v in vectors)
    grids = [
        broadcast_to(reshape(v, (1,) * i + (-1,) + (1,) * (len(vectors) - i - 1)), shape) for i, v in enumerate(vectors)
    ]
    if swap:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All of them expanded to their common shape."""
    found = _tensors(tensors, "broadcast_tensors")
    try:
        shape = torch.broadcast_shapes(*[t.shape for t in found])  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = [list(t.shape) for t in found]
        raise ShapeError(f"broadcast_tensors: shapes {shapes} do not broadcast together") from error
    return tuple(broadcast_to(t, tuple(shape)) for t in found)


def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """The n-th differences ``x[i + 1] - x[i]`` along ``dim``, with ``prepend`` and ``append`` joined on before."""
    x = tensor_argument(input, "diff", "input")
    if x.ndim == 0 or n < 0:
        raise ShapeError(f"diff: input must have at least 1 dimension and n not be negative; got {list(x.shape)}, {n}")
    as_dims(dim, x.ndim, "diff")
    if n == 0:  # the input, with nothing joined on
        return x.clone()
    parts = [*([] if prepend is None else [prepend]), x, *([] if append is None else [append])]
    x = cat(parts, dim) if len(parts) > 1 else x
    for _ in range(min(n, x.shape[dim])):
        m = x.shape[dim] - 1
        later, before = narrow(x, dim, 1, m), narrow(x, dim, 0, m)
        x = later != before if x.dtype is torch.bool else later - before
    return x


# --- diagonals ---------------------------------------------------------------------------------------------------


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Square matrices with the last dimension on a diagonal: [..., N] gives [..., N + |offset|, N + |offset|]."""
    x = tensor_argument(input, "diag_embed", "input")
    if x.ndim == 0:
        raise ShapeError("diag_embed: input must have at least 1 dimension; got a 0-dim tensor")
    n = x.shape[-1] + abs(offset)
    wide = pad(x, (max(offset, 0), max(-offset, 0)))  # element j in column j
    rows, columns = torch.arange(n).unsqueeze(1), torch.arange(n)
    square = where(Tensor(columns - rows == offset), unsqueeze(wide, -2), x.new_zeros(()))
    return movedim(square, (-2, -1), (dim1, dim2))


def diag(input: Any, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal matrix; of a matrix, its diagonal."""
    x = tensor_argument(input, "diag", "input")
    if x.ndim == 1:
        return diag_embed(x, diagonal)
    if x.ndim != 2:
        raise ShapeError(f"diag: input must be a vector or a matrix; got shape {list(x.shape)}")
    return parts_of_diagonal(x, diagonal)


def trace(input: Any) -> Tensor:
    """The sum of a matrix's diagonal."""
    x = tensor_argument(input, "trace", "input")
    if x.ndim != 2:
        raise ShapeError(f"trace: input must be a matrix; got shape {list(x.shape)}")
    return sum(parts_of_diagonal(x, 0, 0, 1))


def block_diag(*tensors: Any) -> Tensor:
    """Matrices along the diagonal of one, zeros elsewhere; numbers and vectors count as rows."""
    parts = [atleast_2d(t) for t in _tensors(tensors, "block_diag")]
    if any(p.ndim != 2 for p in parts):
        raise ShapeError(f"block_diag: all must have at most 2 dimensions; got {[list(p.shape) for p in parts]}")
    width, at, rows = builtins.sum(p.shape[1] for p in parts), 0, []
    for p in parts:
        rows.append(pad(p, (at, width - at - p.shape[1])))
        at += p.shape[1]
    return cat(rows, 0)


# --- products ----------------------------------------------------------------------------------------------------


def inner(input: Any, other: Any) -> Tensor:
    """Sums of products over the last dimensions, [..., K] and [..., K], of all pairs of rows; numbers multiply."""
    a, b = tensor_argument(input, "inner", "input"), tensor_argument(other, "inner", "other")
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if a.shape[-1] != b.shape[-1]:
        raise ShapeError(f"inner: the last extents must be equal; got {list(a.shape)} and {list(b.shape)}")
    return tensordot(a, b, ([-1], [-1]))


def vdot(input: Any, other: Any) -> Tensor:
    """`dot`."""
    return dot(input, other)


def tensordot(a: Any, b: Any, dims: Any = 2) -> Tensor:
    """Sums of products over the last ``dims`` dimensions of a and first of b, or over the pairs of two lists."""
    x, y = tensor_argument(a, "tensordot", "a"), tensor_argument(b, "tensordot", "b")
    if isinstance(dims, Tensor | torch.Tensor):
        dims = dims.tolist()
    dims = integers(dims, "tensordot", "dims")
    if isinstance(dims, int):
        dims = (list(range(x.ndim - dims, x.ndim)), list(range(dims)))
    left = [d % max(x.ndim, 1) for d in ([dims[0]] if isinstance(dims[0], int) else dims[0])]
    right = [d % max(y.ndim, 1) for d in ([dims[1]] if isinstance(dims[1], int) else dims[1])]
    if len(left) == len(right):  # an extent of 1 stands for the other's
        ones = [(p, q) for p, q in zip(left, right, strict=True) if x.shape[p] != y.shape[q]]
        x = sum(x, [p for p, q in ones if y.shape[q] == 1], True) if any(y.shape[q] == 1 for _, q in ones) else x
        y = sum(y, [q for p, q in ones if x.shape[p] == 1], True) if any(x.shape[p] == 1 for p, _ in ones) else y
    if [x.shape[d] for d in left] != [y.shape[d] for d in right]:
        raise ShapeError(
            f"tensordot: extents {[x.shape[d] for d in left]} of a and {[y.shape[d] for d in right]} of b must be equal"
        )
    keep_a, keep_b = [d for d in range(x.ndim) if d not in left], [d for d in range(y.ndim) if d not in right]
    k = torch.Size([x.shape[d] for d in left]).numel()
    rows = reshape(permute(x, (*keep_a, *left)), (-1 if k else torch.Size([x.shape[d] for d in keep_a]).numel(), k))
    columns = reshape(permute(y, (*right, *keep_b)), (k, -1 if k else torch.Size([y.shape[d] for d in keep_b]).numel()))
    return reshape(matmul(rows, columns), (*[x.shape[d] for d in keep_a], *[y.shape[d] for d in keep_b]))


def kron(input: Any, other: Any) -> Tensor:
    """The Kronecker product: every element of the input times the whole other."""
    a, b = tensor_argument(input, "kron", "input"), tensor_argument(other, "kron", "other")
    n = max(a.ndim, b.ndim)
    p, q = (1,) * (n - a.ndim) + tuple(a.shape), (1,) * (n - b.ndim) + tuple(b.shape)
    left = reshape(a, [m for extent in p for m in (extent, 1)])
    right = reshape(b, [m for extent in q for m in (1, extent)])
    return reshape(left * right, [u * v for u, v in zip(p, q, strict=True)])


def cross(input: Any, other: Any, dim: int | None = None) -> Tensor:
    """The vector product along a dimension of extent 3 (the first such one unless given), with broadcasting."""
    a, b = broadcast_tensors(input, other)
    if dim is None:
        dim = next((i for i, n in enumerate(a.shape) if n == 3), None)
    if dim is None or a.shape[dim] != 3:
        raise ShapeError(f"cross: dim must have extent 3; got {list(a.shape)}, dim = {dim}")
    a1, a2, a3 = a.unbind(dim)
    b1, b2, b3 = b.unbind(dim)
    return stack([a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1], dim)


def addmv(input: Any, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta input + alpha mat @ vec``."""
    product = matmul(mat, vec) * alpha
    return product if beta == 0 else tensor_argument(input, "addmv", "input") * beta + product


def addr(input: Any, vec1: Any, vec2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta input + alpha vec1 vec2^T``."""
    x, y = tensor_argument(vec1, "addr", "vec1"), tensor_argument(vec2, "addr", "vec2")
    product = unsqueeze(x, 1) * y * alpha
    return product if beta == 0 else tensor_argument(input, "addr", "input") * beta + product
