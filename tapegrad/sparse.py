"""``tg.sparse``: torch's sparse products, of dense Tensors: there is no sparse layout (see `sparse_coo_tensor`)."""

from typing import Any

from .core import Tensor
from .ops import add, addmm, log_softmax, softmax, sparse_coo_tensor, sum
from .ops import matmul as mm

__all__ = ["FloatTensor", "addmm", "log_softmax", "mm", "sampled_addmm", "softmax", "sum"]


def FloatTensor(indices: Any, values: Any, size: Any = None) -> Tensor:
    """`sparse_coo_tensor` under its older name."""
    return sparse_coo_tensor(indices, values, size)


def sampled_addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """``alpha * (mat1 @ mat2) + beta * input`` where the input is not 0, else 0."""
    kept = (input != 0).to(input.dtype)
    return add(mm(mat1, mat2) * kept * alpha, input * beta)
