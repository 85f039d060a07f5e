"""``tg.plot``: pictures of trainings; they stand in `tapegrad.training.plot`. Needs matplotlib (extra ``plot``)."""

from .training.plot import decision_boundary, gradient_flow, images, learning_curves

__all__ = ["decision_boundary", "gradient_flow", "images", "learning_curves"]
