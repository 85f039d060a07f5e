"""A forked process has one thread: those that compute beside it, and those that hold a lock, are not in it.

Work shared out to threads that are gone is waited for for ever, by torch's own operators too: the runtime that they all
share (OpenMP's) believes that its threads are still there. So a fork ends them first. Parent and child start new ones
with the next work that is shared, however many either is told to use, and the child's locks are new ones.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import torch

from .extension import _C

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def fork_safe_lock() -> Any:
    """A reentrant lock that nobody holds in a forked child."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


_ended = False  # the threads, by the last fork


def _before() -> None:
    global _ended
    _ended = _C.end_threads()


def _in_child() -> None:
    for lock in _locks:
        lock._at_fork_reinit()
    if not _ended:  # forked by one of them: nothing is shared out, as long as nobody asks for more threads
        torch.set_num_threads(1)


os.register_at_fork(before=_before, after_in_child=_in_child)
