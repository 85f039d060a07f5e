"""``tg.special``: the ops that torch keeps there, under its names."""

from typing import Any

import torch

from .core import functions


def _offered() -> dict[str, Any]:
    found = {}
    for name in dir(torch.special):
        op = functions.get(f"special_{name}", functions.get(name))
        if not name.startswith("_") and op is not None:
            found[name] = op
    return found


globals().update(_offered())

__all__ = [*_offered()]
