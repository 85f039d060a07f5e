"""`NetworkClassifier` and `NetworkRegressor`: any module as a scikit-learn estimator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ..core import ArgumentError
from ..data.arguments import as_count
from ..nn import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, Embedding, EmbeddingBag, Module, MSELoss, NLLLoss
from ..nn.sequential import as_input
from ..optim import Adam, Optimizer
from ..training import as_targets
from .training import Stopping, Training, outputs, seeded


class Network(BaseEstimator):  # type: ignore[misc]
    """What the estimators of networks share; see `NetworkClassifier`."""

    default_loss: type[Module]

    def __init__(
        self,
        module: Callable[..., Module],
        *,
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
        self.module = module
        self.module_params = module_params
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.optimizer_params = optimizer_params
        self.epochs = epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # --- what a classifier and a regressor do in their own way ----------------------------------------------------

    def _targets(self, y: Any, classes: Any, first: bool) -> np.ndarray:
        """Targets as numbers: classes as int64 [n], values as float64 [n] or [n, outputs]."""
        raise NotImplementedError

    def _n_outputs(self, y: np.ndarray) -> int:
        """How many outputs a module made for such targets has."""
        raise NotImplementedError

    def _score(self, output: np.ndarray, y: np.ndarray) -> float:
        """What `score` gives where the module's output is that for targets as numbers."""
        raise NotImplementedError

    # --- training -------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Any:
        """Train a new module (with ``warm_start`` the one there is) for `epochs` passes over X [n, ...] and y."""
        planned = self._planned(X, y, None, first=not (self.warm_start and hasattr(self, "module_")))
        self._run([planned], self.epochs)
        return self._done(planned)

    def _partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        planned = self._planned(X, y, classes, first=not hasattr(self, "module_"))
        self._run([planned], 1)
        return self._done(planned)

    def _run(self, trainings: list[Training], epochs: int) -> None:
        """Train, each as if alone."""
        name = type(self).__name__
        size, epochs = as_count(self.batch_size, f"{name}: batch_size"), as_count(epochs, f"{name}: epochs")
        for each in trainings:
            with seeded(each.seed):
                each.run(size, epochs, self.shuffle, self.verbose)

    def _planned(self, X: Any, y: Any, classes: Any, first: bool) -> Training:
        """Everything checked and made, nothing trained yet."""
        name = type(self).__name__
        X, y = validate_data(
            self, X, y, reset=first, allow_nd=True, multi_output=True, y_numeric=isinstance(self, RegressorMixin)
        )
        y = self._targets(y, classes, first)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31))
        held_out = None
        if self.early_stopping:
            parts = train_test_split(
                *(X, y),
                test_size=self.validation_fraction,
                random_state=random,
                stratify=y if isinstance(self, ClassifierMixin) else None,
            )
            X, y, held_out = parts[0], parts[2], (parts[1], parts[3])
        if first:
            with seeded(seed):
                self.module_ = self._built(X, y)
            self.optimizer_ = self.optimizer(self.module_.parameters(), lr=self.lr, **(self.optimizer_params or {}))
            self.loss_curve_: list[float] = []
            self.n_iter_ = 0
        x, loss = self._as_input(X), self._loss()
        output = torch.from_numpy(outputs(self.module_, x[:2]))
        if output.ndim == 0 or len(output) != len(x[:2]):
            raise ArgumentError(
                f"{name}: module must give a row for each of {len(x[:2])} rows; got shape {list(output.shape)}"
            )
        stopping = None
        if held_out is not None:
            kept = self._as_input(held_out[0])
            stopping = Stopping(lambda o: self._score(o, held_out[1]), kept, self.n_iter_no_change, self.tol)
        return Training(self.module_, self.optimizer_, loss, x, self._fitting(y, output, loss), seed, stopping)

    def _done(self, training: Training) -> Any:
        """The estimator, after its training."""
        if training.stopping is not None:
            self.module_.load_state_dict(training.stopping.state)
            self.validation_scores_, self.best_validation_score_ = training.stopping.scores, training.stopping.best
        self.loss_curve_ += training.curve
        self.n_iter_ += len(training.curve)
        if not all(torch.isfinite(p.data).all() for p in self.module_.parameters()):
            raise ValueError(
                f"{type(self).__name__}: training produced parameters that are not finite; scale the data or lower lr"
            )
        return self

    def _built(self, X: np.ndarray, y: np.ndarray) -> Module:
        """A new module; a factory with two required arguments is given the numbers of inputs and outputs."""
        given = self.module_params or {}
        required = [
            p
            for p in inspect.signature(self.module).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in given
        ]
        module = self.module(*(X.shape[1], self._n_outputs(y)) if len(required) == 2 else (), **given)
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: module must be a function that returns a tg.nn.Module; "
                f"it returned {type(module).__name__}"
            )
        return module

    def _loss(self) -> Any:
        loss = self.default_loss if self.loss is None else self.loss
        return loss() if isinstance(loss, type) else loss

    def _fitting(self, y: np.ndarray, output: torch.Tensor, loss: Any) -> torch.Tensor:
        """Targets in the shape and dtype that the loss wants for such an output."""
        values = torch.from_numpy(np.ascontiguousarray(y))
        single = isinstance(loss, BCELoss | BCEWithLogitsLoss) and output[0].numel() == 1
        if values.dtype is torch.int64 and not single:
            return as_targets(values, output, loss)
        if values[0].numel() != output[0].numel():
            raise ArgumentError(
                f"{type(self).__name__}: module must have {values[0].numel()} outputs for a row; "
                f"got shape {list(output.shape)}"
            )
        return values.to(output.dtype).reshape(len(values), *output.shape[1:])

    def _as_input(self, X: np.ndarray) -> torch.Tensor:
        """Rows as the module takes them: numbers of its parameters' dtype, indices for an embedding in front."""
        leaf = next((m for m in self.module_.modules() if not list(m.children())), None)
        if not isinstance(leaf, Embedding | EmbeddingBag) and X.dtype.kind != "f":
            X = X.astype(np.float32)
        value: torch.Tensor = as_input(self.module_, torch.from_numpy(np.ascontiguousarray(X)))
        return value

    # --- prediction -----------------------------------------------------------------------------------------------

    def _output(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "module_")
        return outputs(self.module_, self._as_input(validate_data(self, X, reset=False, allow_nd=True)))


