"""``tg.multiprocessing``: torch's. Tensors that are constants or leaves go to other processes by pickle."""

from torch.multiprocessing import *  # noqa: F403
from torch.multiprocessing import __all__ as _theirs
from torch.multiprocessing.spawn import spawn, start_processes

__all__ = [*_theirs, "spawn", "start_processes"]
