"""torch's older `weight_norm` and `spectral_norm`: the weight is computed from parameters and buffers beside it.

torch does so in a hook before forward; here it is a property, as in `parametrize`, and only the power method is a hook.
Keys are ``weight_g`` and ``weight_v``, or ``weight_orig``, ``weight_u`` and ``weight_v``. New code takes
`nn.utils.parametrizations`. Source: ``torch.nn.utils.weight_norm``, ``torch.nn.utils.spectral_norm``.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, TypeVar

from ...core import ArgumentError, StateError, Tensor, no_grad
from ...ops import div, dot, mv, normalize, randn, transpose
from ..checks import extent
from ..module import Module
from ..parameter import Parameter
from .parametrizations import as_matrix, default_dim, norm_except_dim, normed_weight
from .parametrize import compute, stop_computing

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


class _Renorm:
    """How ``module.<name>`` comes of its parts ``module.<name>_<part>``; a forward pre-hook of the module."""

    function: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]

    def __init__(self, name: str) -> None:
        self.name = name

    def register(self, module: Module, *parts: Tensor) -> None:
        """Put the parts in the parameter's place."""
        delattr(module, self.name)
        for key, part in zip(self.parts, parts, strict=True):
            if isinstance(part, Parameter):
                module.register_parameter(f"{self.name}_{key}", part)
            else:
                module.register_buffer(f"{self.name}_{key}", part)
        compute(module, self.name, property(self.weight))
        module.register_forward_pre_hook(self)

    def of(self, module: Module) -> list[Any]:
        """The parts."""
        return [getattr(module, f"{self.name}_{part}") for part in self.parts]

    def weight(self, module: Module) -> Any:
        """The weight from its parts."""
        raise NotImplementedError

    def __call__(self, module: Module, args: Any) -> None:
        """Before every forward call."""

    @classmethod
    def on(cls, module: Module, name: str) -> int | None:
        """The key of this kind of hook among the module's."""
        hooks = {} if module._hooks is None else module._hooks.before
        return next((key for key, hook in hooks.items() if type(hook) is cls and hook.name == name), None)

    @classmethod
    def taken(cls, module: Module, name: str) -> Parameter:
        """The parameter of that name, which has no such hook yet."""
        if cls.on(module, name) is not None:
            raise StateError(f"{cls.function}: {name} of {type(module).__name__} has one already")
        weight = getattr(module, name, None)
        if not isinstance(weight, Parameter):
            raise ArgumentError(f"{cls.function}: name must be that of a parameter of the module; got {name!r}")
        return weight

    @classmethod
    def remove(cls, module: Module, name: str) -> None:
        """Make a parameter of what the parts give now."""
        key = cls.on(module, name)
        if key is None or module._hooks is None:
            raise ArgumentError(f"remove_{cls.function}: {name} of {type(module).__name__} has no {cls.function}")
        hook = module._hooks.before[key]
        weight = hook.weight(module).detach()
        del module._hooks.before[key]
        stop_computing(module, name)
        for part in cls.parts:
            delattr(module, f"{name}_{part}")
        module.register_parameter(name, Parameter(weight))


class _WeightNorm(_Renorm):
    function, parts = "weight_norm", ("g", "v")

    def __init__(self, name: str, dim: int) -> None:
        super().__init__(name)
        self.dim = dim

    def weight(self, module: Module) -> Any:
        g, v = self.of(module)
        return normed_weight(v, g, self.dim)


class _SpectralNorm(_Renorm):
    function, parts = "spectral_norm", ("orig", "u", "v")

    def __init__(self, name: str, dim: int, count: int, eps: float) -> None:
        super().__init__(name)
        self.dim, self.count, self.eps = dim, count, eps

    def weight(self, module: Module) -> Any:
        weight, u, v = self.of(module)
        matrix = as_matrix(weight, self.dim)
        return div(weight, dot(u.clone(), mv(matrix, v.clone())))  # the next forward call writes the buffers

    def __call__(self, module: Module, args: Any) -> None:
        if not module.training:
            return
        weight, u, v = self.of(module)
        with no_grad():
            matrix = as_matrix(weight, self.dim)
            for _ in range(self.count):
                v.copy_(normalize(mv(transpose(matrix, 0, 1), u), dim=0, eps=self.eps))
                u.copy_(normalize(mv(matrix, v), dim=0, eps=self.eps))


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """``weight = g v / |v|`` with parameters ``weight_g`` and ``weight_v``; as in torch it warns, being the older one.

    Parameters
    ----------
    module : whose parameter `name` it is; returned
    dim : the norm is taken over all other dimensions; over all of them for None
    """
    warnings.warn(
        "`nn.utils.weight_norm` is deprecated; use `nn.utils.parametrizations.weight_norm`", FutureWarning, stacklevel=2
    )
    weight = _WeightNorm.taken(module, name)
    hook = _WeightNorm(name, -1 if dim is None else dim)
    with no_grad():
        g = Parameter(norm_except_dim(weight, hook.dim).detach())
    hook.register(module, g, Parameter(weight.detach()))
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Undo `weight_norm`: the parameter is again one, with the value it has now."""
    _WeightNorm.remove(module, name)
    return module


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """``weight = weight_orig / sigma``, sigma the largest singular value; buffers ``weight_u``, ``weight_v``.

    Parameters
    ----------
    module : whose parameter `name` it is; returned
    n_power_iterations : steps of the power method before every forward call in training
    dim : the matrix's rows; 0, or 1 for transposed convolutions, unless given

    Source: Miyato et al., Spectral normalization for generative adversarial networks (ICLR 2018).
    """
    count = extent(n_power_iterations, "spectral_norm", "n_power_iterations", 1)
    weight = _SpectralNorm.taken(module, name)
    hook = _SpectralNorm(name, default_dim(module) if dim is None else dim, count, eps)
    sizes = as_matrix(weight.detach(), hook.dim).shape
    u, v = (normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps) for size in sizes)
    hook.register(module, weight, u, v)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Undo `spectral_norm`: the parameter is again one, with the value it has now."""
    _SpectralNorm.remove(module, name)
    return module
