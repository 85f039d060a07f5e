"""What optimizers do to parameters: csrc/kernels/optim.cpp and adaptive.cpp, element by element.

Numbers of a group are members of the struct, so that they may be changed between steps; what depends on them and on the
number t of the step alone is worked out once, in double.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ..optim.kernels import KERNELS, Key
from .table import Instruction, as_text, emits
from .values import TYPES, Value
from .writer import Writer


def _one(value: Value) -> str:
    return value.bind(["0"] * value.ndim).element


def spelled(key: Key) -> str:
    """``beta1`` of ``("betas", 0)``"""
    return key if isinstance(key, str) else f"{key[0].removesuffix('s')}{key[1] + 1}"


class Element(NamedTuple):
    """One element of a parameter: d is the direction of its gradient, ``state`` the elements that are there."""

    w: Writer
    dtype: torch.dtype
    p: str
    state: list[str]

    @property
    def kind(self) -> str:
        """The type in C."""
        return TYPES[self.dtype]

    def sqrt(self, text: str) -> str:
        """A root of the element's type."""
        return self.w.call("sqrt", self.dtype, text)

    def keep(self, target: str, text: str) -> None:
        """State below the least normal number is 0."""
        self.w(f"{target} = {self.w.call('flushed', self.dtype, text)};")

    def mean(self, m: str) -> None:
        """m <- b1 m + (1 - b1) d"""
        self.keep(m, f"{m} + weight1 * (d - {m})")

    def square(self, v: str, d: str = "d") -> None:
        """v <- b2 v + (1 - b2) d^2"""
        self.keep(v, f"beta2 * {v} + weight2 * {d} * {d}")


def switch(x: Instruction, name: str) -> Any:
    """Whether an option is on."""
    kernel = KERNELS[x.name]
    return x.arguments[kernel.lists + len(kernel.numbers) + kernel.switches.index(name)]


def each(w: Writer, x: Instruction, wide: dict[str, str] | None = None, /, **numbers: str) -> Iterator[Element]:
    """The elements of every parameter.

    ``numbers``: constants that are worked out before, by name, as texts in C with the group's numbers in braces, t the
    number of the step; ``wide``: those that stay in double.
    """
    kernel, wide = KERNELS[x.name], wide or {}
    params, grads = x.arguments[:2]
    lists = dict(zip((*kernel.state, *kernel.counts), x.arguments[2:], strict=False))
    named = {spelled(k): as_text(v) for k, v in zip(kernel.numbers, x.arguments[kernel.lists :], strict=False)}
    decoupled = "decoupled_weight_decay" in kernel.switches and switch(x, "decoupled_weight_decay")
    decays = "weight_decay" in kernel.numbers and named["weight_decay"] != "0.0"
    if decays:
        numbers["shrink" if decoupled else "decay"] = "1 - {lr} * {weight_decay}" if decoupled else "{weight_decay}"
    texts = " ".join([*wide.values(), *numbers.values()])
    named |= {f: w.library.name(f, torch.float64) for f in ("pow", "power", "sqrt") if f"{{{f}}}" in texts}
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        kind, counts = TYPES[p.dtype], {name: _one(lists[name][i]) for name in kernel.counts if lists[name]}
        with w.block(f"/* {w.label(p)} */"):
            if re.search(r"\bt\b", texts):
                w(f"const double t = {counts['step']} + 1;")
            if "mu_product_before" in texts:
                w(f"const float mu_product_before = {counts['mu_product']};")
            for name, text in wide.items():
                w(f"const double {name} = {text.format_map(named)};")
            for name, text in numbers.items():
                w(f"const {kind} {name} = ({kind})({text.format_map(named)});")
            if counts:
                w(f"{'if (momentum != 0) ' if x.name == 'sgd_' else ''}{counts['step']} += 1;")
            if "mu_product" in counts:
                w(f"{counts['mu_product']} *= (float)mu;")
            state = [lists[name][i] for name in kernel.state if lists[name]]
            with w.over(p.sizes, p, g, *state) as (to, grad, *rest):
                w(f"{kind} d = {'-' if switch(x, 'maximize') else ''}{grad.element};")
                if decays:
                    w(f"{to.element} *= shrink;" if decoupled else f"if (decay != 0) d += decay * {to.element};")
                yield Element(w, p.dtype, to.element, [value.element for value in rest])


_MOMENTS = {"weight1": "1 - {beta1}", "beta2": "{beta2}", "weight2": "1 - {beta2}", "eps": "{eps}"}


@emits("sgd_")
def sgd(w: Writer, x: Instruction) -> None:
    """b <- momentum b + pull g; p <- p - lr b, or with nesterov p - lr (g + momentum b); without b, p <- p - lr g"""
    numbers = {"lr": "{lr}"}
    if x.arguments[2]:
        numbers |= {"momentum": "{momentum}", "pull": "t == 1 ? 1 : 1 - {dampening}"}
    for e in each(w, x, **numbers):
        for b in e.state:
            with w.block("if (momentum != 0)"):
                e.keep(b, f"momentum * {b} + pull * d")
                w(f"d = {f'd + momentum * {b}' if switch(x, 'nesterov') else b};")
        w(f"{e.p} -= lr * d;")


