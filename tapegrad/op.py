"""Ops: a forward function, one gradient rule per input, and the one path on which every op is called.

An op is one block::

    @op(
        input=lambda g, other: g * other,
        other=lambda g, input: g * input,
    )
    def mul(input, other):
        '''y = input * other ...'''
        return torch.mul(input, other)

The forward function sees raw torch tensors. ``op`` takes one rule per differentiable argument, by name. A rule's first
parameter is the gradient ``g`` of the output; the names of the others say what it reads, and only that is saved, and
only if the rule will run: an argument of the forward function (an array or a parameter), ``out``, a residual, or
``NAME_shape`` for the shape of an array that itself need not be kept.

The same rule text runs on raw torch tensors (first order) and on `Tensor` (``create_graph=True``: the rule is recorded,
and so has derivatives of its own); torch functions called on a `Tensor` are recorded through
``__torch_function__``. An op may add ``backward=``, a fused kernel that computes the gradients of all inputs in one
call on raw tensors; the rules then serve recorded mode.

Broadcasting and dtype promotion are undone here, once, for every rule.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar, overload

import torch

from .errors import MutationError, ShapeError, TapeError
from .explain import explain
from .tape import PACKAGE, Entry, Node, check_finite, describe, dtype_of, mode, next_slot, shape_of, user_frame
from .tensor import Tensor, raw

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])

Array: TypeAlias = Any  # in a forward function a torch.Tensor or a number; for the caller anything array-like
Arrays: TypeAlias = Sequence[Any]  # a sequence of arrays, as `cat` takes

_HEAVY = (torch.Tensor, list)  # what is dropped from an environment when no rule reads it; numbers stay, to be printed
_new: Callable[..., Any] = object.__new__

registry: dict[str, Op] = {}  # every op by name; the table of ops in the tests is checked against it


def _nothing(env: list[Any]) -> tuple[Any, ...]:
    return ()


def _getter(positions: list[int]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """A function that picks these positions from an environment."""
    if not positions:
        return _nothing
    if len(positions) == 1:
        only = positions[0]
        return lambda env: (env[only],)
    return operator.itemgetter(*positions)


class Rule:
    """A gradient rule and what it reads of an entry's environment."""

    __slots__ = ("fetch", "function", "reads")

    def __init__(self, function: Callable[..., Any], environment: list[str], op_name: str) -> None:
        reads = [p.name for p in list(inspect.signature(function).parameters.values())[1:]]
        unknown = [name for name in reads if name not in environment]
        if unknown:
            known = ", ".join(environment)
            raise TypeError(f"{op_name}: its gradient rule reads '{unknown[0]}', which is none of {known}")
        self.function = function
        self.reads = reads
        self.fetch = _getter([environment.index(name) for name in reads])


class _Plan(NamedTuple):
    """Environment positions: what a call saves, what it drops, and which shapes it notes (to, from)."""

    hold: list[int]
    drop: list[int]
    shapes: list[tuple[int, int]]


