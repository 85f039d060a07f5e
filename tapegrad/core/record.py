"""What the tape knows of an op: which values a call saves, and the gradients they give back.

Broadcasting and dtype promotion are undone here, once, for every rule.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from .backward import check_finite
from .errors import MutationError, ShapeError, TapeError
from .extension import _C
from .incoming import FLOATS
from .mode import mode
from .tape import Entry, Node, describe, dtype_of, shape_of
from .tensor import Tensor

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

    __slots__ = ("fetch", "function", "needs", "positions", "reads")

    def __init__(
        self, function: Callable[..., Any], environment: list[str], op_name: str, *, fused: bool = False
    ) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters:
            raise TypeError(f"{op_name}: a gradient rule's first parameter is the gradient of the output; it has none")
        reads = [p.name for p in parameters[1:]]
        self.needs = fused and reads[-1:] == ["needs"]  # which gradients are wanted, handed in last
        if self.needs:
            reads.pop()
        unknown = [name for name in reads if name not in environment]
        if unknown:
            known = ", ".join(environment)
            raise TypeError(f"{op_name}: its gradient rule reads '{unknown[0]}', which is none of {known}")
        self.function = function
        self.reads = reads
        self.positions = tuple([environment.index(name) for name in reads])
        self.fetch = _getter(list(self.positions))


class Plan(NamedTuple):
    """What a recorded call does with its environment, given which array arguments need gradients."""

    size: int
    residuals: int  # so many follow the output in what the forward function returns
    variadic: bool  # parents are lists of nodes
    hold: list[int]  # positions whose values are saved
    drop: list[int]  # positions whose values no rule reads
    shapes: list[tuple[int, int]]  # (to, from): which shapes are noted


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
    runs_users_code : its gradient calls functions of the user's, whose exceptions are their own
    """

    runs_users_code = False

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
        if len(self.arrays) > 62:  # a plan's key has one bit for each
            raise TypeError(f"{self.name}: at most 62 arguments can be arrays; got {len(self.arrays)}; pass a sequence")
        self.variadic = {p.name for p in self.signature.parameters.values() if "Arrays" in str(p.annotation)}
        self.places = [(self.arguments.index(name), name in self.variadic) for name in self.arrays]
        self.residuals = list(residuals)
        shapes = [f"{name}_shape" for name in self.arrays]
        self.environment = [*self.arguments, "out", *self.residuals, *shapes]
        for name, rule in rules.items():
            if not callable(rule):
                raise TypeError(f"{self.name}: the gradient rule of '{name}' must be a function of g; got {rule!r}")
            if name not in self.arrays:
                raise TypeError(f"{self.name}: a gradient rule is given for '{name}', which is not an array argument")
        self.rules = {name: Rule(rule, self.environment, self.name) for name, rule in rules.items()}
        self.in_order = [self.rules.get(name) for name in self.arrays]
        self.backward = None if backward is None else Rule(backward, self.environment, self.name, fused=True)
        self.fresh = backward is not None
        self.lean = self._lean()
        self.call: Callable[..., Any] = forward  # the public function, once `caller` has made it
        self.plans: dict[int, Plan] = {}

    def __repr__(self) -> str:
        return self.name

    def _lean(self) -> tuple[Any, ...] | None:
        """What `backward.cpp` needs to `pull` raw gradients: (fused kernel or None, whether it is told what is wanted,
        the rules in order); a kernel or rule as (function, what it reads). None where `pull` must do it."""
        if self.variadic:
            return None
        fused, *rules = [r and (r.function, r.positions) for r in (self.backward, *self.in_order)]
        return fused, self.backward is not None and self.backward.needs, tuple(rules)

    def plan(self, needs: int) -> Plan:
        """What to save when the array arguments whose bits are set need gradients; kept in `plans`."""
        active = [name for i, name in enumerate(self.arrays) if needs >> i & 1]
        reads = {name for array in active for name in self.rules[array].reads}
        if self.backward is not None:  # a fused kernel gets None for the arrays that no active rule reads
            reads |= set(self.backward.reads) - set(self.arrays)
        position = self.environment.index
        holders = [*self.arrays, "out", *self.residuals]
        self.plans[needs] = plan = Plan(
            size=len(self.environment),
            residuals=len(self.residuals),
            variadic=bool(self.variadic),
            hold=[position(name) for name in holders if name in reads],
            drop=[position(name) for name in holders if name not in reads],
            shapes=[(position(f"{a}_shape"), position(a)) for a in self.arrays if f"{a}_shape" in reads],
        )
        return plan

    # --- recording -------------------------------------------------------------------------------------------

    def record(self, out: Any, parents: tuple[Any, ...], values: tuple[Any, ...]) -> Any:
        """Put one call on the tape and return its output `Tensor` (a tuple of them for several outputs).

        ``csrc/bindings/tape.cpp`` does it: it makes the `Entry`, with what the plan says in its environment.
        """
        return _C.record(self, self.plans, out, parents, values)

    def with_residuals(self, out: Any) -> tuple[Any, ...]:
        """What a forward function returns that has residuals: the output and each of them."""
        if not isinstance(out, tuple | list) or len(out) != 1 + len(self.residuals):
            names = ", ".join(["output", *self.residuals])
            got = f"{len(out)} values" if isinstance(out, tuple | list) else type(out).__name__
            raise TypeError(f"{self.name}: the forward function must return ({names}); got {got}")
        return tuple(out)

    def check_outputs(self, out: Any) -> None:
        """A forward function returns a torch tensor, or a tuple or list of them."""
        if not isinstance(out, tuple | list) or any(type(o) is not torch.Tensor for o in out) or not out:
            got = type(out).__name__
            if isinstance(out, tuple | list):
                got += " of " + ", ".join(type(o).__name__ for o in out)
            raise TypeError(f"{self.name}: the forward function must return torch tensors; got {got}")

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
            open_tape.add(entry, outputs)
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
            needs = ([p is not None for p in parents],) if self.backward.needs else ()
            return self._one_for_each(self.backward.function(g, *self.backward.fetch(env), *needs), parents)
        else:
            grads = [
                None if node is None or rule is None else rule.function(g, *rule.fetch(env))
                for rule, node in zip(self.in_order, parents, strict=True)
            ]
        return [
            None if node is None or dx is None else self._fit(dx, node, entry, recorded)
            for dx, node in zip(grads, parents, strict=True)
        ]

    def _one_for_each(self, gradients: Sequence[Any], parents: tuple[Node | None, ...]) -> tuple[Any, ...]:
        if len(gradients) != len(parents):
            raise TypeError(
                f"{self.name}: backward must return a gradient or None for each of the {len(parents)} array "
                f"arguments; got {len(gradients)}"
            )
        return tuple(gradients)

    def refuse_inference(self) -> None:
        raise TapeError(
            f"{self.name}: cannot record values made inside torch.inference_mode(), which count no changes; "
            "clone them outside, or use tg.no_grad()"
        )

    def _check_unchanged(self, entry: Entry) -> None:
        """Every saved value is still there and still what it was."""
        if entry.versions is not None and _C.unchanged(entry.env, entry.versions):
            return
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
        for i, several in self.places:
            value = env[i]
            if several:
                env[i] = None if value is None else [Tensor._made(v, next(nodes)) for v in value]
            else:
                node = next(nodes)
                if type(value) is torch.Tensor:
                    env[i] = Tensor._made(value, node)
        first = len(self.arguments)  # the output; residuals, which follow it, are constants
        for i in range(first, first + 1 + len(self.residuals)):
            if type(env[i]) is torch.Tensor:
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
    return sum_over(dx, dims).reshape(shape) if dims else dx.reshape(shape)


