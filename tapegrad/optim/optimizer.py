"""What all optimizers share: parameter groups, state that exists from construction on, state dicts, the step.

A subclass states its hyper-parameters' checks, the names of its state tensors, and its kernel (kernels.py).
One that is written for torch defines ``step`` instead, and keeps in ``state[p]`` what it likes.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch

from ..core import (
    ArgumentError,
    DTypeError,
    ShapeError,
    StateError,
    TapeError,
    Tensor,
    describe,
    enable_grad,
    mode,
    raw,
)
from ..nn.module import zero_grad
from .hooks import KINDS, Hooked, loading, saving, stepping
from .kernels import KERNELS, hyper

Columns = dict[str, list[torch.Tensor]]  # state tensors by name, one per parameter that is updated

# How torch is to execute an update; a state dict from torch carries these, and they mean nothing here.
_TORCH_ONLY = {"foreach", "capturable", "differentiable", "fused"}


class _Required:
    """The default of a hyper-parameter that every group must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def not_differentiable(name: str, differentiable: bool) -> None:
    """Refuse the one option of torch's that would change what an update means."""
    if differentiable:
        raise ArgumentError(f"{name}: differentiable must be False; an update is not recorded")


class Calls:
    """How often an optimizer stepped; in an object of its own, which is no state that a compiled step could rely on."""

    __slots__ = ("_taken", "_watched")

    def __init__(self) -> None:
        self._taken = 0
        self._watched: tuple[int, list[int]] | None = None

    def count(self) -> None:
        self._taken += 1

    def watch(self, params: Iterable[Tensor]) -> None:
        """Note where the optimizer stands, once. A replay of a compiled step shows in the parameters' versions."""
        if self._watched is None:
            self._watched = self._taken, [p._data._version for p in params]

    def none_since(self, params: Iterable[Tensor]) -> bool:
        """Whether nothing has moved since `watch`; parameters added since come last."""
        if self._watched is None:
            return False
        taken, seen = self._watched
        return taken == self._taken and seen == [p._data._version for p in params][: len(seen)]


