"""Second names of arguments, for functions of which torch's documents, schemas or older versions know two."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def also(function: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
    """The function that takes each key of `names` for the argument it stands for, too."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for other in names.keys() & kwargs.keys():
            if names[other] in kwargs:
                raise TypeError(f"{function.__name__}() got both {other!r} and {names[other]!r}, which mean the same")
            kwargs[names[other]] = kwargs.pop(other)
        return function(*args, **kwargs)

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    del call.__wrapped__  # this is the function that everybody sees
    return call
