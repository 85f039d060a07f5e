"""Several processes, started by torchrun: the checks stand in tests/helpers/ddp_worker.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

import tapegrad as tg

WORKER = Path(__file__).resolve().parents[1] / "helpers" / "ddp_worker.py"

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch's gloo backend")


def torchrun(processes, checks, folder):
    found = str(Path(tg.__file__).parents[1])
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            WORKER,
            *checks,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_agree(processes, tmp_path):
    checks = ["agreement", "as_torch", "by_hand"] + (["refusals", "unequal"] if processes == 2 else [])
    done = torchrun(processes, checks, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"passed {' '.join(checks)}" in done.stdout


@pytest.mark.parametrize("how", ["death", "raising", "hanging"])
def test_a_rank_that_ends_ends_the_others(how, tmp_path):
    done = torchrun(2, [how], tmp_path)
    assert done.returncode != 0
    assert "four steps" in done.stdout
    assert "survived" not in done.stdout


def test_without_a_group_it_is_refused():
    with pytest.raises(tg.StateError, match="init_process_group"):
        tg.nn.parallel.DistributedDataParallel(tg.nn.Linear(1, 1))
