"""Derivatives of recorded values: `grad`, the function transforms of ``tg.func``, the check against differences, and
recomputing instead of saving, ops written as classes. Imports the core and the ops.
"""

from .check import gradcheck, gradgradcheck
from .function import Function, FunctionCtx, once_differentiable
from .functional import hessian, hvp, jacobian, jvp, vhp, vjp
from .gradients import grad
from .recompute import checkpoint
from .stateless import vmap

__all__ = [
    "Function",
    "FunctionCtx",
    "checkpoint",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "once_differentiable",
    "vhp",
    "vjp",
    "vmap",
]