class NetworkClassifier(ClassifierMixin, Network):  # type: ignore[misc]
    """A classifier around any module: trained by `tapegrad.compile`, used like every scikit-learn estimator.

    >>> import tapegrad as tg
    >>> from tapegrad.sklearn import NetworkClassifier
    >>> from sklearn.datasets import make_moons
    >>> def network(inputs, outputs, width=16):
    ...     return tg.nn.Sequential(tg.nn.Linear(inputs, width), tg.nn.Tanh(), tg.nn.Linear(width, outputs))
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> NetworkClassifier(network, lr=0.01, random_state=0).fit(X, y).score(X, y) > 0.95
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
    module_, optimizer_ : the trained module, in training mode or evaluation mode as it was made, and its optimizer
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

    default_loss = CrossEntropyLoss

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        """One pass over X and y, going on from where the estimator is; the first call is told all classes."""
        return self._partial_fit(X, y, classes)

    def _targets(self, y: Any, classes: Any, first: bool) -> np.ndarray:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if first:
            self.classes_ = np.unique(y if classes is None else classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"{type(self).__name__}: y holds classes {unknown.tolist()} that are not in {self.classes_.tolist()}"
            )
        return np.asarray(np.searchsorted(self.classes_, y), dtype=np.int64)

    def _n_outputs(self, y: np.ndarray) -> int:
        return len(self.classes_)

    def _score(self, output: np.ndarray, y: np.ndarray) -> float:
        return float(accuracy_score(y, self._probabilities(output).argmax(1)))

    def _probabilities(self, output: np.ndarray) -> np.ndarray:
        loss = self._loss()
        if isinstance(loss, BCEWithLogitsLoss | BCELoss):
            p = expit(output) if isinstance(loss, BCEWithLogitsLoss) else output
            p = p.reshape(len(p), -1)
            return np.asarray(np.concatenate([1 - p, p], 1) if p.shape[1] == 1 else p / p.sum(1, keepdims=True))
        return np.asarray(np.exp(output) if isinstance(loss, NLLLoss) else softmax(output, 1))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [n, classes]: the softmax of the outputs, or what `loss` says that they are (NLLLoss:
        logarithms; BCEWithLogitsLoss: logits, one for each class or one for the second of two)."""
        return self._probabilities(self._output(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])


class NetworkRegressor(RegressorMixin, Network):  # type: ignore[misc]
    """A regressor around any module; arguments and attributes are those of `NetworkClassifier`, but for classes."""

    default_loss = MSELoss

    def partial_fit(self, X: Any, y: Any) -> Any:
        """One pass over X and y, going on from where the estimator is."""
        return self._partial_fit(X, y)

    def _targets(self, y: Any, classes: Any, first: bool) -> np.ndarray:
        values: np.ndarray = np.asarray(y, dtype=np.float64)
        if first:
            self._outputs_shape = values.shape[1:]
        return values

    def _n_outputs(self, y: np.ndarray) -> int:
        return int(np.prod(y.shape[1:]))

    def _score(self, output: np.ndarray, y: np.ndarray) -> float:
        return float(r2_score(y, output.reshape(y.shape)))

    def predict(self, X: Any) -> np.ndarray:
        """Values, shaped like the y of `fit`; float32 for such an X, else float64."""
        output = self._output(X).astype(np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64)
        return np.asarray(output.reshape(len(output), *self._outputs_shape))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
