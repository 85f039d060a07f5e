"""Stochastic descent of a multilayer perceptron as scikit-learn defines it, as one compiled step.

The definitions are those of ``sklearn.neural_network``: the loss of a batch is its mean over the rows plus
``alpha / (2 n) * sum(W ** 2)``, steepest descent's velocity carries the learning rate of the step that made it, and
rows are taken in the order that scikit-learn draws. Minibatches are computed in float32 whatever the dtype of the data,
for their gradients are noisier than its rounding; where one batch is the whole set, the dtype is that of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from .. import ops
from ..compiled import Compiled, compile
from ..core import Tensor, no_grad
from ..nn import Parameter
from ..nn import functional as F
from ..optim import SGD, Adam, Optimizer

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "logistic": ops.sigmoid,
    "tanh": ops.tanh,
    "relu": ops.relu,
}


def _softmax(z: Any, y: Any, reduction: str) -> Any:
    return F.cross_entropy(z, y, reduction=reduction)


def _logistic(z: Any, y: Any, reduction: str) -> Any:
    return F.binary_cross_entropy_with_logits(z, y, reduction=reduction)


def _squared(z: Any, y: Any, reduction: str) -> Any:
    return 0.5 * F.mse_loss(z, y, reduction=reduction)


def _poisson(z: Any, y: Any, reduction: str) -> Any:
    values = ops.exp(z) - y * z + (ops.xlogy(y, y) - y)
    return values.sum() if reduction == "sum" else values


LOSSES = {"softmax": _softmax, "logistic": _logistic, "identity": _squared, "exp": _poisson}  # by output activation


class Descent:
    """Parameters, optimizer and step of one perceptron.

    Parameters
    ----------
    mlp : the estimator, initialised: its `coefs_` and `intercepts_` are where the parameters start
    dtype : what parameters and data are computed in
    """

    def __init__(self, mlp: Any, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.weights = [Parameter(torch.from_numpy(np.ascontiguousarray(c.T, dtype=dtype))) for c in mlp.coefs_]
        self.biases = [Parameter(torch.from_numpy(i.astype(dtype))) for i in mlp.intercepts_]
        self.schedule: Any
        if mlp.solver == "sgd":
            self.schedule = SGDOptimizer([], mlp.learning_rate_init, mlp.learning_rate, power_t=mlp.power_t)
        else:
            self.schedule = AdamOptimizer([], mlp.learning_rate_init)
        self.lr = self.schedule.learning_rate  # of the last step
        self.optimizer: Any = self._optimizer(mlp)
        self._half_alpha = torch.zeros(
            (), dtype=self.weights[0].data.dtype
        )  # in memory: steps differ in its value only
        self._step: Compiled | None = None
        self._settings: tuple[Any, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        known = self.optimizer if isinstance(self.optimizer, dict) else self.optimizer.state_dict()
        return {**self.__dict__, "_step": None, "optimizer": known}  # a state dict until the next training

    @property
    def learning_rate(self) -> float:
        """The rate of the next step, as scikit-learn's optimizers call it."""
        return float(self.schedule.learning_rate)

    def _optimizer(self, mlp: Any) -> Optimizer:
        parameters: list[Any] = [{"params": self.weights}, {"params": self.biases}]
        if mlp.solver == "adam":
            betas = (mlp.beta_1, mlp.beta_2)
            return Adam(parameters, lr=self.lr, betas=betas, eps=mlp.epsilon)
        nesterov = mlp.nesterovs_momentum and mlp.momentum > 0
        return SGD(parameters, lr=self.lr, momentum=mlp.momentum, nesterov=nesterov)

    def take(self, mlp: Any) -> None:
        """The estimator's parameters become ours."""
        if isinstance(self.optimizer, dict):
            state, self.optimizer = self.optimizer, self._optimizer(mlp)
            self.optimizer.load_state_dict(state)
        for weight, coef in zip(self.weights, mlp.coefs_, strict=True):
            weight.data.copy_(torch.from_numpy(np.ascontiguousarray(coef.T)))
        for bias, intercept in zip(self.biases, mlp.intercepts_, strict=True):
            bias.data.copy_(torch.from_numpy(np.ascontiguousarray(intercept)))

    def give(self, mlp: Any) -> None:
        """Our parameters become the estimator's, in the arrays it has."""
        for weight, coef in zip(self.weights, mlp.coefs_, strict=True):
            coef[...] = weight.data.numpy().T
        for bias, intercept in zip(self.biases, mlp.intercepts_, strict=True):
            intercept[...] = bias.data.numpy()

    def step(self, mlp: Any, weighted: bool) -> Compiled:
        """The compiled step of a batch (x, y) or (x, y, weight of each row), which returns scikit-learn's loss."""
        settings = (mlp.activation, mlp.out_activation_, weighted)
        self._half_alpha.fill_(mlp.alpha / 2)
        if self._step is None or settings != self._settings:
            self._step, self._settings = compile(self._made(*settings)), settings
        return self._step

    def _made(self, activation: str, out_activation: str, weighted: bool) -> Callable[..., Tensor]:
        act, loss_of = ACTIVATIONS[activation], LOSSES[out_activation]
        weights, half_alpha, optimizer = (
            self.weights,
            Tensor(self._half_alpha),
            self.optimizer,
        )  # not `self`: what a step holds is looked at in every epoch
        *hidden, last = zip(weights, self.biases, strict=True)
        outputs = len(self.biases[-1]) if out_activation == "identity" else 1  # of which scikit-learn reports the mean

        def penalty(rows: Any) -> Any:
            first, *others = (ops.dot(p.view(-1), p.view(-1)) for p in weights)
            return sum(others, first) * half_alpha / rows

        def step(x: Any, y: Any, w: Any = None) -> Any:
            for weight, bias in hidden:
                x = act(ops.linear(x, weight, bias))
            z = ops.linear(x, *last)
            if weighted:  # by their sum in the batch, so the penalty's share is another in each
                values, rows = loss_of(z, y, "none"), w.sum()
                loss = ((values if values.ndim == 1 else values.sum(1)) * w).sum() / rows
                decay = penalty(rows)
                (loss + decay).backward()
            else:  # the penalty's gradient is the optimizer's weight decay
                rows = len(y)
                loss = loss_of(z, y, "mean") if out_activation == "softmax" else loss_of(z, y, "sum") / rows
                loss.backward()
                with no_grad():
                    decay = penalty(rows)
            optimizer.step()
            optimizer.zero_grad()
            return (loss / outputs + decay).detach()

        return step

    def tell(self, mlp: Any, rows: int, weighted: bool) -> None:
        """The steps to come are over batches of so many rows."""
        if mlp.solver == "sgd":
            self._at(self.schedule.learning_rate)
        self.optimizer.param_groups[0]["weight_decay"] = 0.0 if weighted else mlp.alpha / rows

    def _at(self, lr: float) -> None:
        """Steps have this rate from now on; the velocity already there keeps the one it was made with."""
        if lr == self.lr:
            return
        for state in self.optimizer.state.values():
            if isinstance(state.get("momentum_buffer"), Tensor):
                state["momentum_buffer"].data.mul_(self.lr / lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.lr = lr
