"""The extension's random numbers against an independent Philox in plain integers. Runs under every instruction set."""

import math

import pytest
import torch
from kernel_checks import assert_same_for_all_threads

from tapegrad.core import _C

DTYPES = (torch.float64, torch.float32)


def philox(block: int, stream: int, seed: int) -> list[int]:
    """Philox4x32-10 in plain integers, from the paper's definition."""
    mask = 0xFFFFFFFF
    x = [block & mask, block >> 32, stream & mask, stream >> 32]
    key = [seed & mask, seed >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(q >> 32) ^ x[1] ^ key[0], q & mask, (p >> 32) ^ x[3] ^ key[1], p & mask]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return x


def words(n: int, seed: int, offset: int) -> list[int]:
    return [w for b in range(n) for w in philox((offset + b) % 2**64, 0, seed)]


def test_philox_gives_the_published_words():
    ones = 2**64 - 1
    pi = (0x85A308D3243F6A88, 0x0370734413198A2E, 0x299F31D0A4093822)
    assert _C.philox(0, 0, 0) == philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert _C.philox(ones, ones, ones) == philox(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert _C.philox(*pi) == philox(*pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


SEED, OFFSET = 0x0123456789ABCDEF, 2**64 - 3  # the block index wraps around


def test_random_numbers_are_those_documented():
    w = words(6, SEED, OFFSET)
    pairs = [w[i] | w[i + 1] << 32 for i in range(0, 24, 2)]
    assert _C.random_uniform([23], torch.float32, SEED, OFFSET).tolist() == [(x >> 8) / 2**24 for x in w[:23]]
    assert _C.random_uniform([11], torch.float64, SEED, OFFSET).tolist() == [(x >> 11) / 2**53 for x in pairs[:11]]
    assert _C.random_bernoulli(0.3, [23], SEED, OFFSET).tolist() == [x < int(0.3 * 2**32) for x in w[:23]]
    for low, high in [(-3, 4), (0, 1), (-(2**63), 2**63 - 1)]:
        expected = [low + (x * (high - low) >> 64) for x in pairs[:11]]
        assert _C.random_int(low, high, [11], SEED, OFFSET).tolist() == expected
    normal = [
        math.sqrt(-2 * math.log((a + 1) / 2**32)) * f(2 * math.pi * b / 2**32)
        for a, b in zip(w[::2], w[1::2], strict=True)
        for f in (math.cos, math.sin)
    ]
    assert _C.random_normal([23], torch.float32, SEED, OFFSET).tolist() == pytest.approx(normal[:23], abs=3e-6)
    normal = [
        math.sqrt(-2 * math.log(((a >> 11) + 1) / 2**53)) * f(2 * math.pi * (b >> 11) / 2**53)
        for a, b in zip(pairs[::2], pairs[1::2], strict=True)
        for f in (math.cos, math.sin)
    ]
    assert _C.random_normal([11], torch.float64, SEED, OFFSET).tolist() == pytest.approx(normal[:11], abs=1e-14)


def test_permutation_is_the_documented_shuffle():
    for n, epoch in [(0, 0), (1, 0), (2, 1), (10, 2), (11, 2**63 - 1)]:
        expected = list(range(n))
        for i in range(n - 1, 0, -1):
            w = philox(i // 2, 2**63 + epoch, SEED)
            j = (w[i % 2 * 2] | w[i % 2 * 2 + 1] << 32) * (i + 1) >> 64
            expected[i], expected[j] = expected[j], expected[i]
        assert _C.permutation(n, SEED, epoch).tolist() == expected
    first, second = _C.permutation(1000, 1, 0), _C.permutation(1000, 1, 1)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, torch.arange(1000))


def test_advancing_by_random_blocks_continues_the_sequence():
    for draw, dtype in [
        (lambda n, o: _C.random_uniform([n], torch.float32, 7, o), torch.float32),
        (lambda n, o: _C.random_normal([n], torch.float64, 7, o), torch.float64),
        (lambda n, o: _C.random_int(0, 1000, [n], 7, o), torch.int64),
        (lambda n, o: _C.random_bernoulli(0.5, [n], 7, o), torch.bool),
    ]:
        blocks = _C.random_blocks(12, dtype)
        assert torch.equal(torch.cat([draw(12, 5), draw(9, 5 + blocks)]), draw(21, 5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_have_their_moments(dtype):
    n = 100_000
    uniform, normal = _C.random_uniform([n], dtype, 3, 0), _C.random_normal([n], dtype, 3, 10**6)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    # within five standard errors
    assert uniform.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * n))
    assert normal.mean().item() == pytest.approx(0, abs=5 / math.sqrt(n))
    assert normal.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    assert (normal**4).mean().item() == pytest.approx(3, abs=5 * math.sqrt(96 / n))
    assert _C.random_bernoulli(0.0, [n], 1, 0).sum() == 0
    assert _C.random_bernoulli(1.0, [n], 1, 0).sum() == n


def test_random_numbers_are_the_same_for_any_number_of_threads():
    n = [100_003]
    assert_same_for_all_threads(
        lambda: (
            *(f(n, d, 1, 2) for f in (_C.random_uniform, _C.random_normal) for d in DTYPES),
            _C.random_int(-5, 9, n, 1, 2),
            _C.random_bernoulli(0.7, n, 1, 2),
        ),
    )
