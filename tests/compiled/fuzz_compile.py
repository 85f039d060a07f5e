"""Random training steps: the compiled step against the plain one, after every call, bit for bit.

A program is a text: what it sets up, a step, and what happens between its calls. It runs twice, with the step as it is
and compiled; results (held ones too, and what they share memory with), parameters, ``.grad``, optimizer state, buffers,
outside memory and the generator must agree after every call. The suite runs a few hundred seeds; the long form is

    PYTHONPATH=tests/helpers python tests/compiled/fuzz_compile.py --seeds 0 20000

and ``--show SEED`` prints a program and where its two sides part.
"""

from __future__ import annotations

import argparse
import builtins
import collections
import random
import re
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from compile_checks import bits, replays

import tapegrad as tg

CALLS = 12
HELD = 5  # results of the last calls that are looked at again


# --- programs ------------------------------------------------------------------------------------------------------

# Expressions by the shape of what they give: M [rows, 4], S [4, 4], V [4], C [rows, 1]; a hole takes such a value.
UNARY = [
    "tg.tanh({})", "tg.sin({})", "{}.sigmoid()", "F.relu({})", "{} * cfg.scale", "-{}", "{} * 0.5 + 0.1", "{}.abs()",
    "F.gelu({})", "F.softplus({})", "{} / 3", "({} if cfg.flag else 2 * {})", "{}.clone()", "{} ** 2", "tg.exp(-{})",
    "{} * k", "k - {}",
]  # fmt: skip
EXPRESSIONS = {
    "M": [
        "{M} + {V}", "{M} * {M}", "{M} @ {S}", "F.linear({M}, {S}, {V})", "net.lin({M})", "net.bn({M})",
        "net.drop({M})", "net.seq({M})", "F.softmax({M}, -1)", "F.layer_norm({M}, (4,), {V}, {V})",
        "tg.where({M} > {V}, {M}, {M})", "tg.maximum({M}, {M})", "{M}.flip(0)", "{M} * {C}",
        "tg.cat([{M}[:1], {M}[1:]])", "{M}.T.contiguous().T", "{M} + tg.rand(*x.shape)", "{M} * tg.randn(4)",
        "F.dropout({M}, 0.4)", "{M} - {M}.detach()", "F.linear({M}, {S})", "{M}[tg.arange(len(x))]",
        "tg.stack([{M}, {M}])[1]", "helper({M}, {M})", "{V} + 0 * {M}", "tg.tanh({M} @ {S} + {V})",
        "tg.addmm({V}, {M}, {S})", "{M}.reshape(4, -1).reshape(-1, 4)", "{M}[:, [2, 0, 1, 3]]",
        "tg.einsum('ij,kj->ik', {M}, {S})", "net.gru({M})[0]", "net.lstm({M}[None])[0][0]", "net.mean({M})",
        "served({M})", "added({M}, {V})", "scaled({M}, {M})", "filled({M}, {V})", "rowed({M}, {M})",
        "viewed({M}, {V})",
        "{M}.T.view_as({M}.T).T", "{M}.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4)",
        "{M}.chunk(2, 1)[1].repeat(1, 2)",
        "{M}.unfold(1, 2, 2).sum(2).repeat(1, 2)", "tg.cat({M}.split(1))", "tg.cumsum({M}, 0)", "net.attend({M})",
    ],
    "S": [
        "{S}.T", "{S} @ {S}", "{S}.view(2, 2, 4).flatten(0, 1)", "added({S}, {V})",
        "tg.einsum('ij,ik->jk', {M}, {M})", "{S} * {V}", "{M}.T @ {M}", "tg.eye(4) + {S}", "net.lin.weight", "{S}.T.T",
        "tg.outer({V}, {V})",
    ],
    "V": [
        "{M}.mean(0)", "{S}.sum(0)", "{M}.amax(0)", "tg.from_numpy(w)", "torch.from_numpy(w)", "tg.as_tensor(w)",
        "{V} * w", "tg.tensor(w)", "torch.tensor(w)", "T", "T.data", "T.detach()", "{V} * float(w[1])",
        "tg.full((4,), cfg.scale)", "tg.tensor([0.1, 0.2, 0.3, cfg.scale])", "{V}[[3, 1, 2, 0]]",
        "net.emb(tg.arange(4)).mean(0)", "tg.Tensor(T)", "{S}[1]", "{S}[:, 2]", "{S}.diagonal()", "buf",
        "net.bn.running_mean", "{M}[0]", "torch.frombuffer(raw, dtype=torch.float32)",
        "{S}.view(16)[4:8]", "{M}.reshape(-1)[1:5]", "net.mean.running_var", "net.gru.weight_hh_l0[1]",
        "tg.from_numpy(w[::-1].copy())", "tg.from_numpy(cfg.array)", "cfg.tensor",
    ],
    "C": ["{M}.sum(1, keepdim=True)", "{M}[:, :1]", "{M}.logsumexp(1)[:, None]", "{M} @ {V}[:, None]"],
}  # fmt: skip
RESULTS = [
    "loss", "loss.detach()", "(loss, P.detach())", "{'l': loss, 'p': P, 'g': P.grad}",
    "[loss, R.detach(), R.detach()[0]]", "(loss, P.data, P.data.view(-1)[1:])", "(loss, x, x[1:])",
    "(loss, T, T[1:], buf)", "(loss, tg.from_numpy(w))", "P.grad", "(lambda r: (r, r, loss))(R.detach())",
    "(loss, R.data.view(torch.int32), x.data.view(torch.int32))", "None", "R.detach()",
    "(loss, R.detach().T, tg.ones(2), tg.full((2,), cfg.scale))", "(loss, [P.grad, P.grad], net.bn.running_var)",
    "(loss, net.lin.weight.detach().T, R.detach().expand(2, *R.shape))",
    "(loss, P.view(-1).detach(), 'text', 3, 0.5)", "(loss, P.grad.detach()[0], y)",
]  # fmt: skip
LAST = [  # statements at the end of a step
    "buf.add_(V0.detach())", "T.mul_(0.9)", "tg.from_numpy(w).mul_(0.95)", "net.bn.running_mean.mul_(0.5)",
    "cfg.tensor.add_(0.1)", "with tg.no_grad(): P.mul_(0.99)",
    "with tg.no_grad(): P.sub_(0.1 * P.grad) if P.grad is not None else None",
    "nn.utils.clip_grad_norm_(list(net.parameters()), 0.5)", "buf.copy_(x.mean(0).detach())", "P.grad = None",
    "torch.frombuffer(raw, dtype=torch.float32).add_(0.125)", "P.data.add_(0.01)",
    "nn.utils.clip_grad_value_([P], 0.1)",
]  # fmt: skip
BETWEEN = {  # what happens between two calls; those of one kind go together
    "gradients": [
        "P.grad = None", "P.grad = tg.full(P.shape, 0.7)", "P.grad is None or P.grad.mul_(-0.5)",
        "P.requires_grad_(False)", "P.requires_grad_(not P.requires_grad)", "P.grad = P.grad",
        "net.seq[0].weight.grad = tg.ones(4, 4)", "OPT.zero_grad()", "OPT.zero_grad(set_to_none=False)",
        "P.requires_grad_(True)", "P.grad is None or P.grad.data.t_()",
    ],
    "parameters": [
        "P.data = P.data * 0.9", "P.data.mul_(0.9)", "P.data.copy_(torch.full(P.shape, 0.2))", "q1.data.t_()",
        "P.data = P.data.clone().T.contiguous().T", "q1.data.transpose_(0, 1)", "net.lin.weight.data.t_()",
        "net.load_state_dict({n: v.clone() * 0.9 for n, v in net.state_dict().items()})", "net.double().float()",
        "net.lin.bias = net.seq[0].bias", "net.emb.weight = net.lin.weight", "P.data.set_(P.data.clone())",
    ],
    "optimizers": [
        "OPT.param_groups[0]['lr'] *= 0.5", "OPT.param_groups[0]['weight_decay'] = 0.1", "OPT.step()",
        "OPT.zero_grad()", "OPT.load_state_dict(OPT.state_dict())",
        "OPT.add_param_group({'params': [tg.zeros(2, requires_grad=True)]})", "OPT.param_groups[0]['lr'] = 0.01",
        "OPT.param_groups[0]['weight_decay'] = 0.0",
    ],
    "modules": [
        "net.eval()", "net.train()", "net.drop.p = 0.1 if net.drop.p > 0.2 else 0.4", "net.bn.momentum = 0.2",
        "net.bn.eval()", "net.lin = nn.Linear(4, 4)", "net.bn = nn.BatchNorm1d(4)", "net.seq[1] = nn.Sigmoid()",
        "net.seq.append(nn.Tanh())", "net.bn.running_mean.zero_()", "tg.manual_seed(7)", "tg.rand(3)",
        "net.train(not net.training)", "net.gru.flatten_parameters()",
        "net.mean.momentum = None if net.mean.momentum else 0.3",
        "with tg.no_grad(): say(served(probe))", "say(net.seq(probe))", "served.eval()", "served.train()",
    ],
    "memory": [
        "w[:] = np.roll(w, 1) * 0.9", "w[1] += 0.5", "cfg.array[1] *= -1",
        "w = np.linspace(-1, 1, 4, dtype=np.float32)", "cfg.array = cfg.array * 0.5", "T.fill_(0.3)", "T[1] = -0.5",
        "T = T * 0.5", "T.set_(torch.linspace(0, 1, 4))", "w[1] = 2", "T.data = torch.linspace(1, 0, 4)",
        "T.data.as_strided_((4,), (0,))", "cfg.tensor = cfg.tensor + 1", "buf.zero_()",
        "raw[:4] = np.float32(0.75).tobytes()", "buf = tg.ones(4)", "scribble(held)",
    ],
    "names": [
        "cfg.scale = cfg.scale * -0.5", "cfg.flag = not cfg.flag",
        "helper = other if helper is not other else first", "order[0] = (order[0] + 1) % 4", "scribble(held)",
        "cfg.scale = 0.5",
    ],
}  # fmt: skip
BATCHES = [
    "tg.randn(3, 4, generator=g), tg.randn(3, 4, generator=g)",
    "tg.randn(3, 4, generator=g), tg.randn(3, 4, generator=g)",
    "tg.randn(3, 4, generator=g), tg.randn(3, 4, generator=g)",
    "tg.randn(5, 4, generator=g), tg.randn(5, 4, generator=g)",
    "tg.randn(4, 3, generator=g).T, tg.randn(6, 4, generator=g)[::2]",
    "(lambda a: (a, a))(tg.randn(3, 4, generator=g))",
    "tg.randn(3, 4, generator=g, requires_grad=True), tg.randn(3, 4, generator=g)",
    "with_grad(tg.randn(3, 4, generator=g)), tg.ones(3, 4)",
    "(lambda a: (a[:3], a[3:]))(tg.randn(6, 4, generator=g))",
    "tg.randn(1, 4, generator=g).expand(3, 4), tg.randn(3, 4, generator=g)",
    "tg.randn(3, 4, generator=g), tg.randn(3, 4, generator=g).data",
    "tg.ones(3, 4), tg.randn(3, 4, generator=g), 0.25",
    "tg.randn(3, 4, generator=g), tg.ones(3, 4), tg.rand((), generator=g)",
    "tg.ones(3, 4), tg.zeros(3, 4), order[0]",
]  # fmt: skip
OPTIMIZERS = [
    "SGD({}, lr=0.1)", "SGD({}, lr=0.05, momentum=0.9)",
    "SGD({}, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.01)", "Adam({}, lr=0.01)",
    "AdamW({}, lr=0.02, amsgrad=True)", "RMSprop({}, lr=0.01, momentum=0.5)",
    "SGD({}, lr=0.1, dampening=0.5, momentum=0.9)",
]  # fmt: skip

