"""``tg.cuda.amp``: the older place of `tapegrad.amp`."""

from ..amp import GradScaler, autocast, custom_bwd, custom_fwd

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
