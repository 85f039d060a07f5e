"""Weight normalisation and spectral normalisation: as attributes that are computed (torch's older functions), and as
parametrizations.

Sources: Salimans and Kingma, Weight normalization (2016); Miyato et al., Spectral normalization for generative
adversarial networks (2018).
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from ...core import ArgumentError, Tensor
from ...ops import reshape
from ...ops.random import raw_normal
from ..convolution import _Transposed
from ..module import Module
from ..parameter import Parameter
from .parametrize import register_parametrization

M = TypeVar("M", bound=Module)


def _length(v: Any, dim: int) -> Any:
    """The length of the slices of ``v`` along ``dim``; -1: of all of it."""
    if dim == -1:
        return v.norm()
    return v.norm(2, [d for d in range(v.ndim) if d != dim], True) if v.ndim > 1 else v.abs()


# --- weight normalisation ----------------------------------------------------------------------------------------


class _WeightNorm(Module):
    """``g * v / ||v||``."""

    def __init__(self, dim: int | None = 0) -> None:
        self.dim = -1 if dim is None else dim

    def forward(self, g: Any, v: Any) -> Any:
        return v * (g / _length(v, self.dim))

    def right_inverse(self, weight: Any) -> tuple[Any, Any]:
        return _length(weight, self.dim).detach().clone(), weight.detach().clone()


def parametrized_weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """``weight = g * v / ||v||``, the norm over all dimensions but ``dim`` (None: over all).

    The parameters are ``parametrizations.weight.original0`` (g) and ``original1`` (v).
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    return module


class _Computed:
    """A weight that a module computes of other parameters at every access; ``before`` runs before each call."""

    def __init__(self, name: str, parts: tuple[str, ...]) -> None:
        self.name, self.parts = name, tuple(f"{name}_{part}" for part in parts)

    def compute(self, module: Module) -> Any:
        """The weight."""
        raise NotImplementedError

    def install(self, module: Module) -> None:
        """Make it the attribute, on a class of this module's own, of the same name."""
        kind = type(module)

        def put(_: Any, value: Any) -> None:
            raise ArgumentError(f"{kind.__name__}.{self.name} is computed of {', '.join(self.parts)}; write to those")

        namespace = {"__module__": kind.__module__, self.name: property(self.compute, put), "_computed": self}
        module.__class__ = type(kind.__name__, (kind,), namespace)


class _WeightNormed(_Computed):
    def __init__(self, name: str, dim: int) -> None:
        super().__init__(name, ("g", "v"))
        self.dim = dim

    def compute(self, module: Module) -> Any:
        g, v = (getattr(module, part) for part in self.parts)
        return v * (g / _length(v, self.dim))


def _parameter(module: Module, name: str, what: str) -> Parameter:
    value = vars(module).get(name)
    if not isinstance(value, Parameter):
        raise ArgumentError(f"{what}: {type(module).__name__} has no parameter {name!r}")
    return value


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """``weight = g * v / ||v||`` before each call, g and v the parameters ``weight_g`` and ``weight_v``.

    The norm runs over all dimensions but ``dim`` (None: over all).
    """
    weight = _parameter(module, name, "weight_norm")
    computed = _WeightNormed(name, -1 if dim is None else dim)
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(_length(weight.detach(), computed.dim).clone()))
    module.register_parameter(f"{name}_v", Parameter(weight.detach().clone()))
    computed.install(module)
    return module


