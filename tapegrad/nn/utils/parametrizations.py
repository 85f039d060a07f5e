"""Weight norm, spectral norm and orthogonal matrices as parametrizations.

Source: ``torch.nn.utils.parametrizations``.
"""

from __future__ import annotations

from typing import Any

import torch

from ...core import ArgumentError, IndexShapeError, ShapeError, Tensor, no_grad
from ...ops import (
    abs,
    cat,
    diagonal,
    div,
    dot,
    expand,
    eye,
    flatten,
    matmul,
    mul,
    mv,
    norm,
    normalize,
    permute,
    randn,
    sub,
    transpose,
    tril,
    triu,
    zeros,
)
from ...ops.factor import matrix_exp, solve, solve_triangular
from ..checks import extent, one_of, require
from ..convolution import _Transposed
from ..module import Module
from .parametrize import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def _weight(module: Module, name: str, what: str) -> Tensor:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"{what}: name must be that of a parameter or buffer of the module; got {name!r}")
    return weight


# --- w = g v / |v| -----------------------------------------------------------------------------------------------


def norm_except_dim(v: Any, dim: int) -> Any:
    """The norm over all dimensions but `dim`, which stay as 1; over all of them, without dimensions, for dim = -1."""
    if dim == -1:
        return norm(v)
    others = [d for d in range(v.ndim) if d != dim]
    return norm(v, 2, others, True) if others else abs(v)


def normed_weight(v: Any, g: Any, dim: int) -> Any:
    """``g v / |v|``"""
    return mul(v, div(g, norm_except_dim(v, dim)))


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Any, weight_v: Any) -> Any:
        return normed_weight(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Any) -> tuple[Any, Any]:
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """``weight = g v / |v|``: size and direction are trained apart, as ``original0`` and ``original1``.

    Parameters
    ----------
    module : whose parameter `name` it is; returned
    dim : the norm is taken over all other dimensions; over all of them for None

    Source: Salimans and Kingma, Weight normalization (NeurIPS 2016).
    """
    weight = _weight(module, name, "weight_norm")
    if dim is not None and not -1 <= dim < max(weight.ndim, 1):
        raise IndexShapeError(f"weight_norm: dim must be a dimension of shape {list(weight.shape)}, or None; got {dim}")
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


# --- w / its largest singular value ------------------------------------------------------------------------------


def as_matrix(weight: Any, dim: int) -> Any:
    """The weight with `dim` as rows, all other dimensions as columns."""
    if dim != 0:
        weight = permute(weight, [dim, *(d for d in range(weight.ndim) if d != dim)])
    return flatten(weight, 1)


def default_dim(module: Module) -> int:
    """The dimension of the outputs."""
    return 1 if isinstance(module, _Transposed) else 0


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Any, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        ndim = weight.ndim
        if not -ndim <= dim < ndim:
            raise IndexShapeError(f"spectral_norm: dim must be a dimension of shape {list(weight.shape)}; got {dim}")
        self.n_power_iterations = extent(n_power_iterations, "spectral_norm", "n_power_iterations", 1)
        self.dim, self.eps = dim % ndim, eps
        if ndim == 1:
            return  # its norm needs no iterations
        with no_grad():
            matrix = as_matrix(weight.detach(), self.dim)
            for key, size in zip(("_u", "_v"), matrix.shape, strict=True):
                self.register_buffer(key, normalize(randn(size, dtype=matrix.dtype), dim=0, eps=eps))
        self._iterate(matrix, 15)

    def _iterate(self, matrix: Any, count: int) -> None:
        with no_grad():
            for _ in range(count):
                self._u.copy_(normalize(mv(matrix, self._v), dim=0, eps=self.eps))
                self._v.copy_(normalize(mv(transpose(matrix, 0, 1), self._u), dim=0, eps=self.eps))

    def forward(self, weight: Any) -> Any:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()  # a second forward before backward writes the buffers again
        return div(weight, dot(u, mv(matrix, v)))

    def right_inverse(self, value: Any) -> Any:
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """``weight = original / sigma``, sigma the largest singular value of the weight as a matrix.

    In training every access makes ``n_power_iterations`` steps of the power method from the buffers ``_u``, ``_v``.

    Parameters
    ----------
    module : whose parameter `name` it is; returned
    dim : the matrix's rows; 0, or 1 for transposed convolutions, unless given

    Source: Miyato et al., Spectral normalization for generative adversarial networks (ICLR 2018).
    """
    weight = _weight(module, name, "spectral_norm")
    dim = default_dim(module) if dim is None else dim
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


# --- orthogonal --------------------------------------------------------------------------------------------------


