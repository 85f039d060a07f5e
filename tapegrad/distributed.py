"""``tg.distributed``: torch's process groups (gloo), for our tensors.

`all_reduce` and `nn.parallel.DistributedDataParallel` may stand in a compiled step; the other exchanges may not. All
that takes tensors takes constants: nothing here is differentiated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch.distributed as _dist

from .core import ArgumentError, Tensor, mode
from .nn.collectives import all_reduce_

_AS_THEY_ARE = """
is_available is_initialized is_gloo_available is_nccl_available is_mpi_available is_torchelastic_launched
init_process_group destroy_process_group get_rank get_world_size get_backend new_group get_group_rank get_global_rank
get_default_backend_for_device ReduceOp GradBucket Store TCPStore FileStore HashStore ProcessGroup group
"""
_EXCHANGES = """
barrier all_gather all_gather_into_tensor all_gather_object broadcast broadcast_object_list reduce reduce_scatter
reduce_scatter_tensor gather gather_object scatter scatter_object_list send recv isend irecv all_to_all
all_to_all_single monitored_barrier
"""

__all__ = ["all_reduce"]


def _constant(value: Any, name: str) -> Any:
    """The torch tensors behind arguments."""
    if isinstance(value, Tensor):
        if value.requires_grad and not value.is_leaf:
            raise ArgumentError(f"distributed.{name}: takes constants; got a recorded value (detach() it first)")
        return value._data
    if isinstance(value, list | tuple):
        return type(value)(_constant(v, name) for v in value)
    return value


def _exchange(name: str) -> Callable[..., Any]:
    theirs = getattr(_dist, name)

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if mode.tracer is not None:
            mode.tracer.refuse(f"distributed.{name} inside the step; only all_reduce may stand there")
        return theirs(*(_constant(a, name) for a in args), **{k: _constant(v, name) for k, v in kwargs.items()})

    return function


def all_reduce(tensor: Any, op: Any = None, group: Any = None, async_op: bool = False) -> Any:
    """`tensor` becomes its reduction over the processes of the group, in place.

    Parameters
    ----------
    tensor : a constant of any shape, or a parameter
    op : ``ReduceOp.SUM`` (the default), AVG, PRODUCT, MIN, MAX
    group : of `new_group`; None is the default group
    async_op : True returns work to wait for; not inside a compiled step
    """
    kind = _dist.ReduceOp.SUM if op is None else op
    names = {getattr(_dist.ReduceOp, n): n.lower() for n in ("SUM", "AVG", "PRODUCT", "MIN", "MAX")}
    if kind not in names:
        raise ArgumentError(f"distributed.all_reduce: op must be SUM, AVG, PRODUCT, MIN or MAX; got {op!r}")
    value = _constant(tensor, "all_reduce")
    if async_op:
        if mode.tracer is not None:
            mode.tracer.refuse("distributed.all_reduce(async_op=True) inside the step; leave async_op out")
        return _dist.all_reduce(value, kind, group, async_op=True)
    members = _dist.group.WORLD if group is None else group
    if members is None:
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    all_reduce_([value], names[kind], members.group_name)
    return None


for _name in _AS_THEY_ARE.split():
    if hasattr(_dist, _name):
        globals()[_name] = getattr(_dist, _name)
        __all__.append(_name)
for _name in _EXCHANGES.split():
    if hasattr(_dist, _name):
        globals()[_name] = _exchange(_name)
        __all__.append(_name)
