"""Parameters that are functions of others: ``module.weight`` is computed anew at every access.

The parameters it is computed of lie in ``module.parametrizations.weight``; the keys of the state dict are torch's.
Source: ``torch.nn.utils.parametrize``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...core import ArgumentError, ShapeError, Tensor, no_grad
from ..containers import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations"]


class ParametrizationList(ModuleList):
    """The functions that make a parameter, applied one after the other, and what they are applied to: ``original``, or
    ``original0``, ``original1``, ... where the first function takes several (its ``right_inverse`` gives them)."""

    def __init__(self, modules: list[Module], original: Any, unsafe: bool = False) -> None:
        super().__init__(modules)
        for module in reversed(modules):
            if hasattr(module, "right_inverse"):
                with no_grad():
                    original = module.right_inverse(original)
        self.is_tensor = isinstance(original, Tensor)
        originals = [original] if self.is_tensor else list(original)
        self.ntensors = len(originals)
        for name, value in zip(self._names(), originals, strict=True):
            self.register_parameter(name, value if isinstance(value, Parameter) else Parameter(value.detach()))

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def right_inverse(self, value: Any) -> None:
        """Let the parameter become ``value``."""
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise ArgumentError(
                        f"parametrize: {type(module).__name__} has no right_inverse, so that its result cannot be set"
                    )
                value = module.right_inverse(value)
            for name, new in zip(self._names(), [value] if self.is_tensor else list(value), strict=True):
                getattr(self, name).copy_(new)

    def forward(self) -> Any:
        """The parameter."""
        first, *others = self
        value = first(*[getattr(self, name) for name in self._names()])
        for module in others:
            value = module(value)
        return value


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let a parameter be ``parametrization(parameter)`` from now on; several are applied in the order registered.

    Parameters
    ----------
    parametrization : a module; with a method ``right_inverse(value)``, what is trained starts as that of the value,
        and the parameter can be assigned
    unsafe : do not check that shape and dtype stay

    Raises
    ------
    ArgumentError
        where the module has no parameter of that name. ShapeError for a result of another shape or dtype.
    """
    known = getattr(module, "parametrizations", None)
    if known is not None and tensor_name in known:
        before = known[tensor_name]
        _check(module, tensor_name, parametrization(before()), before(), unsafe)
        before.append(parametrization)
        return module
    value = vars(module).get(tensor_name)
    if not isinstance(value, Tensor):
        raise ArgumentError(f"parametrize: {type(module).__name__} has no parameter {tensor_name!r}")
    made = ParametrizationList([parametrization], value)
    with no_grad():
        _check(module, tensor_name, made(), value, unsafe)
    delattr(module, tensor_name)
    if known is None:
        module.__class__ = _with_properties(type(module))
        module.add_module("parametrizations", ModuleDict())
    _add_property(type(module), tensor_name)
    module.parametrizations[tensor_name] = made  # type: ignore[attr-defined]
    return module


def _check(module: Module, name: str, new: Any, old: Any, unsafe: bool) -> None:
    if not unsafe and (new.shape != old.shape or new.dtype != old.dtype):
        raise ShapeError(
            f"parametrize: {type(module).__name__}.{name} would become {new.dtype} {list(new.shape)}; expected "
            f"{old.dtype} {list(old.shape)}, unless unsafe=True"
        )


def _with_properties(kind: type[Module]) -> type[Module]:
    """A class of its own for one module, on which properties can be put."""
    return type(f"Parametrized{kind.__name__}", (kind,), {"__module__": kind.__module__})


def _add_property(kind: type, name: str) -> None:
    def get(self: Any) -> Any:
        return self.parametrizations[name]()

    def put(self: Any, value: Any) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(kind, name, property(get, put))


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has such a parameter, or one of that name."""
    known = getattr(module, "parametrizations", None)
    return known is not None and (len(known) > 0 if tensor_name is None else tensor_name in known)


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make the parameter a plain one again: with its present value, or (not ``leave_parametrized``) its original."""
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"parametrize: {type(module).__name__} has no parametrized {tensor_name!r}")
    made = module.parametrizations[tensor_name]  # type: ignore[attr-defined]
    if not leave_parametrized and not made.is_tensor:
        raise ArgumentError("parametrize: leave_parametrized=False needs a parameter made of one tensor")
    with no_grad():
        value = made().detach().clone() if leave_parametrized else made.original.detach()
    del module.parametrizations[tensor_name]  # type: ignore[attr-defined]
    delattr(type(module), tensor_name)
    module.register_parameter(tensor_name, Parameter(value))
    if not len(module.parametrizations):  # type: ignore[attr-defined]
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """A context manager that changes nothing: parameters are computed at every access."""
    yield
