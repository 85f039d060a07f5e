"""Suite `sklearn`: scikit-learn's perceptrons beside `tapegrad.sklearn`'s, and sweeps beside single fits."""

from .suite import run

__all__ = ["run"]
