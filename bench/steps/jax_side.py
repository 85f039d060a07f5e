"""JAX in suite `steps`, where it is installed: the step under `jit`, and an epoch of steps in one `lax.scan`.

Float32 on the CPU, on one thread as far as JAX can be told: XLA's own flags, set before its first import here.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from .sides import ADAM, FIRST, Side, Unavailable, over
from .workloads import RATE, VISCOSITY, Workload, epoch

FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

Apply = Callable[[list[Any], Any], Any]  # (parameters, x) -> network(x)


def start() -> Any:
    """The module `jax`; `Unavailable` where it is not installed."""
    if importlib.util.find_spec("jax") is None:
        raise Unavailable("not installed")
    if FLAGS not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    return jax


def sides(workload: Workload, jit_name: str, scan_name: str) -> list[Side]:
    """The jitted step called from Python on batches made before, and the scan that gathers its batches itself."""
    jax = start()
    arrays = [jax.numpy.asarray(x.numpy()) for x in workload.data()]
    order = torch.arange(workload.batch * workload.batches)
    rows = jax.numpy.stack([jax.numpy.asarray(r.numpy()) for (r,) in epoch((order,), workload.batch)])
    step = make_step(jax, workload)

    def one_epoch(state: Any, arrays: list[Any], rows: Any) -> Any:
        return jax.lax.scan(lambda state, row: step(state, *[x[row] for x in arrays]), state, rows)

    jitted, scanned = (jax.jit(function, donate_argnums=0) for function in (step, one_epoch))
    batches = [tuple(x[row] for x in arrays) for row in rows]

    state = new_state(jax, workload)
    began = time.perf_counter()
    _, losses = scanned(state, arrays, rows)
    scan_losses = losses[:FIRST].tolist()
    scan_seconds = time.perf_counter() - began

    call = Stateful(jax, jitted, workload)
    began = time.perf_counter()
    call_losses = [call(*batches[0]).item()]
    call_seconds = time.perf_counter() - began
    call_losses += [call(*batch).item() for batch in batches[1:FIRST]]

    epochs = Stateful(jax, scanned, workload)

    def advance_epochs(steps: int) -> None:
        for _ in range(steps // workload.batches):
            epochs(arrays, rows)
        epochs.wait()

    advance_calls = over(call, batches)

    def advance(steps: int) -> None:
        advance_calls(steps)
        call.wait()

    return [
        Side(jit_name, call_losses, advance, compile_seconds=call_seconds),
        Side(scan_name, scan_losses, advance_epochs, unit=workload.batches, compile_seconds=scan_seconds),
    ]


class Stateful:
    """A function ``(state, ...) -> (state, losses)`` with its state, the old one given up at every call."""

    def __init__(self, jax: Any, function: Callable[..., Any], workload: Workload) -> None:
        self.jax = jax
        self.function = function
        self.state = new_state(jax, workload)

    def __call__(self, *inputs: Any) -> Any:
        self.state, losses = self.function(self.state, *inputs)
        return losses

    def wait(self) -> None:
        """Until what was only dispatched is done."""
        self.jax.block_until_ready(self.state)


def new_state(jax: Any, workload: Workload) -> tuple[Any, ...]:
    """Parameters, Adam's two moments, and the number of steps."""
    parameters = [jax.numpy.array(w.numpy()) for w in workload.weights()]
    zeros = [[jax.numpy.zeros_like(p) for p in parameters] for _ in range(2)]
    return parameters, *zeros, jax.numpy.zeros(())


def make_step(jax: Any, workload: Workload) -> Callable[..., Any]:
    """``(state, batch) -> (state, loss)``."""
    apply = network(jax, workload)
    objective = {"mse": mse, "cross_entropy": cross_entropy, "burgers": burgers}[workload.loss]
    update = {"SGD": sgd, "Adam": adam}[workload.optimizer]

    def step(state: Any, *batch: Any) -> Any:
        loss, gradients = jax.value_and_grad(lambda p: objective(jax, lambda x: apply(p, x), *batch))(state[0])
        return update(jax, state, gradients), loss

    return step


# --- the network, read off PyTorch's ------------------------------------------------------------------------------


def network(jax: Any, workload: Workload) -> Apply:
    """The layers of PyTorch's `Sequential`, each a function of its parameters and x."""
    layers = []
    for module in workload.network(torch.nn):
        count = len(list(module.parameters()))
        layers.append((LAYERS[type(module).__name__], module, count))

    def apply(parameters: list[Any], x: Any) -> Any:
        at = 0
        for function, module, count in layers:
            x = function(jax, module, x, *parameters[at : at + count])
            at += count
        return x

    return apply


