"""``tg.distributed``: what scripts ask of several processes, answered for one.

Questions are answered (`is_available` is False), and what would need a process group raises StateError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core import StateError

_QUESTIONS = "is_available is_initialized is_nccl_available is_gloo_available is_mpi_available is_torchelastic_launched"
_NEED_A_GROUP = """
init_process_group destroy_process_group get_rank get_world_size get_backend new_group barrier all_reduce all_gather
all_gather_into_tensor all_gather_object broadcast broadcast_object_list reduce reduce_scatter reduce_scatter_tensor
gather scatter send recv isend irecv all_to_all ReduceOp monitored_barrier get_default_backend_for_device
init_device_mesh
"""

__all__ = [*_QUESTIONS.split(), *_NEED_A_GROUP.split()]


def _no(name: str) -> Callable[..., bool]:
    def function() -> bool:
        return False

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "False: tapegrad trains in one process."
    return function


def _refusing(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise StateError(f"distributed.{name}: tapegrad trains in one process (ask distributed.is_available())")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Raises StateError: there is no group of processes."
    return function


globals().update({name: _no(name) for name in _QUESTIONS.split()})
globals().update({name: _refusing(name) for name in _NEED_A_GROUP.split()})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"tapegrad.distributed has no {name!r}: tapegrad trains in one process")
