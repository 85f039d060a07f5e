"""Wrong calls of the extension: whatever ``tapegrad._C`` is given, it answers or raises, and the process lives on.

    python tests/kernels/fuzz_bindings.py                      # one million cases, from a new seed: some hours
    python tests/kernels/fuzz_bindings.py --cases 200 --seed 0   # what the suite runs (tests/kernels/test_bindings.py)
    python tests/kernels/fuzz_bindings.py --case 0:1234        # one case again, in this process, printed as it goes
    python tests/sanitize.py --fuzz 20000              # the same under AddressSanitizer and UBSan

A case is decided by its seed and number alone. Each is one call of a function with good arguments of which some are
spoiled, or a sequence of calls of one ``Executor``, ``Guards`` or ``Log``. Workers run them in processes of their own
with bounded memory; a worker that dies or hangs is a finding, and another goes on after the case. So is a SystemError:
that is what Python raises for a function that breaks its rules.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MEMORY = 6 << 30  # bytes of address space for a worker
SECONDS = 60  # for a case, and for the start of a worker

ROOT = Path(__file__).resolve().parents[2]


def imports() -> None:
    """torch and the package: not in the process that starts the workers."""
    global torch, tg, _C, registry
    if __name__ == "__main__" and "PYTHONPATH" not in os.environ:
        sys.path.insert(0, str(ROOT))
    import torch

    import tapegrad as tg
    from tapegrad.core import _C
    from tapegrad.core.record import registry


def imports_of_a_worker() -> None:
    imports()
    torch.set_num_threads(2)
    # where torch itself refuses an operator's arguments it prints them, whether their memory is there or not
    torch.Tensor.__repr__ = lambda self, **_: "a tensor"  # type: ignore[method-assign]


# --- good calls --------------------------------------------------------------------------------------------------


def good_calls(t: Callable[..., Any], draw: random.Random) -> dict[str, list[Any]]:
    """Arguments that every function takes. t(*size): a tensor."""
    one, zero, nothing = (1, 1), (0, 0), (True, True, True)
    x, w, b, g = t(2, 4, 5, 5), t(6, 2, 3, 3), t(6), t(2, 6, 5, 5)
    conv = (one, one, one, 2)
    m, ints = t(3, 4), torch.arange(3)
    relu = registry["relu"]
    plan = (5, 0, False, [1], [0], [(2, 0)])
    calls: dict[str, list[Any]] = {
        "conv2d": [x, w, b, *conv],
        "conv2d_of_doubled": [x, w, b, *conv],
        "conv2d_backward": [g, x, w, list(x.shape), list(w.shape), *conv, *nothing],
        "conv2d_of_doubled_backward": [t(2, 6, 10, 10), x, w, [2, 4, 10, 10], list(w.shape), *conv, *nothing],
        "conv2d_input_grad": [g, w, list(x.shape), *conv],
        "conv2d_weight_grad": [g, x, list(w.shape), *conv],
        "linear": [m, t(5, 4), t(5)],
        "linear_backward": [t(3, 5), m, t(5, 4), *nothing],
        "recurrent": [
            *(t(5, 2), t(3, 2), t(3, 4), t(16, 2), t(16, 2), t(16), t(16), t(2, 4)),
            *("LSTM", [3, 2], draw.random() < 0.5, draw.random() < 0.5),
        ],
        "recurrent_backward": [
            *(t(5, 4), t(3, 4), None, t(5, 2), t(12, 2), t(12, 4), None, t(5, 16), t(5, 4)),
            *("GRU", [3, 2], draw.random() < 0.5, [draw.random() < 0.5 for _ in range(8)]),
        ],
        "ctc_loss": [t(5, 2, 4), torch.randint(4, (2, 3)), torch.tensor([5, 4]), torch.tensor([3, 1]), 0],
        "ctc_loss_backward": [
            *(t(2), t(5, 2, 4), torch.randint(4, (4,)), torch.tensor([5, 0]), torch.tensor([3, 1])),
            *(t(2), t(50), 0, draw.random() < 0.5),
        ],
        "matmul": [t(2, 3, 4), t(4, 5)],
        "matmul_backward": [t(2, 3, 5), t(2, 3, 4), t(4, 5), [2, 3, 4], [4, 5], True, True],
        "upsample_conv2d": [x, t(6, 4, 3, 3), b],
        "upsample_conv2d_backward": [t(2, 6, 10, 10), x, t(6, 4, 3, 3), *nothing],
        "max_pool2d": [x, (2, 2), (2, 2), zero, one, False],
        "max_pool2d_backward": [t(2, 4, 2, 2), torch.randint(25, (2, 4, 2, 2)), list(x.shape)],
        "upsample_nearest2d": [x, (7, 10), None],
        "upsample_nearest2d_backward": [t(2, 4, 10, 10), list(x.shape), (2.0, 2.0)],
        "random_uniform": [[3, 4], torch.float32, 1, 2],
        "random_normal": [[3, 4], torch.float64, 1, 2],
        "random_int": [-5, 5, [3, 4], 1, 2],
        "random_bernoulli": [0.5, [3, 4], 1, 2],
        "random_blocks": [9, torch.float32],
        "permutation": [9, 1, 2],
        "philox": [1, 2, 3],
        "scaled_product": [m, t(3, 4), t(3, 4), 2.0],
        "dropout": [m, 0.5, 1, 2],
        "sum": [x, [1, -1], True],
        "mean": [x, [], False],
        "softmax": [m, 1],
        "softmax_backward": [m, t(3, 4), 1],
        "log_softmax": [m, 0],
        "log_softmax_backward": [m, t(3, 4), -1],
        "mse_loss": [m, t(3, 4), True],
        "mse_loss_backward": [t(), m, t(3, 4), True, True, True],
        "cross_entropy": [m, ints, t(4), -100, "mean", 0.1],
        "cross_entropy_backward": [t(), m, ints, t(4), t(3, 2), t(), -100, "mean", 0.1],
        **_updates(t, draw),
        "check": [torch.ones(2, dtype=torch.bool)],
        **{name: [m, t(3, 4)] for name in ("add", "sub", "mul", "div")},
        "tensor": [m, None],
        "record": [relu, draw.choice([relu.plans, {1: plan}]), m, (tg.zeros(1, requires_grad=True)._node,), (m,)],
        "release": [(tg.ones(2, requires_grad=True) * m[0, :2])._node],
        "integers": [draw.choice([3, [1, 2], torch.tensor(2), [tg.tensor(1)]]), "op", "argument"],
        "collecting": [draw.choice(["start", "stop"]), {"generation": 2}],
        "buffer_state": [bytearray(9), draw.random() < 0.5],
        "buffer_extent": [bytearray(9)],
        "unchanged": [[m, [m, b]], [(0, m._version), (1, [0, 0])]],
        "is_plain": [m],
        "storage_use_count": [m],
        "bump_version": [m],
        "parallel_threads": [4],
        "place": [[(64, 0, 3), (128, 1, 2)]],
        "refs_of": [[m, (1, [m])]],
        "watch": [False],
        "same_storage": [m, x],
        "alias": [m, m.dtype, 0, [3, 4], [4, 1]],
        "resample": [x, [7, 7], "bilinear", False, None],
        "resample_backward": [x, [7, 7], "bilinear", False, None],
        "index_add": [m, 0, ints, t(3, 4)],
        "index_sum": [m, [5, 4], 0, ints],
        "pow_to_number": [m, 2.5],
        "pow_of_number": [2.0, m],
        "prod": [x, draw.choice([1, -1, None]), True],
        "norm": [x, draw.choice([0.0, 1.0, 2.0, 3.5, float("inf")]), [1, -1], False],
        "logsumexp": [x, [0, 2], True],
        "elu": [m, 1.0, 1.0, 1.0],
        **_norms(t),
        **{name: [m] for name in ("sinh", "cosh", "atanh", "exp2", "mish", "logsigmoid")},
        **{name: [m, t(4)] for name in ("atan2", "logaddexp", "logaddexp2", "maximum", "minimum", "pow")},
        **_recording(t, draw),
        "locked": [threading.RLock(), lambda: 5],
        **{name: [] for name in ("empty_cache", "build_info", "watched", "open_entries", "end_threads")},
    }
    for name, parameters in _activations().items():
        calls[name] = [m, *parameters]
        calls[f"{name}_backward"] = [t(3, 4), m, *parameters]
    return calls


def _updates(t: Callable[..., Any], draw: random.Random) -> dict[str, list[Any]]:
    """Of optimizers: lists of tensors and counts; then numbers and switches."""
    from tapegrad.optim.kernels import KERNELS

    calls: dict[str, list[Any]] = {}
    for kernel in KERNELS.values():
        lists = [[t(3, 4), t(6)] for _ in range(2 + len(kernel.state))]
        counts = [[torch.zeros(()), torch.ones(())] for _ in kernel.counts]
        numbers = [draw.choice([0.0, 0.1, 0.9, 1e-8]) for _ in kernel.numbers]
        calls[kernel.name] = [*lists, *counts, *numbers, *[draw.random() < 0.5 for _ in kernel.switches]]
    return calls


def _norms(t: Callable[..., Any]) -> dict[str, list[Any]]:
    x, g, c, double = t(2, 4, 5, 5), t(2, 4, 5, 5), t(4), torch.float64
    calls: dict[str, list[Any]] = {
        "batch_norm": [x, c, t(4), t(4), t(4).abs(), 1e-5],
        "batch_norm_backward": [g, x, c, torch.rand(3, 4, dtype=double), True, True, True, True],
        "move_statistics_": [[t(4), t(4)], [t(4), t(4)], torch.rand(3, 4, dtype=double), 0.1],
        "layer_norm": [x, [5, 5], t(5, 5), t(5, 5), 1e-5],
        "layer_norm_backward": [g, x, [5, 5], t(5, 5), torch.rand(2, 2, 4, 1, 1, dtype=double), True, True, True],
        "group_norm": [x, 2, c, t(4), 1e-5],
        "group_norm_backward": [g, x, 2, c, torch.rand(2, 2, 2, 1, dtype=double), True, True, True],
    }
    for name in ("var", "std"):
        calls[name] = [x, [1, 3], 1.0, True]
        stats = torch.rand(2, 2, 1, 5, 1, dtype=double)
        calls[f"{name}_backward"] = [t(2, 1, 5, 1), x, stats, [1, 3], 1.0]
    return calls


def _recording(t: Callable[..., Any], draw: random.Random) -> dict[str, list[Any]]:
    """What the compiled tape and backward call."""
    m, leaf = t(3, 4), tg.ones(2, requires_grad=True)
    entry = (leaf * 2)._node
    before = _C.Before()
    before.memory(torch.zeros(9, dtype=torch.uint8))
    before.attribute(types.SimpleNamespace(a=1), "a", draw.choice([2, anything(draw)]))
    mode = types.SimpleNamespace(record=True, tracer=None)
    return {
        "hold": [tg.ones(3), m],
        "sharers": [leaf.detach()],
        "lanes_of": [m.dtype],
        "run_networks": networks(t, draw),
        "storage_key": [m],
        "user_line": [lambda frame: draw.random() < 0.5, lambda frame: "a.py:3"],
        "walk": [
            [entry],
            {entry: torch.ones(2)},
            set(),
            None,
            draw.choice([None, {entry: entry.parents}]),
            lambda e: 5,
            lambda e, g, error: [].pop(),
        ],
        "leave_gradients": [[leaf._node, tg.ones(3, requires_grad=True)._node], [torch.ones(2), torch.ones(3)]],
        "all_or_nothing": [before, _C.add, m, m],
        "taken_back": [before, _C.add, m, m],
        "record_call": [mode, Listener(), *draw.choice([(_C.add, (m, m)), (_C.relu, (m,))]), {}],
        "on_one_thread": [_C.add, m, m],
    }


def _activations() -> dict[str, list[float]]:
    names = ("relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "exp", "log")
    return {**{name: [] for name in names}, "leaky_relu": [0.1], "softplus": [1.0, 20.0]}


def networks(t: Callable[..., Any], draw: random.Random) -> list[Any]:
    """Several networks of y = a x with its loss, one program in lanes and one for each alone."""
    dtype, rows, steps = t(1).dtype, 2, 3
    arrays, width = [t(6, 2)], _C.lanes_of(dtype)

    def program(lanes: bool) -> tuple[Any, list[Any], Any, int]:
        tail = [width] if lanes else []

        def view(slot: int, *size: int) -> Any:
            like = torch.empty([*size, *tail])
            return e.view(slot, dtype, 0, list(like.shape), list(like.stride()))

        e = _C.Executor(1 << 12)
        outside = torch.zeros([1, *tail], dtype=dtype)
        w = view(e.add_outside(outside, True), 1)
        if lanes:
            x = view(e.add_outside(torch.zeros([rows, 2, width], dtype=dtype), True), rows, 2)
        else:
            x = view(e.add_argument(t(rows, 2), False), rows, 2)
        loss = view(e.add_arena(0, dtype.itemsize * width))
        add = e.add_lanes if lanes else e.add_direct
        number = add("mse_loss", (x, x, True), [loss])
        add("aten::add_.Tensor", (w, view(e.add_arena(0, dtype.itemsize * width), 1), 1), [])
        e.set_loss(loss)
        return e, [x], outside, number

    alone = program(False)[0]
    side = _C.Lanes(width)
    e, given, outside, _ = program(True)
    side.add_program(e, given, _loss(e, dtype, width))
    side.add_outside(outside, 0, 0, True, True)
    made, shuffle, until = [], draw.random() < 0.5, draw.choice([2, 2, 2, 0])
    order = draw.choice([None, torch.tensor([0, 5, 2, 3, 4, 1])])
    for k in range(draw.randint(1, 4)):
        n = _C.Network(arrays, order, 6, rows, steps, shuffle, k, torch.zeros(2, steps, dtype=dtype), 1)
        n.set_part(0, 0, 0, steps, rows, [torch.ones(1, dtype=dtype)], [], [0], [1])
        n.until = until
        made.append(n)
    return [[(made, 0)], [([alone], [draw.choice([side, side, None])])], lambda steps: None]


def _loss(e: Any, dtype: Any, width: int) -> Any:
    return e.view(e.add_arena(0, dtype.itemsize * width), dtype, 0, [width], [1])


# Put other functions into the process for good; given their own arguments, spoiled, and called anew afterwards.
FOR_GOOD = ("tape_classes", "trace_classes")


# --- spoiling ----------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2, 7, 2**31 - 1, 2**31, -(2**31), 2**32 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 2**64, 10**30]
FLOATS = [0.0, -0.0, 1e308, float("inf"), float("nan"), -1.5]


def there(t: Any) -> bool:
    """Whether torch may be asked for the elements: it does not look whether their memory is there."""
    if not issubclass(type(t), torch.Tensor) or t.layout is not torch.strided or t.device.type != "cpu" or t.is_nested:
        return False
    if t.is_quantized:
        return False
    end = t.storage_offset() + sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True)) + 1
    return 0 < t.numel() < 1 << 24 and t.untyped_storage().nbytes() >= end * t.element_size()


def hollow(t: Any) -> Any:
    """The tensor with the storage taken from under it, or most of it."""
    t = t.clone()
    t.untyped_storage().resize_(random.choice([0, max(t.nbytes - 1, 0), t.nbytes // 2]))
    return t


def tensors(draw: random.Random) -> Any:
    """A tensor of any kind."""
    size = [draw.choice([0, 1, 2, 3, 5]) for _ in range(draw.randint(0, 5))]
    kinds: list[Callable[[], Any]] = [
        lambda: torch.randn(size),
        lambda: torch.randn(size, dtype=torch.float64),
        lambda: torch.ones(size, dtype=draw.choice([torch.int64, torch.bool, torch.int8, torch.float16])),
        lambda: torch.randn(size, dtype=torch.complex64),
        lambda: torch.randn(size).to_sparse(),
        lambda: torch.randn(size, device="meta"),
        lambda: torch._efficientzerotensor(size),
        lambda: torch._neg_view(torch.randn(size)),
        lambda: torch.nn.Parameter(torch.randn(size)),
        lambda: torch.quantize_per_tensor(torch.randn(size), 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.empty(1).expand([*size[:1], 2**62 // max([1, *size])]),
        lambda: torch.randn(64).as_strided([3, 4], [draw.randint(0, 3), draw.randint(0, 3)], draw.randint(0, 5)),
        lambda: tg.ones(size),
    ]
    made = draw.choice(kinds)()
    return hollow(made) if draw.random() < 0.2 and there(made) else made


def spoiled_tensor(t: Any, draw: random.Random) -> Any:
    """Nearly the tensor it should be."""
    if not there(t):
        return tensors(draw)
    changes: list[Callable[[], Any]] = [
        lambda: hollow(t),
        lambda: t.double() if t.dtype is torch.float32 else t.float(),
        lambda: t.mT.contiguous().mT if t.ndim > 1 else t.expand(2, *t.shape),
        lambda: torch.stack([t, t], -1)[..., 0],
        lambda: t[..., :1].expand(t.shape) if t.ndim else t.expand(1),
        lambda: t.flatten()[draw.randint(0, 3) :],
        lambda: t.unsqueeze(0),
        lambda: t[:0] if t.ndim else t,
        lambda: torch._neg_view(t),
        lambda: torch._efficientzerotensor(t.shape, dtype=t.dtype),
        lambda: torch.full(t.shape, draw.choice([-1, 2**40, 2**62])).to(t.dtype),
        lambda: t.to("meta"),
        lambda: t if t.requires_grad else t.resize_(0),
        lambda: tensors(draw),
    ]
    made = draw.choice(changes)()
    return hollow(made) if draw.random() < 0.1 and there(made) else made


def anything(draw: random.Random) -> Any:
    """Any object."""
    return draw.choice(
        [
            *(lambda: None, lambda: tensors(draw), lambda: draw.choice(NUMBERS), lambda: draw.choice(FLOATS)),
            *(
                lambda: "mean",
                lambda: "",
                lambda: b"x",
                list,
                tuple,
                dict,
                object,
                lambda: int,
                lambda: type(tg.ones(1)),
            ),
            *(lambda: [anything(draw)], lambda: (anything(draw),) * draw.randint(1, 6), lambda: torch.float32),
            *(
                lambda: {draw.choice([0, 1, "a"]): anything(draw)},
                lambda: tg.ones(2),
                lambda: len,
                lambda: Hostile(draw),
            ),
        ]
    )()


class Listener:
    """A recorder, which hears of every call and lets it be; given a `draw`, sometimes not."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self._draw = draw
        self.log = _C.Log([], [], 4096) if draw is None or draw.random() < 0.8 else anything(draw)

    def _fails(self) -> bool:
        return self._draw is not None and self._draw.random() < 0.1

    def _hears(self, *_: Any) -> None:
        if self._fails():
            raise KeyError("a recorder")

    _kernel = _profile = read_unseen = _odd_ref = _before_write = _look = _fail = _viewed = _ran = _hears

    def _operate(self, function: Any, arguments: Any, options: Any) -> Any:
        return function(*arguments, **options)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return anything(self._draw) if self._fails() else func(*args, **(kwargs or {}))