class Op:
    """What the tape knows of an op.

    Attributes
    ----------
    name : as it is printed and registered
    forward : the function on raw tensors
    arguments : names of the forward function's arguments, in order
    arrays : names of those that may be arrays
    rules : gradient rule by argument name
    call : the public function
    fresh : every gradient it returns is a new tensor that nobody else holds
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        rules: dict[str, Callable[..., Any]],
        backward: Callable[..., Any] | None = None,
        residuals: Sequence[str] = (),
        direct: Callable[..., Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or forward.__name__
        if not self.name.isidentifier():
            raise TypeError(f"op: a function called {self.name!r} needs a name for the tape: pass name='...'")
        self.forward = direct or forward  # `direct` is called in place of a forward that only declares the arguments
        self.doc = forward.__doc__
        self.signature = inspect.signature(forward)
        self.arguments = list(self.signature.parameters)
        self.arrays = [p.name for p in self.signature.parameters.values() if _is_array(p)]
        self.variadic = {p.name for p in self.signature.parameters.values() if "Arrays" in str(p.annotation)}
        self.residuals = list(residuals)
        shapes = [f"{name}_shape" for name in self.arrays]
        self.environment = [*self.arguments, "out", *self.residuals, *shapes]
        for name in rules:
            if name not in self.arrays:
                raise TypeError(f"{self.name}: a gradient rule is given for '{name}', which is not an array argument")
        self.rules = {name: Rule(rule, self.environment, self.name) for name, rule in rules.items()}
        self.in_order = [self.rules.get(name) for name in self.arrays]
        environment = [*self.environment, "needs"]
        self.backward = None if backward is None else Rule(backward, environment, self.name)
        self.fresh = backward is not None
        self.call: Callable[..., Any] = forward  # the public function, once `caller` has made it
        self._plans: dict[tuple[bool, ...], _Plan] = {}

    def __repr__(self) -> str:
        return self.name

    def plan(self, needs: tuple[bool, ...]) -> _Plan:
        """What to save when these array arguments need gradients."""
        active = [name for name, need in zip(self.arrays, needs, strict=True) if need]
        reads = {name for array in active for name in self.rules[array].reads}
        if self.backward is not None:  # a fused kernel gets None for the arrays that no active rule reads
            reads |= set(self.backward.reads) - set(self.arrays)
        position = self.environment.index
        holders = [*self.arrays, "out", *self.residuals]
        self._plans[needs] = plan = _Plan(
            hold=[position(name) for name in holders if name in reads],
            drop=[position(name) for name in holders if name not in reads],
            shapes=[(position(f"{a}_shape"), position(a)) for a in self.arrays if f"{a}_shape" in reads],
        )
        return plan

    # --- recording -------------------------------------------------------------------------------------------

    def record(self, out: Any, parents: tuple[Any, ...], values: tuple[Any, ...]) -> Any:
        """Put one call on the tape and return its output `Tensor` (a tuple of them for several outputs)."""
        needs = tuple([p is not None for p in parents])
        plan = self._plans.get(needs) or self.plan(needs)
        env = list(values)
        if self.residuals:
            env += out
            out = out[0]
        else:
            env.append(out)
        if plan.shapes:
            env += [None] * len(self.arrays)
            for to, source in plan.shapes:
                value = env[source]
                env[to] = [v.shape for v in value] if type(value) is list else getattr(value, "shape", ())
        for i in plan.drop:
            if type(env[i]) in _HEAVY:
                env[i] = None
        versions: list[tuple[int, Any]] = []
        try:
            for i in plan.hold:
                value = env[i]
                if isinstance(value, torch.Tensor):
                    versions.append((i, value._version))
                elif type(value) is list:
                    versions.append((i, [v._version for v in value]))
        except RuntimeError as error:
            raise TapeError(
                f"{self.name}: cannot record inside torch.inference_mode(), whose tensors count no changes; "
                "leave it, or use tg.no_grad()"
            ) from error
        entry = _new(Entry)
        entry.op = self
        entry.env = env
        entry.versions = versions
        entry.hooks = None
        entry._args = None
        entry.seq = next_slot()
        frame = user_frame(2)
        entry._where = (frame.f_code, frame.f_lasti)
        if self.variadic:  # parents so far: one list of nodes per sequence
            parents = tuple([n for p in parents if p is not None for n in (p if isinstance(p, list) else [p])])
        entry.parents = parents
        if type(out) is torch.Tensor:
            entry.shape = out.shape
            entry.dtype = out.dtype
            if mode.watched:
                self._watch(entry, (out,), values)
            made = _new(Tensor)
            made._data = out
            made._node = entry
            made._grad = None
            return made
        _check_outputs(self.name, out)
        entry.shape = tuple([o.shape for o in out])
        entry.dtype = tuple([o.dtype for o in out])
        if mode.watched:
            self._watch(entry, out, values)
        return tuple([Tensor._made(o, (entry, i)) for i, o in enumerate(out)])

    def _watch(self, entry: Entry, outputs: Sequence[torch.Tensor], values: tuple[Any, ...]) -> None:
        """The slow path: an open `Tape` gets the entry, and `detect_anomaly` its check."""
        nodes = iter(entry.parents)
        shown: list[tuple[Node | None, str]] = []
        for (name, parameter), value in zip(self.signature.parameters.items(), values, strict=True):
            if name in self.variadic:
                shown += [(next(nodes), describe(item)) for item in value]
            elif name in self.arrays:
                node = next(nodes)
                if node is not None or value is not parameter.default:
                    shown.append((node, describe(value)))
            elif value != parameter.default:
                text = describe(value)
                shown.append((None, text if parameter.default is parameter.empty else f"{name}={text}"))
        entry._args = tuple(shown)
        for open_tape in mode.tapes:
            open_tape.entries.append(entry)
        if mode.anomaly:
            for value in outputs:
                check_finite(value, "output", entry)

    # --- backward --------------------------------------------------------------------------------------------

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        """The gradients of an entry's inputs, given that of its output (a list for several outputs).

        One per parent, None where `parents` has None: the entry's own, less those whose gradient nobody wants.
        """
        self._check_unchanged(entry)
        env = self._recorded_environment(entry) if recorded else entry.env
        if type(g) is list:
            g = [_zeros(entry.shape[i], entry.dtype[i], recorded) if gi is None else gi for i, gi in enumerate(g)]
        if self.variadic:
            rule = self.rules[self.arrays[0]]
            grads = rule.function(g, *rule.fetch(env))
        elif self.backward is not None and not recorded:
            missing = len(self.environment) - len(env)
            full = [*env, *[None] * missing, [p is not None for p in parents]]
            return self.backward.function(g, *self.backward.fetch(full))  # type: ignore[no-any-return]
        else:
            grads = [
                None if node is None or rule is None else rule.function(g, *rule.fetch(env))
                for rule, node in zip(self.in_order, parents, strict=True)
            ]
        return [
            None if node is None or dx is None else self._fit(dx, node, entry, recorded)
            for dx, node in zip(grads, parents, strict=True)
        ]

    def _check_unchanged(self, entry: Entry) -> None:
        """Every saved value is still there and still what it was."""
        if entry.versions is None:
            raise TapeError(
                f"{self.name}: the values saved at {entry.source} were released by an earlier backward; "
                "a second backward through the same entries needs retain_graph=True in the first"
            )
        for i, version in entry.versions:
            value = entry.env[i]
            now = [v._version for v in value] if type(value) is list else value._version
            if now != version:
                what = "its output" if self.environment[i] == "out" else f"argument '{self.environment[i]}'"
                raise MutationError(
                    f"{self.name}: {what} {describe(value)} was saved for backward at {entry.source} and has been "
                    f"changed in place since (version {version} when saved, {now} now); change a clone instead"
                )

    def _recorded_environment(self, entry: Entry) -> list[Any]:
        """An entry's environment as Tensors at their places on the tape, for a rule that is itself recorded."""
        env = list(entry.env)
        nodes = iter(entry.parents)
        for name in self.arrays:
            i = self.arguments.index(name)
            if name in self.variadic:
                env[i] = None if env[i] is None else [Tensor._made(v, next(nodes)) for v in env[i]]
            else:
                node = next(nodes)
                if isinstance(env[i], torch.Tensor):
                    env[i] = Tensor._made(env[i], node)
        first = len(self.arguments)  # the output; residuals, which follow it, are constants
        for i in range(first, first + 1 + len(self.residuals)):
            if isinstance(env[i], torch.Tensor):
                env[i] = Tensor._made(env[i], entry if i == first else None)
        return env

    def _fit(self, dx: Any, node: Node, entry: Entry, recorded: bool) -> Any:
        """`dx` with the shape and dtype of the input: sums over what broadcasting repeated, casts back."""
        if type(dx) is not torch.Tensor and not isinstance(dx, Tensor):
            raise TypeError(
                f"{self.name}: a gradient rule must return a tensor; got {type(dx).__name__} "
                f"for the entry recorded at {entry.source}"
            )
        if recorded and type(dx) is torch.Tensor:
            dx = Tensor._made(dx, None)
        if type(node) is tuple:
            shape, dtype = shape_of(node), dtype_of(node)
        else:
            shape, dtype = node.shape, node.dtype  # type: ignore[union-attr]
        if dx.shape != shape:
            dx = sum_to(dx, shape, self, entry)
        return dx if dx.dtype is dtype else dx.to(dtype)


