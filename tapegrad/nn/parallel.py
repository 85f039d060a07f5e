"""``nn.parallel``: torch's wrappers of several devices, for the one there is."""

from __future__ import annotations

from typing import Any

from ..core import StateError
from .module import Module


class DataParallel(Module):
    """The module itself under the name ``module``, as torch's without a device to spread over: calls pass through."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """``module(*inputs, **kwargs)``."""
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """Raises StateError: there is no group of processes."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise StateError("DistributedDataParallel: tapegrad trains in one process; use the module itself")
