"""``tapegrad.sklearn``: scikit-learn estimators that train on the compiled tape; the extra ``sklearn`` installs what it
needs. `MLPClassifier` and `MLPRegressor` are scikit-learn's own with another engine; `NetworkClassifier` and
`NetworkRegressor` train any module, `EnsembleClassifier` and `EnsembleRegressor` several at once, `SweepCV` all
candidates and folds of a grid search at once. Imports everything below it and scikit-learn, so `import tapegrad` does
not import it.
"""

try:
    import sklearn as _sklearn
except ImportError as error:
    raise ImportError('tapegrad.sklearn needs scikit-learn: pip install "tapegrad[sklearn]"') from error

if tuple(map(int, _sklearn.__version__.split(".")[:2])) < (1, 7):
    raise ImportError(f"tapegrad.sklearn needs scikit-learn 1.7 or newer; got {_sklearn.__version__}")

from .multilayer import MLPClassifier, MLPRegressor
from .network import EnsembleClassifier, EnsembleRegressor, NetworkClassifier, NetworkRegressor
from .sweep import SweepCV

__all__ = [
    "EnsembleClassifier",
    "EnsembleRegressor",
    "MLPClassifier",
    "MLPRegressor",
    "NetworkClassifier",
    "NetworkRegressor",
    "SweepCV",
]
