"""torch.nn.functional's names: the ops of `tapegrad.ops` that torch keeps there, under the same names.

Activations and dropout take torch's last argument ``inplace`` too. A tape never overwrites a value it may need, so the
result is a new tensor either way.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import ops
from ..core import Tensor
from ..ops import (
    adaptive_avg_pool2d,
    avg_pool2d,
    batch_norm,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    conv1d,
    conv2d,
    conv_transpose2d,
    cross_entropy,
    embedding,
    fold,
    gelu,
    group_norm,
    huber_loss,
    interpolate,
    kl_div,
    l1_loss,
    layer_norm,
    linear,
    log_softmax,
    logsigmoid,
    max_pool2d,
    mse_loss,
    nll_loss,
    one_hot,
    pad,
    scaled_dot_product_attention,
    sigmoid,
    smooth_l1_loss,
    softmax,
    softplus,
    softsign,
    tanh,
    unfold,
    upsample_nearest2d,
)


def _with_inplace(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The op with torch's last positional argument `inplace`, which changes nothing."""
    arguments = [name for name, p in inspect.signature(op).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]

    @functools.wraps(op)
    def function(*args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        return op(*args[: len(arguments)], **kwargs)

    return function


celu = _with_inplace(ops.celu)
dropout = _with_inplace(ops.dropout)
elu = _with_inplace(ops.elu)
hardtanh = _with_inplace(ops.hardtanh)
leaky_relu = _with_inplace(ops.leaky_relu)
mish = _with_inplace(ops.mish)
relu = _with_inplace(ops.relu)
relu6 = _with_inplace(ops.relu6)
selu = _with_inplace(ops.selu)
silu = _with_inplace(ops.silu)

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "fold",
    "gelu",
    "group_norm",
    "hardtanh",
    "huber_loss",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "relu",
    "relu6",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
    "unfold",
    "upsample_nearest2d",
]
