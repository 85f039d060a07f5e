"""Gradient clipping, all parameters as one vector, normalised weights, parameters that are functions of others
(`parametrize`); `rnn` packs sequences of different lengths.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ...core import _C, NonFiniteError, Tensor, raw, verify
from ..checks import require
from ..init import skipped
from . import parametrizations, parametrize, rnn
from .renorm import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm
from .vectors import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[torch.Tensor]:
    """The storage of the gradients that are there."""
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad.data for p in tensors if p.grad is not None]


def _norm(values: list[torch.Tensor], norm_type: float) -> torch.Tensor:
    """The norm of all values taken as one vector."""
    norms = [_C.norm(g, float(norm_type), [], False) for g in values]
    return _C.norm(torch.stack([n.to(norms[0].dtype) for n in norms]), float(norm_type), [], False)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors taken as one vector, a constant."""
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    values = [raw(t.detach(), "get_total_norm", "tensors") for t in given]
    values = [v for v in values if v.numel()]
    norm = _norm(values, norm_type) if values else torch.tensor(0.0)
    if error_if_nonfinite:
        verify(torch.isfinite(norm), lambda: NonFiniteError(f"get_total_norm: the norm is {norm.item()}"))
    return Tensor(norm)


def skip_init(module_cls: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``module_cls(*args, **kwargs)`` whose initial values are not drawn."""
    with skipped():
        return module_cls(*args, **kwargs)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by one factor, in place, so that their common norm is at most ``max_norm``.

    ``g <- g * min(1, max_norm / (norm + 1e-6))``, norm being that of all gradients taken as one vector.

    Parameters
    ----------
    parameters : one tensor or several; those without gradient are passed over
    max_norm : largest norm afterwards
    norm_type : p of the p-norm; ``math.inf`` for the largest magnitude
    error_if_nonfinite : raise NonFiniteError, and change nothing, for a norm that is NaN or infinite
    foreach : taken because torch takes it

    Returns the norm before scaling, a 0-dim tensor. Source: ``torch.nn.utils.clip_grad_norm_``.
    """
    require(max_norm >= 0, "clip_grad_norm_", "max_norm", "not be negative", max_norm)
    grads = [g for g in _gradients(parameters) if g.numel()]  # an empty one adds nothing to any norm
    if not grads:
        return Tensor(torch.tensor(0.0))
    norm = _norm(grads, norm_type)
    if error_if_nonfinite:
        verify(
            torch.isfinite(norm),
            lambda: NonFiniteError(f"clip_grad_norm_: the gradients' norm of order {norm_type} is {norm.item()}"),
        )
    torch._foreach_mul_(grads, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    return Tensor(norm)


def clip_grad_norm(*args: Any, **kwargs: Any) -> Tensor:
    """torch's old name of `clip_grad_norm_`; it warns, as there."""
    warnings.warn(
        "`nn.utils.clip_grad_norm` is deprecated; use `nn.utils.clip_grad_norm_`", FutureWarning, stacklevel=2
    )
    return clip_grad_norm_(*args, **kwargs)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every gradient element to [-clip_value, clip_value], in place. Source: torch's function of that name."""
    require(clip_value >= 0, "clip_grad_value_", "clip_value", "not be negative", clip_value)
    grads = _gradients(parameters)
    if grads:
        torch._foreach_clamp_min_(grads, -float(clip_value))
        torch._foreach_clamp_max_(grads, float(clip_value))
