"""``tg.func``: transforms of functions, as in ``torch.func``; they stand in `tapegrad.derivatives.func`."""

from .derivatives.func import grad, hessian, hvp, jacfwd, jacrev, jvp, value_and_grad, vjp

__all__ = ["grad", "hessian", "hvp", "jacfwd", "jacrev", "jvp", "value_and_grad", "vjp"]
