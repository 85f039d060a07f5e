"""A random sample of calls per family of ops, each as torch computes it: value, gradient, second gradient."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optable import rows
from optable.check import GRADIENT, Call, assert_close, raw
from optable.check import one_thread as one_thread
from optable.spec import D, P, Q, R, Row, Sample, Spec, U, bools, data, ints, oracle, uniform

CALLS = 200

Drawn = tuple[str, tuple[Any, ...], dict[str, Any]]  # function, arguments, keyword arguments


FUNCTIONS = {
    "unary": """neg abs sign exp expm1 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan asin acos atan
    sinh cosh tanh sigmoid erf floor ceil round relu leaky_relu elu selu celu gelu silu mish softplus softsign
    logsigmoid hardtanh relu6 clamp""",
    "binary": "add sub mul div pow maximum minimum fmod remainder atan2 where lerp addcmul addcdiv",
    "reductions": "sum mean var std amax amin max min prod norm logsumexp cumsum cumprod",
    "shapes": """reshape flatten unflatten transpose permute movedim squeeze unsqueeze expand repeat tile cat stack
    split chunk unbind flip roll pad narrow select tril triu diagonal""",
    "indexing": """getitem getitem getitem getitem setitem setitem index_select gather scatter_add take_along_dim
    masked_fill sort topk""",
    "linalg": "matmul mm bmm mv dot outer addmm baddbmm linear einsum matmul einsum",
    "networks": """conv1d conv2d conv2d conv_transpose2d unfold interpolate max_pool2d avg_pool2d adaptive_avg_pool2d
    batch_norm layer_norm group_norm embedding softmax log_softmax scaled_dot_product_attention""",
    "losses": """mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy cross_entropy nll_loss binary_cross_entropy
    binary_cross_entropy_with_logits kl_div""",
}  # taken in turn; what stands twice is drawn twice as often


def extents(rng: random.Random, low: int = 0, high: int = 4, smallest: int = 0) -> list[int]:
    """A shape of `low` to `high` dimensions; one size in ten is 0 where `smallest` allows it."""
    return [0 if smallest == 0 and rng.random() < 0.1 else rng.randint(1, 4) for _ in range(rng.randint(low, high))]


def broadcastable(rng: random.Random, shape: list[int]) -> list[int]:
    """A shape that broadcasts to `shape`: leading dimensions left out, sizes replaced by 1."""
    kept = shape[rng.randint(0, len(shape)) if rng.random() < 0.4 else 0 :]
    return [1 if rng.random() < 0.25 else n for n in kept]


def dims(rng: random.Random, ndim: int) -> Any:
    """One dim from either end, or several."""
    if rng.random() < 0.5:
        return rng.randint(-ndim, ndim - 1)
    chosen = rng.sample(range(ndim), rng.randint(1, ndim))
    return tuple(d - ndim if rng.random() < 0.3 else d for d in chosen)


DOMAIN: dict[str, Callable[..., Spec]] = {
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "log1p"), P),
    **dict.fromkeys(("asin", "acos"), U),
}


def unary(rng: random.Random, name: str) -> Drawn:
    x = DOMAIN.get(name, R)(*extents(rng))
    parameters = {
        "leaky_relu": {"negative_slope": rng.uniform(0, 1)},
        "elu": {"alpha": rng.uniform(0.5, 2)},
        "celu": {"alpha": rng.choice([0.25, 0.5, 2.0])},  # torch rounds 1 / alpha to float32 in its gradient
        "softplus": {"beta": rng.uniform(0.5, 3), "threshold": rng.uniform(0, 3)},
        "gelu": {"approximate": rng.choice(["none", "tanh"])},
        "hardtanh": {"min_val": rng.uniform(-1, 0), "max_val": rng.uniform(0.1, 1)},
        "clamp": {"min": rng.uniform(-1, 0), "max": rng.choice([None, rng.uniform(0, 1)])},
    }
    return name, (x,), parameters.get(name, {})


def binary(rng: random.Random, name: str) -> Drawn:
    shape = extents(rng)
    first, second, third = (broadcastable(rng, shape) for _ in range(3))
    rng.choice([first, second])[:] = shape
    left = (P if name == "pow" else R)(*first)
    right = (P if name in ("div", "fmod", "remainder", "addcdiv") else R)(*second)
    if name == "where":
        condition = bools(
            torch.rand(shape, generator=torch.Generator().manual_seed(rng.randint(0, 99))).gt(0.5).tolist()
        )
        return (name, (condition, left, right), {}) if torch.Size(shape).numel() else ("add", (left, right), {})
    if name in ("lerp", "addcmul", "addcdiv"):
        more = {"lerp": {}, "addcmul": {"value": 0.5}, "addcdiv": {"value": -2.0}}[name]
        return name, (R(*third), left, right) if name != "lerp" else (left, right, R(*third)), more
    if rng.random() < 0.15 and name not in ("maximum", "minimum", "atan2"):
        return name, (left, rng.choice([2, 0.5, 3.0])), {}
    return name, (left, right), {"alpha": rng.uniform(-2, 2)} if name in ("add", "sub") and rng.random() < 0.3 else {}


def reductions(rng: random.Random, name: str) -> Drawn:
    smallest = 1 if name in ("amax", "amin", "max", "min", "logsumexp", "mean") else 0
    shape = extents(rng, 1, 4, smallest)
    if name in ("var", "std", "norm"):
        shape = [max(n, 2) for n in shape]
    x = R(*shape)
    keepdim = rng.random() < 0.5
    one = rng.randint(-len(shape), len(shape) - 1)
    if name in ("cumsum", "cumprod"):
        return name, (x, one), {}
    if name in ("max", "min", "prod"):
        return name, *rng.choice([((x,), {}), ((x, one, keepdim), {})])
    if name == "norm":
        return (
            name,
            (x, rng.choice([1, 2, 3, 0.5, float("inf")])),
            rng.choice([{}, {"dim": dims(rng, len(shape)), "keepdim": keepdim}]),
        )
    kwargs: dict[str, Any] = {"dim": dims(rng, len(shape)), "keepdim": keepdim}
    if name in ("var", "std"):
        kwargs["correction"] = rng.choice([0, 1])
    return name, (x,), rng.choice([kwargs, kwargs, {}]) if name != "logsumexp" else kwargs


def _regroup(rng: random.Random, n: int) -> list[int]:
    """A random factorisation of n, one factor perhaps written as -1."""
    sizes = []
    while n > 1 and rng.random() < 0.7:
        factor = rng.choice([d for d in range(1, n + 1) if n % d == 0])
        sizes.append(factor)
        n //= factor
    return [*sizes, rng.choice([n, -1])]


def shapes(rng: random.Random, name: str) -> Drawn:
    shape = extents(rng, 2, 4, 1)
    x, n = R(*shape), len(shape)
    a, b = rng.randint(-n, n - 1), rng.randint(-n, n - 1)
    low, high = sorted((a % n, b % n))
    order = rng.sample(range(n), n)
    start = rng.randint(0, shape[a] - 1)
    arguments: dict[str, Callable[[], tuple[Any, ...]]] = {
        "reshape": lambda: (x, _regroup(rng, torch.Size(shape).numel())),
        "flatten": lambda: (x, low, high),
        "unflatten": lambda: (x, a, _regroup(rng, shape[a])),
        "transpose": lambda: (x, a, b),
        "permute": lambda: (x, tuple(order)),
        "movedim": lambda: rng.choice([(x, a, b), (x, tuple(order[:2]), tuple(order[-2:]))]),
        "squeeze": lambda: rng.choice([(x,), (x, a)]),
        "unsqueeze": lambda: (x, rng.randint(-n - 1, n)),
        "expand": lambda: (R(*broadcastable(rng, shape)), shape),
        "repeat": lambda: (x, [rng.randint(0, 2) for _ in range(n + rng.randint(0, 1))]),
        "tile": lambda: (x, [rng.randint(1, 2) for _ in range(rng.randint(1, n + 1))]),
        "cat": lambda: (
            [R(*(rng.randint(0, 3) if i == a % n else m for i, m in enumerate(shape))) for _ in range(3)],
            a,
        ),
        "stack": lambda: ([x, R(*shape), x], rng.randint(-n - 1, n)),
        "split": lambda: (x, rng.randint(1, 3), a),
        "chunk": lambda: (x, rng.randint(1, 4), a),
        "unbind": lambda: (x, a),
        "flip": lambda: (x, tuple(order[: rng.randint(0, n)])),
        "roll": lambda: rng.choice([(x, rng.randint(-3, 3), a), (x, (1, -2), tuple(order[:2])), (x, 2)]),
        "pad": lambda: (x, [rng.randint(0, 2) for _ in range(2 * rng.randint(1, n))], "constant", rng.uniform(-1, 1)),
        "narrow": lambda: (x, a, start, rng.randint(0, shape[a] - start)),
        "select": lambda: (x, a, rng.randint(-shape[a], shape[a] - 1)),
        "tril": lambda: (x, rng.randint(-2, 2)),
        "triu": lambda: (x, rng.randint(-2, 2)),
        "diagonal": lambda: (x, rng.randint(-1, 1), order[0], order[1] - n),
    }
    return name, arguments[name](), {}


def _index(rng: random.Random, extent: int) -> Any:
    """An index of one dimension: int, slice, index tensor, list."""
    kind = rng.randint(0, 3)
    if kind == 0:
        return rng.randint(-extent, extent - 1)
    if kind == 1:
        return slice(
            rng.choice([None, rng.randint(-extent, extent)]),
            rng.choice([None, rng.randint(0, extent)]),
            rng.choice([None, 1, 2]),
        )
    places = [rng.randint(-extent, extent - 1) for _ in range(3)]
    return ints(places) if kind == 2 else slice(None)


def _positions(rng: random.Random, shape: list[int], extent: int) -> Spec:
    return ints([rng.randint(0, extent - 1) for _ in range(torch.Size(shape).numel())], shape)


def indexing(rng: random.Random, name: str) -> Drawn:
    shape = extents(rng, 1, 3, 1)
    n = len(shape)
    x, dim = R(*shape), rng.randint(-n, n - 1)
    other = [rng.randint(1, m) for m in shape]
    mask = bools(torch.rand(shape, generator=torch.Generator().manual_seed(rng.randint(0, 99))).gt(0.5).tolist())
    if name in ("getitem", "setitem"):
        index = tuple(_index(rng, m) for m in shape[: rng.randint(1, n)])
        index = rng.choice([index, (*index[:1], ...), (None, *index), mask])
        return name, (x, index) if name == "getitem" else (x, index, R()), {}
    if name == "masked_fill":
        return name, (x, mask, rng.choice([1.5, R()])), {}
    if name in ("sort", "topk"):
        descending = rng.random() < 0.5
        return name, (x, rng.randint(1, shape[dim]), dim, descending) if name == "topk" else (x, dim, descending), {}
    if name == "index_select":
        return name, (x, dim, _positions(rng, [rng.randint(0, 4)], shape[dim])), {}
    if name == "take_along_dim":
        wide = [rng.randint(1, 4) if i == dim % n else rng.choice([1, m]) for i, m in enumerate(shape)]
        return name, (x, _positions(rng, wide, shape[dim]), dim), {}
    other[dim] = rng.randint(0, 4)
    index = _positions(rng, other, shape[dim])
    return name, (x, dim, index) if name == "gather" else (x, dim, index, R(*other)), {}


EINSUM = [
    "ij,jk->ik",
    "bij,bjk->bik",
    "ij,ik->ijk",
    "ij,ij->",
    "ij->ji",
    "...ij,...jk->...ik",
    "ij,jk,kl->il",
    "i,j->ij",
    "bij,bij->bi",
    "ii->i",
]


def linalg(rng: random.Random, name: str) -> Drawn:
    m, k, n, b = (rng.choice([0, 1, 2, 3, 4, 5]) for _ in range(4))
    if name == "matmul":
        batch = extents(rng, 0, 2, 1)
        left = rng.choice([[k], [m, k], [*broadcastable(rng, batch), m, k]])
        right = rng.choice([[k], [k, n], [*batch, k, n]])
        return name, (R(*left), R(*right)), {}
    if name == "linear":
        return name, (R(*extents(rng, 0, 2), k), R(n, k), rng.choice([None, R(n)])), {}
    if name == "einsum":
        equation = rng.choice(EINSUM)
        sizes = {letter: rng.randint(1, 4) for letter in "ijklb"}
        dots = rng.choice([[], [2], [3, 1]])
        terms = equation.split("->")[0].split(",")
        return (
            name,
            (equation, *(R(*(dots if "." in t else []), *(sizes[c] for c in t if c != ".")) for t in terms)),
            {},
        )
    scales = rng.choice([{}, {"beta": 0.5, "alpha": -2.0}])
    shaped: dict[str, tuple[list[list[int]], dict[str, Any]]] = {
        "mm": ([[m, k], [k, n]], {}),
        "bmm": ([[b, m, k], [b, k, n]], {}),
        "mv": ([[m, k], [k]], {}),
        "dot": ([[k], [k]], {}),
        "outer": ([[m], [n]], {}),
        "addmm": ([broadcastable(rng, [m, n]), [m, k], [k, n]], scales),
        "baddbmm": ([broadcastable(rng, [b, m, n]), [b, m, k], [b, k, n]], scales),
    }
    return name, tuple(R(*shape) for shape in shaped[name][0]), shaped[name][1]


def networks(rng: random.Random, name: str) -> Drawn:
    batch, groups = rng.randint(1, 3), rng.choice([1, 1, 2])
    c, oc = groups * rng.randint(1, 2), groups * rng.randint(1, 2)
    h, w, kh, kw = rng.randint(4, 7), rng.randint(4, 7), rng.randint(1, 3), rng.randint(1, 3)
    x = R(batch, c, h, w)
    stride, padding, dilation = rng.randint(1, 3), rng.randint(0, 1), rng.choice([1, 1, 2]) if max(kh, kw) < 3 else 1
    both = (rng.randint(1, 2), rng.randint(1, 3))
    window = {"stride": rng.choice([stride, both]), "padding": rng.choice([padding, (0, padding)])}
    affine = rng.choice([{}, {"weight": R(c), "bias": R(c)}])
    if name == "conv1d":
        return name, (R(batch, c, w), R(oc, c // groups, kw), R(oc), stride, padding, dilation, groups), {}
    if name == "conv2d":
        return (
            name,
            (x, R(oc, c // groups, kh, kw), rng.choice([None, R(oc)])),
            {**window, "dilation": dilation, "groups": groups},
        )
    if name == "conv_transpose2d":
        more = {"output_padding": rng.randint(0, 1) if stride > 1 else 0, "dilation": dilation, "groups": groups}
        return name, (x, R(c, oc // groups, kh, kw), R(oc)), {"stride": stride, "padding": padding, **more}
    if name == "unfold":
        return name, (x, (kh, kw), dilation, padding, stride), {}
    if name == "interpolate":
        size = (rng.randint(1, 9), rng.randint(1, 9))
        corners = {"align_corners": rng.random() < 0.5}
        mode = rng.choice([{"mode": "nearest"}, {"mode": "bilinear", **corners}])
        return name, (x,), {**rng.choice([{"size": size}, {"scale_factor": rng.choice([2, 1.5, (0.5, 2.0)])}]), **mode}
    if name in ("max_pool2d", "avg_pool2d"):
        kernel = (rng.randint(2, 3), rng.randint(2, 3))
        more = (
            {"count_include_pad": rng.random() < 0.5}
            if name == "avg_pool2d"
            else {"dilation": rng.choice([1, 1, (1, 2)])}
        )
        return name, (D(batch, c, h, w + 2), kernel), {**window, "ceil_mode": rng.random() < 0.5, **more}
    if name == "adaptive_avg_pool2d":
        return name, (x, (rng.randint(1, 8), rng.choice([None, rng.randint(1, 8)]))), {}
    if name == "batch_norm":
        return name, (x, None, None), {**affine, "training": True, "eps": rng.choice([1e-5, 1e-2])}
    if name == "layer_norm":
        normalized = [c, h, w][rng.randint(0, 2) :]
        return name, (x, normalized), rng.choice([{}, {"weight": R(*normalized), "bias": R(*normalized)}])
    if name == "group_norm":
        return name, (x, groups), affine
    if name == "embedding":
        return name, (ints([rng.randint(0, 4) for _ in range(6)], rng.choice([(6,), (2, 3)])), R(5, 3)), {}
    if name == "scaled_dot_product_attention":
        return (
            name,
            (R(batch, h, 3), R(batch, w, 3), R(batch, w, 2)),
            rng.choice([{}, {"is_causal": True}, {"attn_mask": R(h, w)}, {"scale": 0.3}]),
        )
    return name, (x,), {"dim": rng.randint(-4, 3)}


LogP = uniform(-3.0, -0.1)


def losses(rng: random.Random, name: str) -> Drawn:
    reduction = {"reduction": rng.choice(["mean", "sum", "none"])}
    if name in ("cross_entropy", "nll_loss"):
        n, c = rng.randint(1, 4), rng.randint(2, 5)
        rest = rng.choice([[], [], [2], [2, 3]])
        kwargs = {**reduction, **rng.choice([{}, {"weight": data(P(c))}])}
        logits = (LogP if name == "nll_loss" else R)(n, c, *rest)
        if name == "cross_entropy":
            kwargs |= rng.choice([{}, {"label_smoothing": rng.uniform(0.05, 0.5)}])
            if rng.random() < 0.3:
                return name, (logits, Q(n, c, *rest)), kwargs
        labels = _positions(rng, [n, *rest], c)
        first = labels.draw(torch.Generator()).flatten()[0].item()
        return name, (logits, labels), {**kwargs, **rng.choice([{}, {"ignore_index": (first + 1) % c}])}
    shape = extents(rng, 0, 3, 1)
    left, right = {"binary_cross_entropy": (Q, Q), "kl_div": (LogP, Q)}.get(name, (R, Q if "logits" in name else R))
    own: dict[str, dict[str, Any]] = {
        "smooth_l1_loss": {"beta": rng.uniform(0.3, 2)},
        "huber_loss": {"delta": rng.uniform(0.3, 2)},
        "binary_cross_entropy": {"weight": data(P(*shape))},
        "binary_cross_entropy_with_logits": {"pos_weight": data(P(*shape[-1:]))},
        "kl_div": {"log_target": rng.random() < 0.5},
    }
    if name == "kl_div" and len(shape) and rng.random() < 0.3:
        reduction = {"reduction": "batchmean"}
    return name, (left(*shape), right(*shape)), {**reduction, **rng.choice([{}, own.get(name, {})])}


FAMILIES = [unary, binary, reductions, shapes, indexing, linalg, networks, losses]


OWN = {name: rows[name].reference for name in ("getitem", "setitem", "scaled_dot_product_attention")}


def row_of(name: str, sample: Sample) -> Row:
    return Row(name, [sample], OWN.get(name) or oracle(name), rows[name].call if name in OWN else None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_two_hundred_calls_agree_with_torch(family: Callable[[random.Random, str], Drawn]) -> None:
    rng = random.Random(f"tapegrad {family.__name__}")
    names = FUNCTIONS[family.__name__].split()
    failed = []
    for i in range(CALLS):
        name, args, kwargs = family(rng, names[i % len(names)])
        sample = Sample(args, kwargs)
        row = row_of(name, sample)
        row.seeds[sample] = i
        call = Call(row, sample, torch.float64)
        theirs = call.torch()
        expected = [*theirs.outputs, *theirs.first, *theirs.second]
        try:
            ours = call.tapegrad()
            got = [*ours.outputs, *ours.first, *ours.second]
            for a, b in zip(got, expected, strict=True):
                assert_close(raw(a), raw(b), GRADIENT[torch.float64], "output or derivative")
        except Exception as error:
            failed.append(f"{name}{sample}: {error!s:.300}")
    assert not failed, f"{len(failed)} of {CALLS} calls\n" + "\n".join(failed)
