"""torch's names that tapegrad does not have, and why: a question for one (``hasattr``) is answered no, with the reason.

One table of patterns, the first that fits a name counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

_REASONS = {
    "it is about complex numbers, and every Tensor is real": (
        r"imag|chalf|cfloat|cdouble|complex\w*|polar|view_as_(complex|real)\w*|i?stft|eig|eigvals|fft"
    ),
    "every Tensor is float32, float64, an integer or bool": r"half|bfloat16|\w*16Tensor|HalfTensor|u?int(16|32|64)",
    "every Tensor is dense": (
        r"\w*[sS]parse\w*|coalesce|is_coalesced|[crw]*(col|row)_indices\w*|indices\w*|values\w*|dense_dim|jagged"
        r"|smm|spmm|hspmm|hsmm|dsmm|saddmm|sspaddmm|to_padded_tensor|nested\w*"
    ),
    "there are no quantised dtypes": (
        r"q_\w+|\w*quant\w*|qscheme|int_repr|per_(channel|tensor)\w*|qu?int\w*|choose_qparams\w*|fake_\w+"
        r"|fused_moving\w+|bits?\w*|float[48]\w*|u?int[1-7]"
    ),
    "a batch lies in one process; use BatchNorm": r"SyncBatchNorm",
    "tapegrad computes on the CPU, with kernels of its own": (
        r"(cudnn|miopen|mkldnn|fbgemm|xpu|mps|mtia|hpu|ipu|maia|xla|vulkan)\w*|to_mkldnn|Stream|Event|record_stream"
        r"|get_device_module"
    ),
    "there is no half precision to cast to; see tg.amp": r"\w*autocast\w*|GradScaler",
    "torch keeps it for old code": (
        r"symeig|lstsq|solve|matrix_rank|lobpcg|reinforce|volatile|new|resize(_as)?|storage(_type)?|\w+Storage"
    ),
    "it belongs to torch's compilers; see tg.compile": (
        r"sym_\w+|Sym\w+|cond|while_loop|fork|wait|jit|Script\w+|\w+Type|parse_\w+|import_ir\w*"
    ),
    "dimensions have no names": r"names?|refine_names|rename\w*|align_\w+|has_names",
    "recurrent networks are modules here: nn.GRU, nn.LSTM, nn.RNN": r"(gru|lstm|rnn_tanh|rnn_relu)(_cell)?",
    "use nn.MultiheadAttention, or scaled_dot_product_attention": r"multi_head_attention_forward",
    "it is a part of torch's inside": (
        r"batch_norm_\w+|native_\w+|\w+_backward\w*|embedding_renorm_|\w+_copy|norm_except_dim|segment_reduce"
    ),
    "it is about torch's own tensor, which is .data": r"const_data_ptr|module_load|as_subclass",
    "no generator of ours draws from it": r"poisson|binomial",
}
_COMPILED = [(re.compile(pattern), why) for why, pattern in _REASONS.items()]


def reason(name: str) -> str:
    """Why tapegrad does not have torch's `name`."""
    for pattern, why in _COMPILED:
        if pattern.fullmatch(name):
            return why
    return (
        "no public script was seen to use it on a CPU; compute with .data for a constant, or define an op with @tg.op"
    )


def absent(module: str, torchs: Any) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that stands for one of torch's."""

    def missing(name: str) -> Any:
        if name.startswith("_") or not hasattr(torchs, name):
            raise AttributeError(f"module '{module}' has no attribute {name!r}")
        raise AttributeError(f"{module} has no {name!r}, which torch has: {reason(name)}")

    return missing


class Absent:
    """In the place of a method that torch's tensors have and ours do not: no attribute, with the reason."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(f"Tensor has no {self.name!r}, which torch's has: {reason(self.name)}")


def mark_absent(cls: type) -> None:
    """Give a Tensor class a reason for each public name of torch's that it does not have."""
    for name in dir(torch.Tensor):
        if not name.startswith("_") and not hasattr(cls, name):
            setattr(cls, name, Absent(name))
