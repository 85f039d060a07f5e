"""``nn.parallel``: training on several processes, and torch's wrapper of several devices for the one there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed

from ..core import ArgumentError, StateError, Tensor
from .collectives import all_reduce_, broadcast_, described_alike
from .module import Module


class DataParallel(Module):
    """The module itself under the name ``module``, as torch's without a device to spread over: calls pass through."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """``module(*inputs, **kwargs)``."""
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """The same module on every process of a group; ``backward`` leaves in ``.grad`` the mean over the processes.

    Every process computes its own batch. As soon as a backward has the gradients of all parameters, one all-reduce of
    one flat buffer averages them, so the optimizers of all processes do the same, bit for bit. Parameters and buffers
    start as those of rank 0. Inside `tapegrad.compile` the all-reduce is an instruction of the program.

    Parameters
    ----------
    module : the module, of the same structure on every process
    broadcast_buffers : buffers become those of rank 0 where gradients are averaged, in training mode
    process_group : of `tapegrad.distributed.new_group`; None is the default group
    find_unused_parameters : must be False: every backward has to reach every parameter that requires a gradient
    unequal_batches : True takes batches of different sizes, and `.grad` is the mean over the processes all the same, as
        torch's (for inputs whose first dimension is not that of rows)
    device_ids, output_device, dim, bucket_cap_mb, check_reduction, gradient_as_bucket_view, static_graph : accepted as
        torch's; without an effect on a CPU

    A mean over the processes is the mean over all their rows where their batches are of one size: the first dimension
    of the first tensor that the module was last given in training mode. The sizes travel with the gradients, and a
    difference is refused on every process before anything changes. The number of batches must be the same, too.

    Raises
    ------
    StateError : no process group; or the last backward did not reach every parameter
    ArgumentError : in backward, the processes' batches have different sizes
    ArgumentError : the module has no parameter that requires a gradient, or another structure on another process

    A process that ends or fails ends the others with the error of torch's backend, at the latest after its timeout.

    Source: Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training, VLDB 2020.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        *,
        unequal_batches: bool = False,
    ) -> None:
        super().__init__()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            raise StateError("DistributedDataParallel: no process group; call distributed.init_process_group first")
        if find_unused_parameters:
            raise ArgumentError(
                "DistributedDataParallel: find_unused_parameters must be False; freeze unused parameters instead "
                "(requires_grad_(False))"
            )
        group: Any = torch.distributed.group.WORLD if process_group is None else process_group
        if not any(p.requires_grad for p in module.parameters()):
            raise ArgumentError("DistributedDataParallel: module must have a parameter that requires a gradient")
        self.module = module
        self.broadcast_buffers = broadcast_buffers
        self.unequal_batches = unequal_batches
        self.require_backward_grad_sync = True
        self._group = group.group_name
        self._arrived = Arrived()
        described_alike([(name, list(v.shape), str(v.dtype)) for name, v in module.state_dict().items()], group)
        if init_sync:
            broadcast_([v.data for v in module.state_dict().values()], self._group)
        for p in module.parameters():
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(self._has_gradient)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """``module(*inputs, **kwargs)``."""
        if self._arrived.ids:
            missing = [
                n for n, p in self.module.named_parameters() if p.requires_grad and id(p) not in self._arrived.ids
            ]
            self._arrived.clear()
            raise StateError(
                f"DistributedDataParallel: the last backward did not reach {', '.join(missing)}; "
                "freeze what the loss does not use (requires_grad_(False))"
            )
        first = next((v for v in (*inputs, *kwargs.values()) if isinstance(v, Tensor | torch.Tensor) and v.ndim), None)
        if first is not None and self.training:
            self._arrived.rows = first.shape[0]
        return self.module(*inputs, **kwargs)

    def _has_gradient(self, p: Tensor) -> None:
        if not self.require_backward_grad_sync:
            return
        self._arrived.ids.add(id(p))
        wanted = [q for q in self.module.parameters() if q.requires_grad]
        if len(self._arrived.ids) < len(wanted):
            return
        rows = self._arrived.rows
        self._arrived.clear()
        grads = [q.grad.data for q in wanted if q.grad is not None]
        all_reduce_(grads, "avg", self._group, -1 if self.unequal_batches else rows)
        buffers = [b.data for b in self.module.buffers()] if self.broadcast_buffers and self.training else []
        if buffers:
            broadcast_(buffers, self._group)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients stay those of the process: they accumulate, and the next backward outside averages sums."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before


class Arrived:
    """The parameters whose gradient the backward under way has, and the rows of the last batch; nothing between the
    steps, so no state of one."""

    walked = ()

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a step."""
        self.ids: set[int] = set()
        self.rows = 0
