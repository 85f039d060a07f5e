"""A parameter or buffer as a function of others: ``module.weight`` is computed from what is trained, at every access.

The module gets a class of its own, ``Parametrized...``, with a property in the tensor's place; what it is computed from
lies in ``module.parametrizations``, under torch's keys. Source: ``torch.nn.utils.parametrize``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ...core import ArgumentError, DTypeError, OpError, ShapeError, Tensor, no_grad
from ..containers import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

_cache: dict[tuple[int, str], Any] = {}
_caching = 0  # how many `cached` blocks are open


@contextmanager
def cached() -> Iterator[None]:
    """Inside, every parametrized tensor is computed once."""
    global _caching
    _caching += 1
    try:
        yield
    finally:
        _caching -= 1
        if not _caching:
            _cache.clear()


def _lists(module: Module) -> Any:
    """The module's parametrizations by tensor, of a module that has some."""
    return module.__dict__["parametrizations"]


def _register(module: Module, name: str, value: Tensor) -> None:
    if isinstance(value, Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _take(value: Any, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} must return a Tensor; got {type(value).__name__}")
    return value


def _check_same(new: Tensor, old: Tensor, what: str) -> None:
    if new.dtype is not old.dtype:
        raise DTypeError(f"{what}: the dtype must stay {old.dtype}, unless unsafe=True; it becomes {new.dtype}")
    if new.shape != old.shape:
        raise ShapeError(
            f"{what}: the shape must stay {list(old.shape)}, unless unsafe=True; it becomes {list(new.shape)}"
        )


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied one after the other to ``original`` (or ``original0``, ...).

    Calling it computes the tensor.
    """

    def __init__(self, modules: Iterable[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        if not len(self):
            raise ArgumentError("ParametrizationList: modules must hold at least one")
        self.unsafe = unsafe
        before = original.detach()
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is not None:
                    try:
                        new = inverse(new)
                    except NotImplementedError:
                        continue  # as if it were the identity
        self.is_tensor = isinstance(new, Tensor)
        if not self.is_tensor and not isinstance(new, tuple | list):
            raise TypeError(f"right_inverse must return a Tensor or a sequence of them; got {type(new).__name__}")
        self.ntensors = 1 if self.is_tensor else len(new)
        if self.is_tensor:
            if new.dtype is not original.dtype:
                raise DTypeError(f"right_inverse must not change the dtype {original.dtype}; it returned {new.dtype}")
            original.data = new.data  # the same object, which an optimizer may hold
            _register(self, "original", original)
        else:
            for i, value in enumerate(new):
                value = _take(value, "each of right_inverse's results")
                kept = value.detach().clone() if value.data is original.data else value.detach()
                own = Parameter(kept, original.requires_grad) if isinstance(original, Parameter) else kept
                _register(self, f"original{i}", own)
        if not unsafe:
            _check_same(_take(self(), "a parametrization"), before, "register_parametrization")

    @property
    def originals(self) -> list[Tensor]:
        """What the first parametrization is called with."""
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]
        return [getattr(self, name) for name in names]

    def right_inverse(self, value: Any) -> None:
        """Set the originals so that the tensor becomes `value`, as far as the parametrizations can say how."""
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise OpError(f"parametrization {type(module).__name__} does not implement right_inverse")
                value = module.right_inverse(value)
        new = [value] if self.is_tensor else list(value)
        if len(new) != self.ntensors:
            raise ArgumentError(f"right_inverse must return {self.ntensors} tensors; got {len(new)}")
        for original, one in zip(self.originals, new, strict=True):
            if _take(one, "right_inverse").dtype is not original.dtype:
                raise DTypeError(f"right_inverse must return {original.dtype}; got {one.dtype}")
        for original, one in zip(self.originals, new, strict=True):
            original.data = one.data.clone()

    def forward(self) -> Any:
        first, *others = self
        value = first(*self.originals)
        for module in others:
            value = module(value)
        return value


# --- attributes that are computed --------------------------------------------------------------------------------


def compute(module: Module, name: str, made: property, prefix: str = "") -> None:
    """Put a property in an attribute's place: the module gets a class of its own, called ``prefix`` and its class."""
    kind = type(module)
    if "_computed" not in vars(kind):
        own = {"_computed": {}, "__deepcopy__": _copied, "__getstate__": _unsaved}
        module.__class__ = kind = type(f"{prefix}{kind.__name__}", (kind,), own)
    setattr(kind, name, made)
    kind._computed[name] = made  # type: ignore[attr-defined]


def stop_computing(module: Module, name: str) -> None:
    """Take the property away, and with the last one the class."""
    kind = type(module)
    delattr(kind, name)
    del kind._computed[name]  # type: ignore[attr-defined]
    if not kind._computed:  # type: ignore[attr-defined]
        module.__class__ = kind.__bases__[0]


def _copied(module: Module, memo: dict[int, Any]) -> Module:
    """A deep copy, whose class is its own, too."""
    kind = type(module)
    base: Any = kind.__bases__[0]
    made: Module = base.__new__(base)
    memo[id(module)] = made
    made.__dict__.update(copy.deepcopy(module.__dict__, memo))
    for name, value in kind._computed.items():  # type: ignore[attr-defined]
        compute(made, name, value, kind.__name__.removesuffix(base.__name__))
    return made


def _unsaved(module: Module) -> Any:
    raise TypeError(f"{type(module).__name__}: a module with computed parameters is saved by its state_dict()")


def _property(name: str) -> property:
    def get(self: Any) -> Any:
        source = _lists(self)[name]
        if not _caching:
            return source()
        key = id(self), name
        if key not in _cache:
            _cache[key] = source()
        return _cache[key]

    def put(self: Any, value: Any) -> None:
        _lists(self)[name].right_inverse(value)

    return property(get, put)


# --- by name -----------------------------------------------------------------------------------------------------


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Make ``module.<tensor_name>`` the result of ``parametrization(original)``.

    What is trained moves to ``module.parametrizations.<tensor_name>.original``, or to ``original0``, ``original1``, ...
    where ``parametrization.right_inverse(tensor)`` gives several. A second one applies to the first one's result.

    Parameters
    ----------
    module : has the parameter or buffer
    parametrization : a Module; its ``right_inverse``, if it has one, says what to start from
    unsafe : do not compare shape and dtype before and after

    Returns the module.
    """
    what = "register_parametrization"
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        known = _lists(module)[tensor_name]
        if not unsafe:
            now = getattr(module, tensor_name)
            _check_same(_take(parametrization(now), "a parametrization"), now, what)
            if hasattr(parametrization, "right_inverse"):
                _check_same(_take(parametrization.right_inverse(now), "right_inverse"), now, what)
        known.append(parametrization)
        known.unsafe = known.unsafe or unsafe
        return module
    original = module.__dict__.get(tensor_name)
    if not isinstance(original, Parameter) and tensor_name not in module._buffer_names:
        raise ArgumentError(f"{what}: tensor_name must name a parameter or buffer of the module; got {tensor_name!r}")
    if not isinstance(original, Tensor):
        raise ArgumentError(f"{what}: {tensor_name} is None")
    parametrizations = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.add_module("parametrizations", ModuleDict())
    compute(module, tensor_name, _property(tensor_name), "Parametrized")
    _lists(module)[tensor_name] = parametrizations
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or that tensor of it, is parametrized."""
    known = module.__dict__.get("parametrizations")
    if not isinstance(known, ModuleDict):
        return False
    return len(known) > 0 if tensor_name is None else tensor_name in known


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make ``module.<tensor_name>`` a plain parameter or buffer again.

    Parameters
    ----------
    leave_parametrized : it keeps the value it has now; else that of ``original``, which must be one tensor
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"remove_parametrizations: {tensor_name} of {type(module).__name__} is not parametrized")
    known = _lists(module)[tensor_name]
    if not known.is_tensor and not leave_parametrized:
        raise ArgumentError(
            f"remove_parametrizations: {tensor_name} comes of {known.ntensors} tensors: leave_parametrized must be True"
        )
    value = getattr(module, tensor_name)
    if known.is_tensor:
        original = known.original
        if leave_parametrized:
            original.data = value.data
    else:
        original = Parameter(value.detach()) if value.requires_grad else value.detach()
    del _lists(module)[tensor_name]
    if not is_parametrized(module):
        delattr(module, "parametrizations")
    stop_computing(module, tensor_name)
    _register(module, tensor_name, original)
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class that the module was made of."""
    kind = type(module)
    return kind.__bases__[0] if "_computed" in vars(kind) else kind


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Give another module the parametrizations (the same modules) and originals of this one; of one tensor or all."""
    if not is_parametrized(from_module):
        return to_module
    for name in list(_lists(from_module)) if tensor_name is None else [tensor_name]:
        known = _lists(from_module)[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach()))
        for parametrization in known:
            register_parametrization(to_module, name, parametrization)
        target = _lists(to_module)[name]
        for key in ["original"] if known.is_tensor else [f"original{i}" for i in range(known.ntensors)]:
            setattr(target, key, getattr(known, key))
    return to_module
