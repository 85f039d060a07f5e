"""Module: parameters, buffers and submodules are plain attributes; everything else is derived from them.

``self.weight`` is an ordinary ``__dict__`` lookup, and calling a module is one Python frame above ``forward``. What
torch keeps in registries (``_parameters``, ``_buffers``, ``_modules``) is found by scanning ``__dict__``, in the order
of assignment; only which tensors are buffers has to be written down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import torch

from ..core import (
    FLOATS,
    ArgumentError,
    DTypeError,
    Leaf,
    RemovableHandle,
    ShapeError,
    StateError,
    Tape,
    Tensor,
    calls_of_modules,
    describe,
    mode,
    raw,
)
from .crossings import Crossing, Hooks
from .parameter import Parameter
from .registries import Registry

Self = TypeVar("Self", bound="Module")


class IncompatibleKeys(NamedTuple):
    """What `Module.load_state_dict` returns: keys that did not meet a partner (both empty when ``strict``)."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _WithKwargs(NamedTuple):
    """A hook that sees the keyword arguments too."""

    hook: Callable[..., Any]


class _Hooks:
    """The forward hooks of one module."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.after: dict[int, Any] = {}
        self.backward: Hooks = {}
        self.backward_before: Hooks = {}

    def call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook in list(self.before.values()):
            if isinstance(hook, _WithKwargs):
                changed = hook.hook(module, args, kwargs)
                if changed is not None:
                    args, kwargs = changed
                continue
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        crossing = None
        if (self.backward or self.backward_before) and mode.record:
            crossing = Crossing(module, self.backward, self.backward_before)
            args = crossing.enter(args)
        output = module.forward(*args, **kwargs)
        for hook in list(self.after.values()):
            if isinstance(hook, _WithKwargs):
                changed = hook.hook(module, args, kwargs, output)
            else:
                changed = hook(module, args, output)
            if changed is not None:
                output = changed
        return output if crossing is None else crossing.leave(output)


class Module:
    """Base class of networks and layers: assign parameters and submodules in ``__init__``, compute in ``forward``.

    >>> import tapegrad as tg
    >>> class Net(tg.nn.Module):
    ...     def __init__(self):
    ...         self.hidden = tg.nn.Linear(2, 25)
    ...         self.out = tg.nn.Linear(25, 2)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> sum(p.numel() for p in Net().parameters())
    127

    Calling ``super().__init__()`` is allowed and not needed. Source: ``torch.nn.Module``.
    """

    training: bool = True
    _hooks: _Hooks | None = None
    _buffer_names: Mapping[str, bool] = MappingProxyType({})  # name -> whether it belongs to the state dict

    # --- calling ----------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is not None:
            return self._hooks.call(self, args, kwargs)
        return self.forward(*args, **kwargs)

    def show(self, *inputs: Any, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> str:
        """The tape of one call in evaluation mode, with the gradients of the sum of its outputs, as one HTML page.

        Parameters
        ----------
        inputs, kwargs : what the module takes
        path : the file; None is a temporary one

        Returns the path of the file; see `Tape.show`. Parameters, ``.grad``, buffers and modes stay as they are.
        """
        from ..derivatives import grad
        from ..show import page_of_tape, publish

        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            with Tape() as tape:
                output = self(*inputs, **kwargs)
        finally:
            for module, training in modes:
                module.training = training
        found = output if isinstance(output, tuple | list) else [output]
        recorded = [y for y in found if isinstance(y, Tensor) and y.requires_grad]
        wanted = [p for p in self.parameters() if p.requires_grad]
        if recorded and wanted:
            grad([y.sum() for y in recorded], wanted, allow_unused=True)
        return publish(page_of_tape(tape, type(self).__name__), path)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns (if not None) replaces the arguments.

        With ``with_kwargs``, ``hook(module, args, kwargs)``, which returns both or None; with ``prepend``, before the
        hooks that are there.
        """
        return _hooked(self._own_hooks().before, hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns (if not None) replaces the output.

        With ``with_kwargs``, ``hook(module, args, kwargs, output)``; with ``prepend``, before the hooks that are there.
        ``always_call`` changes nothing: a hook is not called where ``forward`` fails.
        """
        return _hooked(self._own_hooks().after, hook, prepend, with_kwargs)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when backward has the gradients of the positional arguments.

        Both are tuples, None for what needs no gradient (in ``grad_input`` zeros if another argument needs one). What
        the hook returns (if not None) replaces ``grad_input``.
        """
        return RemovableHandle(self._own_hooks().backward, hook)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """`register_full_backward_hook` under torch's older name."""
        return self.register_full_backward_hook(hook)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before backward enters; what it returns (if not None) replaces it."""
        return RemovableHandle(self._own_hooks().backward_before, hook)

    def _own_hooks(self) -> _Hooks:
        if self._hooks is None:
            self._hooks = _Hooks()
        return self._hooks

    # --- registration -----------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name)
        if before is not None and value is not None:
            if isinstance(before, Parameter) and not isinstance(value, Parameter):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a parameter; expected a Parameter or None, "
                    f"got {type(value).__name__}"
                )
            if isinstance(before, Module) and not isinstance(value, Module):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a module; expected a Module or None, got {type(value).__name__}"
                )
        if name in self._buffer_names and value is not None:
            value = self._as_buffer(name, value)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Called for what was not found; some scripts, and subclasses' own ``__getattr__``, call it by name."""
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name in self._buffer_names:
            self._buffer_names = {key: keep for key, keep in self._buffer_names.items() if key != name}

    def _as_buffer(self, name: str, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, torch.Tensor):
            return Tensor(value)
        raise TypeError(
            f"{type(self).__name__}.{name} is a buffer; expected a Tensor or None, got {type(value).__name__}"
        )

    def _new_name(self, name: Any, kind: str, known: type) -> str:
        """`name`, if it can become the attribute of a new `kind`."""
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: a {kind}'s name must be a str; got {name!r}")
        if "." in name or name == "":
            raise ArgumentError(f"{type(self).__name__}: a {kind}'s name must be non-empty, without '.'; got {name!r}")
        if hasattr(self, name) and not isinstance(getattr(self, name), known | type(None)):
            raise ArgumentError(f"{type(self).__name__}: the name {name!r} of a {kind} is taken by another attribute")
        return name

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Assign a parameter to the attribute `name`; None keeps the place free."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: {name} must be a Parameter or None; got {type(param).__name__}")
        setattr(self, self._new_name(name, "parameter", Parameter), param)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Assign a tensor that is state but not trained to the attribute `name`.

        Parameters
        ----------
        tensor : a ``Tensor``, a ``torch.Tensor`` (shared), or None
        persistent : whether it belongs to the state dict
        """
        self._new_name(name, "buffer", Tensor)
        value = None if tensor is None else self._as_buffer(name, tensor)
        self._buffer_names = {**self._buffer_names, name: persistent}
        setattr(self, name, value)

    def add_module(self, name: str, module: Module | None) -> None:
        """Assign a submodule to the attribute `name`; one of torch's that has no parameters becomes a `Foreign`."""
        if isinstance(module, torch.nn.Module):
            module = Foreign(module)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module: {name} must be a Module or None; got {type(module).__name__}")
        setattr(self, self._new_name(name, "module", Module), module)

    register_module = add_module

    # --- what is registered -----------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of every direct submodule, each module once."""
        seen = set()
        for name, value in list(self.__dict__.items()):
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and everything below, parents first, each module once unless said otherwise."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate:
                if id(module) in seen:
                    continue
                seen.add(id(module))
            yield path, module
            below = [(name, value) for name, value in module.__dict__.items() if isinstance(value, Module)]
            stack.extend((f"{path}.{name}" if path else name, child) for name, child in reversed(below))

    def modules(self) -> Iterator[Module]:
        """This module and everything below, each once."""
        for _, module in self.named_modules():
            yield module

    def _tensors(
        self, buffers: bool, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Module, str, Tensor]]:
        """(path, owner, attribute, tensor) of parameters or buffers, owners in the order of `named_modules`."""
        seen: set[int] = set()
        owners = self.named_modules(prefix, remove_duplicate) if recurse else iter([(prefix, self)])
        for path, owner in owners:
            names = owner._buffer_names
            for name, value in list(owner.__dict__.items()):
                if name in names if buffers else isinstance(value, Parameter):
                    if value is None or (remove_duplicate and id(value) in seen):
                        continue
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, owner, name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each parameter once unless said otherwise."""
        for path, _, _, value in self._tensors(False, prefix, recurse, remove_duplicate):
            assert isinstance(value, Parameter)
            yield path, value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters of this module and (with `recurse`) everything below, each once."""
        for _, value in self.named_parameters(recurse=recurse):
            yield value

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), each buffer once unless said otherwise."""
        for path, _, _, value in self._tensors(True, prefix, recurse, remove_duplicate):
            yield path, value

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers of this module and (with `recurse`) everything below, each once."""
        for _, value in self.named_buffers(recurse=recurse):
            yield value

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; the module itself for ``""``. AttributeError names what is missing."""
        module: Any = self
        for name in target.split(".") if target else []:
            child = getattr(module, name, None)
            if not isinstance(child, Module):
                raise AttributeError(f"{type(module).__name__} has no submodule {name!r} (of {target!r})")
            module = child
        assert isinstance(module, Module)
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        return self._found(target, Parameter)  # type: ignore[no-any-return]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        return self._found(target, Tensor)  # type: ignore[no-any-return]

    def _found(self, target: str, kind: Any) -> Any:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        value = owner.__dict__.get(name)
        if not isinstance(value, kind) or (kind is Tensor) != (name in owner._buffer_names):
            what = "parameter" if kind is Parameter else "buffer"
            raise AttributeError(f"{type(owner).__name__} has no {what} {name!r} (of {target!r})")
        return value

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module in the place at a dotted path; with ``strict``, where one is."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if strict and not isinstance(getattr(owner, name, None), Module):
            raise AttributeError(f"{type(owner).__name__} has no submodule {name!r} (of {target!r})")
        setattr(owner, name, module)

    # --- state ------------------------------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """(key, tensor) in torch's order: a module's parameters, its persistent buffers, then its submodules."""
        for path, module in self.named_modules(remove_duplicate=False):
            dot = f"{path}." if path else ""
            for name, value in list(module.__dict__.items()):
                if isinstance(value, Parameter):
                    yield dot + name, value
            for name, persistent in module._buffer_names.items():
                value = module.__dict__[name]
                if persistent and value is not None:
                    yield dot + name, value

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Parameters and persistent buffers by path, keys and order as torch's.

        Parameters
        ----------
        prefix : put before every key, as it stands
        keep_vars : the parameters themselves; by default constants that share their storage
        """
        values = {prefix + key: value for key, value in self._state()}
        return values if keep_vars else {key: value.detach() for key, value in values.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into parameters and buffers, in place, cast to their dtype.

        Everything is checked before anything is copied, so a load that fails changes nothing.

        Parameters
        ----------
        state_dict : tensors or arrays by path, from `state_dict`, torch, or `tapegrad.load`
        strict : missing and unexpected keys are errors (default); else they are returned

        Raises
        ------
        StateError
            for keys that do not match (if strict). ShapeError for a shape that differs, naming the key.
        """
        name = type(self).__name__
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: state_dict must be a dict; got {type(state_dict).__name__}")
        own = dict(self._state())
        values = {
            key: raw(value.detach() if isinstance(value, torch.Tensor) else value, "load_state_dict", key)
            for key, value in state_dict.items()
            if key in own
        }
        missing = [key for key in own if key not in values]
        unexpected = [key for key in state_dict if key not in own]
        problems = []
        if strict and missing:
            problems.append("missing keys: " + ", ".join(missing))
        if strict and unexpected:
            problems.append("unexpected keys: " + ", ".join(map(str, unexpected)))
        shapes = []
        for key, value in values.items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"load_state_dict: {key} must be a tensor; got {value!r}")
            if value.shape != own[key].shape:
                shapes.append(f"{key} has shape {list(value.shape)}; expected {list(own[key].shape)}")
        if problems or shapes:
            kind = StateError if problems else ShapeError
            raise kind(f"load_state_dict: the state does not fit {name}: " + "; ".join(problems + shapes))
        for key, value in values.items():
            own[key].data.copy_(value)
        return IncompatibleKeys(missing, unexpected)

    # --- modes and conversions --------------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode on this module and everything below; returns the module."""
        if not isinstance(mode, bool):
            raise ArgumentError(f"train: mode must be a bool; got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode: ``train(False)``."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every parameter's gradient, or fill it with zeros."""
        zero_grad(self.parameters(), set_to_none)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Switch gradients of all parameters on or off; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn(module)`` on everything below and then on this module; returns the module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(
        self: Self,
        *args: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
        non_blocking: bool = False,
        memory_format: Any = None,
    ) -> Self:
        """Convert floating-point parameters and buffers to a dtype, in place; returns the module.

        ``to(dtype)``, ``to(tensor)`` (its dtype), ``to("cpu")`` (does nothing, as ``non_blocking`` and
        ``memory_format``). The parameters stay the same objects,
        so optimizers keep them; their gradients are converted too. Raises DTypeError for other dtypes and devices.
        """
        for arg in args:
            if isinstance(arg, torch.dtype):
                dtype = arg
            elif isinstance(arg, Tensor | torch.Tensor):
                dtype = arg.dtype
            elif arg is not None and not isinstance(arg, bool):
                device = arg
        if device is not None and torch.device(device).type != "cpu":
            raise DTypeError(f"to: device must be 'cpu'; got {str(device)!r}")
        if dtype is not None and dtype not in FLOATS:
            raise DTypeError(f"to: dtype must be float32 or float64; got {dtype}")
        if dtype is not None:
            for tensor in (*self.parameters(), *self.buffers()):
                convert(tensor, dtype)
        return self

    def float(self: Self) -> Self:
        """``to(torch.float32)``."""
        return self.to(torch.float32)

    def double(self: Self) -> Self:
        """``to(torch.float64)``."""
        return self.to(torch.float64)

    def type(self: Self, dst_type: Any) -> Self:
        """``to(dst_type)``: a dtype, or one of the constructors (`tapegrad.DoubleTensor`) or its name."""
        return self.to(_dtype(dst_type))

    def cpu(self: Self) -> Self:
        """The module itself, which is on the CPU."""
        return self

    def cuda(self: Self, device: Any = None) -> Self:
        """Raises DTypeError: there is no CUDA device."""
        raise DTypeError("cuda: there is no CUDA device; leave the call out, or ask tg.cuda.is_available()")

    def half(self: Self) -> Self:
        """Raises DTypeError: there is no float16."""
        return self.to(torch.float16)

    def bfloat16(self: Self) -> Self:
        """Raises DTypeError: there is no bfloat16."""
        return self.to(torch.bfloat16)

    def to_empty(self: Self, *, device: Any = None, recurse: bool = True) -> Self:
        """The module itself, for the CPU: its parameters have memory."""
        return self.to(device=device)

    def share_memory(self: Self) -> Self:
        """Move parameters and buffers to memory that other processes share; returns the module."""
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.share_memory_()
        return self

    # --- torch's registries -----------------------------------------------------------------------------------

    @property
    def _modules(self) -> Registry[Module]:
        return Registry(self, lambda name, value: isinstance(value, Module), self.add_module)

    @property
    def _parameters(self) -> Registry[Parameter]:
        return Registry(self, lambda name, value: isinstance(value, Parameter), self.register_parameter)

    @property
    def _buffers(self) -> Registry[Tensor]:
        return Registry(self, lambda name, value: name in self._buffer_names, self.register_buffer)

    def _get_name(self) -> str:
        return type(self).__name__

    # --- printing ---------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses, in front of the submodules."""
        return ""

    def _repr_html_(self) -> str:
        """The layers with their parameters, for a notebook."""
        from ..show import cell_of_module

        return cell_of_module(self)

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {_indent(repr(child))}" for name, child in self.__dict__.items() if _is_module(child)]
        if not children and "\n" not in extra:
            return f"{type(self).__name__}({extra})"
        lines = [*(extra.split("\n") if extra else []), *children]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


class Foreign(Module):
    """A module of a library for torch that has no parameters and no buffers, such as einops' ``Rearrange``.

    What it calls of torch's with our tensors is ours.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        if any(True for _ in (*module.parameters(), *module.buffers())):
            raise TypeError(
                f"a {type(module).__name__} of torch has parameters or buffers, which would not be trained; "
                "use tapegrad.from_torch, or a layer of tapegrad.nn"
            )
        self.inner = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        self.inner.training = self.training
        return self.inner(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.inner)


def _hooked(hooks: dict[int, Any], hook: Callable[..., Any], prepend: bool, with_kwargs: bool) -> RemovableHandle:
    before = dict(hooks) if prepend else {}
    handle = RemovableHandle(hooks, _WithKwargs(hook) if with_kwargs else hook)
    for key, other in before.items():  # a dict keeps its order: those that were there go behind
        del hooks[key]
        hooks[key] = other
    return handle


def _is_module(value: Any) -> bool:
    return isinstance(value, Module)


def _indent(text: str) -> str:
    """`text` with its lines after the first moved in by two."""
    return text.replace("\n", "\n  ")


def zero_grad(parameters: Iterable[Tensor], set_to_none: bool) -> None:
    """Drop the gradients of some tensors, or fill them with zeros in place."""
    for parameter in parameters:
        grad = None if set_to_none else parameter.grad
        if grad is None:
            parameter.grad = None
        elif grad._node is None:
            grad._data.zero_()
        else:  # recorded with create_graph=True: what was made of it keeps its values
            parameter.grad = Tensor(torch.zeros_like(grad._data))


def _dtype(kind: Any) -> torch.dtype:
    """The dtype of a constructor such as `tapegrad.DoubleTensor`, of its name, or itself."""
    name = kind.rpartition(".")[2] if isinstance(kind, str) else None
    found = {"FloatTensor": torch.float32, "DoubleTensor": torch.float64}.get(name) if name else None
    return found or getattr(kind, "dtype", kind)


def convert(tensor: Tensor, dtype: torch.dtype) -> None:
    """Give a floating-point tensor (and its gradient) another dtype, in place: the object stays."""
    if tensor.dtype is dtype or not tensor.is_floating_point():
        return
    grad, tensor.grad = tensor.grad, None
    tensor.data = tensor.data.to(dtype)
    if isinstance(tensor._node, Leaf):
        tensor._node.dtype = dtype
    elif tensor._node is not None:
        raise TypeError(f"to: only leaves can change their dtype in place; got the computed {describe(tensor.data)}")
    if grad is not None:
        tensor.grad = grad.data.to(dtype)


calls_of_modules.add(Module.__call__.__code__)
