"""Combinations and powers of the elements of vectors, composed of ops, so that gradients pass."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from ..core import ArgumentError, ShapeError, Tensor, tensor_argument
from .indexing import index_select
from .reduce import cumprod
from .shape import cat, expand, flip, narrow, reshape, stack, unsqueeze

__all__ = ["cartesian_prod", "combinations", "vander"]


def _vector(value: Any, name: str, argument: str) -> Tensor:
    x = tensor_argument(value, name, argument)
    if x.ndim != 1:
        raise ShapeError(f"{name}: {argument} must be a vector; got shape {list(x.shape)}")
    return x


def cartesian_prod(*tensors: Any) -> Tensor:
    """Every combination of one element from each vector: [n_1 ... n_k, k], the last one changing fastest; a single
    vector as it is."""
    if not tensors:
        raise ArgumentError("cartesian_prod: at least one vector must be given")
    vectors = [_vector(x, "cartesian_prod", f"tensors[{i}]") for i, x in enumerate(tensors)]
    if len(vectors) == 1:
        return vectors[0]
    places = torch.cartesian_prod(*[torch.arange(len(x)) for x in vectors])  # [n_1 ... n_k, k]
    return stack([index_select(x, 0, column) for x, column in zip(vectors, places.unbind(1), strict=True)], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Every combination of r elements of a vector, a row each; an element may come again ``with_replacement``."""
    x = _vector(input, "combinations", "input")
    if r < 0:
        raise ArgumentError(f"combinations: r must not be negative; got {r}")
    if r == 0:
        return narrow(x, 0, 0, 0)
    draw = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = [i for row in draw(range(len(x)), r) for i in row]
    return reshape(index_select(x, 0, torch.tensor(places, dtype=torch.int64)), (len(places) // r, r))


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix ``y_ij = x_i**(N - 1 - j)``, or ``x_i**j`` if ``increasing``; N is the vector's length."""
    x = _vector(x, "vander", "x")
    n = len(x)
    columns = n if N is None else N
    if columns < 0:
        raise ArgumentError(f"vander: N must not be negative; got {N}")
    if columns == 0:
        return narrow(unsqueeze(x, 1), 1, 0, 0)
    powers = cat([torch.ones(n, 1, dtype=x.dtype), expand(unsqueeze(x, 1), (n, columns - 1))], 1)
    powers = cumprod(powers, 1)
    return powers if increasing else flip(powers, (1,))
