"""`NetworkClassifier` and `NetworkRegressor`: any module as a scikit-learn estimator; `EnsembleClassifier` and
`EnsembleRegressor`: several networks from different seeds, trained at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..data.arguments import as_count
from ..nn import Module
from ..optim import Adam, Optimizer
from .base import Classifying, Networks, Regressing
from .training import Stopping


class Single(Networks):
    """Attributes of the estimators with one network."""

    @property
    def module_(self) -> Module:
        """The trained module."""
        return self._only("modules_")  # type: ignore[no-any-return]

    @property
    def optimizer_(self) -> Optimizer:
        """Its optimizer."""
        return self._only("optimizers_")  # type: ignore[no-any-return]

    @property
    def loss_curve_(self) -> list[float]:
        """The mean loss of every epoch."""
        return self._only("loss_curves_")  # type: ignore[no-any-return]

    def _only(self, name: str) -> Any:
        if name not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name[:-2]}_ before fit")
        return vars(self)[name][0]

    def _stopped(self, stoppings: list[Stopping]) -> None:
        self.validation_scores_, self.best_validation_score_ = stoppings[0].scores, stoppings[0].best


class NetworkClassifier(Classifying, Single):
    """A classifier around any module: trained by `tapegrad.compile`, used like every scikit-learn estimator.

    >>> import tapegrad as tg
    >>> from tapegrad.sklearn import NetworkClassifier
    >>> from sklearn.datasets import make_moons
    >>> def network(inputs, outputs, width=16):
    ...     return tg.nn.Sequential(tg.nn.Linear(inputs, width), tg.nn.Tanh(), tg.nn.Linear(width, outputs))
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> NetworkClassifier(network, lr=0.05, epochs=100, random_state=0).fit(X, y).score(X, y) > 0.95
    True

    Parameters
    ----------
    module : a function that returns a `tapegrad.nn.Module`, such as its class. If two of its arguments are required
        (beside those in `module_params`), it is given the number of features and the number of outputs (classes; for a
        regressor columns of y)
    module_params : further arguments of `module` by name, which a grid search may choose
    loss : a loss module, its class, or a function of (output, target); None is cross-entropy of logits [n, classes]
        (mean squared error for a regressor). With BCEWithLogitsLoss and BCELoss a binary classifier may have one output
    optimizer : a class of `tapegrad.optim`, or a function of (parameters, lr=..., **optimizer_params)
    lr, optimizer_params : its learning rate and other arguments
    epochs, batch_size, shuffle : as in `tapegrad.nn.Sequential.fit`
    early_stopping : hold out `validation_fraction` of the rows and stop when their score did not rise by `tol` for
        `n_iter_no_change` epochs; the best parameters are kept
    warm_start : `fit` goes on from where the last one ended
    random_state : of the parameters, the order of the rows and dropout
    verbose : draw a bar over the steps (tqdm)

    Attributes
    ----------
    module_, optimizer_ : the trained module and its optimizer
    classes_ : the classes, sorted
    loss_curve_ : the mean loss of every epoch; n_iter_ : their number
    validation_scores_, best_validation_score_ : with early stopping, the score after every epoch and the best
    n_features_in_ : columns of X

    Integers are converted to the dtype of the parameters unless the first layer is an embedding.

    Raises
    ------
    ArgumentError, TypeError, ValueError
        for what does not fit, before anything is trained; ValueError if the trained parameters are not finite.
    """


class NetworkRegressor(Regressing, Single):
    """A regressor around any module; arguments and attributes are those of `NetworkClassifier`, but for classes."""


class Several(Networks):
    """Arguments of the estimators with several networks."""

    def __init__(
        self,
        module: Callable[..., Module],
        *,
        n_estimators: int = 10,
        bootstrap: bool = False,
        module_params: dict[str, Any] | None = None,
        loss: Any = None,
        optimizer: Callable[..., Optimizer] = Adam,
        lr: float = 1e-3,
        optimizer_params: dict[str, Any] | None = None,
        epochs: int = 50,
        batch_size: int = 32,
        shuffle: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            module,
            module_params=module_params,
            loss=loss,
            optimizer=optimizer,
            lr=lr,
            optimizer_params=optimizer_params,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.n_estimators = n_estimators
        self.bootstrap = bootstrap

    def _count(self) -> int:
        known = vars(self).get("modules_") if self.warm_start else None
        return len(known) if known else as_count(self.n_estimators, f"{type(self).__name__}: n_estimators")

    def _rows(self, n: int, random: Any) -> list[torch.Tensor | None]:
        if not self.bootstrap:
            return [None] * self._count()
        return [torch.from_numpy(random.randint(n, size=n)) for _ in range(self._count())]


class EnsembleClassifier(Classifying, Several):
    """Networks from different seeds, trained at once (`tapegrad.run_together`); probabilities are their mean.

    Parameters
    ----------
    n_estimators : number of networks
    bootstrap : each network sees as many rows as there are, drawn with replacement

    The other arguments are those of `NetworkClassifier`. With ``early_stopping`` every network stops by itself.

    Attributes
    ----------
    modules_, optimizers_, loss_curves_ : lists with one of each network; n_iter_ : the largest number of epochs
    validation_scores_, best_validation_score_ : with early stopping, lists likewise
    classes_, n_features_in_ : as for `NetworkClassifier`
    """

    def spread(self, X: Any) -> np.ndarray:
        """The standard deviation over the networks of the probabilities, [n, classes]."""
        return np.asarray(np.std([self._probabilities(output) for output in self._outputs(X)], axis=0))


class EnsembleRegressor(Regressing, Several):
    """Networks from different seeds, trained at once (`tapegrad.run_together`); predictions are their mean.

    Arguments and attributes are those of `EnsembleClassifier`, but for classes.
    """

    def spread(self, X: Any) -> np.ndarray:
        """The standard deviation over the networks of the values, shaped like them."""
        return np.asarray(np.std(self._values(X), axis=0))
