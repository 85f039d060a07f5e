"""Rows of the factorisations and systems of equations. Matrices are made so that the factorisation exists."""

# fmt: off
from __future__ import annotations

from typing import Any

import torch

import tapegrad as tg

from .spec import R, Row, S, Sample, V


def _positive_definite(x: Any) -> Any:
    return x @ x.transpose(-2, -1) + (torch.eye(x.shape[-1], dtype=x.dtype) if x.shape[-1] else x.new_zeros(0, 0))


def _regular(x: Any) -> Any:
    """Far from singular, whatever the random numbers are."""
    return x + 4 * torch.eye(x.shape[-1], dtype=x.dtype)


def _symmetric(x: Any) -> Any:
    n = x.shape[-1]
    return x + x.transpose(-2, -1) + torch.diag(torch.arange(n, dtype=x.dtype) * 5)


def _signless(parts: Any) -> Any:
    """What does not depend on the signs of vectors: their squares."""
    return tuple(p if p.ndim == min(q.ndim for q in parts) else p * p for p in parts)


MATRICES: list[Sample] = [S(R(3, 3)), S(R(2, 3, 3)), S(R(1, 1)), S(R(0, 0)), S(R(0, 2, 2))]


def _row(
    name: str, prepare: Any, samples: list[Sample], after: Any = lambda out: out, torchs: Any = None, **more: Any
) -> Row:
    theirs = torchs or getattr(torch.linalg, name)

    def reference(x: Any, *args: Any, **kwargs: Any) -> Any:
        return after(theirs(prepare(x), *args, **kwargs))

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        return after(getattr(tg, name)(prepare(x), *args, **kwargs))

    return Row(name, samples, reference, call, exact=False, method=False, **more)


def _triangular(x: Any) -> Any:
    return _regular(x)


SYSTEMS = [S(R(3, 3), R(3, 2)), S(R(2, 3, 3), R(3, 2)), S(R(1, 1), R(1, 1)), S(R(0, 0), R(0, 2))]

rows = [
    _row("cholesky", _positive_definite, [*MATRICES, S(R(3, 3), upper=True)]),
    _row("inverse", _regular, MATRICES, torchs=torch.linalg.inv),
    _row("det", _regular, MATRICES),
    _row("slogdet", _regular, MATRICES, lambda out: out[1]),
    _row("logdet", _positive_definite, MATRICES, torchs=torch.logdet, ops=("slogdet",)),
    _row("solve", _regular, [*SYSTEMS, S(R(3, 3), R(3)), S(R(2, 3, 3), R(2, 3)), S(R(3, 3), R(2, 3), left=False)],
         ops=("system",)),
    _row("solve_triangular", _regular, [
        *(S(*s.args, upper=up) for s in SYSTEMS for up in (True, False)),
        S(R(3, 3), R(2, 3), upper=True, left=False), S(R(3, 3), R(3, 2), upper=False, unitriangular=True),
    ], ops=("triangular_solution",)),
    _row("eigh", _symmetric, [S(R(3, 3)), S(R(1, 1)), S(R(0, 0))], _signless),
    _row("eigvalsh", _symmetric, [S(R(3, 3)), S(R(1, 1)), S(R(0, 0))], ops=("eigh",)),
    _row("svd", lambda x: x, [
        S(V([[3.0, 0.5], [0.2, 1.0]])), S(V([[3.0, 0.5, 0.1], [0.2, 1.0, 0.7]])),
        S(V([[3.0, 0.5], [0.2, 1.0], [0.3, 0.2]])),
        S(R(1, 1)), S(R(0, 0)),
    ], _signless, torchs=torch.svd),
    _row("svdvals", lambda x: x, [S(R(3, 2)), S(R(2, 3)), S(R(1, 1)), S(R(0, 0))], ops=("svd",)),
    _row("qr", lambda x: x, [S(R(4, 3)), S(R(3, 3)), S(R(2, 3, 2)), S(R(1, 1)), S(R(0, 0))]),
    _row("pinverse", lambda x: x, [S(R(4, 3)), S(R(2, 3)), S(R(1, 1)), S(R(0, 0))],
         torchs=torch.linalg.pinv),
    _row("matrix_exp", lambda x: 0.3 * x, MATRICES),
    _row("matrix_power", _regular, [*(S(R(3, 3), n) for n in (-2, 0, 1, 3, 6)), S(R(1, 1), 2), S(R(0, 0), 2)],
         ops=("matmul",)),
]
