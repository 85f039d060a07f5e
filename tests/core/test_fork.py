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
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a child that hangs
    tg.randn(3)
    os._exit(0 if work() == expected else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""


@pytest.mark.parametrize("threads", ["2", "3"])
def test_a_forked_child_computes_the_same(threads, tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(tg.__file__).parents[1]), *sys.path])}
    assert subprocess.run([sys.executable, "-c", FORK, threads], env=env, cwd=tmp_path, check=False).returncode == 0
