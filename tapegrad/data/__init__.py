"""From a source to a batch: the reports' data sets, standardizing, batches and folds. Public as ``tg.data``.

Imports the core and the ops. Every function depends on its arguments and its ``seed`` alone. The compiled tape and
training share two of its files that are not public: `arguments` (checks of counts, seeds, rows) and `streams` (seeds).
"""

from .batches import batches, kfold, standardize
from .sets import PHOTOGRAPHS, RADIUS, disk, noisy_patches, quarter_circle

__all__ = [
    "PHOTOGRAPHS",
    "RADIUS",
    "batches",
    "disk",
    "kfold",
    "noisy_patches",
    "quarter_circle",
    "standardize",
]
