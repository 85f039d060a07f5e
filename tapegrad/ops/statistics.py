"""Integrals by trapezoids, covariances, the mode, distances within a set: composed of ops."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import ArgumentError, Ints, ShapeError, Tensor, from_torch, tensor_argument
from .distances import cdist
from .elementwise import clamp, mul
from .indexing import gather, getitem, index_select
from .linalg import matmul
from .reduce import ValuesIndices, cumsum, mean, sort, sum
from .shape import movedim, narrow, reshape, squeeze, transpose, unsqueeze
from .special import lgamma

__all__ = ["corrcoef", "cov", "cumulative_trapezoid", "mode", "msort", "mvlgamma", "pdist", "renorm", "trapezoid"]
__all__ += ["trapz"]


# --- integrals ---------------------------------------------------------------------------------------------------


def _strips(y: Any, x: Any, dx: Any, dim: int, name: str) -> Tensor:
    """The area between neighbours along ``dim``."""
    values = tensor_argument(y, name, "y")
    if values.ndim == 0:
        raise ShapeError(f"{name}: y must have at least 1 dimension; got a 0-dim tensor")
    n = values.shape[dim]
    left, right = narrow(values, dim, 0, max(n - 1, 0)), narrow(values, dim, min(1, n), max(n - 1, 0))
    if x is None:
        return mul(left + right, 0.5 * dx)
    at = tensor_argument(x, name, "x")
    if at.ndim == 1 and values.ndim > 1:
        if len(at) != n:
            raise ShapeError(f"{name}: x must have {n} points, as y has along dim = {dim}; got {len(at)}")
        at = reshape(at, [n if i == dim % values.ndim else 1 for i in range(values.ndim)])
    steps = narrow(at, dim, min(1, n), max(n - 1, 0)) - narrow(at, dim, 0, max(n - 1, 0))
    return (left + right) * 0.5 * steps


def trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """``sum_i (y_i + y_(i+1)) / 2 * (x_(i+1) - x_i)`` along ``dim``; without ``x`` the points are ``dx`` apart."""
    return sum(_strips(y, x, dx, dim, "trapezoid"), dim)


trapz = trapezoid


def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The sums of `trapezoid` up to each point but the first."""
    return cumsum(_strips(y, x, dx, dim, "cumulative_trapezoid"), dim)


# --- moments -----------------------------------------------------------------------------------------------------


def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """The covariances of variables (rows) over observations (columns): [V, N] gives [V, V], [N] a 0-dim tensor.

    Parameters
    ----------
    correction : taken from the number of observations (1: unbiased)
    fweights, aweights : how often each observation counts (integers), how much it weighs; vectors [N]
    """
    x = tensor_argument(input, "cov", "input")
    if x.ndim > 2:
        raise ShapeError(f"cov: input must be [V, N] or [N]; got shape {list(x.shape)}")
    rows = x if x.ndim == 2 else unsqueeze(x, 0)
    n = rows.shape[1]
    weights = None
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is not None:
            w = tensor_argument(given, "cov", name)
            if tuple(w.shape) != (n,):
                raise ShapeError(f"cov: {name} must be a vector [{n}]; got shape {list(w.shape)}")
            weights = w if weights is None else weights * w
    if weights is None:
        centred = rows - mean(rows, 1, True)
        products, norm = matmul(centred, transpose(centred, 0, 1)), Tensor(torch.tensor(float(n - correction)))
    else:
        w = weights.to(rows.dtype)
        total = sum(w)
        centred = rows - unsqueeze(sum(rows * w, 1) / total, 1)
        products = matmul(centred * w, transpose(centred, 0, 1))
        plain = total if aweights is None else sum(w * tensor_argument(aweights, "cov", "aweights")) / total
        norm = total - correction * (1 if aweights is None else plain)
    out = products / clamp(norm.to(products.dtype), 0)
    return out if x.ndim == 2 else reshape(out, ())


