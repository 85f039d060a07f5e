"""What the estimators of one or several networks share: arguments, plans, training, outputs."""

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
from .training import Stopping, Training, handed, outputs, run, seeded


class Networks(BaseEstimator):  # type: ignore[misc]
    """See `tapegrad.sklearn.NetworkClassifier`; `_count` networks are trained at once."""

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
        """Train new modules (with ``warm_start`` those there are) for `epochs` passes over X [n, ...] and y."""
        if handed(self, X):
            return self
        trainings = self._plan(X, y, None, first=not (self.warm_start and hasattr(self, "modules_")))
        run(trainings, *self._passes(), self.shuffle, self.verbose)
        return self._done(trainings)

    def _partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        trainings = self._plan(X, y, classes, first=not hasattr(self, "modules_"))
        run(trainings, self._passes()[0], 1, self.shuffle, self.verbose)
        return self._done(trainings)

    def _passes(self) -> tuple[int, int]:
        """(rows of a batch, epochs)."""
        name = type(self).__name__
        return as_count(self.batch_size, f"{name}: batch_size"), as_count(self.epochs, f"{name}: epochs")

    def _plan(self, X: Any, y: Any, classes: Any, first: bool) -> list[Training]:
        """Everything checked and made, nothing trained yet."""
        self._passes()
        values = isinstance(self, RegressorMixin)
        X, y = validate_data(self, X, y, reset=first, allow_nd=True, multi_output=True, y_numeric=values)
        y = self._targets(y, classes, first)
        random = check_random_state(self.random_state)
        seeds = [int(seed) for seed in random.randint(2**31, size=self._count())]
        held_out = None
        if self.early_stopping:
            parts = train_test_split(
                X, y, test_size=self.validation_fraction, random_state=random, stratify=None if values else y
            )
            X, y, held_out = parts[0], parts[2], (parts[1], parts[3])
        if first:
            made = [self._made(X, y, seed) for seed in seeds]
            self.modules_, self.optimizers_ = [list(each) for each in zip(*made, strict=True)]
            self.loss_curves_: list[list[float]] = [[] for _ in made]
        x, loss = self._as_input(X), self._loss()
        output = torch.from_numpy(outputs(self.modules_[0], x[:2]))
        if output.ndim == 0 or len(output) != len(x[:2]):
            raise ArgumentError(
                f"{type(self).__name__}: module must give a row for each of {len(x[:2])} rows; "
                f"got shape {list(output.shape)}"
            )
        target = self._fitting(y, output, loss)
        rows = self._rows(len(x), random)
        kept = None if held_out is None else (self._as_input(held_out[0]), held_out[1])
        return [
            Training(module, optimizer, loss, x, target, seed, index, self._stopping(kept))
            for module, optimizer, seed, index in zip(self.modules_, self.optimizers_, seeds, rows, strict=True)
        ]

    def _count(self) -> int:
        """How many networks."""
        return 1

    def _rows(self, n: int, random: Any) -> list[torch.Tensor | None]:
        """The rows that each network sees; None: all."""
        return [None] * self._count()

    def _stopping(self, held_out: tuple[torch.Tensor, np.ndarray] | None) -> Stopping | None:
        if held_out is None:
            return None
        x, y = held_out
        return Stopping(lambda output: self._score(output, y), x, self.n_iter_no_change, self.tol)

    def _done(self, trainings: list[Training]) -> Any:
        """The estimator, after its training."""
        for training, curve in zip(trainings, self.loss_curves_, strict=True):
            if training.stopping is not None:
                training.module.load_state_dict(training.stopping.state)
            curve += training.curve
            if not all(torch.isfinite(p.data).all() for p in training.module.parameters()):
                raise ValueError(
                    f"{type(self).__name__}: training produced parameters that are not finite; "
                    "scale the data or lower lr"
                )
        stoppings = [t.stopping for t in trainings if t.stopping is not None]
        if stoppings:
            self._stopped(stoppings)
        self.n_iter_ = max(map(len, self.loss_curves_))
        return self

    def _stopped(self, stoppings: list[Stopping]) -> None:
        """Keep what early stopping saw."""
        self.validation_scores_: Any = [each.scores for each in stoppings]
        self.best_validation_score_: Any = [each.best for each in stoppings]

    def _made(self, X: np.ndarray, y: np.ndarray, seed: int) -> tuple[Module, Optimizer]:
        with seeded(seed):
            module = self._built(X, y)
        return module, self.optimizer(module.parameters(), lr=self.lr, **(self.optimizer_params or {}))

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
        leaf = next((m for m in self.modules_[0].modules() if not list(m.children())), None)
        if not isinstance(leaf, Embedding | EmbeddingBag) and X.dtype.kind != "f":
            X = X.astype(np.float32)
        value: torch.Tensor = as_input(self.modules_[0], torch.from_numpy(np.ascontiguousarray(X)))
        return value

    # --- prediction -----------------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> list[np.ndarray]:
        """What every module gives for the rows of X."""
        check_is_fitted(self, "modules_")
        x = self._as_input(validate_data(self, X, reset=False, allow_nd=True))
        return [outputs(module, x) for module in self.modules_]


class Classifying(ClassifierMixin, Networks):  # type: ignore[misc]
    """Targets are classes; outputs become probabilities."""

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
            return np.concatenate([1 - p, p], 1) if p.shape[1] == 1 else np.asarray(p / p.sum(1, keepdims=True))
        return np.asarray(np.exp(output) if isinstance(loss, NLLLoss) else softmax(output, 1))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [n, classes]: the softmax of the outputs, or what `loss` says that they are (NLLLoss:
        logarithms; BCEWithLogitsLoss: logits, one for each class or one for the second of two); their mean over
        several networks."""
        return np.asarray(np.mean([self._probabilities(output) for output in self._outputs(X)], axis=0))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])


class Regressing(RegressorMixin, Networks):  # type: ignore[misc]
    """Targets are numbers; outputs are shaped like them."""

    default_loss = MSELoss

    def partial_fit(self, X: Any, y: Any) -> Any:
        """One pass over X and y, going on from where the estimator is."""
        return self._partial_fit(X, y)

    def _targets(self, y: Any, classes: Any, first: bool) -> np.ndarray:
        values: np.ndarray = np.asarray(y, dtype=np.float64)
        if first:
            self._shape = values.shape[1:]
        return values

    def _n_outputs(self, y: np.ndarray) -> int:
        return int(np.prod(y.shape[1:]))

    def _score(self, output: np.ndarray, y: np.ndarray) -> float:
        return float(r2_score(y, output.reshape(y.shape)))

    def _values(self, X: Any) -> list[np.ndarray]:
        """Every network's values, shaped like the y of `fit`; float32 for such an X, else float64."""
        dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        return [output.reshape(len(output), *self._shape).astype(dtype) for output in self._outputs(X)]

    def predict(self, X: Any) -> np.ndarray:
        """Values, shaped like the y of `fit`: their mean over several networks."""
        return np.asarray(np.mean(self._values(X), axis=0))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
