"""``tg.profiler``: torch's. It sees the operators of torch that an eager step runs, and the blocks that are named by
`record_function`, but not tapegrad's own kernels; a compiled step's time is shown by its `profile`.
"""

from torch.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

__all__ = ["ProfilerAction", "ProfilerActivity", "profile", "record_function", "schedule", "supported_activities"]
__all__ += ["tensorboard_trace_handler"]
