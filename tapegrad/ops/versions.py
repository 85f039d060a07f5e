"""What torch's versions do differently, in one place. The extension builds beside all of them as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

has_lanczos = hasattr(torch.ops.aten, "_upsample_lanczos2d_aa")  # not in 2.9


def constant_pad(x: Any, pad: Sequence[int], value: float = 0.0) -> Any:
    """``torch.constant_pad_nd``. That of 2.9 takes no padding of one dimension where another is empty."""
    if x.numel() or max(pad, default=0) <= 0:
        return torch.constant_pad_nd(x, list(pad), value)
    shape = list(torch.constant_pad_nd(x, [min(n, 0) for n in pad]).shape)  # cropped first, which may be refused
    for i, n in enumerate(pad):
        shape[-1 - i // 2] += max(n, 0)
    return x.new_full(shape, value)
