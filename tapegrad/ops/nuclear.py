"""The nuclear norm, and the two maps that its derivatives of every order are made of.

With X = U S V^T, the norm is tr S and its gradient the polar factor Q = U V^T. X = Q P with P = V S V^T; Q's derivative
along D solves one Lyapunov equation with P, and so do the derivatives of that solution (Higham, Functions of Matrices,
2008, chapter 8).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C, Array, ShapeError, Tensor, either, op, sum_over, tensor_argument
from .shape import as_dims, movedim, unsqueeze

__all__: list[str] = []


def _product(*factors: Any) -> Any:
    """The matrix product, by the kernel: torch's own may depend on the number of threads."""
    return functools.reduce(functools.partial(either, "matmul"), factors)


def _lyapunov_rule(g: Any, p: Any, out: Any) -> Any:
    w, transposed = either("lyapunov", p, g), out.transpose(-2, -1)
    return -(_product(w, transposed) + _product(transposed, w))


@op(p=_lyapunov_rule, k=lambda g, p: either("lyapunov", p, g))
def lyapunov(p: Array, k: Array) -> Any:
    """The solution w of ``p w + w p = k``; p [..., N, N] symmetric, its eigenvalues positive; k [..., N, N]."""
    values, vectors = _C.on_one_thread(torch.linalg.eigh, p)
    back = vectors.transpose(-2, -1)
    inside = _product(back, k, vectors) / (values.unsqueeze(-1) + values.unsqueeze(-2))
    return _product(vectors, inside, back)


def _polar_rule(g: Any, input: Any, out: Any) -> Any:
    """Q w + (D - Q Q^T D) P^-1 with P w + w P = Q^T D - D^T Q (M >= N): a map of D that is its own transpose."""
    m, n = input.shape[-2:]
    if m < n:
        turned = (x.transpose(-2, -1) for x in (g, input, out))
        return _polar_rule(*turned).transpose(-2, -1)
    back = out.transpose(-2, -1)
    p, inside = _product(back, input), _product(back, g)
    dx = _product(out, either("lyapunov", p, inside - inside.transpose(-2, -1)))
    if m == n:
        return dx
    inverse = either("lyapunov", p, 2 * torch.eye(n, dtype=g.dtype).expand(p.shape))
    return dx + _product(g - _product(out, inside), inverse)


@op(input=_polar_rule)
def polar(input: Array) -> Any:
    """The nearest matrix with orthonormal columns (or rows): U V^T of [..., M, N]."""
    u, _, vh = _C.on_one_thread(torch.linalg.svd, input, full_matrices=False)
    return _product(u, vh)


@op(name="nuclear_norm", input=lambda g, input: g.unsqueeze(-1).unsqueeze(-1) * either("polar", input))
def nuclear_norm_op(input: Array) -> Any:
    """The sum of the singular values of [..., M, N]: [...]."""
    s = _C.on_one_thread(torch.linalg.svd, input, full_matrices=False)[1]  # svdvals' bits differ while recorded
    return sum_over(s, -1)


def nuclear_norm(input: Any, dim: Sequence[int] | int | None, keepdim: bool) -> Tensor:
    """The nuclear norm of the matrices in dimensions ``dim``, by default the two there are."""
    input = tensor_argument(input, "norm", "input")
    dims = as_dims(dim, input.ndim)
    if len(dims) != 2 or dims[0] == dims[1]:
        raise ShapeError(f'norm: p = "nuc" is of a matrix: dim must name two; got {dim} for shape {list(input.shape)}')
    y = nuclear_norm_op(movedim(input, dims, (-2, -1)))
    for d in sorted(dims) if keepdim else ():
        y = unsqueeze(y, d)
    return y
