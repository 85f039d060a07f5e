"""Every elementwise op, reduction and loss of the table at zeros, signs, infinities, NaN and ties.

Value, gradient, second gradient and forward mode agree with torch and with each other, for a tensor, a 0-dim tensor and
a number on either side. (Second gradients are compared where torch's is a number: its masks make NaN of 0 * inf.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from optable import rows
from optable.check import Call, Side, raw
from optable.check import one_thread as one_thread
from optable.spec import K, Row, Sample, Spec, V, data, ints, walk

import tapegrad as tg

NAN, INF = float("nan"), float("inf")
POINTS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, 6.0, 21.0, 1e-30, 1e-310, 800.0, -800.0, INF, -INF]
FEW = [0.0, -0.0, 1.0, -1.0, 2.0, INF, -INF]

# Where torch's second gradients are numbers and not the right ones: by a tensor exponent of 0 (the mixed derivative is
# 1 / x; its mask drops it), of sinc near 0 (it cancels); what is left of 1e30 - 1e30 is no example (hypot).
OWN_SECOND = {"pow", "sinc", "hypot"}
# Values of torch's that depend on where in a vector register an element lies.
OWN_VALUE = {"gelu"}


# of no family in the table, because they do not take integers as it asks of those
MORE = {
    "unary": """asinh acosh atanh exp2 erfc erfinv lgamma digamma frac deg2rad rad2deg sgn sinc nan_to_num logit
    threshold""",
    "binary": "hypot copysign fmax fmin logaddexp logaddexp2 xlogy",
}


def family(name: str) -> list[str]:
    return [row.name for row in rows.values() if row.family == name] + MORE[name].split()


def parameters(row: Row, arrays: int) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the row's samples give behind the arrays, each once."""
    seen = set()
    for sample in row.samples:
        rest = (sample.args[arrays:], sample.kwargs)
        if str(rest) not in seen and not list(walk((rest[0], tuple(rest[1].values())))):
            seen.add(str(rest))
            yield rest


