"""Max pooling against torch, bit for bit, indices included. Runs under every instruction set."""

import itertools

import pytest
import torch
from kernel_checks import assert_same_for_all_threads

from tapegrad.core import _C, DTypeError, ShapeError

DTYPES = (torch.float32, torch.float64)
PLANES = [(1, 1), (2, 3), (5, 5), (7, 16), (8, 17), (6, 33), (15, 64), (4, 65)]
WINDOWS = [  # kernel, stride, padding, dilation
    ((2, 2), (2, 2), (0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 1), (1, 1), (0, 0), (1, 1)),
    ((3, 2), (1, 2), (0, 1), (2, 1)),
    ((2, 3), (3, 1), (1, 0), (1, 2)),
    ((5, 5), (3, 3), (2, 2), (1, 1)),
    ((2, 4), (2, 2), (1, 2), (2, 2)),
]


def compare(x, window, ceil_mode):
    """Whether the window fits; then values and indices are torch's, and so is the gradient."""
    try:
        expected, places = torch.ops.aten.max_pool2d_with_indices(x, *window, ceil_mode)
    except RuntimeError:
        with pytest.raises(ShapeError, match="max_pool2d"):
            _C.max_pool2d(x, *window, ceil_mode)
        return False
    out, indices = _C.max_pool2d(x, *window, ceil_mode)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(indices, places)
    g = torch.randn(out.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    plane = torch.zeros(*x.shape[:-2], x.shape[-2] * x.shape[-1], dtype=x.dtype)
    scattered = plane.scatter_add(-1, places.flatten(-2), g.flatten(-2)).reshape(x.shape)
    assert torch.equal(_C.max_pool2d_backward(g, indices, list(x.shape)), scattered)
    return True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_maxima_and_their_places_are_torchs(window, dtype):
    generator = torch.Generator().manual_seed(0)
    fits = 0
    for (h, w), ceil_mode in itertools.product(PLANES, (False, True)):
        x = torch.randint(-3, 4, (2, 3, h, w), generator=generator).to(dtype)  # many ties
        fits += compare(x, window, ceil_mode)
        x[torch.rand(x.shape, generator=generator) < 0.1] = torch.nan
        x[torch.rand(x.shape, generator=generator) < 0.1] = -torch.inf
        compare(x, window, ceil_mode)
        compare(torch.full((2, h, w), -torch.inf, dtype=dtype), window, ceil_mode)
    assert fits > 4


def test_a_plane_whose_indices_a_float_cannot_hold():
    x = torch.zeros(1, 4100, 4100)
    x[0, 4099, 4097] = 1
    _, indices = _C.max_pool2d(x, [2, 2], [2, 2], [0, 0], [1, 1], False)
    assert indices[0, -1, -2].item() == 4099 * 4100 + 4097
    assert indices[0, 5, 7].item() == 10 * 4100 + 14


def test_strided_input_threads_and_bad_arguments():
    x = torch.randn(3, 8, 9, 17, generator=torch.Generator().manual_seed(2))
    window = [3, 3], [2, 2], [1, 1], [1, 1], False
    for strided in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3), x[:, ::2]):
        expected = torch.ops.aten.max_pool2d_with_indices(strided.contiguous(), *window)
        assert all(map(torch.equal, _C.max_pool2d(strided, *window), expected))
    large = torch.randn(40, 16, 28, 28, generator=torch.Generator().manual_seed(3))
    out, indices = _C.max_pool2d(large, *window)
    assert_same_for_all_threads(
        lambda: (*_C.max_pool2d(large, *window), _C.max_pool2d_backward(out, indices, list(large.shape)))
    )
    with pytest.raises(DTypeError, match=r"max_pool2d: input\.dtype"):
        _C.max_pool2d(x.int(), *window)
    with pytest.raises(ShapeError, match="input must be"):
        _C.max_pool2d(x[0, 0], *window)
    g, at = torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"indices must be in \[0, 9\), one is 9"):
        _C.max_pool2d_backward(g, at + 9, [1, 3, 3])
    with pytest.raises(ShapeError, match="must go with"):
        _C.max_pool2d_backward(g, at[:, :1], [1, 3, 3])
    with pytest.raises(DTypeError, match="int64"):
        _C.max_pool2d_backward(g, at.int(), [1, 3, 3])
