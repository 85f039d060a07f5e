"""What every process of tests/nn/test_distributed.py runs, started by torchrun: ``ddp_worker.py CHECK``."""

import re
import sys
import time
from datetime import timedelta

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel as TorchDDP

import tapegrad as tg
import tapegrad.distributed as dist
from tapegrad.nn.parallel import DistributedDataParallel

ROWS, STEPS = 6, 10
F = tg.nn.functional


def network(*, norm=False):
    middle = tg.nn.BatchNorm1d(8) if norm else tg.nn.Identity()
    return tg.nn.Sequential(tg.nn.Linear(5, 8), middle, tg.nn.Tanh(), tg.nn.Linear(8, 1))


def data():
    size = dist.get_world_size()
    g = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, size, ROWS, 5, generator=g), torch.randn(STEPS, size, ROWS, 1, generator=g)


def flat(model):
    return torch.cat([v.data.reshape(-1).double() for v in model.state_dict().values()])


def step_of(model, optimizer):
    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def everywhere(value):
    """The value, which every process has to have."""
    found = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(found, value)
    assert all(torch.equal(value, other) for other in found)
    return value


def trained(how, *, norm=False, passes=2):
    tg.manual_seed(dist.get_rank())  # each starts elsewhere: rank 0's parameters count
    x, y = (a[:, dist.get_rank()] for a in data())
    model = DistributedDataParallel(network(norm=norm))
    step = step_of(model, tg.optim.Adam(model.parameters(), lr=0.05))
    if how == "run":
        tg.compile(step).run(x.reshape(-1, 5), y.reshape(-1, 1), batch_size=ROWS, epochs=passes, shuffle=False)
    else:
        fast = tg.compile(step) if how == "call" else step
        for _ in range(passes):
            for xb, yb in zip(x, y, strict=True):
                fast(tg.tensor(xb), tg.tensor(yb))
        if how == "call":
            assert len(fast.programs) == 1
            assert "all_reduce_" in fast.explain(tg.tensor(x[0]), tg.tensor(y[0]))
    grads = torch.cat([p.grad.data.reshape(-1).double() for p in model.parameters()])
    return everywhere(torch.cat([flat(model), grads]))


def refused(kind, text, call):
    with pytest.raises(kind, match=re.escape(text)):
        call()


def agreement():
    """All ranks end with the same bits, eager, compiled and run; and as one process on the whole batches."""
    eager = trained("eager")
    assert torch.equal(eager, trained("call"))
    assert torch.equal(eager, trained("run"))
    tg.manual_seed(0)
    model = network()
    step = step_of(model, tg.optim.Adam(model.parameters(), lr=0.05))
    x, y = data()
    for _ in range(2):
        for xb, yb in zip(x, y, strict=True):
            step(tg.tensor(xb.reshape(-1, 5)), tg.tensor(yb.reshape(-1, 1)))
    torch.testing.assert_close(eager[: len(flat(model))], flat(model), rtol=1e-4, atol=1e-5)
    everywhere(trained("call", norm=True))  # rank 0's running statistics


def as_torch():
    """`.grad`, with accumulation under no_sync, is that of torch's wrapper."""
    x, y = (a[:, dist.get_rank()] for a in data())
    tg.manual_seed(0)
    ours = DistributedDataParallel(network().double())
    theirs = TorchDDP(tg.to_torch(ours.module))
    for model, mse in ((ours, F.mse_loss), (theirs, torch.nn.functional.mse_loss)):
        make = tg.tensor if model is ours else torch.clone
        with model.no_sync():
            mse(model(make(x[0].double())), make(y[0].double())).backward()
        mse(model(make(x[1].double())), make(y[1].double())).backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad.data, q.grad, rtol=1e-10, atol=1e-12)