def _zeros(shape: torch.Size, dtype: torch.dtype, recorded: bool) -> Any:
    zeros = torch.zeros(shape, dtype=dtype)
    return Tensor._made(zeros, None) if recorded else zeros


def _is_array(parameter: inspect.Parameter) -> bool:
    annotation = str(parameter.annotation)
    return parameter.annotation is parameter.empty or "Array" in annotation or "Tensor" in annotation


def verify(ok: torch.Tensor, failure: Callable[[], Exception]) -> None:
    """Raise ``failure()`` unless all of ``ok`` is true. A compiled step makes the same check at every replay."""
    if mode.tracer is None:
        if not bool(ok.all()):
            raise failure()
        return
    with torch._C._DisableTorchDispatch():
        good = bool(ok.all())
        error = None if good else failure()
    if error is not None:
        raise error
    _C.check(ok)


# --- for rules ---------------------------------------------------------------------------------------------------


def kernel(name: str, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """The C++ kernel `name` for float tensors; torch's function for what the kernels do not take (integers, bools)."""
    ours = getattr(_C, name)

    def forward(input: Any, *params: Any) -> Any:
        if type(input) is torch.Tensor and input.dtype in FLOATS:
            return ours(input, *params)
        return otherwise(input, *params)

    return forward


def arithmetic(ours: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """The C++ kernel for two float arrays of one shape, or an array and a number; torch's operator for all else."""

    def forward(input: Any, other: Any) -> Any:
        out = ours(input, other)
        return otherwise(input, other) if out is None else out

    return forward


def sum_over(x: Any, dim: int | Sequence[int] | None, keepdim: bool = False) -> Any:
    """`x` summed over ``dim`` (None: over everything) inside a rule, in the same order for any number of threads."""
    if isinstance(x, Tensor) or x.dtype not in FLOATS:
        return x.sum(dim, keepdim)
    return _C.sum(x, [] if dim is None else [dim] if isinstance(dim, int) else list(dim), keepdim)


def either(name: str, *args: Any) -> Any:
    """Call a registered op inside a rule: recorded if an argument is a `Tensor`, else its bare forward function."""
    op = registry[name]
    for a in args:
        if isinstance(a, Tensor) or (type(a) is list and any(isinstance(v, Tensor) for v in a)):
            return op.call(*args)
    out = op.forward(*args)
    return out[0] if op.residuals else out
