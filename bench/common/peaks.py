"""What this machine can do at most: float32 fused multiply-adds and copied bytes per second, as measured here."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tapegrad as tg

# Multiply-adds between registers only: as many independent chains as hide the latency without spilling.
FMA_SOURCE = """
#ifdef __AVX512F__
#define BYTES 64
#define CHAINS 24
#else
#define BYTES 32
#define CHAINS 12
#endif
typedef float vec __attribute__((vector_size(BYTES)));
float sink[BYTES / 4 * CHAINS];
double run(long rounds) { /* floating-point operations done */
  vec acc[CHAINS], b = {0}, c = {0};
  b += 0.999f;
  c += 1e-3f;
  for (int i = 0; i < CHAINS; i++) acc[i] = c * (float)i;
  for (long r = 0; r < rounds; r++) {
    __asm__ volatile("" : "+x"(b));
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * b + c;
  }
  __builtin_memcpy(sink, acc, sizeof acc);
  return 2.0 * (BYTES / 4) * CHAINS * rounds;
}
"""
FMA_FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
PRODUCT_SIZES = (256, 384, 512, 768, 1024)
DEFAULT_CACHES = (1 << 20, 32 << 20)  # L2 and last level, where the system does not say


@dataclass(frozen=True)
class Peaks:
    """Rates of a number of threads: FLOP/s by where they come from, and bytes/s (read + written) by bytes touched."""

    threads: int
    flops_by_source: dict[str, float]
    bytes_by_size: dict[int, float]

    @property
    def flops(self) -> float:
        """The highest FLOP/s seen."""
        return max(self.flops_by_source.values())

    def bytes(self, touched: float) -> float:
        """Bytes per second of a copy that touches about as many bytes."""
        return self.bytes_by_size[min(self.bytes_by_size, key=lambda size: abs(math.log(size / touched)))]

    def __str__(self) -> str:
        compute = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in self.flops_by_source.items())
        copy = ", ".join(f"{size / 2**20:.3g} MiB {rate / 1e9:.1f}" for size, rate in self.bytes_by_size.items())
        return (
            f"{self.threads} thread(s): float32 GFLOP/s: {compute}; copy, read + written GB/s by bytes touched: {copy}"
        )


def measure(threads: int, seconds: float) -> Peaks:
    """The machine's rates with a number of threads, each the best of runs that take about `seconds` together."""
    flops = {"FMA between registers": registers(threads, seconds)}
    flops["product by torch"] = best_product(torch.mm, seconds)
    flops["product by tapegrad"] = best_product(lambda a, b: tg.matmul(a, b), seconds)
    second, last = caches()
    sizes = (second // 2, last // 2, min(max(8 * last, 128 << 20), 512 << 20))
    rates = {size: copy_rate(size, seconds / len(sizes)) for size in sorted(set(sizes))}
    return Peaks(threads, {name: rate for name, rate in flops.items() if rate}, rates)


def best_of(call: Callable[[], Any], seconds: float) -> float:
    """The shortest call, in seconds, of those that fit the time (at least three)."""
    call()
    shortest, runs, end = math.inf, 0, time.perf_counter() + seconds
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
        runs += 1
    return shortest


def registers(threads: int, seconds: float) -> float:
    """FLOP/s of a compiled loop that touches no memory, on every thread at once; 0 without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "fma.c", Path(folder) / "fma.so"
        source.write_text(FMA_SOURCE)
        if subprocess.run([compiler, *FMA_FLAGS, str(source), "-o", str(library)], capture_output=True).returncode:
            return 0.0
        run = ctypes.CDLL(str(library)).run  # the GIL is released while it runs
    run.restype, run.argtypes = ctypes.c_double, [ctypes.c_long]
    rounds = 400_000
    with ThreadPoolExecutor(threads) as pool:
        return threads * run(1) * rounds / best_of(lambda: list(pool.map(run, [rounds] * threads)), seconds)


def best_product(product: Callable[[Any, Any], Any], seconds: float) -> float:
    """FLOP/s of the best square float32 product of several sizes."""
    rates = []
    for n in PRODUCT_SIZES:
        a, b = torch.randn(n, n), torch.randn(n, n)
        rates.append(2 * n**3 / best_of(lambda a=a, b=b: product(a, b), seconds / len(PRODUCT_SIZES)))
    return max(rates)


def copy_rate(touched: int, seconds: float) -> float:
    """Bytes read and written per second by the better of numpy's and torch's copy, less the cost of the bare call."""
    n = touched // 8
    a, b = torch.ones(n), torch.zeros(n)
    rates = []
    for copy, x, y in ((np.copyto, b.numpy(), a.numpy()), (torch.Tensor.copy_, b, a)):
        bare = best_of(lambda copy=copy, x=x, y=y: copy(x[:1], y[:1]), 0.002)
        whole = best_of(lambda copy=copy, x=x, y=y: copy(x[:], y[:]), seconds / 2)
        rates.append(8 * n / max(whole - bare, whole / 2))
    return max(rates)


def caches() -> tuple[int, int]:
    """Bytes of the first core's second-level and last-level cache."""
    sizes = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[int(level)] = int(size[:-1]) << 10
    return (sizes.get(2, DEFAULT_CACHES[0]), sizes[max(sizes)]) if sizes else DEFAULT_CACHES
