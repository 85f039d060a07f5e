"""The kernels' exp, log, tanh, sigmoid and normal distribution function, at most 3 ulp from the true value over the
whole range. Runs under every instruction set."""

import mpmath
import numpy as np
import pytest
import torch

from tapegrad.core import _C

ULPS = 3.0
np.seterr(all="ignore")


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


FUNCTIONS = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": sigmoid}


def samples(bits: type, floats: type, count: int) -> np.ndarray:
    """Floats spread over every exponent and sign, the middle of the range densely, special values."""
    every = np.linspace(0, np.iinfo(bits).max, count, dtype=np.float64).astype(bits).view(floats)
    dense = np.concatenate([np.linspace(-limit, limit, count) for limit in (1.0, 20.0, 110.0, 760.0)])
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(floats).tiny, np.finfo(floats).smallest_subnormal]
    return np.concatenate([every, dense.astype(floats), np.array(special, dtype=floats)])


def errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of the expected value; 0 where both are NaN or the same infinity."""
    rounded = expected.astype(actual.dtype)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    distance = np.abs(actual.astype(expected.dtype) - expected) / np.spacing(np.abs(rounded)).astype(expected.dtype)
    distance[~np.isfinite(distance)] = np.inf
    distance[same] = 0
    return distance


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_against_float64(name):
    x = samples(np.uint32, np.float32, 1_000_003)
    actual = getattr(_C, name)(torch.from_numpy(x)).numpy()
    assert errors(actual, FUNCTIONS[name](x.astype(np.float64))).max() <= ULPS


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="long double is no wider than double here")
def test_float64_against_long_double(name):
    x = samples(np.uint64, np.float64, 200_003)
    actual = getattr(_C, name)(torch.from_numpy(x)).numpy()
    assert errors(actual, FUNCTIONS[name](x.astype(np.longdouble))).max() <= ULPS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gelu_keeps_its_relative_accuracy_in_the_tail(dtype):
    # x Phi(x), Phi by mpmath; one more rounding than the 3 ulp of Phi
    x = torch.cat([torch.linspace(-13, 6, 700, dtype=dtype), torch.tensor([-1e-30, 1e-30, 0.5, -0.5], dtype=dtype)])
    with mpmath.workdps(40):
        expected = np.array([float(mpmath.mpf(v) * mpmath.ncdf(mpmath.mpf(v))) for v in x.tolist()])
    # float64's reference is itself rounded: half an ulp more
    assert errors(_C.gelu(x).numpy(), expected).max() <= ULPS + 1.5


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid"])
def test_float64_against_mpmath(name):
    generator = np.random.default_rng(0)
    x = np.concatenate(
        [generator.uniform(-30, 30, 300), generator.uniform(-740, 700, 100), 10 ** generator.uniform(-300, 0, 100)]
    )
    x = np.abs(x) if name == "log" else x
    with mpmath.workdps(340):
        f = {"sigmoid": lambda v: 1 / (1 + mpmath.exp(-v))}.get(name) or getattr(mpmath, name)
        expected = np.array([float(f(mpmath.mpf(v))) for v in x.tolist()])
    assert errors(getattr(_C, name)(torch.from_numpy(x)).numpy(), expected).max() <= ULPS