@emits("adam_")
def adam(w: Writer, x: Instruction) -> None:
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p - step m / (sqrt(v) / root + eps)"""
    numbers = {"step": "{lr} / (1 - {power}({beta1}, t))", "root": "{sqrt}(1 - {power}({beta2}, t))"}
    for e in each(w, x, **_MOMENTS, **numbers):
        m, v, *largest = e.state
        e.mean(m)
        e.square(v)
        for most in largest:
            w(f"if (!({v} <= {most})) {most} = {v};")
            v = most
        w(f"{e.p} -= step * {m} / ({e.sqrt(v)} / root + eps);")


@emits("adadelta_")
def adadelta(w: Writer, x: Instruction) -> None:
    """v <- rho v + (1 - rho) g^2, step = sqrt(u + eps) / sqrt(v + eps) g, u <- rho u + (1 - rho) step^2"""
    for e in each(w, x, lr="{lr}", beta2="{rho}", weight2="1 - {rho}", eps="{eps}"):
        v, u = e.state
        e.square(v)
        w(f"d *= {e.sqrt(f'{u} + eps')} / {e.sqrt(f'{v} + eps')};")
        e.square(u)
        w(f"{e.p} -= lr * d;")


@emits("adagrad_")
def adagrad(w: Writer, x: Instruction) -> None:
    """s <- s + g^2, p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)"""
    for e in each(w, x, lr="{lr} / (1 + (t - 1) * {lr_decay})", eps="{eps}"):
        (s,) = e.state
        e.keep(s, f"{s} + d * d")
        w(f"{e.p} -= lr * d / ({e.sqrt(s)} + eps);")


@emits("adamax_")
def adamax(w: Writer, x: Instruction) -> None:
    """m <- b1 m + (1 - b1) g, u <- max(b2 u, |g| + eps), p <- p - lr / (1 - b1^t) m / u"""
    numbers = {"weight1": "1 - {beta1}", "beta2": "{beta2}", "eps": "{eps}"}
    for e in each(w, x, **numbers, lr="{lr} / (1 - {power}({beta1}, t))"):
        m, u = e.state
        e.mean(m)
        w(f"const {e.kind} before = beta2 * {u}, now = (d < 0 ? -d : d) + eps;")
        w(f"{u} = before >= now || before != before ? before : now;")
        w(f"{e.p} -= lr * {m} / {u};")


@emits("nadam_")
def nadam(w: Writer, x: Instruction) -> None:
    """Adam with Nesterov's momentum, mu_t = b1 (1 - 0.96^(t momentum_decay) / 2)"""
    wide = {
        "mu": "{beta1} * (1 - 0.5 * {pow}(0.96, t * {momentum_decay}))",
        "following": "{beta1} * (1 - 0.5 * {pow}(0.96, (t + 1) * {momentum_decay}))",
        "product": "mu_product_before * (float)mu",
    }
    numbers = {
        "left": "1 - {power}({beta2}, t)",
        "push": "{lr} * (1 - mu) / (1 - product)",
        "pull": "{lr} * following / (1 - product * following)",
    }
    for e in each(w, x, wide, **_MOMENTS, **numbers):
        m, v = e.state
        e.mean(m)
        e.square(v)
        w(f"const {e.kind} root = {e.sqrt(f'{v} / left')} + eps;")
        w(f"{e.p} -= push * d / root;")
        w(f"{e.p} -= pull * {m} / root;")


@emits("radam_")
def radam(w: Writer, x: Instruction) -> None:
    """Adam without the second moment while its estimate is too uncertain, rectified afterwards"""
    wide = {
        "power": "{power}({beta2}, t)",
        "longest": "2 / (1 - {beta2}) - 1",
        "length": "longest - 2 * t * power / (1 - power)",
        "share": "(length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)",
    }
    numbers = {
        "lr": "{lr}",
        "left": "1 - {power}({beta1}, t)",
        "root": "{sqrt}(1 - power)",
        "rectified": "length > 5 ? {sqrt}(share) : 0",
    }
    for e in each(w, x, wide, **_MOMENTS, **numbers):
        m, v = e.state
        e.mean(m)
        e.square(v)
        w(f"const {e.kind} step = {m} / left * lr;")
        w(f"{e.p} -= rectified > 0 ? step * (root / ({e.sqrt(v)} + eps)) * rectified : step;")


@emits("rmsprop_")
def rmsprop(w: Writer, x: Instruction) -> None:
    """v <- alpha v + (1 - alpha) g^2, p <- p - lr g / (sqrt(v) + eps); with momentum, and less the squared mean"""
    numbers = {"lr": "{lr}", "beta2": "{alpha}", "weight2": "1 - {alpha}", "eps": "{eps}"}
    centered, moves = switch(x, "centered"), bool(x.arguments[4])
    if centered:
        numbers["weight1"] = "1 - {alpha}"
    if moves:
        numbers["momentum"] = "{momentum}"
    for e in each(w, x, **numbers):
        v, *rest = e.state
        e.square(v)
        spread = v
        if centered:
            c = rest.pop(0)
            e.mean(c)
            spread = f"{v} - {c} * {c}"
        w(f"d /= {e.sqrt(spread)} + eps;")
        for b in rest:
            with w.block("if (momentum > 0)"):
                e.keep(b, f"momentum * {b} + d")
                w(f"d = {b};")
        w(f"{e.p} -= lr * d;")


@emits("rprop_")
def rprop(w: Writer, x: Instruction) -> None:
    """Steps by the gradient's sign: each grows while the sign stays, shrinks (and rests once) where it turns"""
    numbers = {"shrink": "{eta1}", "grow": "{eta2}", "least": "{step_size1}", "most": "{step_size2}"}
    for e in each(w, x, **numbers):
        last, size = e.state
        w(f"const {e.kind} turn = d * {last};")
        w(f"{size} *= turn > 0 ? grow : turn < 0 ? shrink : 1;")
        w(f"{size} = {size} < least ? least : {size} > most ? most : {size};")
        w("if (turn < 0) d = 0;")
        w(f"{e.p} -= (d > 0 ? {size} : d < 0 ? -{size} : 0);")
        w(f"{last} = d;")
