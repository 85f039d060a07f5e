"""What the kernels' test files share."""

import platform
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

# Rounding differs by the order of sums, so tolerances are relative to the largest value, times the dtype's epsilon.
# The longest chain below has about 4000 terms; 64 epsilons hold for the random walk that their rounding is.
ROUNDING = {torch.float32: 64 * 1.2e-7, torch.float64: 64 * 2.2e-16}
ISAS = ("baseline", "avx2", "avx512", "neon")
DTYPES = (torch.float64, torch.float32)


def rand(*size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert actual.is_contiguous()
    if expected.numel():
        error = (actual - expected).abs().max().item()
        assert error <= ROUNDING[actual.dtype] * max(1.0, expected.abs().max().item())


@pytest.fixture(autouse=True)
def one_thread():
    """torch's threads spend milliseconds on products of this size where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same_for_all_threads(f: Callable[[], Iterable[torch.Tensor]]) -> None:
    """f() gives the same bits with 1, 2 and 3 threads."""
    before = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(list(f()))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def supported(isa: str) -> bool:
    """Whether this machine runs kernels compiled for `isa`."""
    arm = platform.machine() in ("aarch64", "arm64")
    if isa in ("baseline", "neon"):
        return (isa == "neon") == arm
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    needs = {"avx2": {"avx2", "fma"}, "avx512": {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}}
    return needs[isa] <= set(flags)