def sum_to(dx: Any, shape: torch.Size, op: Op, entry: Entry) -> Any:
    """Undo broadcasting: sum `dx` over the leading and the repeated dimensions down to `shape`."""
    lead = dx.ndim - len(shape)
    dims = [i for i in range(dx.ndim) if i < lead or (shape[i - lead] == 1 and dx.shape[i] != 1)]
    if lead < 0 or [dx.shape[i] for i in range(lead, dx.ndim) if i not in dims] != [
        n for i, n in enumerate(shape) if i + lead not in dims
    ]:
        raise ShapeError(
            f"{op.name}: its gradient rule returned shape {list(dx.shape)} for an input of shape {list(shape)}, "
            f"recorded at {entry.source}"
        )
    return dx.sum(dims).reshape(shape) if dims else dx.reshape(shape)


def _zeros(shape: torch.Size, dtype: torch.dtype, recorded: bool) -> Any:
    zeros = torch.zeros(shape, dtype=dtype)
    return Tensor._made(zeros, None) if recorded else zeros


# --- making ops --------------------------------------------------------------------------------------------------


def _is_array(parameter: inspect.Parameter) -> bool:
    annotation = str(parameter.annotation)
    return parameter.annotation is parameter.empty or "Array" in annotation or "Tensor" in annotation


