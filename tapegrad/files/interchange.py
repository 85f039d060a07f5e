"""To torch and back, to files and back.

`from_torch` and `to_torch` walk a tree of layers that both libraries have under one name, with one set of constructor
arguments kept as attributes of the same names. `save` and `load` write nested dicts of tensors as safetensors files.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from .. import nn
from ..core import FLOATS, ArgumentError, DTypeError, Tensor
from ..nn.init import skipped
from .safetensors import load, save

__all__ = ["from_torch", "load", "save", "to_torch"]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LAYERS: dict[type[torch.nn.Module], type[nn.Module]] = {
    getattr(torch.nn, name): getattr(nn, name)
    for name in nn.__all__
    if isinstance(getattr(nn, name), type)
    and issubclass(getattr(nn, name), nn.Module)
    and name not in ("Module", "ParameterList", "UpsampleConv2d")
}
_TORCH = {ours: theirs for theirs, ours in LAYERS.items()}


def _bias(module: Any) -> bool:
    value = getattr(module, "in_proj_bias" if hasattr(module, "in_proj_bias") else "bias")
    return value if isinstance(value, bool) else value is not None  # recurrent layers keep the argument


# Arguments that are not kept as attributes of the same name: how to tell them from the module, of either library.
_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "bias": _bias,
    "add_bias_kv": lambda m: m.bias_k is not None,
    "p": lambda m: m.norm if isinstance(m, torch.nn.PairwiseDistance) else m.p,
}


def _arguments(ours: type[nn.Module], module: Any, converted: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The arguments with which `module` was made, for the constructor of `ours` and its namesake in torch.

    ``converted(value, name)`` takes tensors and modules among them (a loss's distance) to the other library.
    """
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(ours).parameters.items():
        if name in ("device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _ARGUMENTS[name](module) if name in _ARGUMENTS else getattr(module, name)
        ours_or_theirs = isinstance(value, Tensor | torch.Tensor | nn.Module | torch.nn.Module)
        arguments[name] = converted(value, name) if ours_or_theirs else value
    return arguments


def _ours(value: torch.Tensor) -> Tensor:
    return Tensor(value.detach().clone())


def _theirs(value: Tensor) -> torch.Tensor:
    return value.data.clone()


# --- from torch --------------------------------------------------------------------------------------------------


def from_torch(module: torch.nn.Module) -> nn.Module:
    """A tapegrad copy of a torch module: the same layers, values, buffers, modes and ``requires_grad``.

    Parameters
    ----------
    module : a layer that tapegrad has, or ``Sequential``, ``ModuleList``, ``ModuleDict`` of such, nested

    Parameters and modules that are shared in `module` are shared in the copy. Draws no random numbers.

    Raises
    ------
    ArgumentError
        for a layer that tapegrad does not have, by its path. DTypeError for parameters other than float32 and float64.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_torch: module must be a torch.nn.Module; got {type(module).__name__}")
    with skipped():
        return _from_torch(module, "", {}, {})


def _from_torch(
    module: torch.nn.Module, path: str, modules: dict[int, nn.Module], parameters: dict[int, nn.Parameter]
) -> nn.Module:
    if id(module) in modules:
        return modules[id(module)]
    ours = LAYERS.get(type(module))
    if ours is None:
        raise ArgumentError(f"from_torch: {_at(path)} is a {type(module).__name__}, which tapegrad does not have")

    def converted(value: Any, name: str) -> Any:
        if isinstance(value, torch.nn.Module):
            return _from_torch(value, f"{path}.{name}" if path else name, modules, parameters)
        return _ours(value)

    copy: nn.Module
    if issubclass(ours, CONTAINERS):
        copy = ours()
        for name, child in module._modules.items():
            if child is not None:
                copy.add_module(name, converted(child, name))
    else:
        for name, value in module.named_parameters():
            if value.dtype not in FLOATS:
                what = f"from_torch: {_at(path)}: {name}"
                raise DTypeError(f"{what} has dtype {value.dtype}; expected float32 or float64")
        copy = ours(**_arguments(ours, module, converted))
        _same_names(module, copy, path, "from_torch")
        for name, value in module.named_parameters(remove_duplicate=False):
            if id(value) not in parameters:
                parameters[id(value)] = nn.Parameter(value.detach().clone(), value.requires_grad)
            owner, _, attribute = name.rpartition(".")
            setattr(copy.get_submodule(owner), attribute, parameters[id(value)])
        for name, buffer in module.named_buffers():
            setattr(copy, name, _ours(buffer))
    for name, part in copy.named_modules():
        part.training = module.get_submodule(name).training
    modules[id(module)] = copy
    return copy


def _at(path: str) -> str:
    return f"module {path!r}" if path else "the module"


def _same_names(module: Any, copy: Any, path: str, what: str) -> None:
    """Raise ArgumentError if a layer holds parameters or buffers that its kind does not (weight norm, pruning, ...)."""
    own, expected = (
        [name for name, _ in (*m.named_parameters(remove_duplicate=False), *m.named_buffers())] for m in (module, copy)
    )
    if set(own) != set(expected):
        raise ArgumentError(
            f"{what}: {_at(path)} is a {type(module).__name__} with {', '.join(own)}; "
            f"expected {', '.join(expected) or 'no parameters'}"
        )


# --- to torch ----------------------------------------------------------------------------------------------------


def to_torch(module: nn.Module) -> torch.nn.Module:
    """A torch copy of a tapegrad module: the inverse of `from_torch`; nothing is shared with the original.

    An `UpsampleConv2d` becomes ``Sequential(Upsample, Conv2d)``. Draws no random numbers.

    Raises
    ------
    ArgumentError
        for a module that torch does not have (a class of the user's own, say), by its path.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"to_torch: module must be a tapegrad.nn.Module; got {type(module).__name__}")
    return _to_torch(module, "", {}, {})


def _to_torch(
    module: nn.Module, path: str, modules: dict[int, torch.nn.Module], parameters: dict[int, torch.nn.Parameter]
) -> torch.nn.Module:
    if id(module) in modules:
        return modules[id(module)]

    def converted(value: Any, name: str) -> Any:
        if isinstance(value, nn.Module):
            return _to_torch(value, f"{path}.{name}" if path else name, modules, parameters)
        return _theirs(value)

    copy: torch.nn.Module
    if isinstance(module, CONTAINERS) and type(module) in _TORCH:
        copy = _TORCH[type(module)]()
        for name, child in module.__dict__.items():
            if isinstance(child, nn.Module):
                copy.add_module(name, converted(child, name))
    elif type(module) is nn.UpsampleConv2d:
        conv = torch.nn.Conv2d(**_arguments(nn.Conv2d, module, converted), device="meta")
        _same_names(module, conv, path, "to_torch")
        _fill(module, conv, parameters)
        scale = tuple(float(factor) for factor in module.scale_factor)
        copy = torch.nn.Sequential(torch.nn.Upsample(scale_factor=scale), conv)
    elif type(module) in _TORCH:
        theirs = _TORCH[type(module)]
        arguments = _arguments(type(module), module, converted)
        with torch.device("meta"):  # made without storage, so nothing is drawn
            copy = theirs(**arguments)
        _same_names(module, copy, path, "to_torch")
        _fill(module, copy, parameters)
    else:
        raise ArgumentError(f"to_torch: {_at(path)} is a {type(module).__name__}, which torch.nn does not have")
    for part in copy.modules() if not isinstance(module, CONTAINERS) else [copy]:
        part.training = module.training
    modules[id(module)] = copy
    return copy


def _fill(module: nn.Module, copy: torch.nn.Module, parameters: dict[int, torch.nn.Parameter]) -> None:
    """Put copies of a layer's parameters and buffers into a torch layer."""
    for path, value in module.named_parameters(remove_duplicate=False):
        if id(value) not in parameters:
            parameters[id(value)] = torch.nn.Parameter(_theirs(value), value.requires_grad)
        owner, _, attribute = path.rpartition(".")
        setattr(copy.get_submodule(owner), attribute, parameters[id(value)])
    for name, buffer in module.named_buffers():
        setattr(copy, name, _theirs(buffer))
