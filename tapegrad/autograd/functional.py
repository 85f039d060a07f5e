"""``tg.autograd.functional``; the functions stand in `tapegrad.derivatives.functional`."""

from ..derivatives import hessian, hvp, jacobian, jvp, vhp, vjp

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