@overload
def op(forward: Callable[P, Any], /) -> Callable[P, Tensor]: ...
@overload
def op(
    *,
    backward: Callable[..., Any] | None = None,
    residuals: Sequence[str] = (),
    name: str | None = None,
    **rules: Callable[..., Any],
) -> Callable[[Callable[P, Any]], Callable[P, Tensor]]: ...
def op(
    forward: Callable[..., Any] | None = None,
    /,
    *,
    backward: Callable[..., Any] | None = None,
    residuals: Sequence[str] = (),
    name: str | None = None,
    **rules: Callable[..., Any],
) -> Any:
    """Make an op of a forward function on raw torch tensors, given one gradient rule per differentiable argument.

    >>> import tapegrad as tg
    >>> @tg.op(x=lambda g, x: g * 3 * x**2)
    ... def cube(x):
    ...     return x * x * x
    >>> x = tg.tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    Tensor(12.)

    Parameters
    ----------
    rules
        By argument name, ``rule(g, ...)``: the gradient of the argument, given the gradient ``g`` of the output. The
        names of the rule's further parameters say what is saved: arguments, ``out`` (the output), residuals, or
        ``NAME_shape``. Written with operators, methods and torch functions, the rule has derivatives itself.
    backward
        Optional: one function ``(g, ..., needs)`` on raw tensors that returns new tensors for all array arguments (None
        where ``needs`` says so), used instead of the rules when the gradient itself is not differentiated.
    residuals
        Names of further raw values that the forward function returns behind its output, for the rules to read; they
        count as constants when a rule is differentiated.
    name
        Under which the op is printed and registered, if not the function's own.

    An argument without annotation, or annotated as array, may be a `Tensor`; one without a rule must not need a
    gradient. An op whose forward function returns a tuple has several outputs, and ``g`` is then a list.
    """

    def make(function: Callable[..., Any]) -> Any:
        return caller(Op(function, rules, backward, residuals, name=name), function.__module__)

    return make if forward is None else make(forward)


_TEMPLATE = """\
def call({signature}):
{unwrap}
    try:
        __out = __forward({raw})
    except Exception as error:
        raise __explain(__op, ({raw}), error) from error
    if ({some}) and __mode.record:
        return __record(__out, ({nodes}), ({raw}))
    return __constant(__out)
"""

_UNWRAP = """\
    if isinstance({x}, __Tensor):
        __raw_{x}, __node_{x} = {x}._data, {x}._node
    else:
        __raw_{x}, __node_{x} = __raw({x}, __op.name, "{x}"), None
"""

_UNWRAP_SEQUENCE = """\
    __raw_{x}, __node_{x} = __raw_sequence({x}, __op.name, "{x}")
"""

_NO_RULE = """\
    if __node_{x} is not None and __mode.record:
        __no_rule(__op.name, "{x}")
"""