SETUP = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.bn, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3)
        self.seq, self.emb = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Embedding(4, 4)
        self.gru, self.lstm, self.mean = nn.GRU(4, 4), nn.LSTM(4, 4), nn.BatchNorm1d(4, momentum=None)
        self.heads = nn.MultiheadAttention(4, 2)
    def attend(self, a): return self.heads(a, a, a)[0]
class Config:
    scale, flag = 0.5, True
def first(a, b): return a * 0.5 + b
def other(a, b): return a - b * cfg.scale
def with_grad(t):
    t.requires_grad_()
    t.grad = tg.ones(*t.shape)
    return t
def scribble(held):
    for t in held[-1:]:
        t = t.data if isinstance(t, tg.Tensor) else t
        if t.is_floating_point() and 0 not in t.stride(): t.mul_(0.9)
def added(a, b):  # values written in place, whole and in part
    c = a * 1
    c += b
    return c
def scaled(a, b):
    c = a.sin()
    c.mul_(b).add_(b, alpha=0.5)
    return c
def filled(a, b):
    c = tg.zeros(*a.shape)
    c[0], c[-1] = b, a[0]
    c[:, 1] = a[:, 2]
    return c
def rowed(a, b):
    c = a.clone()
    for i in range(len(c)): c[i] = c[i - 1] * b[i]
    return c
