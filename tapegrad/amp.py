"""``tg.amp``: mixed precision, switched off. Half precision does not exist here: what is enabled is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .core import DTypeError, Tensor

__all__ = ["GradScaler", "autocast"]


class autocast:
    """A context manager and decorator that changes nothing, for ``enabled=False``.

    Raises DTypeError if it is enabled for the CPU, whose lower precision (bfloat16) tapegrad does not have. For a
    device that is not there it is off, as in torch.
    """

    def __init__(self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True, **options: Any) -> None:
        if enabled and device_type == "cpu":
            raise DTypeError("autocast: tapegrad computes in float32 and float64; pass enabled=False, or leave it out")

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return run


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
