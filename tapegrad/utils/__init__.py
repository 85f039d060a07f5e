"""``tg.utils``: data sets and loaders (`data`), and recomputing in backward (`checkpoint`), under torch's names."""

from . import checkpoint, data

__all__ = ["checkpoint", "data"]