def viewed(a, b):
    c = a * 0.5
    c.T[1] += b[0]
    c.view(-1)[::2].mul_(b[1])
    return c + c[0]
def say(value): outputs.append(value)
helper, net, cfg, g, order = first, Net(), Config(), tg.Generator(1), [0]
p0, q1, p2 = nn.Parameter(tg.randn(4)), nn.Parameter(tg.randn(4, 4) * 0.5), nn.Parameter(tg.randn(4))
w, T, buf = np.linspace(0, 1, 4, dtype=np.float32), torch.linspace(-1, 1, 4), tg.zeros(4)
cfg.array, cfg.tensor, raw = w * 2, torch.ones(4), bytearray(w.tobytes())
served, probe, outputs = wrapped(nn.Sequential(net.seq, nn.Linear(4, 4), nn.Dropout(0.2))), tg.ones(3, 4), []
"""


class Program:
    """The text of one program."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.parameters = rng.sample(["p0", "q1", "p2", "net.lin.weight", "net.bn.bias"], rng.choice([1, 1, 2, 5]))
        self.setup = SETUP + self._optimizers()
        self.batches = rng.sample(BATCHES, rng.choice([1, 1, 2, 3]))
        themes = rng.sample(sorted(BETWEEN), rng.choice([1, 1, 2, 6]))
        self.memory = "memory" in themes
        self.step = self._step()
        often = rng.choice([0.0, 0.15, 0.3, 0.6])
        every = [text for theme in themes for text in BETWEEN[theme]]
        kinds = rng.sample(every, min(rng.choice([1, 2, 4, 8]), len(every)))
        self.runs = self.step.endswith("return loss\n")  # two epochs, after the calls
        self.calls = []
        for batch in rng.choices(self.batches, k=CALLS):
            count = rng.choice([1, 1, 2]) if rng.random() < often else 0
            self.calls.append(([self._named(rng.choice(kinds)) for _ in range(count)], batch))

    def __str__(self) -> str:
        calls = "\n".join(f"{'; '.join(before)}\ncall({batch})" for before, batch in self.calls)
        return f"{self.setup}\n{self.step}\n{calls}"

    def _named(self, text: str) -> str:
        """A parameter and an optimizer where the text leaves them open."""
        return re.sub(r"\bP\b", self.rng.choice(self.parameters), text).replace("OPT", self.rng.choice(self.optimizers))

    def _optimizers(self) -> str:
        every = "[p0, q1, p2, *net.parameters()]"
        parts = self.rng.choice([[every], [every], ["[p0, *net.parameters()]", "[q1, p2]"], [every, "[tg.ones(2)]"]])
        self.optimizers = [f"opt{i}" for i in range(len(parts))]
        made = [self.rng.choice(OPTIMIZERS).format(part) for part in parts]
        return "\n".join(f"opt{i} = tg.optim.{text}" for i, text in enumerate(made))

    def _step(self) -> str:
        rng, values = self.rng, {"M": ["x", "y"], "S": ["q1"], "V": ["p0", "p2"], "C": ["x[:, :1]"]}
        lines = []
        zero = rng.choice(["zero_grad()", "zero_grad()", "zero_grad(set_to_none=False)", None])
        lines += [f"{opt}.{zero}" for opt in self.optimizers if zero]
        for i in range(rng.randint(3, 10)):
            shape = rng.choices("MSVC", [4, 1, 5, 1] if self.memory else [6, 1, 2, 1])[0]
            unary = rng.choice(UNARY).replace("{}", f"{{{shape}}}")
            text = rng.choice(EXPRESSIONS[shape]) if rng.random() < 0.7 else unary
            name = f"v{i}"
            lines.append(f"{name} = {self._filled(text, values)}")
            values[shape].append(name)
        ends = [rng.choice(values[s][-3:]) for s in ("M", rng.choice("MSVC"))]
        lines.append(f"a = ({ends[0]} * {rng.choice(['p0', 'p2'])}).sin().mean()")
        lines.append(f"loss = a + ({ends[1]} * p0[0]).tanh().mean() * cfg.scale")
        lines.append(f"V0 = {rng.choice(values['V'])}")
        backward = rng.random() < 0.9
        if backward:
            lines += ["loss.backward(retain_graph=True)"] if rng.random() < 0.25 else []
            lines += ["loss.backward()"]
            lines += [f"{opt}.step()" for opt in self.optimizers if rng.random() < 0.85]
        lines += [self._named(rng.choice(LAST)) for _ in range(rng.choice([0, 0, 1, 2]))]
        result = (
            "loss"
            if rng.random() < 0.15
            else self._named(rng.choice(RESULTS)).replace("R.", f"{rng.choice(values['M'])}.")
        )
        if not backward:
            result = result.replace("loss", "loss.detach()")
        lines.append(f"return {result}")
        return "def step(x, y, k=0.5):\n    " + "\n    ".join(lines) + "\n"

    def _filled(self, text: str, values: dict[str, list[str]]) -> str:
        for shape, names in values.items():
            while f"{{{shape}}}" in text:
                text = text.replace(f"{{{shape}}}", self.rng.choice(names[-4:]), 1)
        return text


