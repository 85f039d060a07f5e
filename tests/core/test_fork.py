"""A forked process computes what its parent does, and waits for nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tapegrad as tg

FORK = """
import os, signal, sys, threading
import torch
import tapegrad as tg

torch.set_num_threads(int(sys.argv[1]))
x, w = tg.randn(300, 300, requires_grad=True), tg.randn(8, 8, 3, 3)
step = tg.compile(lambda x: (x @ x).relu().sum().detach())

def work():
    y = tg.relu(x @ x)
    (dx,) = tg.grad(y.sum(), x)
    image = tg.nn.functional.conv2d(tg.ones(8, 8, 32, 32), w)
    parts = [y, dx, tg.softmax(x.detach(), 1), image, step(x.detach()), torch.ones(400, 400) @ torch.ones(400, 400)]
    return [getattr(p, "data", p).detach().numpy().tobytes() for p in parts]

expected = work()
expected = work()
expected = work()
held = threading.Event()

def hold():  # a lock that another thread holds when the process forks
    with tg.ops.random.default_generator._lock, step._lock:
        held.set()
        threading.Event().wait(3)

threading.Thread(target=hold, daemon=True).start()
held.wait()

def forked(f):  # whether a child's f() is true
    child = os.fork()
    if child == 0:
        signal.alarm(40)  # ends a child that hangs
        os._exit(not f())
    return os.waitpid(child, 0)[1] == 0

def computes():
    tg.randn(3)
    for setting in sys.argv[2:]:
        exec(setting)
        if work() != expected:
            return False
    return work() == expected and torch_computes()

def torch_computes():  # its own loops; their sums may depend on the threads
    a = torch.ones(300, 300)
    parts = a @ a, a.exp(), torch.nn.functional.layer_norm(a, (300,)), a.sum(), a.sort().values
    return torch.isfinite(torch.stack([p.sum() for p in parts])).all()

def from_a_thread():
    found = []
    one = threading.Thread(target=lambda: found.append(work() == expected and forked(computes)))
    one.start()
    one.join()
    return found[0]

fine = forked(computes) and forked(lambda: computes() and forked(computes)) and from_a_thread()
os._exit(not (fine and computes() and torch_computes()))
"""

BY_TG, BY_TORCH = "tg.set_num_threads(2)", "torch.set_num_threads(3)"


@pytest.mark.parametrize(("threads", "settings"), [(1, [BY_TG]), (2, []), (2, [BY_TORCH, BY_TG]), (3, [BY_TG])])
def test_a_forked_child_computes_the_same_with_as_many_threads_as_it_likes(threads, settings, tmp_path):
    """Also a child's child, a child of another thread than the main one, and the parent afterwards."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(tg.__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", FORK, str(threads), *settings]
    assert subprocess.run(command, env=env, cwd=tmp_path, check=False, timeout=120).returncode == 0
