"""torch's other spellings of ops: what ``torch.special``, ``torch.linalg`` and the dispatcher call them.

``torch.NAME(tensor)`` finds the op NAME (`Protocols.__torch_function__`). Some functions have a second name, and some
names two functions: ``torch.batch_norm`` takes its arguments in another order than ``torch.nn.functional.batch_norm``.
"""

from __future__ import annotations

from typing import Any

from ..core import ArgumentError, functions, raw
from .factor import linalg_qr, linalg_svd

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
    "linalg_matmul": "matmul",
}


_POOLS = ("max_pool1d", "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d")


def _linalg_norm(input: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """``torch.linalg.norm``: of all elements where nothing is said, else a vector's norm or a matrix's."""
    ndim = raw(input, "linalg.norm", "input").ndim
    matrix = ndim == 2 if dim is None else not isinstance(dim, int) and len(dim) == 2
    if ord is None or not matrix:
        if ord is not None and dim is None and ndim != 1:
            raise ArgumentError(f"linalg.norm: ord = {ord!r} without dim is for 1 or 2 dimensions; got {ndim}")
        return functions["norm"](input, 2.0 if ord is None else ord, dim, keepdim, dtype=dtype)
    return _matrix_norm(input, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)


def _vector_norm(input: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return functions["norm"](input, float(ord), dim, keepdim, dtype=dtype)


def _matrix_norm(input: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    if ord not in ("fro", "nuc"):
        raise ArgumentError(f'linalg.matrix_norm: ord must be "fro" or "nuc", the ones tapegrad has; got {ord!r}')
    return functions["norm"](input, ord, dim, keepdim, dtype=dtype)


def _vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    return functions["sum"](functions["mul"](x, y), dim)


def _multi_dot(tensors: Any) -> Any:
    product = tensors[0]
    for tensor in tensors[1:]:
        product = functions["matmul"](product, tensor)
    return product


def _linalg_diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    return functions["diagonal"](A, offset, dim1, dim2)


def _with_indices(name: str) -> Any:
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
            "linalg_qr": linalg_qr,
            "linalg_svd": linalg_svd,
            "linalg_norm": _linalg_norm,
            "linalg_vector_norm": _vector_norm,
            "linalg_matrix_norm": _matrix_norm,
            "linalg_vecdot": _vecdot,
            "linalg_multi_dot": _multi_dot,
            "linalg_diagonal": _linalg_diagonal,
            **{f"{name}_with_indices": _with_indices(name) for name in _POOLS},
            "torch.batch_norm": _batch_norm,
            "torch.layer_norm": _layer_norm,
            "torch.group_norm": _group_norm,
            "torch.embedding": _embedding,
            "torch.binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
            "torch.kl_div": _kl_div,
            "torch.dropout": _dropout,
        }
    )
