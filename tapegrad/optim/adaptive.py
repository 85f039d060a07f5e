"""Adadelta, Adagrad, Adamax, ASGD, NAdam, RAdam, Rprop: torch's formulas in torch's order of operations.

g is the gradient, t the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..nn.checks import require
from .algorithms import _not_negative
from .kernels import number
from .optimizer import Columns, Optimizer, not_differentiable


def _check_betas(group: Mapping[str, Any], name: str) -> None:
    for i, beta in enumerate(group["betas"]):
        require(0 <= beta < 1, name, f"betas[{i}]", "lie in [0, 1)", beta)


class Adadelta(Optimizer):
    """Steps in units of the parameters: ``p <- p - lr * sqrt(u + eps) / sqrt(v + eps) * g``.

    ``v <- rho v + (1 - rho) g**2``, and u the same mean of the squared steps. Parameters: ``lr`` (1.0), ``rho`` (0.9),
    ``eps`` (1e-6), ``weight_decay`` (0), ``maximize``. Source: Zeiler (2012); ``torch.optim.Adadelta``.
    """

    kernel = "adadelta_"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_differentiable("Adadelta", differentiable)
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "Adadelta", "lr", "eps", "weight_decay")
        require(0 <= group["rho"] <= 1, "Adadelta", "rho", "lie in [0, 1]", group["rho"])

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "square_avg", "acc_delta")


class Adagrad(Optimizer):
    """``s <- s + g**2``, ``p <- p - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)``.

    Parameters: ``lr`` (1e-2), ``lr_decay`` (0), ``weight_decay`` (0), ``initial_accumulator_value`` of s (0), ``eps``
    (1e-10), ``maximize``. Source: Duchi et al. (JMLR 12, 2011); ``torch.optim.Adagrad``.
    """

    kernel = "adagrad_"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        not_differentiable("Adagrad", differentiable)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "Adagrad", "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "sum")

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        return float(group["initial_accumulator_value"]) if name == "sum" else 0.0


class Adamax(Optimizer):
    """`Adam` with a running maximum: ``u <- max(b2 u, |g| + eps)``, ``p <- p - lr / (1 - b1**t) * m / u``.

    Parameters: ``lr`` (2e-3), ``betas`` ((0.9, 0.999)), ``eps`` (1e-8), ``weight_decay`` (0), ``maximize``. Source:
    Kingma and Ba (2015); ``torch.optim.Adamax``.
    """

    kernel = "adamax_"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        not_differentiable("Adamax", differentiable)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "Adamax", "lr", "eps", "weight_decay")
        _check_betas(group, "Adamax")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_inf")


class NAdam(Optimizer):
    """`Adam` with Nesterov's momentum, whose weight grows: ``mu_t = b1 (1 - 0.96**(t momentum_decay) / 2)``.

    Parameters: ``lr`` (2e-3), ``betas`` ((0.9, 0.999)), ``eps`` (1e-8), ``weight_decay`` (0), ``momentum_decay``
    (4e-3), ``decoupled_weight_decay``, ``maximize``. Source: Dozat (2016); ``torch.optim.NAdam``.
    """

    kernel = "nadam_"
    scalars = ("step", "mu_product")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_differentiable("NAdam", differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "NAdam", "lr", "eps", "weight_decay", "momentum_decay")
        _check_betas(group, "NAdam")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "mu_product", "exp_avg", "exp_avg_sq")

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        return 1.0 if name == "mu_product" else 0.0


class RAdam(Optimizer):
    """`Adam` without the second moment while its estimate is too uncertain, rectified afterwards.

    Parameters: ``lr`` (1e-3), ``betas`` ((0.9, 0.999)), ``eps`` (1e-8), ``weight_decay`` (0),
    ``decoupled_weight_decay``, ``maximize``. Source: Liu et al. (2020); ``torch.optim.RAdam``.
    """

    kernel = "radam_"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_differentiable("RAdam", differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "RAdam", "lr", "eps", "weight_decay")
        _check_betas(group, "RAdam")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_avg_sq")


class Rprop(Optimizer):
    """Steps by the gradient's sign: each grows while the sign stays, shrinks (and rests once) where it turns.

    Parameters: ``lr``, the first step (1e-2), ``etas``, the factors of shrinking and growing ((0.5, 1.2)),
    ``step_sizes``, the bounds ((1e-6, 50)), ``maximize``. Source: Riedmiller and Braun (1993); ``torch.optim.Rprop``.
    """

    kernel = "rprop_"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_differentiable("Rprop", differentiable)
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize})

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "Rprop", "lr")
        require(0 < group["etas"][0] < 1 < group["etas"][1], "Rprop", "etas", "be below and above 1", group["etas"])

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "prev", "step_size")

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        return number(group["lr"]) if name == "step_size" else 0.0


def _prepared(params: list[torch.Tensor], grads: list[torch.Tensor], maximize: bool, weight_decay: float) -> Any:
    """The gradients to descend: negated to maximize, plus ``weight_decay * params``."""
    if maximize:
        grads = list(torch._foreach_neg(grads))
    if weight_decay != 0:
        grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
    return grads


class ASGD(Optimizer):
    """Averaged gradient descent: ``p <- p (1 - lambd eta) - eta g``, and in ``ax`` the running mean of the iterates.

    ``eta = lr / (1 + lambd lr t)**alpha``; the mean begins at step ``t0``, until then ``ax`` is p.

    Parameters: ``lr`` (1e-2), ``lambd`` (1e-4), ``alpha`` (0.75), ``t0`` (1e6), ``weight_decay``, ``maximize``. Source:
    Polyak and Juditsky (1992); ``torch.optim.ASGD``.
    """

    scalars = ("step", "eta", "mu")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        not_differentiable("ASGD", differentiable)
        own = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0}
        super().__init__(params, {**own, "weight_decay": weight_decay, "maximize": maximize})

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "ASGD", "lr", "weight_decay")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("step", "eta", "mu", "ax")

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        return {"eta": number(group["lr"]), "mu": 1.0}.get(name, 0.0)

    def _update(
        self, params: list[torch.Tensor], grads: list[torch.Tensor], state: Columns, group: Mapping[str, Any]
    ) -> None:
        grads = _prepared(params, grads, group["maximize"], group["weight_decay"])
        lr, lambd = group["lr"], group["lambd"]
        torch._foreach_add_(state["step"], 1)
        rows = zip(params, grads, *[state[name] for name in ("step", "eta", "mu", "ax")], strict=True)
        for p, g, step, eta, mu, ax in rows:
            t, rate, weight = step.double(), eta.double(), mu.double()
            p.mul_(1 - lambd * rate).addcmul_(g, rate.to(p.dtype), value=-1)
            ax.copy_(torch.where(mu == 1, p, ax + (p - ax) * weight.to(p.dtype)))
            eta.copy_(lr / (1 + lambd * lr * t) ** group["alpha"])
            mu.copy_(1 / (t - group["t0"]).clamp(min=1))
