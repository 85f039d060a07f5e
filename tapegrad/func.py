"""``tg.func``: transforms of functions, as in ``torch.func``; they stand in `tapegrad.derivatives`."""

from .derivatives.func import grad, grad_and_value, hessian, hvp, jacfwd, jacrev, jvp, value_and_grad, vjp
from .derivatives.stateless import functional_call, stack_module_state, vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "value_and_grad",
    "vjp",
    "vmap",
]