def conv2d(jax: Any, module: Any, x: Any, weight: Any, bias: Any) -> Any:
    padding = [(p, p) for p in module.padding]
    y = jax.lax.conv_general_dilated(x, weight, module.stride, padding, dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return y + bias[:, None, None]


def max_pool2d(jax: Any, module: Any, x: Any) -> Any:
    """[N, C, H, W] as [N, C, OH, k, OW, k]: windows do not overlap."""
    k = module.kernel_size
    n, c, h, w = x.shape
    return x.reshape(n, c, h // k, k, w // k, k).max((3, 5))


def upsample(jax: Any, module: Any, x: Any) -> Any:
    k = int(module.scale_factor)
    return x.repeat(k, axis=2).repeat(k, axis=3)


def over_time(jax: Any, x: Any, share: Any, state: Any, step: Any) -> tuple[Any]:
    """The h of every step [N, L, H], by a scan: step(state, share of the inputs) -> (state, h)."""
    _, h = jax.lax.scan(step, state, share(x.swapaxes(0, 1)))
    return (h.swapaxes(0, 1),)


def lstm(jax: Any, module: Any, x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    def step(state: Any, inputs: Any) -> Any:
        h, c = state
        i, f, g, o = jax.numpy.split(inputs + h @ w_hh.T, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
        h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
        return (h, c), h

    zeros = jax.numpy.zeros((len(x), module.hidden_size), x.dtype)
    return over_time(jax, x, lambda x: x @ w_ih.T + (b_ih + b_hh), (zeros, zeros), step)


def gru(jax: Any, module: Any, x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    def step(h: Any, inputs: Any) -> Any:
        (ri, zi, ni), (rh, zh, nh) = (jax.numpy.split(v, 3, axis=1) for v in (inputs, h @ w_hh.T + b_hh))
        n = jax.numpy.tanh(ni + jax.nn.sigmoid(ri + rh) * nh)
        h = n + jax.nn.sigmoid(zi + zh) * (h - n)
        return h, h

    zeros = jax.numpy.zeros((len(x), module.hidden_size), x.dtype)
    return over_time(jax, x, lambda x: x @ w_ih.T + b_ih, zeros, step)


LAYERS: dict[str, Callable[..., Any]] = {
    "Linear": lambda jax, module, x, weight, bias: x @ weight.T + bias,
    "ReLU": lambda jax, module, x: jax.nn.relu(x),
    "Tanh": lambda jax, module, x: jax.numpy.tanh(x),
    "Sigmoid": lambda jax, module, x: jax.nn.sigmoid(x),
    "LSTM": lstm,
    "GRU": gru,
    "Last": lambda jax, module, outputs: outputs[0][:, -1],
    "Flatten": lambda jax, module, x: x.reshape(len(x), -1),
    "Conv2d": conv2d,
    "MaxPool2d": max_pool2d,
    "Upsample": upsample,
}


# --- losses and updates -------------------------------------------------------------------------------------------


def mse(jax: Any, model: Any, x: Any, y: Any) -> Any:
    return ((model(x) - y) ** 2).mean()


def cross_entropy(jax: Any, model: Any, x: Any, y: Any) -> Any:
    rows = jax.nn.log_softmax(model(x))
    return -rows[jax.numpy.arange(len(y)), y].mean()


def burgers(jax: Any, model: Any, points: Any, start: Any, known: Any) -> Any:
    """`workloads.burgers` by forward mode, which is JAX's fastest way here: u, u_x, u_xx and u_t at all points."""
    along_x, along_t = (jax.numpy.zeros_like(points).at[:, i].set(1) for i in (0, 1))

    def u_and_slope(p: Any) -> Any:
        return jax.jvp(model, (p,), (along_x,))

    (u, ux), (_, uxx) = jax.jvp(u_and_slope, (points,), (along_x,))
    _, ut = jax.jvp(model, (points,), (along_t,))
    return ((ut + u * ux - VISCOSITY * uxx) ** 2).mean() + mse(jax, model, start, known)


def sgd(jax: Any, state: Any, gradients: Any) -> Any:
    return [p - RATE * g for p, g in zip(state[0], gradients, strict=True)], *state[1:]


def adam(jax: Any, state: Any, gradients: Any) -> Any:
    """As `torch_compiled.adam`."""
    b1, b2, eps = ADAM.values()
    parameters, first, second, t = state
    t = t + 1
    first = [m + (1 - b1) * (g - m) for m, g in zip(first, gradients, strict=True)]
    second = [b2 * v + (1 - b2) * g * g for v, g in zip(second, gradients, strict=True)]
    root, rate = jax.numpy.sqrt(1 - b2**t), RATE / (1 - b1**t)
    parameters = [
        p - rate * m / (jax.numpy.sqrt(v) / root + eps) for p, m, v in zip(parameters, first, second, strict=True)
    ]
    return parameters, first, second, t
