"""Derivatives checked against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core import ArgumentError, GradcheckError, Tensor, enable_grad, no_grad
from ..ops import tensor
from .gradients import grad


def _outputs(f: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    """The float outputs of f, as a list."""
    out = f(*inputs)
    outs = list(out) if isinstance(out, tuple | list) else [out]
    for y in outs:
        if not isinstance(y, Tensor):
            raise TypeError(f"gradcheck: f must return Tensors; got {type(y).__name__}")
    return [y for y in outs if y.is_floating_point()]


def gradcheck(f: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3) -> bool:
    """Compare every entry of f's Jacobian with a central difference ``(f(x + eps) - f(x - eps)) / (2 eps)``.

    Parameters
    ----------
    f : function of Tensors that returns a Tensor or a sequence of them
    inputs : a Tensor or a sequence; those that require a gradient are checked and must be float64
    eps : step of the difference
    atol, rtol : an entry passes where ``|analytic - numeric| <= atol + rtol * |numeric|``

    Returns True. Raises GradcheckError that names input, element, output and both values.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ArgumentError("gradcheck: at least one input must require a gradient")
    for i, x in checked:
        if x.dtype is not torch.float64:
            raise TypeError(f"gradcheck: input {i} must be float64 for differences to mean anything; got {x.dtype}")
    leaves = [Tensor(x.data.clone(), True) if isinstance(x, Tensor) and x.requires_grad else x for x in inputs]
    with enable_grad():
        outputs = _outputs(f, leaves)
    targets = [leaves[i] for i, _ in checked]
    for k, y in enumerate(outputs):
        analytic = [torch.zeros(y.numel(), x.numel(), dtype=torch.float64) for x in targets]
        for row in range(y.numel() if y.requires_grad else 0):
            seed = torch.zeros(y.numel(), dtype=torch.float64)
            seed[row] = 1
            grads = grad(y, targets, seed.to(y.dtype).reshape(y.shape), retain_graph=True, allow_unused=True)
            for jacobian, g in zip(analytic, grads, strict=True):
                if g is not None:
                    jacobian[row] = g.data.reshape(-1)
        for (i, _), x, jacobian in zip(checked, targets, analytic, strict=True):
            _compare(jacobian, _numeric(f, leaves, i, k, eps), i, k, x.shape, y.shape, atol, rtol)
    return True


def _numeric(f: Callable[..., Any], inputs: list[Any], i: int, k: int, eps: float) -> torch.Tensor:
    """d f_k / d inputs[i] by central differences, [outputs, inputs]."""
    base = inputs[i].data
    columns = []
    for j in range(base.numel()):
        values = []
        for step in (eps, -eps):
            moved = base.clone().reshape(-1)
            moved[j] += step
            with no_grad():
                shifted = tensor(moved.reshape(base.shape))
                values.append(_outputs(f, [*inputs[:i], shifted, *inputs[i + 1 :]])[k].data.reshape(-1))
        columns.append((values[0] - values[1]).double() / (2 * eps))
    return torch.stack(columns, 1) if columns else torch.zeros(0)


def _compare(
    analytic: torch.Tensor,
    numeric: torch.Tensor,
    i: int,
    k: int,
    input_shape: torch.Size,
    output_shape: torch.Size,
    atol: float,
    rtol: float,
) -> None:
    if not numeric.numel():
        return
    close = torch.isclose(analytic, numeric, rtol=rtol, atol=atol, equal_nan=False)
    if bool(close.all()):
        return
    row, column = (~close).nonzero()[0].tolist()
    raise GradcheckError(
        f"gradcheck: d output {k}{_index(row, output_shape)} / d input {i}{_index(column, input_shape)} is "
        f"{analytic[row, column].item():.9g} by the tape and {numeric[row, column].item():.9g} by differences "
        f"({int((~close).sum())} of {close.numel()} entries differ)"
    )


def _index(flat: int, shape: torch.Size) -> str:
    """A flat position as an index: [1, 2]."""
    index = []
    for n in reversed(shape):
        index.append(flat % n)
        flat //= n
    return str(index[::-1])


def gradgradcheck(
    f: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> bool:
    """`gradcheck` of f's gradient: the derivatives of ``grad(f, inputs, grad_outputs)`` by inputs and grad_outputs.

    ``grad_outputs`` default to fixed pseudo-random numbers of the outputs' shapes.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    with enable_grad():
        outputs = [y for y in _outputs(f, inputs) if y.requires_grad]
    if grad_outputs is None:
        source = torch.Generator().manual_seed(0)
        grad_outputs = [torch.randn(y.shape, generator=source, dtype=torch.float64) for y in outputs]
    elif not isinstance(grad_outputs, list | tuple):
        grad_outputs = [grad_outputs]
    seeds = [Tensor(g.data.clone() if isinstance(g, Tensor) else g, True) for g in grad_outputs]
    positions = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]

    def first_derivative(*args: Any) -> list[Tensor]:
        xs, gs = list(args[: len(inputs)]), args[len(inputs) :]
        for i in positions:
            if not xs[i].requires_grad:  # moved by a finite difference
                xs[i] = Tensor(xs[i].data, True)
        with enable_grad():
            ys = [y for y in _outputs(f, xs) if y.requires_grad]
            targets = [xs[i] for i in positions]
            grads = grad(ys, targets, list(gs), create_graph=True, allow_unused=True)
        return [g if g is not None else Tensor(torch.zeros_like(x.data)) for g, x in zip(grads, targets, strict=True)]

    return gradcheck(first_derivative, [*inputs, *seeds], eps=eps, atol=atol, rtol=rtol)
