"""The sides of suite `latency`: each answers one question, an array [1, 17], with an output [1, 6]."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import tapegrad as tg

from ..common.exported import ExportedForward
from ..common.networks import tanh_mlp
from .onnx import perceptron

SEED = 0
XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Unavailable(Exception):
    """Why a side cannot be measured here."""


@dataclass
class Side:
    """`call` takes nothing and answers the question; `seconds(n)` is set where a loop of n calls is timed inside."""

    name: str
    answer: np.ndarray
    call: Callable[[], Any]
    seconds: Callable[[int], float] | None = None


class Question:
    """The network with PyTorch's weights, and what is asked."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.torch_model = tanh_mlp(torch.nn).eval()
        self.x = torch.rand(1, 17)
        self.model = tanh_mlp(tg.nn).eval()
        self.model.load_state_dict(self.torch_model.state_dict())
        state = [p.detach().numpy() for p in self.torch_model.parameters()]
        self.weights = list(zip(state[::2], state[1::2], strict=True))


def ours(q: Question) -> list[Side]:
    """tapegrad: layer by layer, compiled, and the calls that are compiled without being asked."""
    x, array = tg.Tensor(q.x), q.x.numpy()
    layers, model = list(q.model), q.model
    compiled = tg.compile(model)

    def eager() -> Any:
        h = x
        for layer in layers:
            h = layer(h)
        return h

    calls = {
        "tapegrad, layer by layer": eager,
        "tapegrad, tg.compile(model)(x)": lambda: compiled(x),
        "tapegrad, tg.compile(model)(array)": lambda: compiled(array),
        "tapegrad, model(x) under no_grad": lambda: model(x),
        "tapegrad, model.predict(x)": lambda: model.predict(x),
        "tapegrad, model.predict(array)": lambda: model.predict(array),
    }
    with tg.no_grad():
        for call in calls.values():
            for _ in range(32):  # recorded, and counted
                call()
        return [Side(name, call().numpy(), call) for name, call in calls.items()]


def exported(q: Question) -> list[Side]:
    if not ExportedForward.here():
        raise Unavailable("no C compiler")
    side = ExportedForward(q.model, q.x)
    return [Side("tapegrad, exported C", side(q.x).numpy(), lambda: None, side.seconds)]


def numpy(q: Question) -> list[Side]:
    """Written by hand: weights transposed beforehand."""
    x = q.x.numpy()
    (w1, b1), (w2, b2), (w3, b3) = [(np.ascontiguousarray(w.T), b) for w, b in q.weights]

    def call() -> Any:
        return np.tanh(np.tanh(x @ w1 + b1) @ w2 + b2) @ w3 + b3

    return [Side("NumPy by hand", call(), call)]


def torch_eager(q: Question) -> list[Side]:
    model, x = q.torch_model, q.x
    traced = torch.jit.freeze(torch.jit.trace(model, x))
    for _ in range(8):
        traced(x)
    calls = {"PyTorch": lambda: model(x), "PyTorch, jit.trace, frozen": lambda: traced(x)}
    return [Side(name, call().numpy(), call) for name, call in calls.items()]


def torch_compiled(q: Question) -> list[Side]:
    compiled, x = torch.compile(q.torch_model), q.x
    try:
        answer = compiled(x)
    except Exception as error:  # of many kinds: no C++ compiler among them
        raise Unavailable(str(error).strip().splitlines()[0]) from error
    return [Side("PyTorch, torch.compile", answer.numpy(), lambda: compiled(x))]


def jax(q: Question) -> list[Side]:
    if importlib.util.find_spec("jax") is None:
        raise Unavailable("not installed")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    weights = [(jax.numpy.asarray(w.T), jax.numpy.asarray(b)) for w, b in q.weights]
    x = jax.numpy.asarray(q.x.numpy())

    @jax.jit
    def forward(x: Any) -> Any:
        for w, b in weights[:-1]:
            x = jax.numpy.tanh(x @ w + b)
        return x @ weights[-1][0] + weights[-1][1]

    return [Side("JAX jit", np.asarray(forward(x)), lambda: forward(x).block_until_ready())]


def onnx_runtime(q: Question) -> list[Side]:
    if importlib.util.find_spec("onnxruntime") is None:
        raise Unavailable("not installed")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(perceptron(q.weights, 1), options, providers=["CPUExecutionProvider"])
    given = {"x": q.x.numpy()}
    return [Side("ONNX Runtime", session.run(None, given)[0], lambda: session.run(None, given))]


MAKERS: dict[str, Callable[[Question], list[Side]]] = {
    "tapegrad": ours,
    "tapegrad, exported C": exported,
    "NumPy by hand": numpy,
    "PyTorch": torch_eager,
    "PyTorch, torch.compile": torch_compiled,
    "JAX jit": jax,
    "ONNX Runtime": onnx_runtime,
}


def sides(q: Question, quick: bool) -> tuple[list[Side], dict[str, str]]:
    """Those that can be measured here, and why the others cannot."""
    found: list[Side] = []
    missing: dict[str, str] = {}
    for name, make in MAKERS.items():
        if quick and make is torch_compiled:
            missing[name] = "not with --quick"
            continue
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                found += make(q)
        except Unavailable as reason:
            missing[name] = str(reason)
    return found, missing
