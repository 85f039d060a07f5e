"""Small functions under torch's names: of shapes, types and what torch keeps sparse."""

from __future__ import annotations

from typing import Any

import torch

from ..core import ArgumentError, ShapeError, Tensor, raw
from .linalg import matmul
from .scatters import index_put

__all__ = ["broadcast_shapes", "sparse_coo_tensor", "spmm", "typename"]


def typename(obj: Any) -> str:
    """The name of an object's type, of a tensor with its dtype: "torch.FloatTensor"."""
    return str(obj.type()) if isinstance(obj, Tensor) else torch.typename(obj)


def broadcast_shapes(*shapes: Any) -> torch.Size:
    """The shape that tensors of these shapes have after broadcasting."""
    try:
        return torch.broadcast_shapes(*shapes)  # type: ignore[no-any-return, no-untyped-call]
    except (RuntimeError, TypeError) as error:
        raise ShapeError(f"broadcast_shapes: {error}") from error


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
