"""Rows of torch's rarer functions: special ones, integrals, statistics, writes, volumes, factors."""

# fmt: off
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import tapegrad as tg

from .elementwise import pairs, unary, zero
from .spec import K0, K1, K, P, Q, R, Row, S, Sample, U, V, data, ints

NAN, INF = float("nan"), float("inf")


def _special(name: str, samples: list[Sample], **more: Any) -> Row:
    return Row(name, samples, getattr(torch.special, name), getattr(tg.special, name), exact=False, method=False,
        **more)


def _linear_cross_entropy(input: Any, weight_: Any, target: Any, *, linear_bias: Any = None, **kwargs: Any) -> Any:
    """By its parts: torch 2.9 has none."""
    return F.cross_entropy(F.linear(input, weight_, linear_bias), target, **kwargs)


def _at_regular(function: Callable[..., Any], n: int = 1) -> Callable[..., Any]:
    """The function of matrices that are far from singular."""
    def call(*args: Any, **kwargs: Any) -> Any:
        made = [x + 4 * torch.eye(*x.shape[-2:], dtype=x.dtype) if i < n else x for i, x in enumerate(args)]
        return function(*made, **kwargs)
    return call


def _linalg(name: str, samples: list[Sample], n: int = 1, parts: slice = slice(None), **more: Any) -> Row:
    """A function of torch.linalg, or of torch, of matrices; `parts` of what it returns are compared."""
    theirs = getattr(torch.linalg, name, None) or getattr(torch, name)
    ours = getattr(tg.linalg, name, None) or getattr(tg, name)

    def some(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            out = _at_regular(function, n)(*args, **kwargs)
            return tuple(out[parts]) if isinstance(out, tuple) else out
        return call

    return Row(name, samples, some(theirs), some(ours), exact=False, method=False, **more)


_UNARY = {
    "i0": zero(), "i0e": [*zero()[:-1], K0(V(0.0))], "i1": [*unary()[:-1], K1(V([0.0, 1e-3]))],
    "i1e": [*unary()[:-1], K0(V([0.0]))], "ndtr": zero(), "log_ndtr": [*unary()[:-1], K1(V([-30.0, 30.0]))],
    "ndtri": [*unary(Q)[:-1], K0(V([0.0, 1.0, 2.0]))], "erfcx": [*unary()[:-1], K1(V([-3.0, 30.0]))],
    "entr": [*unary(P)[:-1], K0(V([0.0, -1.0]))],
}
_LAGS = ints([2, 0, 1])
_OBSERVED = R(3, 5)
_SQUARE = [S(R(3, 3)), S(R(2, 3, 3)), S(R(1, 1)), S(R(0, 0))]
_VOLUME = R(1, 2, 4, 5, 6)


def _constants(name: str) -> list[Sample]:
    return [K0(data(P(3))), K0(data(P())), K0(data(P(0)))]


def _pdist(x: Any, p: float = 2.0) -> Any:  # torch 2.13's own crashes in the backward of one row
    i, j = torch.triu_indices(len(x), len(x), 1)
    return (x[i] - x[j]).norm(p, -1)


rows = [
    *(_special(name, samples) for name, samples in _UNARY.items()),
    _special("xlog1py", [*pairs(R, P)[:-1], K1(V([0.0, 0.0, 1.0]), V([-1.0, 1.0, 2.0]))]),
    _special("zeta", [S(data(P(3)) , P(3)), S(2.5, P(3)), S(data(P()), P()), S(data(P(0)), P(0))]),
    *(_special(name, _constants(name), differentiable=False) for name in tg.ops.bessel._OF_ONE),
    *(_special(name, [K0(data(U(3)), ints(3)), K0(data(U()), ints(2)), K0(data(U(0)), ints(1))], differentiable=False)
      for name in tg.ops.bessel._POLYNOMIALS),
    Row("igamma", [S(data(P(3)), P(3)), S(data(P()), P()), S(data(P(0)), P(0))], exact=False),
    Row("igammac", [S(data(P(3)), P(3)), S(data(P()), P()), S(data(P(0)), P(0))], exact=False),
    Row("mvlgamma", [S(V([3.5, 4.0]), 3), S(V(2.5), 1), S(R(0), 2)], ops=("lgamma",), exact=False),
    Row("clamp_min", [S(R(3), 0.2), S(R(2, 3), R(3)), S(R(), 0), S(R(0), 1.0)], ops=("clamp",)),
    Row("clamp_max", [S(R(3), 0.2), S(R(2, 3), R(3)), S(R(), 0), S(R(0), 1.0)], ops=("clamp",)),
    Row("rsub", [S(R(3), R(3)), S(R(2, 3), 2.0, alpha=3), S(R(), 1), S(R(0), R(0))], ops=("sub",), method=False),
    Row("float_power", [S(P(3), 2.5), S(P(3), R(3)), S(P(), 2), S(P(0), 2.0)], ops=("pow",)),
    Row("ldexp", [S(R(3), ints([1, 2, 3])), S(R(), data(V(2.0))), S(R(0), ints([]))], ops=("mul",)),
    Row("frexp", [S(R(4)), K(V([8.0, -0.1, 0.0])), S(R()), S(R(0))]),
    Row("angle", [S(R(4)), K(V([0.0, -0.0, NAN])), S(R()), S(R(0))]),
    *(Row(name, [K(ints([6, -4, 0]), ints([4, 6, 5])), K(ints(3), ints([1, 2])), K(ints([]), ints([]))],
          differentiable=False) for name in ("gcd", "lcm")),
    *(Row(name, [K(ints([6, 4, 1]), ints([1, 0, 3])), K(ints(3), ints([1, 2])), K(ints([]), ints([]))],
          differentiable=False) for name in ("bitwise_left_shift", "bitwise_right_shift")),
    Row("nextafter", [S(R(3), R(3)), K1(V([1.0, 2.0]), V([1.0, 3.0])), S(R(), R()), S(R(0), R(0))]),
    Row("fill", [S(R(2, 3), 1.5), S(R(3), R()), S(R(), 2), S(R(0), 1.0)], ops=("setitem",), method=False),
    Row("sum_to_size", [S(R(2, 3), 3), S(R(2, 3), (2, 1)), S(R(2, 3), 2, 3), S(R(), ()),
        S(R(0, 3), 1, 3)], ops=("sum",)),
    Row("diagflat", [S(R(2, 2)), S(R(3), -1), S(R()), S(R(0))], ops=()),
    Row("dsplit", [S(R(2, 2, 4), 2), S(R(1, 2, 5), [1, 3]), S(R(1, 1, 1), 1), S(R(0, 1, 2), 2)], ops=()),
    Row("split_with_sizes", [S(R(5), [2, 3]), S(R(2, 3), [1, 2], 1), S(R(1), [1]), S(R(0), [0])], ops=("split",)),
    Row("msort", [S(R(4, 2)), S(R(1)), S(R(0, 2))], ops=("gather",)),
    Row("mode", [K(V([[1.0, 2.0, 2.0], [3.0, 1.0, 3.0]])), K(V([1.0, 1.0, 2.0]), 0, True), S(R(1)), S(R(4)),
                 K(R(0, 2), 1)],
        ops=("gather",)),
    Row("trapezoid", [S(R(2, 4)), S(R(2, 4), R(4)), S(R(2, 4), R(2, 4), dim=0), S(R(4), dx=0.5), S(R(1)), S(R(0, 2))],
        ops=("sum",), exact=False),
    Row("cumulative_trapezoid", [S(R(2, 4)), S(R(2, 4), R(4)), S(R(4), dx=0.5), S(R(1)), S(R(0, 2))], ops=("cumsum",),
        exact=False),
    Row("gradient", [
        S(R(5)), S(R(4, 3), dim=1), S(R(4, 5), spacing=0.5, edge_order=2), S(R(5), spacing=(R(5),), dim=0),
        S(R(2), R(), dim=(0,)), S(R(4, 3), spacing=[2.0, 0.3]), K0(R(0, 3), dim=1), K0(R(1, 2), dim=1),
    ], *(lambda x, scale=1, f=f, **options: f(x * scale, **options) for f in (torch.gradient, tg.gradient)), ops=(),
        exact=False, method=False),
    Row("cov", [
        S(_OBSERVED), S(R(4)), S(_OBSERVED, correction=0), S(_OBSERVED, fweights=ints([1, 2, 0, 1, 3])),
        S(_OBSERVED, aweights=P(5)), S(_OBSERVED, fweights=ints([1, 2, 1, 1, 3]), aweights=P(5), correction=0),
        K0(R(1)), K0(R(0, 3)),
    ], ops=("matmul",), exact=False),
    Row("corrcoef", [S(_OBSERVED), S(R(2, 3)), K0(R(1)), K0(R(0, 3))], ops=("matmul",), exact=False),
    Row("renorm", [S(R(3, 4), 2, 0, 1.0), S(R(3, 4), 1, 1, 0.5), S(R(1, 1), 2, 0, 5.0), S(R(0, 2), 2, 0, 1.0)],
        ops=("norm",), exact=False),
    Row("diagonal_scatter", [
        S(R(3, 4), R(3)), S(R(3, 4), R(2), -1), S(R(2, 3, 3), R(2, 2), 1, 1, 2), S(R(1, 1), R(1)), S(R(0, 2), R(0)),
    ], ops=("setitem",)),
    Row("put", [
        S(R(2, 3), ints([4, 0]), R(2)), S(R(2, 3), ints([1, 1]), R(2), True), S(R(), ints(0), R()),
        S(R(0), ints([]), R(0)),
    ], ops=("setitem",)),
    *(Row(f"index_reduce.{how}", [
        S(R(4, 2), 0, _LAGS, R(3, 2), how), S(R(2, 4), 1, ints([3, 3]), R(2, 2), how, include_self=False),
        S(R(), 0, ints([0]), R(), how), S(R(0, 2), 1, ints([1]), R(0, 1), how),
    ], torch.index_reduce, tg.index_reduce, ops=("scatter_reduce",), exact=False, method=False)
      for how in ("prod", "mean", "amax", "amin")),
    Row("addbmm", [
        S(R(2, 4), R(5, 2, 3), R(5, 3, 4)), S(R(4), R(1, 2, 3), R(1, 3, 4), beta=0.5, alpha=2),
        S(R(1), R(1, 1, 1), R(1, 1, 1)),
        S(R(2, 4), R(0, 2, 3), R(0, 3, 4)),
    ], ops=("matmul",), exact=False),
    Row("windows", [S(R(7), 0, 3, 2), S(R(2, 5), 1, 2, 1), S(R(5, 2), 0, 2, 3), S(R(1), 0, 1, 1), S(R(0, 4), 1, 2, 2)],
        torch.Tensor.unfold, tg.Tensor.unfold, ops=("windows", "windows_backward"), method=False),
    # --- factors ---
    Row("cholesky_solve", [S(R(3, 2), R(3, 3)), S(R(2, 3, 2), R(2, 3, 3)), S(R(1, 1), R(1, 1)), S(R(0, 2), R(0, 0))],
        lambda b, x: torch.cholesky_solve(b, (x + 4 * torch.eye(x.shape[-1])).tril()),
        lambda b, x: tg.cholesky_solve(b, (x + 4 * torch.eye(x.shape[-1])).tril()),
        ops=("triangular_solution",), exact=False, method=False),
    Row("cholesky_inverse", _SQUARE,
        lambda x: torch.cholesky_inverse((x + 4 * torch.eye(x.shape[-1])).tril()),
        lambda x: tg.cholesky_inverse((x + 4 * torch.eye(x.shape[-1])).tril()),
        ops=("triangular_solution",), exact=False, method=False),
    _linalg("lu_factor", [*_SQUARE, S(R(4, 3)), S(R(3, 4))], parts=slice(0, 1), ops=("lu_square",)),
    Row("lu", [*_SQUARE, S(R(4, 3)), S(R(3, 4))],
        *(_at_regular(lambda x, lib=lib: lib.linalg.lu(x)[1:]) for lib in (torch, tg)),
        ops=("lu_square",), exact=False, method=False),
    Row("lu_solve", [S(R(3, 3), R(3, 2)), S(R(2, 3, 3), R(2, 3, 1)), S(R(1, 1), R(1, 1)), S(R(0, 0), R(0, 1))],
        *(_at_regular(lambda a, b, lib=lib: lib.linalg.lu_solve(*lib.linalg.lu_factor(a), b)) for lib in (torch, tg)),
        ops=("triangular_solution",), exact=False, method=False),
    Row("householder_product", [S(R(4, 2), P(2)), S(R(2, 3, 3), P(2, 2)), S(R(1, 1), P(1)), S(R(0, 3, 2), P(0, 2))],
        lambda a, tau: torch.linalg.householder_product(a.tril(-1), tau),
        lambda a, tau: tg.linalg.householder_product(a.tril(-1), tau), ops=("matmul",), exact=False, method=False),
    Row("ormqr", [S(R(3, 3), P(3), R(3, 2)), S(R(3, 3), P(3), R(2, 3), False, True), S(R(1, 1), P(1), R(1, 1)),
                  S(R(0, 3, 2), P(0, 2), R(0, 3, 1))], ops=("matmul",), exact=False, method=False),
    Row("geqrf", [K0(data(R(3, 3))), K0(data(R(1, 1))), K0(data(R(0, 3, 2)))], differentiable=False, exact=False,
        ops=("geqrf_op",), method=False),
    Row("ldl_factor", [K0(data(R(3, 3))), K0(data(R(1, 1))), K0(data(R(0, 2, 2)))],
        lambda x: torch.linalg.ldl_factor(x + x.mT), lambda x: tg.linalg.ldl_factor(x + x.mT), differentiable=False,
        ops=("ldl_factor_op",), exact=False, method=False),
    Row("ldl_solve", [K0(data(R(3, 3)), data(R(3, 2))), K0(data(R(1, 1)), data(R(1, 1))),
        K0(data(R(0, 2, 2)), data(R(0, 2, 1)))],
        lambda x, b: torch.linalg.ldl_solve(*torch.linalg.ldl_factor(x + x.mT), b),
        lambda x, b: tg.linalg.ldl_solve(*tg.linalg.ldl_factor(x + x.mT), b), differentiable=False,
        ops=("ldl_solve_op",), exact=False, method=False),
    # --- volumes, networks ---
    Row("max_pool3d", [S(_VOLUME, 2), S(R(2, 3, 3, 3), (1, 2, 2), 1, (0, 1, 1)), S(_VOLUME, 2, return_indices=True),
                       S(R(1, 1, 1, 1), 1), S(R(0, 1, 2, 2, 2), 2)], ops=("gather",), method=False),
    Row("adaptive_max_pool3d", [S(_VOLUME, 2), S(_VOLUME, (1, None, 3)), S(R(1, 1, 1, 1), 1), S(R(0, 1, 2, 2, 2), 2)],
        ops=("gather",), method=False),
    Row("avg_pool3d", [
        S(_VOLUME, 2), S(_VOLUME, 3, 2, 1, True, False), S(R(2, 3, 3, 3), (1, 2, 2), divisor_override=3),
        S(R(1, 1, 1, 1), 1),
        S(R(0, 1, 2, 2, 2), 2),
    ], ops=("avg_pool3d", "avg_pool3d_backward"), method=False),
    Row("adaptive_avg_pool3d", [S(_VOLUME, 2), S(_VOLUME, (1, None, 3)), S(R(1, 1, 1, 1), 1), S(R(0, 1, 2, 2, 2), 2)],
        ops=("adaptive_avg_pool3d", "adaptive_avg_pool3d_backward"), method=False),
    Row("lp_pool3d", [S(P(1, 2, 4, 4, 4), 2.0, 2), S(P(1, 2, 3, 3), 3.0, 2, 1), S(P(1, 1, 1, 1), 2.0, 1),
                      S(P(0, 1, 2, 2, 2), 2.0, 2)], ops=("avg_pool3d",), exact=False, method=False),
    Row("conv_transpose3d", [
        S(R(1, 2, 2, 3, 2), R(2, 3, 2, 2, 2), R(3)), S(R(2, 2, 3, 2), R(2, 1, 2, 2, 2), None, 2, 1, 1, 2),
        S(R(1, 2, 2, 2, 2), R(2, 1, 2, 1, 2), dilation=2), S(R(1, 1, 1, 1, 1), R(1, 1, 1, 1, 1)),
        S(R(0, 1, 2, 2, 2), R(1, 1, 1, 1, 1)),
    ], ops=("conv2d",), exact=False, method=False),
    *(Row(f"max_unpool{d}d", [
        S(R(*shape), index, 2), S(R(*shape), index, 2, 2, output_size=more),
        K0(R(1, *(1,) * d), ints([0], (1,) * (d + 1)), 2),
        K0(R(0, 1, *(1,) * d), ints([], (0, 1, *(1,) * d)), 2),
    ], ops=("scatter",), method=False) for d, shape, index, more in (
        (1, (1, 2, 2), ints([[[0, 3], [1, 2]]]), (5,)), (2, (1, 2, 2), ints([[[0, 3], [9, 10]]]), (5, 5)),
        (3, (1, 1, 1, 2), ints([[[[0, 15]]]]), (2, 2, 5)),
    )),
    Row("pdist", [S(R(4, 3)), S(R(4, 3), 1.0), S(R(3, 2), 3.0), S(R(1, 1)), S(R(0, 3)), S(R(2, 2), INF)], _pdist,
        ops=("norm",), exact=False, method=False),
    Row("linear_cross_entropy", [
        S(R(4, 3), R(5, 3), ints([0, 4, 2, 2])), S(R(4, 3), R(5, 3), ints([0, 4, 2, 2]), linear_bias=R(5),
        label_smoothing=0.1),
        S(R(2, 3), R(5, 3), ints([1, 4]), weight=data(P(5)), reduction="sum"), S(R(1, 1), R(1, 1), ints([0])),
        K0(R(0, 3), R(5, 3), ints([]), reduction="sum"),
    ], _linear_cross_entropy, ops=("linear",), exact=False, method=False),
]
