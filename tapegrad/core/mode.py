"""What each thread records: grad mode, open tapes, the search for anomalies."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from .extension import _C


class _Rare(threading.local):
    """What hardly anything reads; the class attributes are each new thread's defaults."""

    anomaly = False
    tapes: tuple[Any, ...] = ()


class _Mode(_C.Switches):
    """Per-thread switches. ``record`` (grad mode) and ``tracer`` (what records a compiled step, or None) are kept where
    C++ reads them at every call."""

    def __init__(self) -> None:
        self._rare = _Rare()

    @property
    def watched(self) -> bool:
        """A Tape is open or anomalies are looked for. Kept, by thread too, where every recorded call reads it."""
        return _C.watched()

    @watched.setter
    def watched(self, on: bool) -> None:
        _C.watch(on)

    @property
    def anomaly(self) -> bool:
        """Whether the first NaN or infinity is an error."""
        return self._rare.anomaly

    @anomaly.setter
    def anomaly(self, on: bool) -> None:
        self._rare.anomaly = on

    @property
    def tapes(self) -> tuple[Any, ...]:
        """The open ones, each with a list of ``entries``."""
        return self._rare.tapes

    @tapes.setter
    def tapes(self, opened: tuple[Any, ...]) -> None:
        self._rare.tapes = opened


mode = _Mode()


class set_grad_enabled:
    """Switch recording on or off for this thread, at once; as a context manager or decorator, for its extent."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = bool(enabled)
        self._before = mode.record
        mode.record = self._enabled

    def __enter__(self) -> None:
        mode.record = self._enabled

    def __exit__(self, *exc: object) -> None:
        mode.record = self._before

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode.record = self._before  # decorating is not entering
        return _during(lambda: set_grad_enabled(self._enabled), function)


def _during(context: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` run inside a fresh `context()` on every call; a generator function, on every step."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Any:
            generator, sent = function(*args, **kwargs), None
            try:
                while True:
                    with context():
                        item = generator.send(sent)
                    sent = yield item
            except StopIteration as stop:
                return stop.value
            finally:
                generator.close()

        return steps

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return run


class _GradMode:
    """Context manager and decorator (with or without parentheses) that fixes grad mode for its extent."""

    enabled: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else _during(cls, function)

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(mode.record)
        mode.record = self.enabled

    def __exit__(self, *exc: object) -> None:
        mode.record = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _during(type(self), function)


class no_grad(_GradMode):
    """Record nothing inside: results need no gradient, leaves may be updated in place."""

    enabled = False


class enable_grad(_GradMode):
    """Record inside, also within `no_grad`."""

    enabled = True


def is_grad_enabled() -> bool:
    """Whether this thread records."""
    return mode.record


class detect_anomaly:
    """Inside, the first entry (forward or backward) that makes a NaN or an infinity raises `NonFiniteError`.

    The error names the op, the line that recorded it, the shape and the first bad index. Every recorded value is
    read once more, so this is for finding a fault, not for training. ``check_nan`` is torch's argument; only True has
    a meaning here.
    """

    def __init__(self, check_nan: bool = True) -> None:
        pass

    def __enter__(self) -> None:
        self._before = mode.anomaly, mode.watched
        mode.anomaly = mode.watched = True

    def __exit__(self, *exc: object) -> None:
        mode.anomaly, mode.watched = self._before
