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
import os
import re
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import Any, ParamSpec, TypeAlias, overload

import torch

from .errors import TapeError
from .extension import _C
from .failures import composition, explain
from .foreign import FOREIGN
from .mode import mode
from .record import Op, registry
from .tape import PACKAGE, Node
from .tensor import Tensor, raw

P = ParamSpec("P")

Array: TypeAlias = Any  # in a forward function a torch.Tensor or a number; for the caller anything array-like
Arrays: TypeAlias = Sequence[Any]  # a sequence of arrays, as `cat` takes


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
        return caller(Op(function, rules, backward, residuals, name=name), function.__module__ or "__main__")

    return make if forward is None else make(forward)


_TEMPLATE = """\
def call({signature}):
{spelled}{unwrap}
    try:
        __out = __forward({given})
    except Exception as error:
        raise __explain(__op, ({raw}), error) from error
    if ({some}) and __mode.record:
        return __record(__out, ({nodes}), ({raw}))
    return {constant}
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

_INTEGER = """\
    if type({x}) is not int or not -0x8000000000000000 <= {x} <= 0x7FFFFFFFFFFFFFFF:
        {x} = __integers({x}, "{op}", "{x}")
"""

_INTEGERS = """\
    if type({x}) is not int:
        {x} = __integers({x}, "{op}", "{x}")
"""

# NumPy's names of two arguments, which torch's functions take too
NUMPY = {"dim": "axis", "keepdim": "keepdims"}

_SPELLED = """\
    if {numpy} is not None:
        {x} = {numpy}
"""

_GIVEN = """\
    {otherwise} {x} is __missing:
        raise TypeError("{op}() missing a required argument: '{x}'")
"""

_COMPOSITION = """\
def call({signature}):
{spelled}{convert}
    try:
        return __function({arguments})
    except __FOREIGN as error:
        if type(error) not in __FOREIGN:  # of our tree: it names what is wrong
            raise
        raise __composition("{name}", {names}, ({values}), error) from error
"""

_NO_RULE = """\
    if __node_{x} is not None and __mode.record:
        __no_rule(__op.name, "{x}")
"""


def caller(op: Op, module: str = __name__) -> Any:
    """The public function of an op. Its text is generated, so that Python itself binds the arguments."""
    params = list(op.signature.parameters.values())
    unwrap = [_INTEGERS.format(x=p.name, op=op.name) for p in params if p.name not in op.arrays and is_integers(p)]
    unwrap += [(_UNWRAP_SEQUENCE if x in op.variadic else _UNWRAP).format(x=x) for x in op.arrays]
    if op.rules:
        unwrap += [_NO_RULE.format(x=x) for x in op.arrays if x not in op.rules]
    raws = [f"__raw_{p.name}" if p.name in op.arrays else p.name for p in params]
    constant = "__constant(__out)"
    if not op.residuals:
        constant = f"__made(__out, None) if type(__out) is __torch_Tensor else {constant}"
    spelled, signature = _spelled(params, op.name)
    source = _TEMPLATE.format(
        constant=constant,
        signature=signature,
        spelled=spelled,
        unwrap="".join(unwrap),
        raw="".join(f"{x}, " for x in raws),
        given=", ".join(f"{p.name}={x}" if p.kind is p.KEYWORD_ONLY else x for p, x in zip(params, raws, strict=True)),
        some=" or ".join(f"__node_{x} is not None" for x in op.rules or op.arrays) or "False",
        nodes="".join(f"__node_{x}, " for x in op.arrays),
    )
    ours = _ours(module)
    scope = _defaults(params)
    scope |= {
        "__integers": _C.integers,
        "__Tensor": Tensor,
        "__raw": raw,
        "__raw_sequence": _raw_sequence,
        "__no_rule": _no_rule,
        "__explain": explain,
        "__mode": mode,
        "__op": op,
        "__forward": op.forward if ours else _apart(op.forward),
        "__made": Tensor._made,
        "__torch_Tensor": torch.Tensor,
        "__record": partial(_C.record, op, op.plans) if op.rules else partial(_without_rules, op),
        "__constant": partial(_constant, op),
    }
    exec(compile(source, f"{PACKAGE}core{os.sep}op.py:{op.name}", "exec"), scope)
    call = scope["call"]
    call.__name__ = call.__qualname__ = op.name
    call.__doc__ = op.doc
    call.__module__ = module
    call.__signature__ = _seen(op.signature)
    call.op = op
    op.call = call
    _register(op, module)
    return call


def _signature(params: Sequence[inspect.Parameter]) -> str:
    """The parameters of a generated function, their defaults under the names that `_defaults` gives."""
    text: list[str] = []
    for i, p in enumerate(params):
        if p.kind is p.KEYWORD_ONLY and all(q.kind <= p.POSITIONAL_OR_KEYWORD for q in params[:i]):
            text.append("*")
        star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        text.append(star + p.name if p.default is p.empty else f"{p.name}=__default_{p.name}")
    return ", ".join(text)


def _spelled(params: Sequence[inspect.Parameter], name: str) -> tuple[str, str]:
    """The statements that give `dim` the value of ``axis=`` (`NUMPY`), and the signature that has both."""
    names = [p.name for p in params]
    known = [x for x in names if x in NUMPY and NUMPY[x] not in names]
    if not known:
        return "", _signature(params)
    lines, given = "", list(params)
    first = min(names.index(x) for x in known)
    for i, p in enumerate(params):
        needed = p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        if p.name in known:
            lines += _SPELLED.format(x=p.name, numpy=NUMPY[p.name])
        if i >= first and needed:
            given[i] = p.replace(default=MISSING)
            lines += _GIVEN.format(x=p.name, op=name, otherwise="elif" if p.name in known else "if")
    star = [] if any(p.kind is p.KEYWORD_ONLY or p.kind is p.VAR_POSITIONAL for p in params) else ["*"]
    extra = [f"{NUMPY[x]}=None" for x in known]
    return lines, ", ".join([_signature(given), *star, *extra])


def _seen(signature: inspect.Signature) -> inspect.Signature:
    """The signature that a user sees: with NumPy's names, by keyword."""
    params = list(signature.parameters.values())
    names = [p.name for p in params]
    spellings = [NUMPY[p.name] for p in params if p.name in NUMPY and NUMPY[p.name] not in names]
    extra = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Any") for n in spellings]
    return signature.replace(parameters=[*params, *extra])