class Hostile:
    """Answers whatever it is asked with anything, or an error."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def _answer(self, *_: Any, **__: Any) -> Any:
        if self._draw.random() < 0.3:
            raise KeyError("hostile")
        return anything(self._draw)

    __eq__ = __call__ = __getitem__ = __len__ = __index__ = __iter__ = __bool__ = _answer  # type: ignore[assignment]

    def __hash__(self) -> int:
        return self._draw.randrange(4)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_draw":
            raise AttributeError(name)
        return self._answer


def spoiled(value: Any, draw: random.Random) -> Any:
    """A value in the place of `value`: of its kind mostly."""
    if draw.random() < 0.15:
        return anything(draw)
    if issubclass(type(value), torch.Tensor):
        return spoiled_tensor(value, draw)
    if isinstance(value, bool):
        return not value
    if isinstance(value, Listener):
        return Listener(draw)
    if isinstance(value, int):
        return draw.choice([*NUMBERS, value + 1, -value])
    if isinstance(value, float):
        return draw.choice([*FLOATS, *NUMBERS])
    if isinstance(value, str):
        return draw.choice(["sum", "none", "", "\ud800", "x" * 1000])
    if isinstance(value, torch.dtype):
        return draw.choice([torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64, torch.bfloat16])
    if isinstance(value, list | tuple):
        items = list(value)
        for _ in range(draw.randint(1, 2)):
            what = draw.randrange(4)
            if what == 0 or not items:
                items.insert(draw.randint(0, len(items)), anything(draw))
            elif what == 1:
                del items[draw.randrange(len(items))]
            else:
                at = draw.randrange(len(items))
                items[at] = spoiled(items[at], draw)
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: spoiled(item, draw) for key, item in value.items()}
    return anything(draw)


HOW_MANY = [0, 1, 1, 1, 2, 3]  # arguments are spoiled


def spoil(arguments: list[Any], draw: random.Random) -> list[Any]:
    arguments = list(arguments)
    for _ in range(draw.choice(HOW_MANY)):
        if arguments:
            at = draw.randrange(len(arguments))
            arguments[at] = spoiled(arguments[at], draw)
    if draw.random() < 0.03:
        arguments = arguments[:-1] if draw.random() < 0.5 else [*arguments, None]
    return arguments


# --- cases -------------------------------------------------------------------------------------------------------


class Broken(BaseException):
    """A function that broke Python's rules."""


