"""torch's own functions and methods on our tensors, under every name torch has for an op of ours."""

import warnings

import pytest
import torch
import torch.nn.functional as F

import tapegrad as tg

F64 = torch.float64
X = torch.tensor([[0.5, -1.0, 2.0], [0.25, 1.5, -0.75]], dtype=F64)
Y = torch.tensor([[2.0, 0.5, 1.0], [1.0, -2.0, 3.0]], dtype=F64)
POSITIVE = X.abs() / 3
PLANE = torch.arange(32.0, dtype=F64).reshape(1, 2, 4, 4).sin()
ROW = torch.tensor([0.5, 2.0, -1.0], dtype=F64)
INDEX = torch.tensor([1, 0])

# f(x, ...) of torch; every tensor of the call is ours, with a gradient where it has one
FUNCTIONS = {
    "logsigmoid": (F.logsigmoid, X),
    "special.expit": (torch.special.expit, X),
    "special.erf": (torch.special.erf, X),
    "special.expm1": (torch.special.expm1, X),
    "special.log1p": (torch.special.log1p, POSITIVE),
    "special.softmax": (lambda x: torch.special.softmax(x, 1), X),
    "special.log_softmax": (lambda x: torch.special.log_softmax(x, dim=0), X),
    "special.logsumexp": (lambda x: torch.special.logsumexp(x, 1), X),
    "special.round": (lambda x: torch.special.round(x, decimals=1), X),
    "linalg.norm": (torch.linalg.norm, X),
    "linalg.norm of a vector": (lambda x: torch.linalg.norm(x, ord=3), ROW),
    "linalg.norm of rows": (lambda x: torch.linalg.norm(x, 1, 1), X),
    "linalg.vector_norm": (lambda x: torch.linalg.vector_norm(x, 3, dim=1, keepdim=True), X),
    "linalg.matrix_norm": (torch.linalg.matrix_norm, X),
    "linalg.matmul": (torch.linalg.matmul, X, Y.T.contiguous()),
    "linalg.multi_dot": (lambda x, y: torch.linalg.multi_dot([x, y, x]), X, Y.T.contiguous()),
    "linalg.vecdot": (torch.linalg.vecdot, X, Y),
    "linalg.diagonal": (lambda x: torch.linalg.diagonal(x, offset=1), PLANE),
    "absolute": (torch.absolute, X),
    "arccos": (torch.arccos, POSITIVE),
    "arcsin": (torch.arcsin, POSITIVE),
    "arctan": (torch.arctan, X),
    "arctan2": (torch.arctan2, X, Y),
    "clip": (lambda x: torch.clip(x, -0.5, 1.0), X),
    "clamp_min": (lambda x: torch.clamp_min(x, 0.3), X),
    "clamp_max": (lambda x: torch.clamp_max(x, max=0.3), X),
    "divide": (torch.divide, X, Y),
    "true_divide": (torch.true_divide, X, Y),
    "fix": (torch.fix, X),
    "multiply": (torch.multiply, X, Y),
    "negative": (torch.negative, X),
    "subtract": (lambda x, y: torch.subtract(x, y, alpha=3), X, Y),
    "greater": (torch.greater, X, Y),
    "less_equal": (torch.less_equal, X, Y),
    "not_equal": (torch.not_equal, X, Y),
    "concat": (lambda x, y: torch.concat((x, y), dim=1), X, Y),
    "concatenate": (lambda x, y: torch.concatenate([x, y]), X, Y),
    "moveaxis": (lambda x: torch.moveaxis(x, 0, 1), X),
    "swapaxes": (lambda x: torch.swapaxes(x, 0, 1), X),
    "swapdims": (lambda x: torch.swapdims(x, 0, 1), X),
    "split_with_sizes": (lambda x: torch.split_with_sizes(x, [1, 2], 1)[1], X),
    "ger": (torch.ger, ROW, ROW),
    "t": (torch.t, X),
    "detach": (torch.detach, X),
    "axis": (lambda x: torch.sum(x, axis=1, keepdims=True), X),
    "input": (lambda x: torch.softmax(input=x, dim=1), X),
    "x1": (lambda x, y: torch.add(x, other=y, alpha=2), X, Y),
    "max along a dim": (lambda x: torch.max(x, dim=1).values, X),
    "max of two": (torch.max, X, Y),
    "max of named two": (lambda x, y: torch.max(x, other=y), X, Y),
    "index_add": (lambda x, y: torch.index_add(x, 0, INDEX, y, alpha=-2), X, Y),
    "max_pool2d with indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], PLANE),
    "max_pool1d with indices": (lambda x: F.max_pool1d(x, 2, return_indices=True)[0], PLANE[0]),
    "adaptive_max_pool2d with indices": (lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[0], PLANE),
    "threshold": (lambda x: F.threshold(x, 0.3, -1.0), X),
    "torch.batch_norm": (lambda x, w: torch.batch_norm(x, w, None, ROW, ROW.abs(), False, 0.1, 1e-5, False), X, ROW),
    "torch.layer_norm": (lambda x, w: torch.layer_norm(x, (3,), w, None, 1e-5, False), X, ROW),
    "torch.group_norm": (lambda x: torch.group_norm(x, 3, None, None, 1e-5, False), X),
    "torch.embedding": (lambda w: torch.embedding(w, INDEX), X),
    "torch.binary_cross_entropy_with_logits": (
        lambda x, y: torch.binary_cross_entropy_with_logits(x, y, None, None, 2),
        X,
        POSITIVE,
    ),
    "torch.kl_div": (lambda x, y: torch.kl_div(x, y, 0), X, POSITIVE),
    "torch.dropout": (lambda x: torch.dropout(x, 0.5, False), X),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torchs_function_is_ours_recorded(name):
    f, *values = FUNCTIONS[name]
    ours = [tg.tensor(v, requires_grad=True) for v in values]
    theirs = [v.clone().requires_grad_() for v in values]
    y, expected = f(*ours), f(*theirs)
    assert type(y) is tg.Tensor
    assert torch.allclose(y.data, expected.detach(), rtol=1e-12)
    if expected.requires_grad:
        g = torch.arange(1.0, expected.numel() + 1, dtype=F64).reshape(expected.shape).cos()
        if y.requires_grad:
            y.backward(g)
        expected.backward(g)
        for x, t in zip(ours, theirs, strict=True):
            slope = torch.zeros_like(t) if x.grad is None else x.grad.data
            assert torch.allclose(slope, torch.zeros_like(t) if t.grad is None else t.grad, rtol=1e-10)


# a torch tensor's method (or operator) with one of ours among its arguments: f(torch tensor, ours)
METHODS = {
    "view_as": lambda t, x: t.view_as(x),
    "reshape_as": lambda t, x: t.reshape_as(x),
    "expand_as": lambda t, x: t[:1].expand_as(x),
    "to": lambda t, x: t.float().to(x),
    "type_as": lambda t, x: t.float().type_as(x),
    "where": lambda t, x: t.where(torch.tensor([True, False, True]), x),
    "masked_fill": lambda t, x: t.masked_fill(x.detach() > 0, 3.0),
    "add": lambda t, x: t.add(x, alpha=2),
    "rsub": lambda t, x: t - x,
    "pow": lambda t, x: t.abs() ** x,
    "floordiv": lambda t, x: t // x,
    "matmul": lambda t, x: t @ x.T,
    "lerp": lambda t, x: t.lerp(x, 0.25),
    "addcmul": lambda t, x: t.addcmul(x, x, value=0.5),
    "eq": lambda t, x: t == x,
    "clamp_min": lambda t, x: t.clamp_min(x),
    "true_divide": lambda t, x: t.true_divide(x),
    "gather": lambda t, x: t.gather(1, (x > 0).long()),
    "sum over ours": lambda t, x: t.sum() + x.sum(axis=0) if isinstance(x, torch.Tensor) else t.sum() + x.sum(0),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_torch_tensors_method_takes_ours(name):
    x = tg.tensor(Y, requires_grad=True)
    y, expected = METHODS[name](X, x), METHODS[name](X, Y)
    assert type(y) is tg.Tensor
    assert y.dtype is expected.dtype
    assert torch.allclose(y.data, expected, rtol=1e-12, equal_nan=True)


def test_a_torch_tensor_is_indexed_by_ours_without_a_warning():
    ours = [tg.tensor(INDEX), tg.tensor([True, False]), tg.tensor(1), tg.tensor([[0, 1], [1, 1]]), tg.tensor(X > 0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in ours:
            assert X[index].tolist() == X[index.data].tolist()
        assert X[ours[0], 0].tolist() == X[INDEX, 0].tolist()
        assert X[: tg.tensor(1)].tolist() == X[:1].tolist()
        for index in (*ours, (ours[0], slice(None)), (ours[2], slice(0, tg.tensor(2)))):
            raw, expected = X.clone(), X.clone()
            raw[index] = tg.tensor(7.0, dtype=F64)
            expected[index.data if isinstance(index, tg.Tensor) else tuple(getattr(i, "data", i) for i in index)] = 7.0
            assert torch.equal(raw, expected)
    assert len(ours[0]) == 2
    assert [int(i) for i in reversed(ours[0])] == [0, 1]


# torch writes into its own tensor: f(torch tensor, ours)
WRITES = {
    "add_": lambda t, x: t.add_(x, alpha=-0.1),
    "iadd": lambda t, x: t.__iadd__(x),
    "isub of a product": lambda t, x: t.__isub__(0.1 * x),
    "ipow": lambda t, x: t.__ipow__(x),
    "itruediv": lambda t, x: t.__itruediv__(x),
    "mul_": lambda t, x: t.mul_(x),
    "copy_": lambda t, x: t.copy_(x),
    "addcmul_": lambda t, x: t.addcmul_(x, x, value=2),
    "lerp_": lambda t, x: t.lerp_(x, 0.5),
    "clamp_": lambda t, x: t.clamp_(max=x),
    "masked_fill_": lambda t, x: t.masked_fill_(x > 0, 0.0),
    "index_add_": lambda t, x: t.index_add_(0, torch.tensor([1, 0]), x),
    "scatter_add_": lambda t, x: t.scatter_add_(1, (x > 0).long(), x),
    "where in place": lambda t, x: t.index_put_((torch.tensor([0]),), x[0]),
    "setitem": lambda t, x: (t.__setitem__(0, x[1]), t)[1],
}


@pytest.mark.parametrize("name", WRITES)
def test_torch_writes_our_values_into_its_tensor(name):
    raw, expected = X.abs() + 1, X.abs() + 1
    returned = WRITES[name](raw, tg.tensor(Y))
    WRITES[name](expected, Y)
    assert returned is raw
    assert torch.equal(raw, expected)
    leaf = tg.tensor(Y, requires_grad=True)
    if name != "masked_fill_":
        before = raw.clone()
        with pytest.raises(tg.TapeError, match="loses its gradient"):
            WRITES[name](raw, leaf)
        assert torch.equal(raw, before)
    with tg.no_grad():
        WRITES[name](raw, leaf)


def test_an_update_by_hand_of_the_raw_data():
    p = tg.tensor([1.0, 2.0], requires_grad=True)
    (p * p).sum().backward()
    p.data.add_(p.grad, alpha=-0.1)
    p.data -= 0.1 * p.grad
    assert p.tolist() == pytest.approx([1 - 0.4, 2 - 0.8])
    assert torch.ones(3).mul_(tg.ones(3) * 2).tolist() == [2.0] * 3


OUT = {
    "norm": (lambda x, out: torch.norm(x, out=out), 1),
    "norm of rows": (lambda x, out: torch.norm(x, 2, 1, out=out), 1),
    "add": (lambda x, out: torch.add(x, x, out=out), 1),
    "matmul": (lambda x, out: torch.matmul(x, x.T, out=out), 1),
    "cat": (lambda x, out: torch.cat([x, x], out=out), 1),
    "sum": (lambda x, out: torch.sum(x, 1, out=out), 1),
    "argmax": (lambda x, out: torch.argmax(x, 1, out=out), 0),
    "max": (lambda x, out: torch.max(x, 1, out=out), 2),
    "topk": (lambda x, out: torch.topk(x, 2, out=out), 2),
    "sort": (lambda x, out: torch.sort(x, out=out), 2),
    "linalg.norm": (lambda x, out: torch.linalg.norm(x, out=out), 1),
}


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("wrap", [lambda t: t, tg.Tensor], ids=["torch's", "ours"])
def test_a_result_goes_where_out_says(name, wrap):
    f, count = OUT[name]

    def fresh():
        first, second = torch.empty(0, dtype=F64), torch.empty(0, dtype=torch.int64)
        return second if count == 0 else first if count == 1 else (first, second)

    theirs, ours = fresh(), fresh()
    f(X, theirs)
    ours = tuple(map(wrap, ours)) if count == 2 else wrap(ours)
    assert f(tg.tensor(X), ours) is ours
    for o, t in zip(*[pair if count == 2 else (pair,) for pair in (ours, theirs)], strict=True):
        assert torch.allclose(getattr(o, "_data", o), t)
    if count:
        with pytest.raises(tg.TapeError, match="loses its gradient"):
            f(tg.tensor(X, requires_grad=True), ours)


def test_out_holds_what_its_dtype_can():
    whole = torch.empty(2, 3, dtype=torch.int64)
    with pytest.raises(tg.DTypeError, match=r"torch.add: out has dtype torch.int64, which cannot hold"):
        torch.add(tg.tensor(X), 1, out=whole)


def test_what_has_no_counterpart_is_refused_by_name():
    for call, name in ((torch.linalg.eigvals, "linalg_eigvals"), (torch.hash_tensor, "hash_tensor"), (X.atan2_, None)):
        with pytest.raises((TypeError, tg.TapeError), match=name or "loses its gradient"):
            call(tg.tensor(X, requires_grad=True))


def test_torchs_initialisers_are_ours():
    drawn = []
    for init in (torch.nn.init, tg.nn.init):
        tg.manual_seed(0)
        drawn.append(init.kaiming_uniform_(tg.tensor(X)).data)
    assert torch.equal(*drawn)
    with pytest.raises(tg.TapeError, match="leaf"):
        torch.nn.init.xavier_normal_(tg.tensor(X, requires_grad=True))


def test_the_larger_goes_where_out_says():
    """AMSGrad as scripts write it."""
    largest, seen = tg.tensor(X), tg.tensor(Y)
    assert tg.max(largest, seen, out=largest) is largest
    assert torch.equal(largest.data, torch.maximum(X, Y))
    pair = (tg.empty(0, dtype=F64), tg.empty(0, dtype=tg.int64))
    assert tg.min(tg.tensor(X), 1, out=pair) is pair
    assert torch.equal(pair[0].data, X.min(1).values)
    assert torch.equal(pair[1].data, X.min(1).indices)
    with pytest.raises(tg.TapeError, match="loses its gradient"):
        tg.max(tg.tensor(X, requires_grad=True), seen, out=largest)
