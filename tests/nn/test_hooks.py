"""Backward hooks of modules and leaves, and `grad_fn`, against torch's."""

from __future__ import annotations

import warnings

import pytest
import torch

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import ArgumentError, TapeError


def plain(value):
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    return None if value is None else torch.as_tensor(getattr(value, "data", value)).detach().clone()


def quiet():
    """torch warns where no input needs a gradient."""
    return warnings.catch_warnings(action="ignore")


def layers(library):
    class Two(library.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = library.nn.Linear(3, 2)

        def forward(self, x, scale, y):
            return self.a(x) * scale, (y * y).sum()

    return Two


def two(needs):
    """The same call with two tensors and a number in both libraries; which tensors need a gradient."""
    torch.manual_seed(0)
    theirs = layers(torch)()
    ours = layers(tg)()
    ours.load_state_dict(theirs.state_dict())
    x, y = torch.rand(4, 3), torch.rand(5)
    sides = []
    for module, tensor in ((ours, tg.tensor), (theirs, lambda v: v.clone().detach())):
        values = [tensor(x), tensor(y)]
        for value, need in zip(values, needs, strict=True):
            if need:
                value.requires_grad_()
        sides.append((module, values))
    return sides


def close(a, b):
    assert type(a) is type(b)
    if isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            close(x, y)
    elif a is not None:
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("change", [False, True])
def test_full_backward_hooks_see_and_change_what_torchs_do(needs, change):
    seen, grads = [], []
    for module, (x, y) in two(needs):
        log = []

        def before(m, grad_output, log=log):
            log.append(("before", plain(grad_output)))
            return tuple(None if g is None else g * 3 for g in grad_output) if change else None

        def hook(m, grad_input, grad_output, log=log):
            log.append(("after", plain(grad_input), plain(grad_output)))
            return tuple(None if g is None else g * 2 for g in grad_input) if change and any(needs) else None

        module.register_full_backward_pre_hook(before)
        handle = module.register_full_backward_hook(hook)
        a, b = module(x, 2.0, y)
        with quiet():
            ((a * a).sum() + b).backward()
        grads.append([plain(v.grad) for v in (x, y, module.a.weight, module.a.bias)])
        handle.remove()
        a, b = module(x, 2.0, y)
        with quiet():
            ((a * a).sum() + b).backward()
        seen.append(log)
    assert [row[0] for row in seen[0]] == [row[0] for row in seen[1]] == ["before", "after", "before"]
    for own, reference in zip(*seen, strict=True):
        close(own[1:], reference[1:])
    for own, reference in zip(*grads, strict=True):
        close(own, reference)


def test_a_hook_on_a_layer_of_a_network_is_torchs():
    norms = []
    for library in (tg, torch):
        torch.manual_seed(1)
        source = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).state_dict()
        net = library.nn.Sequential(library.nn.Linear(3, 4), library.nn.ReLU(), library.nn.Linear(4, 2))
        net.load_state_dict(source)
        log = []
        for layer in net:
            layer.register_full_backward_hook(lambda m, gi, go, log=log: log.append((plain(gi), plain(go))))
        with quiet():
            net(torch.linspace(-1, 1, 6).reshape(2, 3)).sum().backward()
        norms.append(tuple(log))
    assert len(norms[0]) == 3
    close(*norms)


def test_backward_hooks_take_part_in_second_derivatives():
    layer = nn.Linear(2, 2).double()
    layer.register_full_backward_hook(lambda m, grad_input, grad_output: (grad_input[0] * 2,))
    x = tg.tensor([[1.0, 2.0]], dtype=tg.float64, requires_grad=True)
    (dx,) = tg.grad((layer(x) ** 3).sum(), [x], create_graph=True)
    (dw,) = tg.grad(dx.sum(), [layer.weight])
    w = layer.weight.data.clone().requires_grad_()
    x2 = x.data.clone().requires_grad_()
    y = torch.nn.functional.linear(x2, w, layer.bias.data)
    (expected,) = torch.autograd.grad((y**3).sum(), x2, create_graph=True)
    (expected,) = torch.autograd.grad(expected.sum() * 2, w)
    torch.testing.assert_close(dw.data, expected)


def test_a_backward_hook_that_returns_the_wrong_thing_says_so():
    layer = nn.Linear(2, 3)
    x = tg.ones(1, 2).requires_grad_()
    handle = layer.register_full_backward_hook(lambda m, grad_input, grad_output: (1, 2))
    with pytest.raises(ArgumentError, match="Linear: a backward hook must return None or 1 gradients; got 2"):
        layer(x).sum().backward()
    handle.remove()
    layer.register_full_backward_hook(lambda m, grad_input, grad_output: grad_output)
    with pytest.raises(ArgumentError, match=r"gradient 0 as torch.float32 \[1, 2\]; got torch.float32 \[1, 3\]"):
        layer(x).sum().backward()


def test_a_post_accumulate_hook_runs_once_a_backward_and_may_step():
    finals = []
    for tensor in (lambda v: tg.tensor(v), lambda v: torch.tensor(v)):
        p = tensor([1.0, 2.0]).requires_grad_()
        seen = []

        def hook(q, p=p, seen=seen):
            assert q is p
            seen.append(plain(q.grad).tolist())
            q.data.sub_(plain(q.grad), alpha=0.1)
            q.grad = None

        handle = p.register_post_accumulate_grad_hook(hook)
        for _ in range(3):
            (p * p + p).sum().backward()
        assert p.grad is None
        handle.remove()
        (p * p).sum().backward()
        finals.append((plain(p), plain(p.grad), torch.tensor(seen)))
    close(*finals)
    with pytest.raises(TapeError, match="must be a leaf that requires a gradient"):
        tg.ones(2).register_post_accumulate_grad_hook(print)


def test_grad_fn_names_the_op_and_leads_to_the_leaves():
    x, w = tg.ones(3).requires_grad_(), tg.tensor([1.0, 2.0, 3.0])
    assert x.grad_fn is None
    assert w.grad_fn is None
    y = (x * w).exp()
    loss = y + x
    assert (loss.grad_fn.name(), repr(y.grad_fn)) == ("AddBackward0", "<ExpBackward0>")
    (left, i), (right, j) = loss.grad_fn.next_functions
    assert left == y.grad_fn
    assert (i, j) == (0, 0)
    assert right.name() == torch.ones(1, requires_grad=True).add(1).grad_fn.next_functions[0][0].name()
    assert right.next_functions == ()
    ((mul, _),) = left.next_functions
    assert mul.name() == "MulBackward0"
    assert mul.next_functions == ((right, 0), (None, 0))
    assert len({left, y.grad_fn, mul}) == 2
    values, _ = x.sort()
    assert values.grad_fn is not None