# --- one side of it ------------------------------------------------------------------------------------------------


def flat(value: Any) -> list[Any]:
    """The tensors of a result."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [t for v in value for t in flat(v)]
    return [value] if isinstance(value, tg.Tensor | torch.Tensor) else []


def extent(value: Any) -> range:
    t = value.data if isinstance(value, tg.Tensor) else value
    last = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
    return range(t.data_ptr(), t.data_ptr() + (last + 1) * t.itemsize) if t.numel() else range(0)


def shared(a: range, b: range) -> bool:
    return max(a.start, b.start) < min(a.stop, b.stop)


def look(scope: dict[str, Any]) -> dict[str, Any]:
    """Everything that a call may change, as bits."""
    seen: dict[str, Any] = {"generators": (tg.ops.default_generator.get_state(), scope["g"].get_state())}
    named = {name: scope[name] for name in ("p0", "q1", "p2")} | dict(scope["net"].named_parameters())
    for name, p in named.items():
        seen[name] = p.requires_grad, bits(p), p.data.stride()
        seen[f"{name}.grad"] = bits(p.grad)
    seen |= {name: bits(b) for name, b in scope["net"].named_buffers()}
    for name in ("opt0", "opt1"):
        if name in scope:
            states = scope[name].state.values()
            seen |= {f"{name}, {i}, {key}": bits(v) for i, state in enumerate(states) for key, v in state.items()}
    outside = [scope[n] for n in ("T", "buf")] + [scope["cfg"].tensor]
    memory = [scope["w"].tobytes(), scope["cfg"].array.tobytes(), bytes(scope["raw"])]
    seen["outputs"] = [bits(t) for t in scope["outputs"]]
    seen["outside"] = [bits(t) for t in outside], memory
    return seen


def side(program: Program, compile: Any) -> tuple[list[dict[str, Any]], Any]:
    """What every call returned and left behind, and the step."""
    tg.manual_seed(0)
    scope: dict[str, Any] = {"tg": tg, "nn": tg.nn, "F": tg.nn.functional, "np": np, "torch": torch, "held": []}
    scope |= {"__name__": "fuzz", "wrapped": compile}
    exec(builtins.compile(program.setup + "\n" + program.step, "<fuzz>", "exec"), scope)
    step = compile(scope["step"])
    seen: list[dict[str, Any]] = []
    held: collections.deque[Any] = collections.deque(maxlen=HELD)
    for before, batch in program.calls:
        for line in before:
            exec(line, scope)
        args = eval(batch, scope)
        grads = [scope[n].grad for n in ("p0", "q1", "p2")]
        try:
            result = step(*args)
        except Exception as error:
            seen.append({"error": error})
            break
        tensors = flat(result)
        scope["held"] += tensors
        held.append(tensors)
        known = [a for a in args if isinstance(a, tg.Tensor)] + [scope[n] for n in ("p0", "q1", "p2", "T", "buf")]
        known += [scope[n].grad for n in ("p0", "q1", "p2") if scope[n].grad is not None]
        at, there = [extent(t) for t in tensors], [extent(t) for t in known]
        now = look(scope)
        now["result"] = bits(result)
        now["arguments"] = bits(args)
        now["gradients of arguments"] = [bits(a.grad) for a in args if isinstance(a, tg.Tensor)]
        now["held"] = [bits(t) for some in held for t in some]
        now["classes and strides"] = [(type(t).__name__, t.stride()) for t in tensors]
        now["objects"] = [[t is u for u in (*tensors, *known)] for t in tensors]
        now["memory"] = [[shared(a, b) for b in (*at, *there)] for a in at]
        now["kept .grad"] = [scope[n].grad is g for n, g in zip(("p0", "q1", "p2"), grads, strict=True)]
        seen.append(now)
    if program.runs and not (seen and "error" in seen[-1]):
        seen.append(epochs(step, scope))
    return seen, step


def epochs(step: Any, scope: dict[str, Any]) -> dict[str, Any]:
    """What two epochs of one step leave behind: `run`, or a loop."""
    arrays, how = [tg.randn(8, 4), tg.randn(8, 4)], {"batch_size": 3, "seed": 5}
    try:
        if hasattr(step, "run"):
            losses = step.run(*arrays, epochs=2, **how)
        else:
            losses = [[step(*b).detach() for b in tg.data.batches(*arrays, **how, epoch=i)] for i in range(2)]
            losses = tg.stack([tg.stack(row) for row in losses])
    except Exception as error:
        return {"error": error}
    return look(scope) | {"losses": bits(losses)}


def difference(program: Program) -> tuple[str | None, Any]:
    """(where the two sides part, the compiled step)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, _ = side(program, lambda step: step)
        compiled, step = side(program, tg.compile)
    for i, (a, b) in enumerate(zip(plain, compiled, strict=False)):
        if "error" in a or "error" in b:
            refused = isinstance(b.get("error"), tg.CompileError)
            if refused or type(a.get("error")) is type(b.get("error")):
                return None, step
            return f"call {i}: plain {a.get('error')!r}, compiled {b.get('error')!r}", step
        names = [key for key in a if a[key] != b.get(key)]
        if names:
            return f"call {i}: {', '.join(names)}", step
    return None, step


# --- many of them --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 20_000), metavar=("FIRST", "END"))
    parser.add_argument("--show", type=int, metavar="SEED")
    given = parser.parse_args()
    if given.show is not None:
        program = Program(given.show)
        print(program)
        print(difference(program)[0] or "both sides agree")
        return
    begun, calls, failed = time.perf_counter(), 0, []
    for seed in range(*given.seeds):
        found, step = difference(Program(seed))
        calls += replays(step)
        if found is not None:
            failed.append(seed)
            print(f"seed {seed}: {found}", flush=True)
    count = given.seeds[1] - given.seeds[0]
    seconds = time.perf_counter() - begun
    print(f"{count} programs in {seconds:.0f} s, {calls} replays, {len(failed)} differences")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