MISSING: Any = object()  # the default of an argument that has none, but another spelling


def _defaults(params: Sequence[inspect.Parameter]) -> dict[str, Any]:
    defaults = {f"__default_{p.name}": MISSING if p.default is p.empty else p.default for p in params}
    return {**defaults, "__missing": MISSING}


def is_integers(parameter: inspect.Parameter) -> bool:
    """Whether an argument stands for an int or several: its annotation says ``int``, ``Ints`` or ``Dim``."""
    return re.search(r"\b(int|Ints|Dim)\b", str(parameter.annotation)) is not None


def with_integers(function: Callable[P, Any]) -> Callable[P, Any]:
    """A composition of ops that takes a 0-dim integer tensor wherever it takes an int, as an op's own call does."""
    params = list(inspect.signature(function).parameters.values())
    name = function.__name__
    convert = [_INTEGER.format(x=p.name, op=name) for p in params if is_integers(p)]
    spelled, signature = _spelled(params, name)
    if not convert and not spelled:
        return function
    passed = {"VAR_POSITIONAL": "*{0}", "KEYWORD_ONLY": "{0}={0}", "VAR_KEYWORD": "**{0}"}
    arguments = ", ".join(passed.get(p.kind.name, "{0}").format(p.name) for p in params)
    names = [p.name for p in params]
    source = _COMPOSITION.format(
        signature=signature,
        spelled=spelled,
        convert="".join(convert),
        arguments=arguments,
        name=name,
        names=names,
        values="".join(f"{x}, " for x in names),
    )
    scope = {"__function": function, "__integers": _C.integers, **_defaults(params)}
    scope |= {"__composition": composition, "__FOREIGN": FOREIGN}
    exec(compile(source, f"{PACKAGE}op.py:{name}", "exec"), scope)
    call: Callable[P, Any] = update_wrapper(scope["call"], function)
    call.__signature__ = _seen(inspect.signature(function))  # type: ignore[attr-defined]
    del call.__wrapped__  # type: ignore[attr-defined]  # this is the function that everybody sees
    return call


def _register(op: Op, module: str) -> None:
    """Enter an op under its name; a user's op does not take the place of one of the package's own."""
    before = registry.get(op.name)
    if before is None or _ours(module) or not _ours(before.call.__module__):
        registry[op.name] = op


def _ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _constant(op: Op, out: Any) -> Any:
    """The result of a call that is not recorded."""
    if op.residuals:
        out = op.with_residuals(out)[0]
    if type(out) is torch.Tensor:
        return Tensor._made(out, None)
    op.check_outputs(out)
    return tuple([Tensor._made(o, None) for o in out])


def _without_rules(op: Op, out: Any, nodes: Any, values: Any) -> Any:
    """The result of an op that has no gradient rule at all, called on a tensor that needs a gradient."""
    several = out if isinstance(out, tuple) else (out,)
    if any(isinstance(o, torch.Tensor) and o.is_floating_point() for o in several):
        raise TapeError(f"{op.name}: the op has no gradient rule; give it one, or pass x.detach()")
    return _constant(op, out)


def _no_rule(op_name: str, argument: str) -> None:
    raise TapeError(f"{op_name}: argument '{argument}' has no gradient; pass it without one: {argument}.detach()")


def _apart(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A user's forward function that gives back views of arguments where it gave back the arguments themselves.

    Two Tensors on one torch tensor would share memory where no write to one of them could find the other.
    """

    def apart(*args: Any, **options: Any) -> Any:
        out = forward(*args, **options)
        given = {id(v) for a in (*args, *options.values()) for v in (a if isinstance(a, list) else (a,))}
        if not isinstance(out, tuple):
            return out.view_as(out) if id(out) in given and isinstance(out, torch.Tensor) else out
        return tuple([v.view_as(v) if id(v) in given and isinstance(v, torch.Tensor) else v for v in out])

    return apart


def _raw_sequence(values: Any, op_name: str, argument: str) -> tuple[list[torch.Tensor], list[Node | None] | None]:
    """Raw tensors and nodes of a sequence of arrays; no list of nodes where no element needs a gradient."""
    if isinstance(values, torch.Tensor | Tensor) or not hasattr(values, "__iter__"):
        raise TypeError(f"{op_name}: {argument} must be a list or tuple of tensors; got {type(values).__name__}")
    values = list(values)
    nodes = [v._node if isinstance(v, Tensor) else None for v in values]
    raws = [v.data if isinstance(v, Tensor) else raw(v, op_name, argument) for v in values]
    return raws, nodes if any(n is not None for n in nodes) else None
