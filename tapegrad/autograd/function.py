"""``tg.autograd.function``: `Function` and what goes with it; they stand in `tapegrad.derivatives.function`."""

from ..derivatives import Function, FunctionCtx, once_differentiable

__all__ = ["Function", "FunctionCtx", "once_differentiable"]
