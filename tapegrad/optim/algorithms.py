"""SGD, Adam, AdamW, RMSprop: torch's formulas in torch's order of operations, so that trajectories agree.

``foreach``, ``capturable`` and ``fused``, which say how torch is to compute, are taken and change nothing.

g is the gradient, t the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..nn.checks import require
from .kernels import hyper, number
from .optimizer import Optimizer, not_differentiable


def _not_negative(group: Mapping[str, Any], what: str, *arguments: str) -> None:
    for argument in arguments:
        value = number(group[argument])
        require(value >= 0, what, argument, "not be negative", value)


class SGD(Optimizer):
    """Gradient descent, with momentum.

    ``b <- momentum * b + (1 - dampening) * g`` (``b <- g`` on the first step), ``p <- p - lr * b``; with ``nesterov``,
    ``p <- p - lr * (g + momentum * b)``.

    Parameters
    ----------
    params : Tensors, or dicts with "params" and hyper-parameters of their own
    lr : step length (default 1e-3)
    momentum, dampening : of the running gradient (default 0)
    weight_decay : adds ``weight_decay * p`` to the gradient (default 0)
    nesterov : look ahead; needs momentum and no dampening
    maximize : ascend instead

    A running gradient below the least normal number becomes 0, so that steps of a dead unit stay fast.

    Raises ArgumentError for a negative value. Source: report 1, equation 2; ``torch.optim.SGD``.
    """

    kernel = "sgd_"
    resting = ("momentum_buffer", "step")
    unlisted = ("step",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        not_differentiable("SGD", differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "SGD", "lr", "momentum", "weight_decay")
        if group["nesterov"]:
            require(group["momentum"] > 0, "SGD", "momentum", "be positive with nesterov=True", group["momentum"])
            require(group["dampening"] == 0, "SGD", "dampening", "be 0 with nesterov=True", group["dampening"])

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer", "step") if hyper(group, "momentum") != 0 else ()


class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g**2``,
    ``p <- p - lr * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)``.

    Parameters
    ----------
    params : Tensors, or dicts with "params" and hyper-parameters of their own
    lr : step length (default 1e-3)
    betas : (b1, b2), each in [0, 1) (default (0.9, 0.999))
    eps : added to the denominator (default 1e-8)
    weight_decay : adds ``weight_decay * p`` to the gradient (default 0)
    amsgrad : divide by the largest v so far
    maximize : ascend instead
    decoupled_weight_decay : shrink p by ``1 - lr * weight_decay`` instead, as `AdamW`

    Moments below the least normal number become 0, so that steps of a dead unit stay fast.

    Raises ArgumentError for a value outside its range. Source: Kingma and Ba, Adam (2015); Reddi et al. (2018) for
    amsgrad; ``torch.optim.Adam``.
    """

    kernel = "adam_"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        not_differentiable(type(self).__name__, differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        name = type(self).__name__
        _not_negative(group, name, "lr", "eps", "weight_decay")
        require(len(group["betas"]) == 2, name, "betas", "be two numbers", group["betas"])
        for i, beta in enumerate(group["betas"]):
            require(0 <= beta < 1, name, f"betas[{i}]", "lie in [0, 1)", beta)

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        names = ("step", "exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p <- (1 - lr * weight_decay) p`` before the step of `Adam`.

    Parameters: as of `Adam`; ``weight_decay`` is 1e-2 by default. Source: Loshchilov and Hutter (2019).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        not_differentiable("AdamW", differentiable)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)


class RMSprop(Optimizer):
    """RMSprop: gradients divided by the root of a running mean of their squares.

    ``v <- alpha v + (1 - alpha) g**2``, ``p <- p - lr * g / (sqrt(v) + eps)``.

    Parameters
    ----------
    params : Tensors, or dicts with "params" and hyper-parameters of their own
    lr : step length (default 1e-2)
    alpha : weight of the past in the running means (default 0.99)
    eps : added to the denominator (default 1e-8)
    weight_decay : adds ``weight_decay * p`` to the gradient (default 0)
    momentum : of the running step (default 0)
    centered : subtract the squared running mean of g from v
    maximize : ascend instead

    Raises ArgumentError for a negative value. Source: Hinton's lecture 6e (2012), Graves (2013) for ``centered``;
    ``torch.optim.RMSprop``.
    """

    kernel = "rmsprop_"
    resting = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_differentiable("RMSprop", differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        _not_negative(group, "RMSprop", "lr", "alpha", "eps", "weight_decay", "momentum")

    def _names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        names = ["step", "square_avg"]
        if hyper(group, "momentum") > 0:
            names.append("momentum_buffer")
        return (*names, "grad_avg") if group["centered"] else tuple(names)
