"""Tensor: a torch tensor, its gradient, and its place on a tape.

`Tensor.data` is the raw ``torch.Tensor`` (which never requires torch's gradients); ``_node`` is the value's node on the
tape: `Leaf`, `Entry` or (Entry, index), None for a constant. Operators and methods are bound to the ops in
`tapegrad.ops` from one table.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .attributes import Attributes
from .backward import Slots, replay
from .errors import DTypeError, IndexShapeError, ShapeError, TapeError
from .extension import _C
from .forks import fork_safe_lock
from .graph import GradFn
from .incoming import FLOATS, from_array, integers, kind, known_dtype, on_cpu, plain, waits_for_torch
from .mode import mode
from .protocols import Protocols, functions
from .tape import Entry, Leaf, Node, inside, next_slot

Self = TypeVar("Self", bound="Tensor")


# --- the border: what comes in from outside ----------------------------------------------------------------------


def raw(value: Any, op_name: str, argument: str) -> Any:
    """`value` as ops take it: a plain torch tensor, a Python number or None; anything else is a TypeError by name."""
    if isinstance(value, Tensor):
        return value._data
    if value is None or type(value) in (float, int, bool):
        return value
    if isinstance(value, torch.Tensor):
        return plain(value, f"{op_name}: {argument}")
    if isinstance(value, bool | int | float):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    if numpy is not None and isinstance(value, numpy.ndarray):
        return from_array(value, f"{op_name}: {argument}")
    raise TypeError(f"{op_name}: {argument} must be a Tensor, a torch tensor, an array or a number; got {kind(value)}")


def tensor_argument(value: Any, op_name: str, argument: str) -> Tensor:
    """`value` as a Tensor, for compositions of ops that look at its shape; TypeError by name for what is none."""
    if isinstance(value, Tensor):
        return value
    value = raw(value, op_name, argument)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op_name}: {argument} must be a Tensor, a torch tensor or an array; got {kind(value)}")
    return Tensor._made(value, None)


def as_gradient(value: Any, shape: torch.Size, dtype: torch.dtype, what: str) -> Tensor:
    """A gradient handed in by the user, checked against the value it belongs to."""
    g = value if isinstance(value, Tensor) else raw(value, what, "gradient")
    if isinstance(g, bool | int | float):
        g = torch.tensor(g, dtype=dtype)
    if g is None:
        raise TypeError(f"{what}: gradient must be a tensor; got None")
    g = g if isinstance(g, Tensor) else Tensor._made(g, None)
    if g.shape != shape:
        raise ShapeError(f"{what}: gradient has shape {list(g.shape)}; expected {list(shape)}, that of its tensor")
    if g.dtype is not dtype:
        raise DTypeError(f"{what}: gradient has dtype {g.dtype}; expected {dtype}, that of its tensor")
    return g


# --- Tensor ------------------------------------------------------------------------------------------------------


class Tensor(Protocols["Tensor"], Attributes, _C.TensorBase):
    """A torch tensor with a gradient and a place on the tape, made as ``torch.Tensor`` is (`tapegrad.tensor` copies).

    Parameters
    ----------
    data : sizes, ``Tensor(2, 3)`` (the values are whatever lies in memory); a sequence or array of numbers, which
        become torch's default dtype (float32); or a tensor, whose memory, dtype and gradient the new one shares
    requires_grad : make it a leaf that collects a gradient; float32 and float64 only
    device : the CPU

    Raises
    ------
    TypeError
        for a single number other than a size, and what is no sequence.
    DTypeError
        for dtypes and devices outside float32, float64, integers and bool on the CPU.
    TapeError
        for a torch tensor that requires a gradient.
    """

    __slots__ = ("__weakref__",)  # csrc/bindings/holder.h holds the others, and knows who lies in one memory
    __array_ufunc__ = None  # so that ``ndarray * tensor`` comes to Tensor.__rmul__
    __hash__ = object.__hash__

    _data: torch.Tensor  # `_C.hold` writes it
    _node: Node | None
    _grad: Tensor | None

    def __init__(self, *data: Any, requires_grad: bool = False, device: Any = None, **named: Any) -> None:
        if len(data) == 2 and isinstance(data[1], bool) and not isinstance(data[0], int):
            requires_grad, data = data[1], tuple(data[:1])
        self._node = None
        self._grad = None
        value = data[0] if len(data) == 1 else None
        if type(value) is torch.Tensor and not named and device is None:
            _C.hold(self, plain(value, "Tensor: data").detach())  # the same memory, seen to be shared
        else:
            made, self._node = as_torch_tensor(data, named, device, requires_grad)
            _C.hold(self, made)
        if requires_grad:
            self.requires_grad = True

    # (data, node): a Tensor around a raw value of ours; no checks, no copy
    _made: Callable[[torch.Tensor, Node | None], Tensor] = staticmethod(_C.tensor)

    @property
    def data(self) -> torch.Tensor:
        """The raw ``torch.Tensor``. A leaf's can be replaced; its gradient then has the new shape and dtype."""
        return self._data

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if isinstance(value, Tensor):
            value = value._data
        if value is self._data:  # ``p.data -= x`` gives back what it has changed in place
            return
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"data: expected a torch tensor; got {type(value).__name__}")
        value = plain(value.detach(), "data: value")  # as in torch, whoever writes .data means the values alone
        if isinstance(self._node, Leaf):
            if value.dtype not in FLOATS:
                raise DTypeError(f"data: a tensor that requires a gradient cannot become {value.dtype}")
            self._node.shape, self._node.dtype = value.shape, value.dtype
        elif self._node is not None:
            raise TapeError("data: the value of a recorded output cannot be replaced; use .detach() and compute anew")
        _C.hold(self, value)

    # --- what it is -------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether a backward through this value reaches it. Settable on leaves."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self._node is None:
            if self._data.dtype not in FLOATS:
                raise DTypeError(
                    f"requires_grad: a tensor of dtype {self._data.dtype} cannot need a gradient; "
                    "only float32 and float64 can"
                )
            self._node = Leaf(self._data.shape, self._data.dtype, self._grad)
            self._grad = None
        elif not value and self._node is not None:
            if not isinstance(self._node, Leaf):
                raise TapeError("requires_grad: only a leaf can be switched off; use .detach() for a computed value")
            self._grad = self._node.grad
            self._node = None

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set ``requires_grad`` and return the tensor itself."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """True for what the user created and for constants; False for the recorded output of an op."""
        return self._node is None or type(self._node) is Leaf

    @property
    def grad(self) -> Tensor | None:
        """The gradient collected by backward: a Tensor of the same shape and dtype, or None. Can be assigned."""
        node = self._node
        owner = node if type(node) is Leaf else self
        if mode.tracer is not None:
            mode.tracer.read_grad(owner)
        grad: Tensor | None = self._grad if owner is self else owner.grad
        return grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:  # a copy: backward adds to it in place
            value = as_gradient(value, self.shape, self.dtype, "grad")
            value = Tensor._made(value._data.clone(), value._node)
        owner = self._node if isinstance(self._node, Leaf) else self
        if mode.tracer is not None:
            mode.tracer.write_grad(owner)
        if isinstance(owner, Leaf):
            owner.grad = value
            if value is not None and value._node is not None:
                _C.open_entries()  # which may depend on this leaf: a cycle
        else:
            owner._grad = value

    @property
    def shape(self) -> torch.Size:
        """The sizes, as a ``torch.Size``."""
        return self._data.shape

    @property
    def dtype(self) -> torch.dtype:
        """torch's dtype object (``tg.float32`` is ``torch.float32``)."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return self._data.device

    @property
    def T(self) -> Tensor:
        """The transpose: all dimensions reversed."""
        return self.transpose(0, 1) if self.ndim == 2 else self.permute(tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The matrix transpose: the last two dimensions swapped."""
        return self.transpose(-2, -1)

    @property
    def H(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim not in (0, 2):
            raise ShapeError(f"H: expected a matrix; got shape {list(self.shape)}")
        return self.T

    @property
    def mH(self) -> Tensor:
        """`mT`: every number is real."""
        return self.mT

    @property
    def real(self) -> Tensor:
        """The tensor itself: every number is real."""
        return self

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called on this computed value."""
        node = self._node
        owner, index = node if isinstance(node, tuple) else (node, 0)
        return isinstance(owner, Entry) and owner.hooks is not None and -1 - index in owner.hooks

    def size(self, dim: int | None = None) -> Any:
        """``shape``, or one size of it."""
        if dim is None:
            return self._data.shape
        dim = integers(dim, "size", "dim")
        if not -max(self.ndim, 1) <= dim < self.ndim:
            raise IndexShapeError(f"size: dim = {dim} is outside a tensor of shape {list(self.shape)}")
        return self._data.shape[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self._data.numel()

    def stride(self, dim: int | None = None) -> Any:
        """The strides, in elements."""
        return self._data.stride() if dim is None else self._data.stride(integers(dim, "stride", "dim"))

    def is_contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> bool:
        """Whether the elements lie in row-major order without gaps (or in torch's other order of images)."""
        return self._data.is_contiguous(memory_format=memory_format)

    ndimension = dim

    nelement = numel

    def element_size(self) -> int:
        """The bytes of an element."""
        return self._data.element_size()

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._data.data_ptr()

    def storage_offset(self) -> int:
        """How many elements of its memory lie before the first."""
        return int(self._data.storage_offset())

    def untyped_storage(self) -> torch.UntypedStorage:
        """torch's object of the memory."""
        return self._data.untyped_storage()

    def share_memory_(self: Self) -> Self:
        """Move the values to memory that other processes share."""
        self._data.share_memory_()  # type: ignore[no-untyped-call]
        return self

    def is_shared(self) -> bool:
        """Whether the memory is shared with other processes."""
        return bool(self._data.is_shared())  # type: ignore[no-untyped-call]

    def is_pinned(self) -> bool:
        """False: no device would copy from it."""
        return False

    def is_floating_point(self) -> bool:
        """Whether the dtype is float32 or float64."""
        return self._data.is_floating_point()

    # --- derivatives ------------------------------------------------------------------------------------------

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
    ) -> None:
        """Add d(self)/d(leaf) to ``leaf.grad`` of every leaf this value depends on.

        Parameters
        ----------
        gradient : of this tensor's shape and dtype; may be left out for a tensor of one element (then 1)
        retain_graph : keep the saved values, so that backward can run again (default: ``create_graph``)
        create_graph : record backward itself, so that ``.grad`` can be differentiated
        inputs : the leaf, or leaves, to collect for; None for all

        Raises
        ------
        TapeError
            if nothing was recorded, the tensor has several elements and no ``gradient``, or the values were released.
        MutationError
            if a saved value was changed in place since it was recorded.
        """
        seed = root_gradient(self, gradient, create_graph, "backward")
        keep = create_graph if retain_graph is None else retain_graph or create_graph
        wanted = None if inputs is None else _leaves(inputs)
        gradients = replay([seed], wanted=wanted, create_graph=create_graph, retain_graph=keep)
        before = mode.record
        mode.record = create_graph  # so that sums with an earlier .grad are recorded, or not, like the rest
        try:
            collect(gradients)
        finally:
            mode.record = before

    def register_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call ``hook(gradient)`` when backward has this value's gradient; what it returns (if not None) replaces it.

        Returns a handle whose ``remove()`` takes the hook off.
        """
        if not callable(hook):
            raise TypeError(f"register_hook: hook must be a function of the gradient; got {type(hook).__name__}")
        node = self._node
        if node is None:
            raise TapeError("register_hook: the tensor needs no gradient, so the hook would never be called")
        owner, index = node if isinstance(node, tuple) else (node, 0)

        def call(g: Any) -> Any:
            seen = g if isinstance(g, Tensor) else Tensor._made(g, None)
            returned = hook(seen)
            if returned is None:
                return g
            replacement = as_gradient(returned, seen.shape, seen.dtype, "hook")
            return replacement if isinstance(g, Tensor) else replacement._data

        if owner.hooks is None:
            owner.hooks = {}
        _C.open_entries()  # the hook may hold a value that depends on this one: a cycle
        return RemovableHandle(owner.hooks, (index, call))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call ``hook(tensor)`` after each backward that added to this leaf's ``.grad``."""
        if not isinstance(self._node, Leaf):
            raise TapeError("register_post_accumulate_grad_hook: the tensor must be a leaf that requires a gradient")
        reference = weakref.ref(self)

        def call(_: Any) -> None:
            tensor = reference()
            if tensor is not None:
                hook(tensor)

        if self._node.hooks is None:
            self._node.hooks = {}
        return RemovableHandle(self._node.hooks, (_AFTERWARDS, call))

    @property
    def grad_fn(self) -> GradFn | None:
        """The op that computed this value, with ``name()`` and ``next_functions``; None for leaves and constants."""
        if self._node is None or isinstance(self._node, Leaf):
            return None
        return GradFn(self._node[0] if isinstance(self._node, tuple) else self._node)

    def retain_grad(self) -> None:
        """Keep this computed value's gradient in ``.grad`` when backward passes (leaves do so anyway)."""
        if self._node is None:
            raise TapeError("retain_grad: the tensor needs no gradient")
        if self.is_leaf:
            return
        owner, index = self._node if isinstance(self._node, tuple) else (self._node, 0)
        assert isinstance(owner, Entry)
        reference = weakref.ref(self)

        def keep(g: Any) -> Any:
            tensor = reference()
            if tensor is not None:
                if mode.tracer is not None:
                    mode.tracer.read_grad(tensor)
                    mode.tracer.write_grad(tensor)
                before = tensor._grad
                copy = g.clone() if isinstance(g, Tensor) else Tensor._made(g.clone(), None)
                tensor._grad = copy if before is None else before + copy
            return g

        if owner.hooks is None:
            owner.hooks = {}
        owner.hooks[-1 - index] = (index, keep)  # a negative key: called after all hooks, and only once

    def detach(self) -> Tensor:
        """The same storage, as a constant."""
        return Tensor._made(self._data.detach(), None)

    # --- copies -------------------------------------------------------------------------------------------------

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        self._must_be_leaf("deepcopy")
        copy = self._rebuild(self._data.clone(), self.requires_grad, None)
        memo[id(self)] = copy
        if self.grad is not None:
            copy.grad = Tensor._made(self.grad.data.clone(), None)
        return copy

    def __reduce__(self) -> Any:
        self._must_be_leaf("pickle")
        grad = None if self.grad is None else self.grad.data
        return type(self)._rebuild, (self._data, self.requires_grad, grad)

    @classmethod
    def _rebuild(cls: type[Self], data: torch.Tensor, requires_grad: bool, grad: torch.Tensor | None) -> Self:
        tensor = cls.__new__(cls)
        _C.hold(tensor, data)
        tensor._node = tensor._grad = None
        tensor.requires_grad = requires_grad
        if grad is not None:
            tensor.grad = grad
        return tensor

    def _must_be_leaf(self, what: str) -> None:
        if not self.is_leaf:
            raise TapeError(f"{what}: only leaves can be copied with their gradient; use .detach() first")

    # --- changing values --------------------------------------------------------------------------------------

    def _writable(self, what: str, *others: Any) -> torch.Tensor:
        """The storage, if an in-place update here leaves every recorded derivative right; else TapeError."""
        needs = self._node is not None or any(isinstance(o, Tensor) and o._node is not None for o in others)
        if needs and mode.record:
            name = what.rstrip("_")
            advice = f"compute a new one: y = x.{name}(...)" if hasattr(Tensor, name) else "make a new tensor instead"
            if isinstance(self._node, Leaf):
                advice = "update a leaf inside `with tg.no_grad():`, or " + advice
            raise TapeError(f"{what}: a value the tape follows cannot be changed in place; {advice}")
        if needs and not self.is_leaf:
            raise TapeError(f"{what}: a recorded output cannot be changed in place; change x.detach().clone()")
        return self._data


class RemovableHandle:
    """What `register_hook` returns; ``remove()`` takes the hook off (calling it again does nothing)."""

    def __init__(self, hooks: dict[int, Any], entry: Any) -> None:
        self._hooks = hooks
        self._key = next_slot()
        hooks[self._key] = entry

    def remove(self) -> None:
        """Take the hook off."""
        self._hooks.pop(self._key, None)


# --- seeds and results of backward -------------------------------------------------------------------------------


def root_gradient(root: Any, gradient: Any, create_graph: bool, what: str) -> tuple[Node, Any]:
    """(node, gradient) that starts a backward at `root`."""
    if not isinstance(root, Tensor) or root._node is None:
        raise TapeError(
            f"{what}: the tensor does not depend on anything that requires a gradient "
            "(or was computed under no_grad), so there is nothing to differentiate"
        )
    return root._node, seed(root, gradient, create_graph, what)


def seed(root: Tensor, gradient: Any, create_graph: bool, what: str) -> Any:
    """The gradient that flows into `root`: what was given, checked, or 1 for a tensor of one element."""
    if gradient is None:
        if root.data.numel() != 1:
            raise TapeError(
                f"{what}: a gradient must be given for a tensor of shape {list(root.shape)}; "
                "only a tensor of one element can start a backward without"
            )
        g = Tensor._made(torch.ones_like(root.data), None)
    else:
        g = as_gradient(gradient, root.shape, root.dtype, what)
    return g if create_graph else g.data


def _leaves(inputs: Any) -> set[Node]:
    """The nodes of the leaves that a backward shall collect for."""
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(given):
        if not isinstance(x, Tensor) or not isinstance(x._node, Leaf):
            raise TapeError(f"backward: inputs[{i}] must be a leaf that requires a gradient")
    if not given:
        raise TapeError("backward: inputs must not be empty")
    return {x._node for x in given if x._node is not None}


_AFTERWARDS = -1  # in the place of an output's number: a leaf's hook that is called when its gradient is collected
_collecting = fork_safe_lock()  # threads may share a leaf


def collect(gradients: Slots) -> None:
    """Add the leaves' gradients to their ``.grad``, which never shares storage with another tensor."""
    _C.locked(_collecting, _collect, gradients)
    for leaf in list(gradients):
        if leaf.hooks:
            for which, hook in list(leaf.hooks.values()):
                if which == _AFTERWARDS:
                    hook(None)


def _collect(gradients: Slots) -> None:
    for leaf, g in gradients.items():
        if mode.tracer is not None:
            mode.tracer.read_grad(leaf)
            mode.tracer.write_grad(leaf)
        before = leaf.grad
        if isinstance(g, Tensor):
            leaf.grad = g.clone() if before is None else before + g
            _C.open_entries()  # it depends on the leaf: a cycle
        elif before is None:
            own = leaf in gradients.owned and g.is_contiguous()
            leaf.grad = Tensor._made(g if own else g.clone(memory_format=torch.contiguous_format), None)
        elif before._node is None:
            before._data.add_(g)
        else:
            leaf.grad = Tensor._made(before._data + g, None)


def to_torch(data: Any, dtype: torch.dtype | None, what: str) -> torch.Tensor:
    """A fresh torch tensor holding a copy of `data`: numbers, nested sequences, arrays, tensors."""
    if isinstance(data, Tensor):
        data = data.data
    if isinstance(data, torch.Tensor):
        value = plain(data.detach(), f"{what}: data").clone()  # a copy is asked for: as in torch, a constant
        return value if dtype is None else value.to(dtype)
    data = _numbers(data, f"{what}: data")
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(data, numpy.ndarray):
        value = from_array(data, f"{what}: data").clone()
        return value if dtype is None else value.to(dtype)
    try:
        value = torch.tensor(data, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = ShapeError if isinstance(error, ValueError) else TypeError
        raise kind(f"{what}: data cannot become a tensor: {error}") from error
    return plain(value, f"{what}: data")


def _numbers(data: Any, what: str) -> Any:
    """Nested sequences as ``torch.tensor`` reads them: the Tensors in them as torch's; TapeError by place for one that
    requires a gradient, which the numbers would lose."""
    if isinstance(data, Tensor | torch.Tensor):
        value = data._data if isinstance(data, Tensor) else data
        if data.requires_grad and mode.record:
            if not isinstance(data, Tensor):
                raise waits_for_torch(what)
            raise TapeError(
                f"{what} requires a gradient, which its numbers lose; join with tg.stack, or pass .detach()"
            )
        value = plain(value.detach(), what)
        return value if value.ndim == 0 and mode.tracer is None else value.tolist()  # torch reads it unseen
    if not isinstance(data, list | tuple) or {float, int, bool}.issuperset(map(type, data)):
        return data
    return [_numbers(item, f"{what}[{i}]") for i, item in enumerate(data)]


def as_torch_tensor(
    data: tuple[Any, ...], named: dict[str, Any], device: Any, leaf: bool
) -> tuple[torch.Tensor, Node | None]:
    """What ``torch.Tensor(...)`` makes of its arguments; the node of a Tensor that is shared (none for a `leaf`)."""
    if named:
        if data or len(named) > 1 or not named.keys() <= {"data", "size", "other"}:
            raise TypeError(f"Tensor: expected sizes, or one of data, size, other; got {', '.join(named)}")
        data = (torch.Size(named["size"]),) if "size" in named else tuple(named.values())
    on_cpu(device, "Tensor")
    value = data[0] if len(data) == 1 else None
    if isinstance(value, Tensor):
        if value._node is not None and not leaf:
            value = functions["alias"](value)
        return value._data.detach(), None if leaf else value._node
    if isinstance(value, torch.Tensor):
        return plain(value, "Tensor: data").detach(), None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and value.ndim:
        return from_array(value, "Tensor: data").to(known_dtype(torch.get_default_dtype(), "Tensor")), None
    if len(data) == 1 and not hasattr(value, "__index__"):
        given: Any = (_numbers(value, "Tensor: data"),)
    else:
        given = integers(data, "Tensor", "size")
    try:
        made = torch.Tensor(*given)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ShapeError
        raise kind(f"Tensor: {str(error).splitlines()[0].removeprefix('new(): ')}") from error
    return plain(made, "Tensor: data"), None


_C.tape_classes(Entry, Leaf, Tensor, next_slot, inside, integers)
