"""``tg.cuda.amp``: the older place of `tapegrad.amp`."""

from ..amp import GradScaler, autocast

__all__ = ["GradScaler", "autocast"]
