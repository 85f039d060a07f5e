"""torch.nn.functional's names: the ops of `tapegrad.ops` that torch keeps there, under the same names.

Activations and dropout take torch's last argument ``inplace`` too, and write over their input as
`ops.inplace.overwritten` says: a leaf that requires a gradient is left alone, and the result is a new tensor.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import ops
from ..core import Tensor
from ..ops import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    affine_grid,
    alpha_dropout,
    avg_pool1d,
    avg_pool2d,
    batch_norm,
    bilinear,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    cosine_embedding_loss,
    cosine_similarity,
    cross_entropy,
    dropout1d,
    dropout2d,
    dropout3d,
    embedding,
    embedding_bag,
    feature_alpha_dropout,
    fold,
    gaussian_nll_loss,
    gelu,
    glu,
    grid_sample,
    group_norm,
    gumbel_softmax,
    hardshrink,
    hinge_embedding_loss,
    huber_loss,
    instance_norm,
    interpolate,
    kl_div,
    l1_loss,
    layer_norm,
    linear,
    local_response_norm,
    log_softmax,
    logsigmoid,
    lp_pool1d,
    lp_pool2d,
    margin_ranking_loss,
    max_pool1d,
    max_pool2d,
    mse_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
    normalize,
    one_hot,
    pad,
    pairwise_distance,
    pixel_shuffle,
    pixel_unshuffle,
    poisson_nll_loss,
    prelu,
    rms_norm,
    scaled_dot_product_attention,
    sigmoid,
    smooth_l1_loss,
    soft_margin_loss,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
    unfold,
    upsample_nearest2d,
)
from ..ops.inplace import overwritten


def _with_inplace(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The op with torch's last positional argument `inplace`: the result is written over the input."""
    arguments = [name for name, p in inspect.signature(op).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]

    @functools.wraps(op)
    def function(*args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        result = op(*args[: len(arguments)], **kwargs)
        inplace = inplace or any(args[len(arguments) :])
        return overwritten(inplace, args[0] if args else kwargs["input"], result)  # type: ignore[no-any-return]

    function.__module__ = __name__  # where pickle finds it
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
hardsigmoid = _with_inplace(ops.hardsigmoid)
hardswish = _with_inplace(ops.hardswish)
rrelu = _with_inplace(ops.rrelu)
threshold = _with_inplace(ops.threshold)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "affine_grid",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "embedding_bag",
    "feature_alpha_dropout",
    "fold",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "unfold",
    "upsample_nearest2d",
]
