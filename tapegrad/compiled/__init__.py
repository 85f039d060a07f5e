"""The compiled tape: a step is recorded twice, lowered to a program, and replayed in C++. Imports the core, the ops,
optimizers and data. A call passes through these files in this order:

    step, arguments                   what `compile` gives: its calls, signatures, caches; when a step is left as it is
    record, schemas, watch, trace     one recorded call: kernels and operators, the user's code, the recording as data
    facts, results                    the Python state a step read; what it returns
    compare                           do two recordings agree?
    lower, rewrite, plan, program     the program: dead calls, shared calls, convolutions, the arena
    module, habit                     compiled modules; calls that are compiled without being asked
    bind, run, reference              pointers and replays; whole epochs; the same program run in Python
    alike, twins, together, passes    many models at once: the same program over other objects
    members, given, lanes, fuse       its models; its arguments; models side by side in vector registers
    explain, naming, picture, profile the plan as text and as a page; names for its memory; what it takes
    patience, progress, uncompiled    what takes long; what cannot be compiled
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ..core import ArgumentError
from ..nn import Module
from .arguments import Arguments, without_arrays
from .bind import Bound
from .habit import Habit
from .members import Known
from .module import compiled_module
from .passes import Passes
from .program import changed, function_name, reads
from .progress import tqdm_bar
from .step import Compiled
from .together import run_together
from .trace import Call, Made, Number, Offset, Ref, Same, Seed, Trace, made_in, refs_of

__all__ = [  # Compiled, compile, run_together are what users see; the rest is for rooms that run and read programs
    "Arguments",
    "Bound",
    "Call",
    "Compiled",
    "Habit",
    "Known",
    "Made",
    "Number",
    "Offset",
    "Passes",
    "Ref",
    "Same",
    "Seed",
    "Trace",
    "changed",
    "compile",
    "function_name",
    "made_in",
    "reads",
    "refs_of",
    "run_together",
    "tqdm_bar",
    "without_arrays",
]

M = TypeVar("M", bound=Module)


@overload
def compile(  # type: ignore[overload-overlap]
    model: M,
    *,
    exact: bool = True,
    cache_size: int = 8,
    fullgraph: bool | None = None,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
) -> M: ...
@overload
def compile(
    model: Callable[..., Any],
    *,
    exact: bool = True,
    cache_size: int = 8,
    fullgraph: bool | None = None,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
) -> Compiled: ...
@overload
def compile(
    model: None = None,
    *,
    exact: bool = True,
    cache_size: int = 8,
    fullgraph: bool | None = None,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
) -> Callable[[Callable[..., Any]], Compiled]: ...
def compile(
    model: Callable[..., Any] | None = None,
    *,
    exact: bool = True,
    cache_size: int = 8,
    fullgraph: bool | None = None,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
    fn: Callable[..., Any] | None = None,
) -> Any:
    """Compile a step: a function that calls models, losses, ``backward()`` and optimizers.

    >>> import tapegrad as tg
    >>> model = tg.nn.Linear(2, 1)
    >>> opt = tg.optim.SGD(model.parameters(), lr=0.1)
    >>> @tg.compile
    ... def step(x, y):
    ...     opt.zero_grad()
    ...     loss = tg.nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     opt.step()
    ...     return loss
    >>> losses = [step(tg.ones(4, 2), tg.zeros(4, 1)).item() for _ in range(3)]  # the third call is a replay
    >>> losses[2] < losses[0]
    True

    The first two calls of a signature (shapes, dtypes, strides) run as they are and are recorded: every kernel and
    every torch operator, forward, backward and update. If both recordings agree they become a program, which later
    calls replay in C++ without Python; results, parameters, ``.grad``, optimizer state and buffers are those of the
    uncompiled step, bit for bit. Guards are checked at every call: where a fact that the step relied on has changed (a
    mode, a hyper-parameter that is not read anew, a replaced parameter) it is recorded again.

    A learning rate and a weight decay are read at every step, so schedules take effect. ``.grad`` is a buffer that the
    next step overwrites. Where the step puts a tensor into an attribute, a dict, a list or a closure's variable in the
    place of another one, every replay puts a new one there, and reads what it finds there. Arrays and other memory that
    the step wraps are read at every step; what Python reads of them is compared at every call. What a recording cannot
    see: input and output, properties, environment and context variables, what ``functools.lru_cache`` holds, the state
    of C objects such as iterators. Every 1000th call is an eager one, recorded and compared.

    A step that cannot be compiled is refused while it is new, that is until it has a program or three calls are done:
    `CompileError` with line, reason and what to write instead, and everything as it was before the call. Later it is
    never refused, as a training must not die of being compiled: what cannot be compiled then, or keeps changing so that
    recordings are worth nothing, runs as it is, and one RuntimeWarning says why. After 1000 such calls it is tried
    again. Only an eager 1000th call that a program disagrees with is always an error. `Sequential.fit` refuses nothing.

    Parameters
    ----------
    model : the step (also as ``fn``), or a module; its arguments may be tensors, arrays, numbers, strings, and tuples,
        lists or dicts of them. What a module becomes: see below
    exact : False adds rewrites that round differently: nearest x2 upsampling is folded into the convolution after it
    cache_size : programs kept; the one used least recently goes first
    fullgraph : True: what cannot be compiled is refused, as above; False: it runs as it is from the first call on,
        after the warning. Unless given, False for modules (whose calls under ``no_grad`` are compiled) and where one
        of torch's arguments is given that choose nothing here: ``dynamic``, ``backend``, ``mode``, ``options``
    disable : give the step back as it is

    Returns
    -------
    A `Compiled`: ``step(*args)``, ``step.run(...)`` for whole epochs, ``step.explain(*args)``, ``step.programs``.

    A module becomes one of the same kind with the same parameters, layers and modes: what is assigned to either is
    assigned to both. Its calls under `no_grad` are replayed, in training and in evaluation mode, as fast as anything
    here is called; where gradients are recorded, in a compiled step or outside one, the module itself is called, so
    that gradients flow as ever.

    >>> policy = tg.compile(tg.nn.Sequential(tg.nn.Linear(17, 64), tg.nn.Tanh(), tg.nn.Linear(64, 6)))
    >>> with tg.no_grad():
    ...     actions = [policy(tg.ones(1, 17)) for _ in range(3)]
    >>> actions[2].equal(policy(tg.ones(1, 17)).detach())
    True

    Raises
    ------
    CompileError
        at the call that is recorded, with line and reason, if a new step reads a value into Python, has side effects,
        or does not do the same twice, and for whatever fails in compiling it. Everything that the call changed has
        been put back, as it is after any other exception, Ctrl-C included.

    Source: the recording of a step as a linear program follows CasADi's functions and JAX's jaxprs; DESIGN.md.
    """
    if cache_size < 1:
        raise ArgumentError(f"compile: cache_size must be at least 1; got {cache_size}")
    step = model if fn is None else fn
    if fullgraph is None and any(given is not None for given in (dynamic, backend, mode, options)):
        fullgraph = False
    if step is None:
        return lambda f: compile(f, exact=exact, cache_size=cache_size, fullgraph=fullgraph, disable=disable)
    if not callable(step):
        raise TypeError(f"compile: model must be a function or a module; got {type(step).__name__}")
    if disable:
        return step
    lenient = isinstance(step, Module) if fullgraph is None else not fullgraph
    if isinstance(step, Module):
        return compiled_module(step, exact, cache_size, lenient)
    return Compiled(step, exact, cache_size, lenient)
