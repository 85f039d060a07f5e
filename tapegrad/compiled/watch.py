"""Whose code runs while a step is recorded, and what a replay could not stand for."""

from __future__ import annotations

import os
import random
import sys
import sysconfig
import warnings
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch

from ..core import _C, PACKAGE

ESCAPES = {name: f"{name}()" for name in ("numpy", "tolist", "data_ptr", "untyped_storage", "apply_", "map_", "map2_")}
_READS = (os.path.join(PACKAGE, "compiled"), os.path.join(PACKAGE, "core", "protocols.py"))  # item(), bool(), ...
STDLIB = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_TORCH = torch.__path__[0]
TEXT = torch._tensor_str._str.__code__


_own_code: dict[CodeType, bool] = {}


def is_users(frame: FrameType) -> bool:
    """Whether a frame runs the user's own code: not the package's, torch's or the standard library's."""
    code = frame.f_code
    known = _own_code.get(code)
    if known is None:
        name = code.co_filename
        library = name.startswith(STDLIB) and "site-packages" not in name
        made = str(frame.f_globals.get("__name__")).startswith("namedtuple_")
        known = _own_code[code] = not (name.startswith((PACKAGE, _TORCH, "<frozen")) or library or made)
    return known


def where() -> str:
    """``file.py:line`` of the user's code that is running."""
    return _C.user_line(is_users, place)


def place(frame: FrameType) -> str:
    """``file.py:line`` of a frame: where it stands, or where it returned."""
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


# What stands between the user's call and the function that was called.
_PLUMBING = {"call", "forward", "function", "run", "step", "method"}


def reader() -> str | None:
    """The function of the package inside which a value is read; None where the user's code reads it."""
    found, frame = None, sys._getframe(1)
    while frame.f_back is not None and not is_users(frame):
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if file.startswith(PACKAGE) and not file.startswith(_READS):
            owner = frame.f_locals.get("self") if name in _PLUMBING else None
            if owner is not None:
                found = type(owner).__name__
            elif name not in _PLUMBING and name[0] not in "_<":
                found = name
        frame = frame.f_back
    return found


def warn(text: str) -> None:
    """A RuntimeWarning at the line of the user's code that is running."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and not is_users(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def side_effect(function: Any) -> str | None:
    """Why a replay could not stand for a call of this C function; None if it could."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if function is print:
        return "print() is a side effect; a replay would not print"
    if name == "start_new_thread":
        return "a thread is started; a replay would not start it"
    if isinstance(owner, random.Random) or type(owner).__module__.startswith("numpy.random"):
        return f"{name}() draws from Python's or NumPy's generator; use tg.rand, tg.randn or an argument"
    if isinstance(owner, ModuleType) and owner.__name__ == "time":
        return f"time.{name}() differs from call to call"
    return None


def for_user(frame: FrameType | None) -> bool:
    """Whether a frame of the standard library, or the user's own, was entered from the user's code."""
    while frame is not None and frame.f_code.co_filename.startswith(STDLIB) and not _is_package(frame):
        frame = frame.f_back
    return frame is not None and is_users(frame) and not importing(frame)


def importing(frame: FrameType | None) -> bool:
    """Whether a frame runs because a module is imported for the first time, and sets itself up."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _is_package(frame: FrameType) -> bool:
    return "site-packages" in frame.f_code.co_filename