def by_hand():
    """all_reduce stands in a compiled step; torch's own is refused there."""
    rank, size = dist.get_rank(), dist.get_world_size()

    @tg.compile
    def total(x):
        y = (x * 2).detach()
        dist.all_reduce(y)
        return y

    for i in range(5):
        assert torch.equal(
            total(tg.full((3,), float(rank + i))).data, torch.full((3,), 2.0 * sum(range(size)) + 2 * i * size)
        )
    for op, expected in ((dist.ReduceOp.MAX, size - 1), (dist.ReduceOp.AVG, sum(range(size)) / size)):
        y = tg.tensor([float(rank)])
        dist.all_reduce(y, op)
        assert y.item() == expected

    @tg.compile
    def raw(x):
        y = x.data * 2
        torch.distributed.all_reduce(y)
        return tg.tensor(y)

    refused(tg.CompileError, "tg.distributed.all_reduce", lambda: raw(tg.ones(2)))


def refusals():
    rank = dist.get_rank()
    differing = f"weight', [{4 - rank}, 2]"
    refused(tg.ArgumentError, differing, lambda: DistributedDataParallel(tg.nn.Linear(2, 3 + rank)))
    model = DistributedDataParallel(tg.nn.ModuleDict({"a": tg.nn.Linear(2, 1), "b": tg.nn.Linear(2, 1)}))
    model.module.forward = lambda x: model.module["a"](x)
    model(tg.ones(1, 2)).sum().backward()
    refused(tg.StateError, "did not reach b.weight, b.bias", lambda: model(tg.ones(1, 2)))


def unequal():
    """A last batch of another size is refused by every process, eager and compiled, and changes nothing; or taken."""
    rank = dist.get_rank()
    tg.manual_seed(0)
    x, y = tg.randn(ROWS, 5), tg.randn(ROWS, 1)
    model = DistributedDataParallel(network())
    eager = step_of(model, tg.optim.SGD(model.parameters(), lr=0.05))
    for step in (eager, tg.compile(eager)):
        for _ in range(4):
            step(x, y)
        before = flat(model)
        rows = ROWS - rank
        refused(tg.ArgumentError, "got [6, 5]", lambda step=step, rows=rows: step(x[:rows], y[:rows]))
        assert torch.equal(before, everywhere(flat(model)))
        step(x, y)
        assert not torch.equal(before, everywhere(flat(model)))
    losses = tg.compile(step_of(model, tg.optim.SGD(model.parameters(), lr=0.05)))
    rows = 2 * ROWS - rank  # the second batch of an epoch is the shorter one on rank 1
    refused(
        tg.ArgumentError,
        "got [6, 5]",
        lambda: losses.run(x.repeat(2, 1)[:rows], y.repeat(2, 1)[:rows], batch_size=ROWS, epochs=4, shuffle=False),
    )
    free = DistributedDataParallel(network(), unequal_batches=True)
    rows = ROWS - rank
    F.mse_loss(free(x[:rows]), y[:rows]).backward()
    mine = [p.grad.data.clone() for p in free.parameters()]
    theirs = TorchDDP(tg.to_torch(free.module))
    torch.nn.functional.mse_loss(theirs(x.data[:rows]), y.data[:rows]).backward()
    for p, q in zip(mine, theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q.grad)


def raising():
    """The last rank's fifth loss is an error: the others must not hang."""
    _ends(lambda: 1 / 0)


def hanging():
    """The last rank never comes to its fifth step: the others end when the timeout is over."""
    _ends(lambda: time.sleep(600))


def death():
    """The last rank ends in its fifth step; the others must not hang."""
    _ends(lambda: sys.exit(3))


def _ends(how):
    x, y = (a[:, dist.get_rank()] for a in data())
    model = DistributedDataParallel(network())
    step = tg.compile(step_of(model, tg.optim.SGD(model.parameters(), lr=0.05)))
    for i, (xb, yb) in enumerate(zip(x, y, strict=True)):
        if i == 4 and dist.get_rank() == dist.get_world_size() - 1:
            print("four steps", flush=True)
            how()
        step(tg.tensor(xb), tg.tensor(yb))
    print("survived")


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=4 if "hanging" in sys.argv else 60))
    for check in sys.argv[1:]:
        globals()[check]()
    if dist.get_rank() == 0:
        print("passed", *sys.argv[1:])
    dist.destroy_process_group()