def caller(op: Op, module: str = __name__) -> Any:
    """The public function of an op. Its text is generated, so that Python itself binds the arguments."""
    params = list(op.signature.parameters.values())
    unwrap = [(_UNWRAP_SEQUENCE if x in op.variadic else _UNWRAP).format(x=x) for x in op.arrays]
    if op.rules:
        unwrap += [_NO_RULE.format(x=x) for x in op.arrays if x not in op.rules]
    signature: list[str] = []
    for i, p in enumerate(params):
        if p.kind is p.KEYWORD_ONLY and all(q.kind is not p.KEYWORD_ONLY for q in params[:i]):
            signature.append("*")
        signature.append(p.name if p.default is p.empty else f"{p.name}=__default_{p.name}")
    source = _TEMPLATE.format(
        signature=", ".join(signature),
        unwrap="".join(unwrap),
        raw="".join(f"__raw_{x}, " if x in op.arrays else f"{x}, " for x in op.arguments),
        some=" or ".join(f"__node_{x} is not None" for x in op.rules or op.arrays) or "False",
        nodes="".join(f"__node_{x}, " for x in op.arrays),
    )
    scope: dict[str, Any] = {f"__default_{p.name}": p.default for p in params if p.default is not p.empty}
    scope |= {
        "__Tensor": Tensor,
        "__raw": raw,
        "__raw_sequence": _raw_sequence,
        "__no_rule": _no_rule,
        "__explain": explain,
        "__mode": mode,
        "__op": op,
        "__forward": _positional(op) if any(p.kind is p.KEYWORD_ONLY for p in params) else op.forward,
        "__record": op.record if op.rules else partial(_without_rules, op.name),
        "__constant": partial(_constant, op.name, bool(op.residuals)),
    }
    exec(compile(source, f"{PACKAGE}op.py:{op.name}", "exec"), scope)
    call = scope["call"]
    call.__name__ = call.__qualname__ = op.name
    call.__doc__ = op.doc
    call.__module__ = module
    call.__signature__ = op.signature
    call.op = op
    op.call = call
    _register(op, module)
    return call


def _register(op: Op, module: str) -> None:
    """Enter an op under its name; a user's op does not take the place of one of the package's own."""
    before = registry.get(op.name)
    own = __package__ or ""
    if before is None or module.startswith(own) or not before.call.__module__.startswith(own):
        registry[op.name] = op


def _positional(op: Op) -> Callable[..., Any]:
    """The forward function with its keyword-only arguments taken by position."""
    first = next(i for i, p in enumerate(op.signature.parameters.values()) if p.kind is p.KEYWORD_ONLY)

    def forward(*args: Any) -> Any:
        return op.forward(*args[:first], **dict(zip(op.arguments[first:], args[first:], strict=True)))

    return forward


def _constant(op_name: str, residuals: bool, out: Any) -> Any:
    """The result of a call that is not recorded."""
    if residuals:
        out = out[0]
    if type(out) is torch.Tensor:
        return Tensor._made(out, None)
    _check_outputs(op_name, out)
    return tuple([Tensor._made(o, None) for o in out])


def _check_outputs(op_name: str, out: Any) -> None:
    """A forward function returns a torch tensor, or a tuple or list of them."""
    if not isinstance(out, tuple | list) or any(type(o) is not torch.Tensor for o in out) or not out:
        got = type(out).__name__
        if isinstance(out, tuple | list):
            got += " of " + ", ".join(type(o).__name__ for o in out)
        raise TypeError(f"{op_name}: the forward function must return torch tensors; got {got}")


def _without_rules(op_name: str, out: Any, nodes: Any, values: Any) -> Any:
    """The result of an op that has no gradient rule at all, called on a tensor that needs a gradient."""
    if isinstance(out, torch.Tensor) and out.is_floating_point():
        raise TapeError(f"{op_name}: the op has no gradient rule; give it one, or pass x.detach()")
    return _constant(op_name, False, out)


def _no_rule(op_name: str, argument: str) -> None:
    raise TapeError(f"{op_name}: argument '{argument}' has no gradient; pass it without one: {argument}.detach()")


def _raw_sequence(values: Any, op_name: str, argument: str) -> tuple[list[torch.Tensor], list[Node | None] | None]:
    """Raw tensors and nodes of a sequence of arrays; no list of nodes where no element needs a gradient."""
    if isinstance(values, torch.Tensor | Tensor) or not hasattr(values, "__iter__"):
        raise TypeError(f"{op_name}: {argument} must be a list or tuple of tensors; got {type(values).__name__}")
    values = list(values)
    nodes = [v._node if isinstance(v, Tensor) else None for v in values]
    raws = [v.data if isinstance(v, Tensor) else raw(v, op_name, argument) for v in values]
    return raws, nodes if any(n is not None for n in nodes) else None


def unread(x: torch.Tensor | None, shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
    """`x`, or memory of its shape for a kernel that asks for it but will not read it."""
    return torch.empty(shape, dtype=like.dtype) if x is None else x


def either(name: str, *args: Any) -> Any:
    """Call a registered op inside a rule: recorded if an argument is a `Tensor`, else its bare forward function."""
    op = registry[name]
    if any(isinstance(a, Tensor) for a in args):
        return op.call(*args)
    out = op.forward(*args)
    return out[0] if op.residuals else out
