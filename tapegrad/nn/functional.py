"""torch.nn.functional's names: the ops of `tapegrad.ops` that torch keeps there, under the same names.

Losses take torch's older ``size_average`` and ``reduce`` by keyword. Activations and dropout take torch's last argument
``inplace`` too, and write over their input as `ops.inplace.overwritten` says: a leaf that requires a gradient is left
alone, and the result is a new tensor.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch

from .. import ops
from ..core import Tensor, absent
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
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    cosine_similarity,
    ctc_loss,
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
    huber_loss,
    instance_norm,
    interpolate,
    layer_norm,
    linear,
    local_response_norm,
    logsigmoid,
    lp_pool1d,
    lp_pool2d,
    max_pool1d,
    max_pool2d,
    normalize,
    one_hot,
    pad,
    pairwise_distance,
    pdist,
    pixel_shuffle,
    pixel_unshuffle,
    prelu,
    rms_norm,
    scaled_dot_product_attention,
    sigmoid,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    triplet_margin_with_distance_loss,
    unfold,
    upsample_nearest2d,
)
from ..ops.inplace import overwritten
from ..ops.spellings import POOLS, with_indices
from ..ops.volumes import __all__ as volumes


def _with_inplace(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The op with torch's last positional argument `inplace`: the result is written over the input."""
    arguments = [name for name, p in inspect.signature(op).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]

    @functools.wraps(op)
    def function(*args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        result = op(*args[: len(arguments)], **kwargs)
        inplace = inplace or any(args[len(arguments) :])
        return overwritten(inplace, args[0] if args else kwargs["input"], result)  # type: ignore[no-any-return]

    function.__module__ = __name__  # where pickle finds it
    seen = inspect.signature(op)
    last = inspect.Parameter("inplace", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False, annotation=bool)
    before = [p for p in seen.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    after = [p for p in seen.parameters.values() if p.kind is p.KEYWORD_ONLY]
    function.__signature__ = seen.replace(parameters=[*before, last, *after])  # type: ignore[attr-defined]
    return function


def _with_usual_dim(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The op where `dim` may be left out: 0 for 0, 1 or 3 dimensions, else 1, and torch's warning."""

    def function(
        input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None, *, axis: int | None = None
    ) -> Tensor:
        dim = axis if dim is None else dim
        if dim is None:
            dim = 0 if input.ndim in (0, 1, 3) else 1
            warnings.warn(f"{op.__name__}: dim was not given and is taken to be {dim}; write it out", UserWarning, 2)
        return op(input, dim, dtype)

    signature = inspect.signature(function)
    functools.update_wrapper(function, op)
    function.__module__ = __name__  # where pickle finds it
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _with_averages(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss with torch's older ``size_average=`` and ``reduce=``, which say what ``reduction=`` says."""

    @functools.wraps(op)
    def function(*args: Any, size_average: bool | None = None, reduce: bool | None = None, **kwargs: Any) -> Tensor:
        if size_average is not None or reduce is not None:
            kwargs["reduction"] = older_reduction(size_average, reduce)
        return op(*args, **kwargs)

    function.__module__ = __name__  # where pickle finds it
    seen = inspect.signature(op)
    older = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="bool | None")
        for name in ("size_average", "reduce")
    ]
    function.__signature__ = seen.replace(parameters=[*seen.parameters.values(), *older])  # type: ignore[attr-defined]
    return function


def older_reduction(size_average: bool | None, reduce: bool | None) -> str:
    """The ``reduction`` that torch's older arguments mean (None: true)."""
    return "none" if reduce is False else "sum" if size_average is False else "mean"


softmax = _with_usual_dim(ops.softmax)
log_softmax = _with_usual_dim(ops.log_softmax)
softmin = _with_usual_dim(ops.softmin)
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
binary_cross_entropy = _with_averages(ops.binary_cross_entropy)
binary_cross_entropy_with_logits = _with_averages(ops.binary_cross_entropy_with_logits)
cosine_embedding_loss = _with_averages(ops.cosine_embedding_loss)
cross_entropy = _with_averages(ops.cross_entropy)
hinge_embedding_loss = _with_averages(ops.hinge_embedding_loss)
kl_div = _with_averages(ops.kl_div)
l1_loss = _with_averages(ops.l1_loss)
margin_ranking_loss = _with_averages(ops.margin_ranking_loss)
mse_loss = _with_averages(ops.mse_loss)
multi_margin_loss = _with_averages(ops.multi_margin_loss)
multilabel_margin_loss = _with_averages(ops.multilabel_margin_loss)
multilabel_soft_margin_loss = _with_averages(ops.multilabel_soft_margin_loss)
nll_loss = _with_averages(ops.nll_loss)
poisson_nll_loss = _with_averages(ops.poisson_nll_loss)
smooth_l1_loss = _with_averages(ops.smooth_l1_loss)
soft_margin_loss = _with_averages(ops.soft_margin_loss)
triplet_margin_loss = _with_averages(ops.triplet_margin_loss)

celu_, elu_, hardtanh_, leaky_relu_, relu_, rrelu_, selu_, threshold_ = (
    functools.partial(op, inplace=True) for op in (celu, elu, hardtanh, leaky_relu, relu, rrelu, selu, threshold)
)


def upsample(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """`interpolate` under its older name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate`, "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate`, "bilinear" with ``align_corners``."""
    return interpolate(input, size, scale_factor, "bilinear", True)


_WITH_INDICES = {f"{name}_with_indices": with_indices(name) for name in POOLS}
globals().update({**{name: getattr(ops, name) for name in volumes}, **_WITH_INDICES})
native_channel_shuffle = channel_shuffle
__getattr__ = absent("tapegrad.nn.functional", torch.nn.functional)

__all__ = [
    *_WITH_INDICES,
    *volumes,
    "native_channel_shuffle",
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
    "ctc_loss",
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
    "pdist",
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
    *("celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_", "threshold_"),
    *("upsample", "upsample_bilinear", "upsample_nearest"),
]
