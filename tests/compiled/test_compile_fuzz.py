"""Random training steps, compiled and plain: a few of the programs that ``tests/compiled/fuzz_compile.py`` runs."""

from __future__ import annotations

import pytest
from compile_checks import replays
from fuzz_compile import Program, difference


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_steps(first):
    replayed = 0
    for seed in range(first, first + 20):
        found, step = difference(Program(seed))
        assert found is None, f"python tests/compiled/fuzz_compile.py --show {seed}: {found}"
        replayed += replays(step)
    assert replayed > 60
