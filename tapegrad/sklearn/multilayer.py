"""`MLPClassifier` and `MLPRegressor`: scikit-learn's estimators, trained by the compiled tape."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from .descent import Descent


class _Taped:
    """The stochastic solvers of ``sklearn.neural_network``'s perceptrons, on the compiled tape.

    Everything else (arguments, checks, initial parameters, splits, stopping, prediction, the solver "lbfgs") is
    scikit-learn's. The order of the rows is too, so a training follows scikit-learn's own up to float32's rounding.
    """

    # what scikit-learn's estimators have
    batch_size: Any
    shuffle: bool
    max_iter: int
    verbose: Any

    def _fit_stochastic(
        self: Any,
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
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        given, held_out = self._split(X, y, sample_weight)
        n = given[0].shape[0]
        batch_size = self._rows_of_a_batch(n)
        if not incremental or not isinstance(getattr(self, "_optimizer", None), Descent):
            self._optimizer = Descent(self, X.dtype if batch_size == n else np.dtype(np.float32))
        descent = self._optimizer
        descent.take(self)
        train = self._tensors(given, descent.dtype)
        indices = np.arange(n)
        try:
            self.n_iter_ = 0
            while self.n_iter_ < (1 if incremental else self.max_iter):
                if self.shuffle:
                    order = np.arange(n)  # as sklearn.utils.shuffle draws it
                    self._random_state.shuffle(order)
                    indices = indices[order]
                self.loss_ = descent.epoch(self, train, indices if self.shuffle else None, batch_size)
                if self._ends_epoch(descent, n, held_out):
                    break
            else:
                if not incremental:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization "
                        "hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        descent.give(self)
        if self.early_stopping:
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts

    def _split(self: Any, X: Any, y: Any, sample_weight: Any) -> tuple[list[Any], list[Any]]:
        """Arrays to train on; and (X, y, weights) to stop by, each None without early stopping."""
        given = [X, y] if sample_weight is None else [X, y, sample_weight]
        held_out: list[Any] = [None, None, None]
        if self.early_stopping:
            stratify = y if is_classifier(self) and self.n_outputs_ == 1 else None
            parts = train_test_split(
                *given, random_state=self._random_state, test_size=self.validation_fraction, stratify=stratify
            )
            given, held_out[: len(given)] = parts[::2], parts[1::2]
            if held_out[0].shape[0] < 2:
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
                )
            if is_classifier(self):
                held_out[1] = self._label_binarizer.inverse_transform(held_out[1])
        return given, held_out

    def _tensors(self: Any, given: list[Any], dtype: np.dtype[Any]) -> list[torch.Tensor]:
        """Arrays to train on as the step takes them; classes as their numbers."""
        x, y, *weights = given
        x = x.toarray() if sparse.issparse(x) else x
        y = y.argmax(1).astype(np.int64) if self.out_activation_ == "softmax" else y.astype(dtype)
        rows = [np.ascontiguousarray(a, dtype=dtype) for a in (x, *weights)]
        return [torch.from_numpy(a) for a in (rows[0], np.ascontiguousarray(y), *rows[1:])]

    def _rows_of_a_batch(self: Any, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
            )
        return int(np.clip(self.batch_size, 1, n))

    def _ends_epoch(self: Any, descent: Descent, n: int, held_out: list[Any]) -> bool:
        """Note an epoch; whether it is the last."""
        self.n_iter_ += 1
        self.t_ += n
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if self.early_stopping:
            descent.give(self)
        self._update_no_improvement_count(self.early_stopping, *held_out)
        descent.schedule.iteration_ends(self.t_)
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        what = "Validation score" if self.early_stopping else "Training loss"
        message = f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        if descent.schedule.trigger_stopping(message, self.verbose):
            return True
        self._no_improvement_count = 0
        return False


class MLPClassifier(_Taped, neural_network.MLPClassifier):  # type: ignore[misc]
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


class MLPRegressor(_Taped, neural_network.MLPRegressor):  # type: ignore[misc]
    """``sklearn.neural_network.MLPRegressor`` with the compiled tape as its engine; see `MLPClassifier`."""