def _reflections(x: Any) -> Any:
    """``H_1 ... H_k [:, :k]``, the reflections by the columns of x [..., n, k] below its diagonal, signs from it.

    As ``I - V T V^T``, ``T^-1 = striu(V^T V) + diag(V^T V) / 2`` (Joffrain et al., 2006).
    """
    n, k = x.shape[-2:]
    unit = eye(n, k, dtype=x.dtype)
    v = tril(x, -1) + unit
    products = matmul(transpose(v, -2, -1), v)
    t_inverse = triu(products) - 0.5 * products * eye(k, dtype=x.dtype)
    q = sub(unit, matmul(v, solve_triangular(t_inverse, matmul(transpose(v, -2, -1), unit), upper=True)))
    signs = diagonal(x.detach(), 0, -2, -1).to(torch.int32).to(x.dtype)
    return mul(q, signs.unsqueeze(-2))


def _rotation(x: Any, cayley: bool) -> Any:
    """The rotation generated by the skew-symmetric matrix of x [..., n, k] below its diagonal, its first k columns."""
    n, k = x.shape[-2:]
    x = tril(x)
    if n != k:
        x = cat([x, expand(zeros(n, n - k, dtype=x.dtype), [*x.shape[:-2], n, n - k])], -1)
    a = sub(x, transpose(x, -2, -1))
    if not cayley:
        return matrix_exp(a)[..., :k]
    unit = eye(n, dtype=x.dtype)
    return solve(unit - 0.5 * a, unit + 0.5 * a)[..., :k]


def _orthogonalized(x: torch.Tensor) -> torch.Tensor:
    """The Q of x = Q R with a positive diagonal of R."""
    q, r = torch.linalg.qr(x)
    positive: torch.Tensor = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1, 1).unsqueeze(-2).to(x.dtype)
    return positive


def _is_orthogonal(q: torch.Tensor) -> bool:
    n, k = q.shape[-2:]
    near = 10 * n * torch.finfo(q.dtype).eps
    return torch.allclose(q.mT @ q, torch.eye(k, dtype=q.dtype), atol=near)


class _Orthogonal(Module):
    base: Tensor

    def __init__(self, weight: Any, orthogonal_map: str, use_trivialization: bool = True) -> None:
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: Any) -> Any:
        wide = x.shape[-2] < x.shape[-1]
        x = transpose(x, -2, -1) if wide else x
        q = _reflections(x) if self.orthogonal_map == "householder" else _rotation(x, self.orthogonal_map == "cayley")
        if "base" in self._buffer_names:
            q = matmul(self.base, q)
        return transpose(q, -2, -1) if wide else q

    def right_inverse(self, value: Any) -> Any:
        """What to start from, so that the result is `value`, made orthogonal where it is not."""
        if value.shape != self.shape:
            raise ShapeError(f"orthogonal: expected shape {list(self.shape)}; got {list(value.shape)}")
        q = value.data
        wide = q.shape[-2] < q.shape[-1]
        q = q.mT if wide else q
        n, k = q.shape[-2:]
        if "base" not in self._buffer_names:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    f"orthogonal: a matrix cannot be assigned to orthogonal_map={self.orthogonal_map!r} with "
                    "use_trivialization=False"
                )
            a, tau = torch.geqrf(q)  # torch's: signs where a reflection is one
            ones = a.diagonal(dim1=-2, dim2=-1)
            ones.sign_()
            ones[tau == 0.0] *= -1
            return Tensor(a.mT.contiguous() if wide else a)
        if n != k:  # completed to a square
            more = randn(*q.shape[:-2], n, n - k, dtype=q.dtype).data
            self.base = Tensor(_orthogonalized(torch.cat([q, more], -1)))
        else:
            self.base = Tensor(q.clone() if _is_orthogonal(q) else _orthogonalized(q))
        start = torch.zeros(value.shape, dtype=q.dtype)
        start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)  # no reflection, no rotation
        return Tensor(start)


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """``weight`` with orthonormal columns (rows, if it is wide), by a smooth map from all matrices.

    Parameters
    ----------
    module : whose parameter `name`, [..., m, n], it is; returned
    orthogonal_map : "matrix_exp" (of a skew-symmetric matrix; for square ones the default), "cayley" or "householder"
        (products of reflections, else the default)
    use_trivialization : relative to an orthogonal matrix in the buffer ``base``

    Source: Lezcano-Casado, Trivializations for gradient-based optimization on manifolds (NeurIPS 2019).
    """
    weight = _weight(module, name, "orthogonal")
    require(weight.ndim >= 2, "orthogonal", name, "be a matrix or a batch of matrices", list(weight.shape))
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    one_of(orthogonal_map, ("matrix_exp", "cayley", "householder"), "orthogonal", "orthogonal_map")
    return register_parametrization(module, name, _Orthogonal(weight, orthogonal_map, use_trivialization), unsafe=True)
