"""``tg.amp``: mixed precision, switched off: everything is computed in float32 and float64."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from .core import Tensor

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available", "is_autocast_enabled"]


class autocast:
    """A context manager and decorator that changes nothing: what torch computes in a lower precision stays float32.

    Where it is asked for on the CPU (``enabled=True``), one RuntimeWarning says so. For a device that is not there it
    is off, as in torch.
    """

    _said = False

    def __init__(self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True, **options: Any) -> None:
        if enabled and device_type == "cpu" and not autocast._said:
            autocast._said = True
            warnings.warn("autocast: tapegrad computes in float32 and float64; nothing is cast", RuntimeWarning, 2)

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return run


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """False."""
    return False


def is_autocast_available(device_type: str) -> bool:
    """False."""
    return False


def custom_fwd(fwd: Any = None, **options: Any) -> Any:
    """The function itself; as a decorator with or without arguments."""
    return fwd if callable(fwd) else custom_fwd


def custom_bwd(bwd: Any = None, **options: Any) -> Any:
    """The function itself; as a decorator with or without arguments."""
    return bwd if callable(bwd) else custom_bwd


class GradScaler:
    """Scales nothing: losses pass through, `step` steps the optimizer. As torch's without a CUDA device, it is off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def scale(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Nothing to undo."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(*args, **kwargs)``."""
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Nothing to adapt."""

    def get_scale(self) -> float:
        """1.0."""
        return 1.0

    def is_enabled(self) -> bool:
        """False."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Empty, as torch's when it is off."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""
