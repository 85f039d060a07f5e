"""torch's other spellings of ops: what ``torch.special``, ``torch.linalg`` and the dispatcher call them.

``torch.NAME(tensor)`` finds the op NAME (`Protocols.__torch_function__`). Some functions have a second name, and some
names two functions: ``torch.batch_norm`` takes its arguments in another order than ``torch.nn.functional.batch_norm``.
"""

from __future__ import annotations

from typing import Any

from ..core import functions
from . import bessel

_SAME = {
    "log_sigmoid": "logsigmoid",
    "special_expit": "sigmoid",
    "absolute": "abs",
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "arctan2": "atan2",
    "clip": "clamp",
    "divide": "div",
    "true_divide": "div",
    "fix": "trunc",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "subtract": "sub",
    "concat": "cat",
    "concatenate": "cat",
    "moveaxis": "movedim",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "ger": "outer",
    "_threshold": "threshold",
    "special_psi": "digamma",
    "special_gammaln": "lgamma",
    "special_multigammaln": "mvlgamma",
    "special_gammainc": "igamma",
    "special_gammaincc": "igammac",
}


# which torch has in torch.special only
_SPECIAL = ("entr", "erfcx", "i0e", "i1", "i1e", "log_ndtr", "ndtr", "ndtri", "xlog1py", "zeta")
POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "fractional_max_pool2d", "fractional_max_pool3d")
POOLS += ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")  # type: ignore[assignment]


def with_indices(name: str) -> Any:
    """A pooling function of torch's that always returns the indices too."""

    def function(*args: Any, **kwargs: Any) -> Any:
        return functions[name](*args, **{**kwargs, "return_indices": True})

    return function


# --- names that torch has twice, with other arguments ------------------------------------------------------------

_REDUCTIONS = ("none", "mean", "sum")


def _batch_norm(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    return functions["batch_norm"](input, running_mean, running_var, weight, bias, training, momentum, eps)


def _layer_norm(
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    return functions["layer_norm"](input, normalized_shape, weight, bias, eps)


def _group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    return functions["group_norm"](input, num_groups, weight, bias, eps)


def _embedding(
    weight: Any, indices: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Any:
    padding = None if padding_idx == -1 else padding_idx
    return functions["embedding"](indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


def _binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Any:
    kind = _REDUCTIONS[reduction]
    return functions["binary_cross_entropy_with_logits"](input, target, weight, kind, pos_weight)


def _kl_div(input: Any, target: Any, reduction: int = 1, *, log_target: bool = False) -> Any:
    return functions["kl_div"](input, target, _REDUCTIONS[reduction], log_target)


def _dropout(input: Any, p: float, train: bool) -> Any:
    return functions["dropout"](input, p, train)


def register() -> None:
    """Enter them beside the ops, which are there."""
    functions.update(
        {
            **{name: functions[op] for name, op in _SAME.items()},
            **{name: getattr(bessel, name) for name in _SPECIAL},
            **bessel.CONSTANT,
            **{f"{name}_with_indices": with_indices(name) for name in POOLS},
            "torch.batch_norm": _batch_norm,
            "torch.layer_norm": _layer_norm,
            "torch.group_norm": _group_norm,
            "torch.embedding": _embedding,
            "torch.binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
            "torch.kl_div": _kl_div,
            "torch.dropout": _dropout,
        }
    )