def corrcoef(input: Any) -> Tensor:
    """The correlations of variables (rows) over observations (columns): `cov` over the standard deviations."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviations = c.diagonal().sqrt()
    return clamp(c / unsqueeze(deviations, 1) / deviations, -1.0, 1.0)


# --- order -------------------------------------------------------------------------------------------------------


def mode(input: Any, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices) of the most frequent element along ``dim``, the least of several; the gradient goes to it."""
    x = tensor_argument(input, "mode", "input")
    try:
        index = torch.mode(x.data, dim, keepdim=True).indices
    except (RuntimeError, IndexError) as error:
        raise from_torch("mode", error, f"got shape {list(x.shape)} and dim = {dim}") from error
    values = gather(x, dim, index)
    if not keepdim and x.ndim:
        values, index = squeeze(values, dim), index.squeeze(dim)
    return ValuesIndices(values, Tensor(index))


def msort(input: Any) -> Tensor:
    """The elements in rising order along dimension 0."""
    return sort(input, 0).values


def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Tensor:
    """The slices along ``dim`` whose p-norm is above ``maxnorm`` scaled down to it."""
    x = tensor_argument(input, "renorm", "input")
    if x.ndim < 2:
        raise ShapeError(f"renorm: input must have at least 2 dimensions; got shape {list(x.shape)}")
    if p <= 0 or maxnorm < 0:
        raise ArgumentError(f"renorm: p must be positive and maxnorm not negative; got {p} and {maxnorm}")
    others = [d for d in range(x.ndim) if d != dim % x.ndim]
    norms = x.norm(p, others, True)
    return x * (norms.data > maxnorm).to(x.dtype) * (maxnorm / (norms + 1e-7)) + x * (norms.data <= maxnorm).to(x.dtype)


def pdist(input: Any, p: float = 2.0) -> Tensor:
    """The distances between every two rows of [N, M], as a vector [N (N - 1) / 2]: (0, 1), (0, 2), ..., (1, 2), ..."""
    x = tensor_argument(input, "pdist", "input")
    if x.ndim != 2:
        raise ShapeError(f"pdist: input must be [N, M]; got shape {list(x.shape)}")
    first, second = torch.triu_indices(len(x), len(x), 1)
    pairs = unsqueeze(index_select(x, 0, first), 1), unsqueeze(index_select(x, 0, second), 1)
    return reshape(cdist(*pairs, p), (-1,))


def mvlgamma(input: Any, p: int) -> Tensor:
    """``ln(Gamma_p(x)) = p (p - 1) / 4 ln(pi) + sum_(i < p) ln(Gamma(x - i / 2))``, elementwise."""
    x = tensor_argument(input, "mvlgamma", "input")
    if p < 1:
        raise ArgumentError(f"mvlgamma: p must be at least 1; got {p}")
    shifts = torch.arange(p, dtype=x.dtype) * 0.5
    constant = 0.25 * p * (p - 1) * math.log(math.pi)
    return sum(lgamma(unsqueeze(x, -1) - shifts), -1) + constant


# --- windows -----------------------------------------------------------------------------------------------------


def windows(input: Any, dimension: int, size: Ints, step: Ints) -> Tensor:
    """``Tensor.unfold``: the slices of ``size`` elements, ``step`` apart, along a dimension, as a new last one."""
    x = tensor_argument(input, "unfold", "input")
    if x.ndim == 0:
        x = reshape(x, (1,))
    n = x.shape[dimension]
    if not 0 <= size <= n or step <= 0:
        raise ShapeError(f"unfold: size must lie in [0, {n}] and step be positive; got {size} and {step}")
    count = (n - size) // step + 1
    index = (torch.arange(count) * step).unsqueeze(1) + torch.arange(size)
    d = dimension % x.ndim
    return movedim(getitem(x, (*(slice(None),) * d, index)), d + 1, -1)
