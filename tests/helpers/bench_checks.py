"""Fixtures of the tests of `bench`: import them by name into a test module, where they apply to every test."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def bench_package():
    """`bench` as its own entry loads it: by path, without the folder above on sys.path."""
    path = list(sys.path)
    runpy.run_path(str(ROOT / "bench" / "__main__.py"), run_name="not_main")
    yield
    sys.path[:] = path


@pytest.fixture(autouse=True)
def threads():
    """torch's number of threads is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
