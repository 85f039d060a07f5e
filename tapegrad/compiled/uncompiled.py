"""When a compiled step runs as it is, and what is said about that.

A step is *new* until it has a program or three calls are done. What cannot be compiled is refused while it is new, so
that a mistake shows at once. Later it is not, as a training must not die of being compiled: the call runs as it is, and
one warning says why and what to write instead.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

from .watch import warn

NEW = 3  # calls: the first may set something up, and two must agree
REST = 1000  # calls that run as they are before a recording is tried again
_WORTH = 4  # replays that a recording must be good for
_KEPT = 256  # signatures


class Uncompiled:
    """What a step knows of its calls that run as they are.

    Parameters
    ----------
    patience : recordings that may turn out to be worth nothing, in a row
    """

    def __init__(self, patience: int) -> None:
        self.done = 0  # recorded calls that are over
        self._patience = patience
        self._rests: OrderedDict[Any, int] = OrderedDict()  # calls left, by signature; None: of any
        self._said = False
        self.unsaid: str | None = None  # a warning that is due
        self._recordings = 0  # since so many replays
        self._replays = 0
        self._moved: Counter[str] = Counter()  # how often what made a new recording necessary

    def rests(self, key: Any) -> bool:
        """Whether a call of this signature runs as it is; counts it."""
        for which in (key, None):
            left = self._rests.get(which, 0)
            if left:
                self._rests[which] = left - 1
                return True
        return False

    def resting(self, key: Any) -> bool:
        """Whether the next call of this signature would run as it is."""
        return any(self._rests.get(which, 0) for which in (key, None))

    def give_up(self, key: Any, text: str) -> None:
        """Let calls of a signature (None: all) run as they are for a while; the first time, `say` so."""
        self._rests[key] = REST
        if len(self._rests) > _KEPT:
            self._rests.popitem(last=False)
        if not self._said and self.unsaid is None:
            self.unsaid = text

    def say(self) -> None:
        """Warn, now that no recorded call is under way: where warnings are errors, this raises."""
        text, self.unsaid, self._said = self.unsaid, None, True
        if text is not None:
            warn(text)

    def is_quiet(self) -> None:
        """Nothing is ever said."""
        self._said = True

    def moved(self, path: str) -> None:
        """A new recording is necessary because this has changed."""
        self._moved[path] += 1

    def why_not(self, replays: int) -> str | None:
        """One more recording, after so many replays in all: why no further one should be made, if that is so."""
        self._recordings += 1
        if not 0 <= replays - self._replays < _WORTH * self._recordings:
            self._recordings, self._replays = 0, replays
            self._moved.clear()
        if self._recordings < self._patience:
            return None
        self._recordings = self._patience - NEW  # when it is tried again
        path = self._moved.most_common(1)[0][0] if self._moved else "the shape, dtype or value of an argument"
        return self.again(path)

    @staticmethod
    def again(path: str) -> str:
        """Why recordings are worth nothing, and what to write instead."""
        if path.endswith("argument"):
            instead = "use few shapes, and 0-dim tensors for numbers"
        elif "gradient" in path:
            instead = "change it in place (p.grad.mul_), or inside the step"
        else:
            instead = "pass it as an argument, a 0-dim tensor"
        return f"it is recorded again and again because {path} keeps changing; {instead}"
