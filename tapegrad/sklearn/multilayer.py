"""`MLPClassifier` and `MLPRegressor`: scikit-learn's estimators, trained by the compiled tape."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from ..compiled import Known, Passes, tqdm_bar
from .descent import Descent
from .training import handed

KNOWN = Known(limit=16, largest=16 << 20)  # programs of earlier fits

_waiting: ContextVar[list[Fit] | None] = ContextVar("waiting", default=None)


@contextmanager
def waiting() -> Iterator[list[Fit]]:
    """Inside, fits are planned, and put into this list, but not carried out."""
    plans: list[Fit] = []
    token = _waiting.set(plans)
    try:
        yield plans
    finally:
        _waiting.reset(token)


def train(fits: list[Fit], progress: bool = False) -> None:
    """Carry out fits that agree in the rows of a batch and in the number of arrays, all at once."""
    bar = None
    if progress:
        with suppress(ImportError):
            bar = tqdm_bar(sum(fit.epochs for fit in fits), "epoch")
    passes = Passes(
        [fit.step for fit in fits],
        [list(arrays) for arrays in zip(*[fit.arrays for fit in fits], strict=True)],
        fits[0].batch_size,
        KNOWN,
        lambda k, rows: fits[k].tell(rows),
    )
    try:
        with passes.held():
            active, done = [k for k, fit in enumerate(fits) if fit.epochs > 0], 0
            while active:
                losses = passes.run_pass({k: fits[k].order() for k in active})
                done += 1
                going = [k for k, values in zip(active, losses, strict=True) if not fits[k].ends(values)]
                if bar is not None:
                    spared = sum(fits[k].epochs - done for k in set(active) - set(going))  # by those that end early
                    bar.set_description(f"{len(going)} of {len(fits)} networks", refresh=False)
                    bar.update(len(active) + spared)
                active = going
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=2)
    finally:
        if bar is not None:
            bar.close()
    for fit in fits:
        fit.done()


class Fit:
    """A perceptron's training, as scikit-learn defines it.

    Parameters
    ----------
    mlp : the estimator, initialised
    X, y, sample_weight, incremental : as `_fit_stochastic` is given them
    """

    def __init__(self, mlp: Any, X: Any, y: Any, sample_weight: Any, incremental: bool) -> None:
        if mlp.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        self.mlp, self.incremental = mlp, incremental
        self.epochs = 1 if incremental else mlp.max_iter
        given, self.held_out = self._split(X, y, sample_weight)
        self.n = given[0].shape[0]
        self.batch_size = self._rows_of_a_batch()
        if not incremental or not isinstance(getattr(mlp, "_optimizer", None), Descent):
            mlp._optimizer = Descent(mlp, X.dtype if self.batch_size == self.n else np.dtype(np.float32))
        self.descent: Descent = mlp._optimizer
        self.descent.take(mlp)
        self.arrays = self._tensors(given, self.descent.dtype)
        self.weighted = len(self.arrays) == 3
        self.step = self.descent.step(mlp, self.weighted)
        batches = [min(self.batch_size, self.n - i) for i in range(0, self.n, self.batch_size)]
        self._shares = torch.tensor(batches, dtype=torch.float64) / self.n  # of the rows, by batch
        self._indices = np.arange(self.n)
        self._all = np.arange(self.n)
        mlp.n_iter_ = 0

    def _split(self, X: Any, y: Any, sample_weight: Any) -> tuple[list[Any], list[Any]]:
        """Arrays to train on; and (X, y, weights) to stop by, each None without early stopping."""
        mlp = self.mlp
        given = [X, y] if sample_weight is None else [X, y, sample_weight]
        held_out: list[Any] = [None, None, None]
        if mlp.early_stopping:
            stratify = y if is_classifier(mlp) and mlp.n_outputs_ == 1 else None
            parts = train_test_split(
                *given, random_state=mlp._random_state, test_size=mlp.validation_fraction, stratify=stratify
            )
            given, held_out[: len(given)] = parts[::2], parts[1::2]
            if held_out[0].shape[0] < 2:
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
                )
            if is_classifier(mlp):
                held_out[1] = mlp._label_binarizer.inverse_transform(held_out[1])
        return given, held_out

    def _tensors(self, given: list[Any], dtype: np.dtype[Any]) -> list[torch.Tensor]:
        """Arrays to train on as the step takes them; classes as their numbers."""
        x, y, *weights = given
        x = x.toarray() if sparse.issparse(x) else x
        y = y.argmax(1).astype(np.int64) if self.mlp.out_activation_ == "softmax" else y.astype(dtype)
        rows = [np.ascontiguousarray(a, dtype=dtype) for a in (x, *weights)]
        return [torch.from_numpy(a) for a in (rows[0], np.ascontiguousarray(y), *rows[1:])]

    def _rows_of_a_batch(self) -> int:
        size = self.mlp.batch_size
        if size == "auto":
            return int(min(200, self.n))
        if size > self.n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
            )
        return int(np.clip(size, 1, self.n))

    def tell(self, rows: int) -> None:
        """The steps to come are over batches of so many rows."""
        self.descent.tell(self.mlp, rows, self.weighted)

    def order(self) -> torch.Tensor | None:
        """The order of the rows in the next epoch, as sklearn.utils.shuffle draws it; None: as they come."""
        if not self.mlp.shuffle:
            return None
        order = self._all.copy()
        self.mlp._random_state.shuffle(order)
        self._indices = self._indices[order]
        return torch.from_numpy(self._indices)

    def ends(self, losses: torch.Tensor) -> bool:
        """Note an epoch and the losses of its steps; whether it was the last."""
        mlp = self.mlp
        mlp.loss_ = float(losses.double() @ self._shares)
        mlp.n_iter_ += 1
        mlp.t_ += self.n
        mlp.loss_curve_.append(mlp.loss_)
        if mlp.verbose:
            print(f"Iteration {mlp.n_iter_}, loss = {mlp.loss_:.8f}")
        if mlp.early_stopping:
            self.descent.give(mlp)
        mlp._update_no_improvement_count(mlp.early_stopping, *self.held_out)
        self.descent.schedule.iteration_ends(mlp.t_)
        if mlp._no_improvement_count > mlp.n_iter_no_change:
            what = "Validation score" if mlp.early_stopping else "Training loss"
            message = f"{what} did not improve more than tol={mlp.tol:f} for {mlp.n_iter_no_change} consecutive epochs."
            if self.descent.schedule.trigger_stopping(message, mlp.verbose):
                return True
            mlp._no_improvement_count = 0
        if mlp.n_iter_ < self.epochs:
            return False
        if not self.incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({mlp.max_iter}) reached and the optimization "
                "hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return True

    def done(self) -> None:
        """The estimator, after its training."""
        self.descent.give(self.mlp)
        if self.mlp.early_stopping:
            self.mlp.coefs_, self.mlp.intercepts_ = self.mlp._best_coefs, self.mlp._best_intercepts


class Taped:
    """The stochastic solvers of ``sklearn.neural_network``'s perceptrons, on the compiled tape.

    Everything else (arguments, checks, initial parameters, splits, stopping, prediction, the solver "lbfgs") is
    scikit-learn's. The order of the rows is too, so a training follows scikit-learn's own up to float32's rounding.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """As scikit-learn's."""
        return self if handed(self, X) else super().fit(X, y, sample_weight)  # type: ignore[misc]

    def _fit_stochastic(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        activations: Any,
        deltas: Any,
        coef_grads: Any,
        intercept_grads: Any,
        layer_units: Any,
        incremental: bool,
    ) -> None:
        fit = Fit(self, X, y, sample_weight, incremental)
        plans = _waiting.get()
        if plans is not None:
            plans.append(fit)
        else:
            train([fit])


class MLPClassifier(Taped, neural_network.MLPClassifier):  # type: ignore[misc]
    """``sklearn.neural_network.MLPClassifier`` with the compiled tape as its engine.

    >>> from sklearn.datasets import make_moons
    >>> from tapegrad.sklearn import MLPClassifier
    >>> X, y = make_moons(400, noise=0.15, random_state=0)
    >>> MLPClassifier((25, 25), batch_size=25, max_iter=500, random_state=0).fit(X, y).score(X, y) > 0.95
    True

    Arguments, attributes, errors and warnings are scikit-learn's, which documents them, and so are the first parameters
    and the order of the rows: a training follows scikit-learn's own up to rounding. The solvers "sgd" and "adam" run as
    compiled steps, minibatches in float32 (`descent`); "lbfgs" is scikit-learn's. Adam's epsilon is added after the
    second moment is corrected (PyTorch's form), before it in scikit-learn. Sparse X is made dense.
    """


class MLPRegressor(Taped, neural_network.MLPRegressor):  # type: ignore[misc]
    """``sklearn.neural_network.MLPRegressor`` with the compiled tape as its engine; see `MLPClassifier`."""