class Optimizer(Hooked):
    """Base class of optimizers.

    Parameters
    ----------
    params : tensors to update (leaves), pairs of names and tensors (``named_parameters()``), or dicts with "params" and
        hyper-parameters of their own
    defaults : hyper-parameters of groups that do not give them

    ``param_groups`` is a list of dicts; hyper-parameters are read from there on every step, so a schedule writes there.
    ``state[p]`` holds the tensors kept for parameter p; they are created with the optimizer and updated in place.
    """

    kernel: ClassVar[str] = ""  # of `KERNELS`
    resting: ClassVar[tuple[str, ...]] = ()  # state that a number of 0 leaves alone, if it is there
    unlisted: ClassVar[tuple[str, ...]] = ()  # state that torch's state dict does not have
    scalars: ClassVar[tuple[str, ...]] = ("step",)  # state of one number, float32

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor | torch.Tensor):
            raise TypeError(f"{name}: params must be an iterable of Tensors or dicts; got one {type(params).__name__}")
        groups = list(params)
        if not groups:
            raise ArgumentError(f"{name}: params must not be empty")
        self.defaults = defaults
        self._calls = Calls()
        self._hooks = {kind: {} for kind in KINDS}
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    # --- what a subclass defines ------------------------------------------------------------------------------

    def _check(self, group: Mapping[str, Any]) -> None:
        """Raise ArgumentError for a hyper-parameter outside its range."""

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The state tensors of a parameter of this group; `scalars` are 0-dim, others are like the parameter."""
        return ()

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        """The number that a state tensor starts with."""
        return 0.0

    def _update(
        self, params: list[torch.Tensor], grads: list[torch.Tensor], state: Columns, group: Mapping[str, Any]
    ) -> None:
        """Update the parameters and their state in place."""
        if not self.kernel:
            raise NotImplementedError(f"{type(self).__name__} does not define step()")
        kernel = KERNELS[self.kernel]
        lists = [state.get(name, []) for name in (*kernel.state, *kernel.counts)]
        numbers = [hyper(group, key) for key in kernel.numbers]
        kernel.function(params, grads, *lists, *numbers, *[group[switch] for switch in kernel.switches])

    @classmethod
    def _keeps_its_own(cls) -> bool:
        """Whether it is written for torch: what its state holds is its own affair."""
        return not cls.kernel and cls._update is Optimizer._update

    def _with_resting(self, names: tuple[str, ...], params: list[Tensor]) -> tuple[str, ...]:
        """These names, and those that rest where every parameter has them: the kernel leaves them alone."""
        rest = [name for name in self.resting if name not in names]
        return (
            (*names, *rest) if rest and all(name in self.state.get(p, ()) for p in params for name in rest) else names
        )

    # --- groups and state -------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict with "params" (a Tensor or several) and hyper-parameters that differ from the defaults.

        Raises
        ------
        TypeError, ArgumentError, TapeError
            for what is not a Tensor, for one that is in a group already, for the output of an op.
        """
        name = type(self).__name__
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f"{name}: a parameter group must be a dict with 'params'; got {param_group!r}")
        params = param_group["params"]
        if isinstance(params, set | frozenset):
            raise TypeError(f"{name}: params must be ordered, as the state is kept by position; got a set")
        params = [params] if isinstance(params, Tensor) else list(params)
        named = [isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) for p in params]
        if any(named):
            if not all(named):
                raise ArgumentError(f"{name}: either all of a group's params have names or none; got both kinds")
            param_group = {**param_group, "param_names": [key for key, _ in params]}
            params = [p for _, p in params]
        if not params:
            raise ArgumentError(f"{name}: params of a group must not be empty")
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: params[{i}] must be a Tensor; got {type(p).__name__}")
            if not p.is_leaf:
                raise TapeError(f"{name}: params[{i}] must be a leaf; got the recorded output of an op")
            if id(p) in known:
                raise ArgumentError(f"{name}: params[{i}], {describe(p.data)}, is given twice")
            known.add(id(p))
        group = {**self.defaults, **param_group, "params": params}
        for key, value in group.items():
            if value is required:
                raise ArgumentError(f"{name}: a parameter group needs {key}, which has no default")
        self._check(group)
        for p in params:
            self._state_of(p, self._names(group), group)
        self.param_groups.append(group)

    def _state_of(self, p: Tensor, names: tuple[str, ...], group: Mapping[str, Any]) -> dict[str, Tensor]:
        """A parameter's state; what is missing (a hyper-parameter was switched on later) starts now."""
        state = self.state.setdefault(p, {})
        for name in names:
            if name in state and not isinstance(state[name], Tensor):  # a subclass's: a number, a torch tensor
                state[name] = Tensor(
                    torch.as_tensor(state[name], dtype=torch.float32 if name in self.scalars else None)
                )
            if name not in state:
                start = self._start(name, group)
                scalar = name in self.scalars
                value = torch.tensor(start, dtype=torch.float32) if scalar else torch.full_like(p.data, start)
                state[name] = Tensor(value)
            elif state[name].dtype is not p.dtype and name not in self.scalars:
                raise DTypeError(
                    f"{type(self).__name__}: {name} of a parameter is {state[name].dtype}, the parameter {p.dtype}; "
                    "convert a model before its optimizer is made, or load_state_dict(state_dict()) into a new one"
                )
        return state

    # --- the step ---------------------------------------------------------------------------------------------

    @stepping
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in place; others, and their state, stay as they are.

        Parameters
        ----------
        closure : called first, recording; it may compute the loss and its gradients

        Returns what ``closure`` returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        updates = []  # all groups are looked at before the first is updated, so that an error changes nothing
        for group in self.param_groups:
            names = self._names(group)
            params, grads, updated = [], [], []
            for p in group["params"]:
                g = p.grad
                if g is not None:
                    params.append(p.data)
                    grads.append(g.data)
                    updated.append(p)
            if params:
                for p in updated if names else ():
                    self._state_of(p, names, group)
                names = self._with_resting(names, updated)
                columns = {name: [self.state[p][name].data for p in updated] for name in names}
                updates.append((params, grads, columns, group))
        for update in updates:
            if mode.tracer is not None:
                mode.tracer.group = update[3]
            self._update(*update)
        self._calls.count()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every parameter's gradient, or fill it with zeros."""
        for group in self.param_groups:
            zero_grad(group["params"], set_to_none)

    # --- state dicts ------------------------------------------------------------------------------------------

    @saving
    def state_dict(self) -> dict[str, Any]:
        """``{"state": {i: {name: tensor}}, "param_groups": [{..., "params": [i, ...]}]}``, torch's layout.

        i is a parameter's position, counted through all groups. Parameters that were never updated have no state.
        The tensors are those the optimizer works with, not copies.
        """
        groups: list[dict[str, Any]] = []
        state: dict[int, dict[str, Tensor]] = {}
        i = 0
        for group in self.param_groups:
            first = i
            for p in group["params"]:
                own = self.state.get(p)
                if own and self._keeps_its_own():
                    state[i] = dict(own)
                elif own and own["step"].data != 0:
                    state[i] = {name: value for name, value in own.items() if name not in self.unlisted}
                i += 1
            groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": list(range(first, i))})
        return {"state": state, "param_groups": groups}

    @loading
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyper-parameters and state from a `state_dict` of ours or of the torch optimizer of that name.

        Values are copied into the state tensors, cast to their dtype. Everything is checked before anything changes.

        Raises
        ------
        StateError
            for groups, parameters or state that this optimizer does not have. ShapeError for a shape that differs.
        """
        name = type(self).__name__
        try:
            groups, states = list(state_dict["param_groups"]), dict(state_dict["state"])
            sizes = [len(group["params"]) for group in groups]
            order = [i for group in groups for i in group["params"]]
        except (TypeError, KeyError, ValueError) as error:
            raise StateError(f"{name}: not an optimizer's state dict: {type(error).__name__}: {error}") from error
        expected = [len(group["params"]) for group in self.param_groups]
        if sizes != expected:
            raise StateError(f"{name}: the state dict has groups of {sizes} parameters; expected {expected}")
        unknown = [key for key in states if key not in order]
        if unknown:
            raise StateError(f"{name}: the state dict has state for {unknown[0]!r}, which is in none of its groups")

        changed: list[dict[str, Any]] = []
        copies: list[tuple[Tensor, dict[str, torch.Tensor], tuple[str, ...], dict[str, Any]]] = []
        for group, saved, start in zip(self.param_groups, groups, _starts(sizes), strict=True):
            hyper = {k: copy.deepcopy(v) for k, v in saved.items() if k != "params" and k not in _TORCH_ONLY}
            new = {**group, **hyper, "params": group["params"]}
            self._check(new)
            changed.append(new)
            for p, i in zip(group["params"], order[start:], strict=False):
                names = self._names(new)
                copies.append((p, self._checked(p, states.get(i, {}), names, f"{name}: state[{i!r}]"), names, new))
        for group, new in zip(self.param_groups, changed, strict=True):
            group.update(new)
        if self._keeps_its_own():
            params = [p for group in self.param_groups for p in group["params"]]
            for p, i in zip(params, order, strict=True):
                self.state[p] = {key: _copied(value, p) for key, value in dict(states.get(i, {})).items()}
            return
        for p, values, names, group in copies:
            for key, tensor in self._state_of(p, names, group).items():
                if key in values:
                    tensor.data.copy_(values[key])
                else:
                    tensor.data.fill_(self._start(key, group))

    def _checked(
        self, p: Tensor, saved: Mapping[str, Any], names: tuple[str, ...], what: str
    ) -> dict[str, torch.Tensor]:
        """The values to copy into a parameter's state; empty where the state dict has none."""
        if self._keeps_its_own():
            return {}
        values = {key: torch.as_tensor(raw(v, what, key)) for key, v in saved.items() if v is not None}
        if not values:
            return {}
        for key, value in values.items():
            if key not in names and key != "step":
                raise StateError(f"{what} has {key!r}, which this optimizer does not keep; expected {', '.join(names)}")
            shape = torch.Size() if key in self.scalars else p.shape
            if value.shape != shape:
                raise ShapeError(f"{what}[{key!r}] has shape {list(value.shape)}; expected {list(shape)}")
        for key in names:
            if key not in values and key not in self.unlisted:
                raise StateError(f"{what} lacks {key!r}")
        if "step" in names:
            values.setdefault("step", torch.tensor(1.0))  # there is state, so there was a step
        return {key: value for key, value in values.items() if key in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            text += "".join(f"    {key}: {group[key]}\n" for key in sorted(group) if key != "params")
        return text + ")"


def _copied(value: Any, p: Tensor) -> Any:
    """A value of a loaded state: tensors of the parameter's dtype, where they are floating-point."""
    if not isinstance(value, Tensor | torch.Tensor):
        return copy.deepcopy(value)
    t = (value._data if isinstance(value, Tensor) else value).detach().clone()
    return Tensor(t.to(p.dtype) if t.is_floating_point() and t.ndim else t)


def _starts(sizes: list[int]) -> list[int]:
    """Where each group's parameters begin in the count through all groups."""
    return [sum(sizes[:i]) for i in range(len(sizes))]