def same(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return torch.isclose(got.double(), expected.double(), rtol=1e-9, atol=1e-12, equal_nan=True)


def differ(what: str, got: torch.Tensor, expected: torch.Tensor, where: torch.Tensor | None = None) -> str | None:
    """The first three places where two results differ, if any."""
    if got.shape != expected.shape:
        return f"{what}: shape {list(got.shape)}, expected {list(expected.shape)}"
    bad = ~same(got, expected)
    places = (bad if where is None else bad & where).nonzero().tolist()
    text = ", ".join(f"{p}: {got[tuple(p)].item()} for {expected[tuple(p)].item()}" for p in places[:3])
    return f"{what} at {text}" if places else None


def forward_mode(call: Call, ours: Side) -> Iterator[str | None]:
    """Tangents of ones, one argument at a time, against the gradient of the sum."""
    ones = [tg.Tensor(torch.ones_like(raw(out))) for out in ours.followed]
    grads = tg.grad(ours.followed, ours.inputs, ones, retain_graph=True, allow_unused=True)
    for i, (x, g) in enumerate(zip(ours.leaves, iter_grads(ours, grads), strict=True)):
        if g is None:
            continue

        def f(value: Any, i: int = i) -> Any:
            arrays = [tg.Tensor(v) for v in call.values]
            arrays[i] = value
            return call.run(call.row.function, arrays)[0]

        tangent = tg.func.jvp(f, (tg.Tensor(raw(x)),), (tg.Tensor(torch.ones_like(raw(x))),))[1].data
        if tangent.shape != g.shape:
            tangent, g = tangent.sum(), g.sum()
        yield differ(f"forward mode by argument {i}", tangent, g)


def iter_grads(ours: Side, grads: Any) -> Iterator[torch.Tensor | None]:
    found = dict(zip(map(id, ours.inputs), grads, strict=True))
    for x in ours.leaves:
        g = found.get(id(x))
        yield None if g is None else g.data


def disagreements(row: Row, sample: Sample, elementwise: bool = True) -> list[str]:
    case = Row(row.name, [sample], row.reference, row.call)
    call = Call(case, sample, torch.float64)
    try:
        theirs = call.torch()
        theirs.plain  # noqa: B018
    except (TypeError, RuntimeError):  # some of torch's functions take no number there, or have no gradient then
        return []
    ours = call.tapegrad()
    expected = raw(theirs.outputs[0])
    found = [differ("value", raw(ours.outputs[0]), expected)] if row.name not in OWN_VALUE else []
    for got, recorded, g in zip(ours.plain, ours.first, theirs.plain, strict=True):
        found += [differ("gradient", raw(got), raw(g)), differ("recorded gradient", raw(recorded), raw(g))]
    if row.name not in OWN_SECOND and theirs.followed and not (expected.numel() == 1 and bool(expected.isnan())):
        for got, g in zip(ours.second, theirs.second, strict=True):
            number = ~raw(g).isnan() & (~expected.isnan() if expected.shape == g.shape else True)
            found.append(differ("second gradient", raw(got), raw(g), number))
    if elementwise:
        found += forward_mode(call, ours)
    return [f"{row.name}{sample}: {text}" for text in found if text]


def check(cases: Iterator[list[str]]) -> None:
    found = list(itertools.chain.from_iterable(cases))
    assert not found, f"{len(found)} disagreements\n" + "\n".join(found[:20])


@pytest.mark.parametrize("name", family("unary"))
def test_functions_of_one_array(name: str) -> None:
    row = rows[name]
    arrays = [V(POINTS), V([NAN]), V(NAN), V(0.0), V(INF)]
    check(disagreements(row, K(x, *args, **kw)) for args, kw in parameters(row, 1) for x in arrays)


def pairs(left: list[float], right: list[float]) -> tuple[Spec, Spec]:
    both = torch.cartesian_prod(torch.tensor(left), torch.tensor(right)).double()
    return V(both[:, 0].tolist()), V(both[:, 1].tolist())


def of_two(row: Row) -> Iterator[list[str]]:
    whole = V([0.0, 1.0, 2.0, 3.0, 200.0]).to(torch.uint8)
    for args, kw in parameters(row, 2):
        if row.name != "atan2":  # torch's negates and squares bytes
            yield disagreements(row, K(V([1.0, 2.0, 0.5, -1.0, INF]), whole, *args, **kw))
            yield disagreements(row, K(whole, V([1.0, 2.0, 0.5, -1.0, INF]), *args, **kw))
        yield disagreements(row, K(*pairs([*POINTS, NAN], [*POINTS, NAN]), *args, **kw))
        for p in [*FEW, NAN, 0, 2, -1]:
            x, other = V([*FEW, 3.0, NAN]), p if isinstance(p, int) else V(p)
            yield disagreements(row, K(x, other, *args, **kw))
            yield disagreements(row, K(other, x, *args, **kw))
            if row.name != "div":  # a number over a tensor is the number times 1 / x, as torch's operator has it
                yield disagreements(row, K(p, x, *args, **kw))
            yield disagreements(row, K(x, p, *args, **kw))


@pytest.mark.parametrize("name", family("binary"))
def test_functions_of_two_arrays(name: str) -> None:
    check(of_two(rows[name]))


def test_powers_have_the_second_derivatives_of_their_formula() -> None:
    x, n = (torch.tensor(v, dtype=torch.float64) for v in ([2.0, 0.5, 3.0, 1.0, 2.0], [0.0, -1.0, 2.0, 0.0, 1.0]))
    leaves = tg.Tensor(x.clone(), True), tg.Tensor(n.clone(), True)
    dx, dn = tg.grad((leaves[0] ** leaves[1]).sum(), leaves, create_graph=True)
    (xx, xn), (nn,) = tg.grad(dx.sum(), leaves, retain_graph=True), tg.grad(dn.sum(), leaves[1:])
    log = x.log()
    for got, expected in (
        (xx, n * (n - 1) * x ** (n - 2)),
        (xn, x ** (n - 1) * (1 + n * log)),
        (nn, x**n * log * log),
    ):
        torch.testing.assert_close(got.data, expected, rtol=1e-12, atol=1e-12)


def test_bytes_are_numbers_in_the_slope_of_an_angle() -> None:
    x = tg.tensor([3.0, 100.0], dtype=tg.float64, requires_grad=True)
    y = torch.tensor([200, 17], dtype=torch.uint8)
    expected = torch.tensor([200, 17.0], dtype=torch.float64) / (y.double() ** 2 + x.data**2)
    torch.testing.assert_close(tg.grad(tg.atan2(x, y).sum(), x)[0].data, expected)
    torch.testing.assert_close(tg.grad(tg.atan2(y, x).sum(), x)[0].data, -expected)


@pytest.mark.parametrize("base", [0.0, -0.0, 0, tg.tensor(0.0)])
def test_a_power_of_zero_is_flat_in_forward_mode_as_well(base: Any) -> None:
    def f(n: Any) -> Any:
        return base**n

    n = torch.tensor([0.0, 0.5, 1.0, 2.0, INF])
    value, tangent = tg.func.jvp(f, (tg.Tensor(n),), (tg.ones(5),))
    assert value.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert tangent.tolist() == tg.func.grad(lambda n: f(n).sum())(tg.Tensor(n)).tolist() == [0.0] * 5


def of_three(name: str) -> Iterator[list[str]]:
    row, points = rows[name], [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN]
    grid = torch.cartesian_prod(*[torch.tensor(points)] * 3).double()
    a, b, c = (V(column.tolist()) for column in grid.unbind(1))
    mask = V((torch.arange(len(grid)) % 3 == 0).tolist())
    mask.dtype, mask.grad = torch.bool, False
    if name in ("where", "masked_fill"):
        yield disagreements(row, K(mask, a, b) if name == "where" else K(a, mask, V(2.0)))
        for p in points:
            yield disagreements(row, K(mask, a, p) if name == "where" else K(a, mask, V(p)))
            yield disagreements(row, K(mask, p, a) if name == "where" else K(a, mask, p))
        return
    for args, kw in [((), {}), ((), {"value": -2.0}), ((), {"value": INF})] if name[:3] == "add" else [((), {})]:
        yield disagreements(row, K(a, b, c, *args, **kw))
    x, y = pairs(points, points)
    for p in points:
        yield disagreements(row, K(x, y, V(p)))
        yield disagreements(row, K(V(p), x, y))
        yield disagreements(row, K(x, y, p))
        if name == "clamp":
            yield disagreements(row, K(x, p, y))
            yield from (disagreements(row, K(x, **kw)) for kw in ({"min": p}, {"max": p}, {"min": p, "max": 0.0}))
    if name == "clamp":
        yield from (disagreements(row, K(x, **kw)) for kw in ({"min": y}, {"max": y}))


@pytest.mark.parametrize("name", ["lerp", "addcmul", "addcdiv", "clamp", "where", "masked_fill"])
def test_functions_of_three_arrays(name: str) -> None:
    check(of_three(name))


# rows of three with every order of signs, ties, infinities and NaN; `prod` and `cumprod`, which torch computes by
# division, only where that means something
TRIPLES = list(itertools.product([0.0, -0.0, 1.0, 1.5, -1.0, INF, -INF, NAN], repeat=3))
FINITE = [t for t in TRIPLES if all(abs(v) < INF for v in t)]
REDUCTIONS: dict[str, list[dict[str, Any]]] = {
    **{key: [{}] for key in ["sum", "mean", "amax", "amin", "max", "min", "logsumexp", "cumsum", "prod", "cumprod"]},
    **{key: [{}] for key in ["softmax", "log_softmax", "argmax", "argmin", "all", "any"]},
    **{key: [{"correction": 0}, {"correction": 1}] for key in ["var", "std"]},
    "sort": [{}, {"descending": True}],
    "topk": [{"k": 2}],
    "norm": [{"p": p} for p in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, INF, -INF, -1.0)],
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_along_a_dimension(name: str) -> None:
    table = FINITE if name in ("prod", "cumprod") else TRIPLES
    check(disagreements(rows[name], K(V(table), **({"dim": 1} | kw)), elementwise=False) for kw in REDUCTIONS[name])


@pytest.mark.parametrize("name", [n for n in REDUCTIONS if n in ("sum", "mean", "amax", "max", "min", "std", "norm")])
def test_reductions_of_everything(name: str) -> None:
    few = list(itertools.product([0.0, 1.0, -1.0, INF, NAN], repeat=2))
    check(
        disagreements(rows[name], K(V(t), **kw), elementwise=False)
        for kw in REDUCTIONS[name]
        for t in [*few, 0.0, 2.0, INF, NAN]
    )


LOSSES: dict[str, list[dict[str, Any]]] = {
    "mse_loss": [{}],
    "l1_loss": [{}],
    "smooth_l1_loss": [{}, {"beta": 0.5}, {"beta": 0.0}],
    "huber_loss": [{}, {"delta": 0.5}],
    "binary_cross_entropy": [{}],
    "binary_cross_entropy_with_logits": [{}, {"pos_weight": data(V(2.0))}, {"pos_weight": data(V(0.0))}],
    "kl_div": [{}, {"log_target": True}],
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_between_arrays(name: str) -> None:
    inputs, targets = [0.0, -0.0, 1.0, -1.0, 0.5, 100.0, INF, -INF, NAN], [0.0, -0.0, 1.0, -1.0, 0.5, NAN]
    if name == "binary_cross_entropy":
        inputs = [0.0, -0.0, 1.0, 0.5, 1e-300, 1 - 1e-16]
    x, t = pairs(inputs, targets)
    reduced = [] if name == "binary_cross_entropy" else ["sum", "mean"]  # torch's d/dt is infinite there, but -100 here
    check(
        disagreements(rows[name], K(a, b, reduction=how, **kw), elementwise=False)
        for kw in LOSSES[name]
        for how in ["none", *reduced]
        for a, b in ([(x, t), (x, data(t))] if how == "none" else [(V([p]), V([q])) for p in inputs for q in targets])
    )


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_losses_of_classes(name: str) -> None:
    """Ignored rows hold numbers: with others, torch's gradient of them is NaN, ours 0."""
    inputs = [
        [[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]],
        [[-INF, 0.0, 1.0], [1.0, 2.0, -INF]],
        [[800.0, 0.0, -800.0], [0.0] * 3],
    ]
    more: list[dict[str, Any]] = [{}, {"ignore_index": 0}]
    if name == "cross_entropy":
        more += [{"label_smoothing": 0.2}, {"ignore_index": 0, "label_smoothing": 0.2}]
    weights = [{}, *({"weight": data(V(w))} for w in ([0.0] * 3, [1.0, 0.0, 2.0], [0.0, 1.0, 1.0]))]
    check(
        disagreements(rows[name], K(V(x), ints(labels), reduction=how, **kw, **weight), elementwise=False)
        for x in inputs
        for labels in ([0, 1], [0, 0], [1, 1])
        for how in ("none", "sum", "mean")
        for kw in more
        for weight in weights
    )


def test_a_row_that_is_ignored_may_hold_anything() -> None:
    for value, function in itertools.product((INF, -INF, NAN), (tg.nll_loss, tg.cross_entropy)):
        x = tg.tensor([[value, 0.0], [-0.5, -1.0]], requires_grad=True)
        loss = function(x, torch.tensor([0, 1]), ignore_index=0)
        loss.backward()
        alone: Callable[..., Any] = getattr(torch.nn.functional, function.__name__)
        assert loss.item() == pytest.approx(alone(torch.tensor([[-0.5, -1.0]]), torch.tensor([1])).item())
        assert x.grad is not None
        assert x.grad[0].tolist() == [0.0, 0.0]
