"""A forked process has one thread: those that torch computes with, and those that hold a lock, are not in it.

Work shared out to threads that are gone is waited for for ever, in torch's own operators too. So the child computes
with one thread (results do not depend on how many there are), and its locks are new ones. More threads than one in a
child need a process that was spawned.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import torch

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def fork_safe_lock() -> Any:
    """A reentrant lock that nobody holds in a forked child."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def _in_child() -> None:
    for lock in _locks:
        lock._at_fork_reinit()
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


os.register_at_fork(after_in_child=_in_child)