class Case:
    """One case: calls, each told to `say` before it is made."""

    def __init__(self, seed: str, say: Callable[[str], None] | None) -> None:
        self.draw = random.Random(seed)
        random.seed(seed)
        torch.manual_seed(self.draw.randrange(2**31))
        self.say = say
        self.dtype = self.draw.choice([torch.float32, torch.float64])

    def run(self) -> None:
        weights = {self.function: 6, self.executor: 5, self.replay: 1, self.before: 1, self.guards: 1, self.log: 1}
        self.draw.choices(list(weights), list(weights.values()))[0]()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer; None where it raises."""
        if self.say:  # before it is made
            self.say(f"{getattr(function, '__qualname__', function)}({', '.join(map(described, arguments))})")
        try:
            answer = function(*arguments)
        except SystemError as error:
            raise Broken(f"{function}: {error}") from error
        except Exception as error:  # any error is an answer
            if self.say:
                self.say(f"    {type(error).__name__}: {str(error)[:200]}")
            return None
        for t in answer if type(answer) in (tuple, list) else [answer]:
            if there(t):
                t.sum()  # reads all of it
        return answer

    def tensor(self, *size: int) -> Any:
        return torch.randn(size, dtype=self.dtype)

    def good_calls(self) -> dict[str, list[Any]]:
        return good_calls(self.tensor, self.draw)

    def good(self) -> tuple[str, list[Any]]:
        calls = self.good_calls()
        name = self.draw.choice(list(calls))
        return name, calls[name]

    def function(self) -> None:
        name, arguments = self.good()
        if self.draw.random() < 0.01:
            name = self.draw.choice(FOR_GOOD)
            arguments = list(classes(name))
        arguments = spoil(arguments, self.draw)
        self.call(getattr(_C, name), *arguments)
        self.restore(name)

    @staticmethod
    def restore(name: str) -> None:
        _C.watch(False)
        if name in FOR_GOOD:
            getattr(_C, name)(*classes(name))

    def guards(self) -> None:
        draw, guards = self.draw, _C.Guards()
        for _ in range(draw.randint(1, 6)):
            container = draw.choice([{"a": 1, "b": 2.5}, [1, 2], (lambda: draw).__closure__[0], anything(draw), 5])
            key = draw.choice(["a", 0, "real", len, lambda c: c, ("a", "b"), anything(draw), Hostile(draw), True])
            value = draw.choice([1, 2, 2.5, b"", ("a", "b"), ("a", Hostile(draw)), anything(draw), b"", Hostile(draw)])
            again = draw.random() < 0.1
            if again:  # asked, it adds a guard
                key = lambda c, g=guards: [g.add(0, [1], 0, 1, True) for _ in range(100)]  # noqa: E731
            kind = 5 if again else draw.choice([*range(8), *range(8), *NUMBERS])
            self.call(guards.add, kind, container, key, value, draw.random() < 0.5)
        for _ in range(2):
            self.call(guards.check)

    def log(self) -> None:
        """The recording's C++ side, told of tensors and calls by a recorder that is none."""
        draw, recorder = self.draw, Hostile(self.draw)
        log = self.call(_C.Log, *spoil([[], [], draw.choice([1, 2, 4096])], Rarely(draw)))
        if log is None:
            return
        for _ in range(draw.randint(1, 9)):
            m = self.tensor(3, 4)
            calls = {
                "slot": [m],
                "name": [m, 0, False],
                "added": [m],
                "refs": [recorder, [m, (1, m)]],
                "made": [recorder, m],
                "append": [recorder, "name", (m,), (), ()],
                "operate": [recorder, draw.choice([torch.ops.aten.mul.Tensor, torch.ops.aten.view.default]), (m, m)],
                "stop": [],
            }
            name = draw.choice(list(calls))
            method = getattr(log, name)

            def asked(*given: Any, method: Any = method) -> None:  # what a tensor of torch's holds is not ours to say
                method(*given)

            with contextlib.suppress(RuntimeError):  # of torch, spoiling what was spoiled before
                self.call(asked, *spoil(calls[name], draw))

    def before(self) -> None:
        """What a call is about to change, put back."""
        before = _C.Before()
        t = torch.zeros(24, dtype=torch.uint8)
        for _ in range(self.draw.randint(0, 3)):
            self.call(before.memory, *spoil([t], self.draw))
            self.call(before.attribute, *spoil([types.SimpleNamespace(a=1), "a", 2], self.draw))
        if self.draw.random() < 0.3:
            t.untyped_storage().resize_(self.draw.choice([0, 12, 48]))
        self.call(self.draw.choice([before.restore, before.forget]))

    def replay(self) -> None:
        """A program as a call of a compiled step has it, what it leaves and returns, and calls that it serves."""
        with contextlib.suppress(RuntimeError, ValueError):  # of torch, where this file goes on with what was spoiled
            self.served()

    def served(self) -> None:
        draw, rarely, x = self.draw, Rarely(self.draw), self.tensor(3)
        e = _C.Executor(256)
        place = x.dtype, 0, [3], [1]
        given = e.view(e.add_argument(x, False), *place)
        out = e.view(e.add_arena(64, 24), *place)
        e.add_direct("aten::mul.Tensor", (given, given), [out])
        e.add_result(out, 2)
        leaf, draws = tg.zeros(3, requires_grad=True), types.SimpleNamespace(seed=1, offset=2)
        one = draw.choice([("tensor", 0), ("raw", 0), ("same", 0), ("constant", 5)])
        returned = draw.choice([None, one, ("tuple", [one, one]), ("list", [one]), ("dict", ["a", "b"], [one, one])])
        what = [
            [({"lr": 0.5}, "lr")],
            [(draws, 2)],
            [(types.SimpleNamespace(), "a", 2)],
            [leaf._node],
            [torch.zeros(3)],
        ]
        how = [returned, lambda results, holders: results, draw.random() < 0.5]
        r = self.call(_C.Replay, *spoil([e, _C.Guards(), *what, *how], draw))
        if r is None:
            return
        step = type("Step", (_C.Step,), {"__call__": lambda self, *_, **__: None, "_eager": lambda *_: None})()
        if draw.random() < 0.9:
            step._lock = threading.RLock()
        serves = [
            r,
            draw.random() < 0.5,
            torch.float32,
            draw.choice([1, 2, 1000]),
            (draw.choice([type(leaf), type(x)]),),
        ]
        self.call(step._serve, *spoil(serves, rarely))
        for _ in range(draw.randint(1, 4)):
            argument = draw.choice([x, x, tg.tensor(x), tg.tensor(x), x.numpy()])
            self.call(draw.choice([r.step, r.parts]), *spoil([[x], [argument]], rarely))
            self.call(r.timed, *spoil([[x]], rarely))
            self.call(step, *spoil([argument], rarely))
            r.explain, r.first_write = draw.choice([(None, 0), (lambda *_: None, draw.choice(NUMBERS[:4]))])
            self.call(r.set_guards, *spoil([_C.Guards()], rarely))
            self.call(draw.choice([step._forget, step._alone]), *spoil([draw.choice([r, len])], draw))
            self.call(step._latest)

    def executor(self) -> None:
        with contextlib.suppress(RuntimeError, ValueError):  # of torch, where this file goes on with what was spoiled
            self.program()

    def program(self) -> None:
        """A program of a few calls on slots of every kind, spoiled anywhere; then steps and runs."""
        draw = self.draw
        e = self.call(_C.Executor, draw.choice([1 << 16, 1 << 16, 1 << 16, 0, *NUMBERS]))
        if e is None:
            return
        arguments: list[Any] = []
        outside: list[Any] = []

        def view(t: Any) -> Any:
            """A value of the program in the place of a tensor."""
            if not issubclass(type(t), torch.Tensor):
                return [view(one) for one in t] if isinstance(t, list) else t
            if draw.random() < 0.05 or t.layout is not torch.strided or t.is_neg() or t._is_zerotensor():
                return t
            kind = draw.randrange(3)
            if kind == 0:
                slot = self.call(e.add_arena, *spoil([64 * draw.randint(0, 500), t.nbytes], rarely))
            elif kind == 1:
                slot = self.call(e.add_outside, *spoil([t, draw.random() < 0.5], rarely))
                outside.append(t)
            else:
                slot = self.call(e.add_argument, *spoil([t, draw.random() < 0.5], rarely))
                arguments.append(t)
            place = [slot, t.dtype, 0, list(t.shape), list(t.stride())]
            made = self.call(e.view, *spoil(place, rarely))
            return t if made is None else made

        rarely = Rarely(draw)
        count, outs = 0, []
        for _ in range(draw.randint(1, 4)):
            name, given = self.good()
            if name.startswith(("watch", "record", "place", "parallel", "locked")):
                continue
            given = spoil(given, rarely)
            results = self.call(getattr(_C, name), *given)
            outs = [view(r) for r in (results if isinstance(results, tuple) else [results])]
            given = [view(a) for a in given]
            how = draw.randrange(3)
            if how == 2:
                name, given = draw.choice(
                    [
                        ("aten::add", [view(torch.ones(3)), view(torch.ones(3)), 1]),
                        ("aten::clone", [view(torch.ones(3)), None]),
                        ("aten::copy_", [view(torch.ones(3)), view(torch.ones(3)), False]),
                        ("aten::neg", [view(torch.ones(3))]),
                        ("aten::split", [view(torch.ones(4)), 2, 0]),
                        ("aten::max", [view(torch.ones(4, 3)), 0, False]),
                    ]
                )
                overload = {"aten::add": "Tensor", "aten::split": "Tensor", "aten::max": "dim"}.get(name, "")
                outs = [view(torch.ones(3)) for _ in range(draw.randint(0, 3))]
                args = spoil([name, overload, tuple(spoil(given, rarely)), outs, draw.random() < 0.1], rarely)
                done = self.call(e.add_torch, *args)
            else:
                if draw.random() < 0.3:
                    name = draw.choice(["aten::mul.Tensor", "aten::add_.Tensor", "aten::pow.Tensor_Scalar", name])
                args = spoil([name, tuple(spoil(given, rarely)), spoil(outs, rarely)], rarely)
                done = self.call(e.add_direct if how == 0 else e.add_kernel, *args)
            count += done is not None
            if draw.random() < 0.3:
                self.call(
                    e.add_dynamic, *spoil([draw.randint(0, 2), max(count - 1, 0), draw.randint(0, 8), 0, 1], rarely)
                )
            if outs and draw.random() < 0.3:
                self.call(e.set_loss, outs[0])
            if outs and draw.random() < 0.1:
                self.call(e.watch, spoiled(outs[0], draw))
            if outs and draw.random() < 0.3:
                self.call(
                    e.add_result, spoiled(outs[0], draw) if draw.random() < 0.2 else outs[0], draw.choice([0, 1, -1])
                )
        if draw.random() < 0.4:
            self.call(e.fuse, *spoil([0, count], rarely))
        if outside and draw.random() < 0.3:
            t = draw.choice(outside)
            self.call(t.untyped_storage().resize_, draw.choice([0, t.nbytes // 2, t.nbytes * 2]))
        given = [[t.clone() if there(t) else t for t in arguments], [0.5], [(1, 2, 3)]]
        for _ in range(draw.randint(1, 3)):
            self.call(e.fits, *spoil(given[:1], rarely))
            self.call(e.overlaps, *spoil(given[:1], rarely))
            self.call(e.step, *spoil([*given[:2], [], [], [], []], rarely))
            self.call(e.in_place)
        tick = draw.choice(
            [lambda done: True, lambda done: False, lambda done: e.add_result(torch.ones(1), 0), None, 5]
        )
        rows = arguments[0].shape[0] if arguments and there(arguments[0]) and arguments[0].ndim else 1
        whole = [torch.cat([t, t]) if there(t) and t.ndim else t for t in arguments]
        order = draw.choice([None, torch.randperm(2 * rows)])
        losses = torch.zeros(2, dtype=self.dtype)
        self.call(e.run, *spoil([whole, order, rows, 0, draw.choice([1, 2, 100]), losses, *given[1:], tick], rarely))
        if draw.random() < 0.2:
            del e
            for made in outs:
                self.call(_C.relu, made)


class Rarely(random.Random):
    """Draws that make `spoil` leave most lists as they are."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw.random())

    def choice(self, options: Any) -> Any:
        return 0 if options is HOW_MANY and self.random() < 0.8 else super().choice(options)


def classes(name: str) -> tuple[Any, ...]:
    """What the package gave `tape_classes` or `trace_classes`."""
    from tapegrad.compiled import record
    from tapegrad.core import tape, tensor

    if name == "trace_classes":
        special, operators = record._RANDOM | record._READS.keys(), {record._INDEX, record._BATCH_NORM}
        told = record.is_users, record.place
        return record.Ref, record.Call, record.Slot, special, record._OPERATORS, record.schemas, operators, *told
    return tape.Entry, tape.Leaf, tensor.Tensor, tape.next_slot, tape.inside, tensor.integers


def described(value: Any) -> str:
    if there(value):
        return f"tensor({list(value.shape)}, {list(value.stride())}, {str(value.dtype)[6:]})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(described, value))}]"
    if issubclass(type(value), torch.Tensor):  # torch prints elements, whether their memory is there or not
        return f"{type(value).__name__}({list(value.shape) if not value.is_nested else 'nested'})"
    try:
        return repr(value)[:80]
    except Exception:
        return f"a {type(value).__name__}"


# --- processes ---------------------------------------------------------------------------------------------------


def work(seed: int, first: int, last: int, place: str) -> None:
    """Cases [first, last), the number of each written to the file `place` before it runs."""
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    imports_of_a_worker()
    warnings.simplefilter("ignore")
    with open(place, "r+b", buffering=0) as file:
        for i in range(first, last):
            os.pwrite(file.fileno(), f"{i:20d}".encode(), 0)
            Case(f"{seed}:{i}", None).run()


def environment() -> dict[str, str]:
    """A worker's: it imports the package that this process has, or would."""
    known = sys.modules.get("tapegrad")
    ours = str(Path(known.__file__).parents[1]) if known and known.__file__ else str(ROOT)
    paths = [ours] if known or "PYTHONPATH" not in os.environ else []
    return os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}


def findings(seed: int, cases: int, workers: int = 1) -> Iterator[str]:
    """What dies or hangs, and how to see it again."""
    step = -(-cases // workers)
    parts = [(first, min(first + step, cases)) for first in range(0, cases, step)]
    running: list[tuple[subprocess.Popen[bytes], str, int]] = []

    def start(first: int, last: int, place: str) -> None:
        command = [sys.executable, __file__, "--work", f"{seed}:{first}:{last}", "--place", place]
        running.append((subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()), place, last))

    with tempfile.TemporaryDirectory() as folder:
        for i, (first, last) in enumerate(parts):
            place = os.path.join(folder, str(i))
            Path(place).write_text(f"{first:20d}")
            start(first, last, place)
        while running:
            process, place, last = running.pop(0)
            before = ""
            while True:
                try:
                    _, text = process.communicate(timeout=SECONDS)
                    how = f"exit status {process.returncode}" if process.returncode else ""
                except subprocess.TimeoutExpired:
                    now = Path(place).read_text()
                    if now != before:
                        before = now
                        continue
                    process.kill()
                    _, text = process.communicate()
                    how = f"hangs for {SECONDS} s"
                break
            if how:
                at = int(Path(place).read_text())
                yield f"case {seed}:{at}: {how}\n{text.decode(errors='replace')[-3000:]}"
                if at + 1 < last:
                    start(at + 1, last, place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--case", help="SEED:NUMBER")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*map(int, options.work.split(":")), options.place)
        return 0
    if options.case:
        imports_of_a_worker()
        Case(options.case, lambda line: print(line, flush=True)).run()
        return 0
    print(f"{options.cases} cases from seed {options.seed}", flush=True)
    found = 0
    for text in findings(options.seed, options.cases, options.workers):
        print(text, flush=True)
        found += 1
    print(f"{found} findings", flush=True)
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
