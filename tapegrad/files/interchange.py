"""To torch and back, to files and back.

`from_torch` and `to_torch` walk a tree of layers that both libraries have under one name, with one set of constructor
arguments kept as attributes of the same names. `save` and `load` write nested dicts of tensors as safetensors files.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

from .. import nn
from ..core import FLOATS, ArgumentError, DTypeError, StateError, Tensor
from ..nn.init import skipped
from ..nn.module import Foreign
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


def _layer(module: Any) -> dict[str, Any]:
    """The arguments of a Transformer's layer, which keeps few of them."""
    attention = module.self_attn
    return {
        "d_model": attention.embed_dim,
        "nhead": attention.num_heads,
        "dim_feedforward": module.linear1.out_features,
        "activation": module.activation,
        "batch_first": attention.batch_first,
        "norm_first": module.norm_first,
    }


def _stack(module: Any) -> dict[str, Any]:
    kept = ("enable_nested_tensor", "mask_check")
    kind = (
        "encoder_layer" if isinstance(module, nn.TransformerEncoder | torch.nn.TransformerEncoder) else "decoder_layer"
    )
    layer = module.layers[0] if len(module.layers) else None
    return {kind: layer, "num_layers": 0} | {name: getattr(module, name) for name in kept if hasattr(module, name)}


def _transformer(module: Any) -> dict[str, Any]:
    sizes = {"d_model": module.d_model, "nhead": module.nhead, "batch_first": module.batch_first}
    return sizes | {"num_encoder_layers": 0, "num_decoder_layers": 0, "dim_feedforward": 1}


# Modules made of modules, each of which is converted by itself and put in its place: what they are made with.
_COMPOSED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "TransformerEncoderLayer": _layer,
    "TransformerDecoderLayer": _layer,
    "TransformerEncoder": _stack,
    "TransformerDecoder": _stack,
    "Transformer": _transformer,
}


def _arguments(ours: type[nn.Module], module: Any, converted: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The arguments with which `module` was made, for the constructor of `ours` and its namesake in torch.

    ``converted(value, name)`` takes them to the other library: tensors, modules (a loss's distance), functions.
    """
    if ours.__name__ in _COMPOSED:
        return {name: converted(value, name) for name, value in _COMPOSED[ours.__name__](module).items()}
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(ours).parameters.items():
        starred = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        passing = name.startswith("_") and not hasattr(module, name)  # what the constructor takes and nobody keeps
        if starred or passing or name in ("device", "dtype", "size_average", "reduce"):
            continue
        value = _ARGUMENTS[name](module) if name in _ARGUMENTS else getattr(module, name)
        arguments[name] = converted(value, name)
    return arguments


def _function(value: Any, source: Any, target: Any) -> Any:
    """`value`, or the function of the same name in `target` if it is one of `source`."""
    name = getattr(value, "__name__", "")
    known = callable(value) and getattr(source, name, None) is value
    return getattr(target, name, value) if known else value


def _children(module: Any) -> list[tuple[str, Any]]:
    """(name, module) of every direct submodule of a module of either library, shared ones under each name."""
    children = vars(module)["_modules"] if isinstance(module, torch.nn.Module) else vars(module)
    return [(name, child) for name, child in children.items() if isinstance(child, nn.Module | torch.nn.Module)]


def _parts(module: Any, converted: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The attributes that a module made of modules gets once it is made."""
    if type(module).__name__ not in _COMPOSED:
        return {}
    parts = {name: converted(child, name) for name, child in _children(module)}
    return parts | ({"num_layers": len(module.layers)} if "layers" in parts else {})


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
    _has_values(module, path, "from_torch")
    if ours is None:
        raise ArgumentError(f"from_torch: {_at(path)} is a {type(module).__name__}, which tapegrad does not have")

    def converted(value: Any, name: str) -> Any:
        if isinstance(value, torch.nn.Module):
            return _from_torch(value, f"{path}.{name}" if path else name, modules, parameters)
        if isinstance(value, torch.Tensor):
            return _ours(value)
        return _function(value, torch.nn.functional, nn.functional)

    copy: nn.Module
    if issubclass(ours, CONTAINERS):
        copy = ours()
        for name, child in _children(module):
            copy.add_module(name, converted(child, name))
    else:
        for name, value in module.named_parameters():
            if value.dtype not in FLOATS:
                what = f"from_torch: {_at(path)}: {name}"
                raise DTypeError(f"{what} has dtype {value.dtype}; expected float32 or float64")
        parts = _parts(module, converted)
        copy = ours(**_arguments(ours, module, converted))
        for name, value in parts.items():
            setattr(copy, name, value)
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


def _has_values(module: Any, path: str, what: str) -> None:
    """Raise StateError for a lazy layer that no input has reached."""
    if getattr(module, "has_uninitialized_params", bool)():
        name = type(module).__name__
        raise StateError(f"{what}: {_at(path)} is a {name} without values; call it with an input first")


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
    _has_values(module, path, "to_torch")
    if isinstance(module, Foreign):
        return deepcopy(module.inner)

    def converted(value: Any, name: str) -> Any:
        if isinstance(value, nn.Module):
            return _to_torch(value, f"{path}.{name}" if path else name, modules, parameters)
        if isinstance(value, Tensor):
            return _theirs(value)
        return _function(value, nn.functional, torch.nn.functional)

    copy: torch.nn.Module
    if isinstance(module, CONTAINERS) and type(module) in _TORCH:
        copy = _TORCH[type(module)]()
        for name, child in _children(module):
            copy.add_module(name, converted(child, name))
    elif type(module) is nn.UpsampleConv2d:
        conv = torch.nn.Conv2d(**_arguments(nn.Conv2d, module, converted), device="meta")
        _same_names(module, conv, path, "to_torch")
        _fill(module, conv, parameters)
        scale = tuple(float(factor) for factor in module.scale_factor)
        copy = torch.nn.Sequential(torch.nn.Upsample(scale_factor=scale), conv)
    elif type(module) in _TORCH:
        theirs = _TORCH[type(module)]
        parts = _parts(module, converted)
        arguments = _arguments(type(module), module, converted)
        with torch.device("meta"), warnings.catch_warnings():  # made without storage, so nothing is drawn
            warnings.filterwarnings("ignore", "enable_nested_tensor")  # torch's advice on how it computes
            copy = theirs(**arguments)
        for name, part in parts.items():
            setattr(copy, name, part)
        _same_names(module, copy, path, "to_torch")
        _fill(module, copy, parameters)
    else:
        raise ArgumentError(f"to_torch: {_at(path)} is a {type(module).__name__}, which torch.nn does not have")
    made_of_modules = isinstance(module, CONTAINERS) or type(module).__name__ in _COMPOSED
    for part in [copy] if made_of_modules else copy.modules():
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
