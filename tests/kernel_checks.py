"""What the kernels' test files share."""

from collections.abc import Callable, Iterable

import torch


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