def _without(module: M, name: str, kind: type[_Computed], what: str) -> M:
    computed = vars(type(module)).get("_computed")
    if not isinstance(computed, kind) or computed.name != name:
        raise ArgumentError(f"{what}: {type(module).__name__}.{name} is not computed so, or not last")
    value = computed.compute(module).detach().clone()
    hooks = module._own_hooks().before
    for key, hook in list(hooks.items()):
        if hook is computed:
            del hooks[key]
    module.__class__ = type(module).__bases__[0]
    for part in computed.parts:
        delattr(module, part)
    module.register_parameter(name, Parameter(value))
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Undo `weight_norm`: the weight as it is becomes a parameter again."""
    return _without(module, name, _WeightNormed, "remove_weight_norm")


# --- spectral normalisation --------------------------------------------------------------------------------------


def _matrix(weight: Any, dim: int) -> Any:
    """The weight with ``dim`` as rows: [n, everything else]."""
    moved = weight.movedim(dim, 0) if dim else weight
    return reshape(moved, (moved.shape[0], -1))


def _unit(v: torch.Tensor, eps: float) -> torch.Tensor:
    return v / torch.clamp(v.norm(), min=eps)


def _iterated(matrix: Any, u: torch.Tensor, v: torch.Tensor, times: int, eps: float) -> None:
    """Power iteration, in place: u and v become the singular vectors of the largest singular value."""
    for _ in range(times):
        v.copy_(_unit(matrix.mT @ u, eps))
        u.copy_(_unit(matrix @ v, eps))


def _start(matrix: torch.Tensor, eps: float, times: int) -> tuple[torch.Tensor, torch.Tensor]:
    u = _unit(raw_normal((matrix.shape[0],), matrix.dtype, None, "spectral_norm"), eps)
    v = _unit(raw_normal((matrix.shape[1],), matrix.dtype, None, "spectral_norm"), eps)
    _iterated(matrix, u, v, times, eps)
    return u, v


def _divided(weight: Any, matrix: Any, u: Tensor, v: Tensor) -> Any:
    """The weight over its largest singular value; u and v are constants."""
    left, right = u.detach().clone(), v.detach().clone()
    return weight / (left * (matrix @ right)).sum()


def _dimension(module: Module, dim: int | None) -> int:
    return (1 if isinstance(module, _Transposed) else 0) if dim is None else dim


class _SpectralNormed(_Computed):
    def __init__(self, name: str, times: int, dim: int, eps: float) -> None:
        super().__init__(name, ("orig", "u", "v"))
        self.times, self.dim, self.eps = times, dim, eps

    def compute(self, module: Module) -> Any:
        weight, u, v = (getattr(module, part) for part in self.parts)
        return _divided(weight, _matrix(weight, self.dim), u, v)

    def __call__(self, module: Module, args: Any) -> None:
        """Before each call: better singular vectors."""
        weight, u, v = (getattr(module, part).data for part in self.parts)
        if module.training:
            _iterated(_matrix(weight, self.dim), u, v, self.times, self.eps)


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """``weight = w / sigma(w)`` before each call, sigma the largest singular value of w as a matrix [dim, rest].

    w is the parameter ``weight_orig``; its singular vectors, buffers ``weight_u`` and ``weight_v``, are improved by
    ``n_power_iterations`` steps of power iteration at every call in training mode. ``dim`` is 0, and 1 for transposed
    convolutions.
    """
    if n_power_iterations < 1:
        raise ArgumentError(f"spectral_norm: n_power_iterations must be positive; got {n_power_iterations}")
    weight = _parameter(module, name, "spectral_norm")
    computed = _SpectralNormed(name, n_power_iterations, _dimension(module, dim), eps)
    u, v = _start(_matrix(weight.detach(), computed.dim).data, eps, 15)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    computed.install(module)
    module.register_forward_pre_hook(computed)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Undo `spectral_norm`: the weight as it is becomes a parameter again."""
    return _without(module, name, _SpectralNormed, "remove_spectral_norm")


class _SpectralNorm(Module):
    """``w / sigma(w)``; buffers ``_u`` and ``_v``."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Any, times: int, dim: int, eps: float) -> None:
        self.times, self.dim, self.eps = times, dim, eps
        if weight.ndim > 1:
            u, v = _start(_matrix(weight.detach(), dim).data, eps, 15)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def forward(self, weight: Any) -> Any:
        if weight.ndim == 1:
            return weight / weight.norm().clamp(min=self.eps)
        matrix = _matrix(weight, self.dim)
        if self.training:  # torch's order here: u first
            _iterated(matrix.data.mT, self._v.data, self._u.data, self.times, self.eps)
        return _divided(weight, matrix, self._u, self._v)

    def right_inverse(self, value: Any) -> Any:
        return value


def parametrized_spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """`spectral_norm` as a parametrization: w is ``parametrizations.weight.original``."""
    weight = _parameter(module, name, "spectral_norm")
    made = _SpectralNorm(weight, n_power_iterations, _dimension(module, dim), eps)
    register_parametrization(module, name, made)
    return module
