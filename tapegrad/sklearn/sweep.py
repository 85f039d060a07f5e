"""`SweepCV`: a grid search whose candidates and folds are trained at once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import _safe_indexing

from .base import Networks
from .multilayer import Fit, Taped, train, waiting
from .training import Training, run, trained


class SweepCV(GridSearchCV):  # type: ignore[misc]
    """`sklearn.model_selection.GridSearchCV` for networks: all candidates on all folds are one `tapegrad.run_together`.

    Networks that agree in `batch_size`, `epochs` and `shuffle` are trained at once, `MLPClassifier` and `MLPRegressor`
    that agree in `batch_size`; structures may differ. Scores, refitting and every attribute are GridSearchCV's own, and
    for a ``random_state`` that is a number the scores are its scores, too. ``mean_fit_time`` is the time of all
    trainings divided by their number. An estimator that is not of `tapegrad.sklearn` is searched as GridSearchCV does.

    >>> import tapegrad as tg
    >>> from tapegrad.sklearn import NetworkClassifier, SweepCV
    >>> from sklearn.datasets import make_moons
    >>> def network(inputs, outputs):
    ...     return tg.nn.Sequential(tg.nn.Linear(inputs, 16), tg.nn.Tanh(), tg.nn.Linear(16, outputs))
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> search = SweepCV(NetworkClassifier(network, random_state=0), {"lr": [1e-4, 1e-2]}, cv=3).fit(X, y)
    >>> search.best_params_
    {'lr': 0.01}

    Parameters
    ----------
    estimator, param_grid, scoring, refit, cv, verbose, error_score, return_train_score : as for GridSearchCV
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Train and score all candidates on all folds, then, with ``refit``, the best on all rows."""
        if not isinstance(self.estimator, Networks | Taped) or params:
            return super().fit(X, y, **params)
        folds = list(check_cv(self.cv, y, classifier=is_classifier(self.estimator)).split(X, y))
        candidates = [c for c in ParameterGrid(self.param_grid) for _ in folds]
        start = time.perf_counter()
        estimators = self._trained(candidates, folds, X, y)
        share = (time.perf_counter() - start) / max(1, len(candidates))
        settings = {k: v for k, v in self.get_params(deep=False).items() if k != "cv"}
        search = GridSearchCV(**settings, cv=folds)
        with trained(estimators):
            search.fit(X, y)
        self.__dict__.update({k: v for k, v in vars(search).items() if k not in settings and k != "cv"})
        self.cv_results_["mean_fit_time"][:] = share
        self.cv_results_["std_fit_time"][:] = 0
        return self

    def _trained(self, candidates: list[Any], folds: list[Any], X: Any, y: Any) -> list[Any]:
        """Fitted estimators, candidate after candidate; None for one that GridSearchCV has to train, or to report."""
        estimators: list[Any] = [clone(self.estimator).set_params(**clone(c, safe=False)) for c in candidates]
        parts = [(_safe_indexing(X, train), _safe_indexing(y, train)) for train, _ in folds]
        at_once = _networks if isinstance(self.estimator, Networks) else _perceptrons
        return at_once(estimators, [parts[k % len(folds)] for k in range(len(estimators))], self.verbose > 0)


def _networks(estimators: list[Any], parts: list[Any], progress: bool) -> list[Any]:
    plans: dict[Any, list[tuple[int, list[Training]]]] = {}
    for k, (estimator, (x, target)) in enumerate(zip(estimators, parts, strict=True)):
        try:
            plan = estimator._plan(x, target, None, True)
        except Exception:  # reported, with its traceback, when GridSearchCV trains it by itself
            estimators[k] = None
            continue
        plans.setdefault((*estimator._passes(), estimator.shuffle), []).append((k, plan))
    for (batch_size, epochs, shuffle), planned in plans.items():
        run([t for _, plan in planned for t in plan], batch_size, epochs, shuffle, progress)
        for k, plan in planned:
            try:
                estimators[k]._done(plan)
            except ValueError:  # its parameters are not finite, which GridSearchCV reports likewise
                estimators[k] = None
    return estimators


def _perceptrons(estimators: list[Any], parts: list[Any], progress: bool) -> list[Any]:
    plans: dict[int, list[tuple[int, Fit]]] = {}
    for k, (estimator, (x, target)) in enumerate(zip(estimators, parts, strict=True)):
        try:
            with waiting() as fits:
                estimator.fit(x, target)
        except Exception:
            estimators[k] = None
            continue
        for fit in fits:  # none for the solver "lbfgs"
            plans.setdefault(fit.batch_size, []).append((k, fit))
    for planned in plans.values():
        train([fit for _, fit in planned], progress)
        for k, _ in planned:
            if not all(np.isfinite(p).all() for p in (*estimators[k].coefs_, *estimators[k].intercepts_)):
                estimators[k] = None
    return estimators
