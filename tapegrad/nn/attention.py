"""Multi-head attention, written with the ops: projections, masked softmax of scaled products, projection."""

from __future__ import annotations

import contextlib
import enum
import math
from typing import Any

import torch

from .. import ops
from ..core import ArgumentError, DTypeError, ShapeError, Tensor, raw
from . import functional as F
from . import init
from .checks import extent, parameter_dtype, require
from .layers import Linear
from .module import Module
from .parameter import Parameter, new_parameter

_Shapes = dict[tuple[int, ...], tuple[int, ...]]  # shape of a mask: the shape that broadcasts with the scores


class SDPBackend(enum.IntEnum):
    """torch's names of ways to compute attention; there is one here, so that all give the same bits."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


def sdpa_kernel(backends: Any, set_priority: bool = False) -> Any:
    """A context manager and decorator that changes nothing: attention is computed in one way."""
    return _Unchanged()


class _Unchanged(contextlib.ContextDecorator):
    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


class MultiheadAttention(Module):
    """``softmax(Q K^T / sqrt(E / heads)) V`` per head, of projected query, key and value; the heads are joined again.

    Parameters
    ----------
    embed_dim : E, size of queries and of the output; divisible by ``num_heads``
    num_heads : how many parts E is split into
    dropout : probability with which an attention weight is dropped in training
    bias : learn the biases of the projections
    add_bias_kv : append a learned key and value to the sequence
    add_zero_attn : append a key and value of zeros
    kdim, vdim : sizes of keys and values (E unless given)
    batch_first : sequences are [N, L, E] instead of [L, N, E]

    The projections start as ``xavier_uniform_``, their biases at 0. Source: Vaswani et al., Attention is all you need
    (2017).
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = "MultiheadAttention"
        e = self.embed_dim = extent(embed_dim, name, "embed_dim", 1)
        self.num_heads = extent(num_heads, name, "num_heads", 1)
        require(e % num_heads == 0, name, "embed_dim", f"be divisible by num_heads = {num_heads}", e)
        require(0 <= dropout <= 1, name, "dropout", "lie in [0, 1]", dropout)
        self.head_dim = e // num_heads
        self.kdim = e if kdim is None else extent(kdim, name, "kdim", 1)
        self.vdim = e if vdim is None else extent(vdim, name, "vdim", 1)
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        dtype = parameter_dtype(device, dtype, name)

        def new(*shape: int) -> Parameter:
            return new_parameter(name, shape, dtype)

        packed = self.kdim == e and self.vdim == e
        self.q_proj_weight = None if packed else new(e, e)
        self.k_proj_weight = None if packed else new(e, self.kdim)
        self.v_proj_weight = None if packed else new(e, self.vdim)
        self.in_proj_weight = new(3 * e, e) if packed else None
        self.in_proj_bias = new(3 * e) if bias else None
        self.bias_k = new(1, 1, e) if add_bias_kv else None
        self.bias_v = new(1, 1, e) if add_bias_kv else None
        self.out_proj = Linear(e, e, bias, dtype=dtype)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw new initial values."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None and self.bias_v is not None:
            init.xavier_normal_(self.bias_k)
            init.xavier_normal_(self.bias_v)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from every query to every key.

        Parameters
        ----------
        query, key, value : [L, N, E], [S, N, kdim], [S, N, vdim]; batch first if ``batch_first``; or without N
        key_padding_mask : [N, S] or [S]; True (or -inf, added) hides a key
        need_weights : return the attention weights, too
        attn_mask : [L, S] or [N * heads, L, S]; True (or -inf, added) hides a key from a query
        average_attn_weights : mean over the heads of the returned weights
        is_causal : says that ``attn_mask`` is the causal mask, which must be given

        Returns (output like query, weights [N, L, S] or [N, heads, L, S] or None).
        """
        name, heads = "MultiheadAttention", self.num_heads
        if is_causal and attn_mask is None:
            raise ArgumentError(f"{name}: attn_mask must be given with is_causal=True")
        batched = query.ndim == 3
        same = query is key and key is value
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            shapes = ", ".join(str(list(x.shape)) for x in (query, key, value))
            raise ShapeError(f"{name}: query, key and value must all have 3 dimensions, or all 2; got {shapes}")
        if not batched:
            query, key, value = (ops.unsqueeze(x, 1) for x in (query, key, value))
        elif self.batch_first:
            query, key, value = (ops.transpose(x, 0, 1) for x in (query, key, value))
        length, n = query.shape[:2]
        if tuple(key.shape[:2]) != tuple(value.shape[:2]) or key.shape[1] != n:
            raise ShapeError(
                f"{name}: key and value must have one length and the query's batch size {n}; "
                f"got {list(key.shape)} and {list(value.shape)}"
            )
        q, k, v = self._project(query, key, value, same)  # each [length, N, E]
        mask = self._mask(key_padding_mask, attn_mask, length, key.shape[0], n, q.dtype)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                ops.cat([x, ops.expand(extra, (1, n, self.embed_dim))])
                for x, extra in ((k, self.bias_k), (v, self.bias_v))
            )
        # [length, N, E] -> [N, heads, length, head_dim]
        q, k, v = (ops.permute(ops.reshape(x, (x.shape[0], n, heads, self.head_dim)), (1, 2, 0, 3)) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (ops.cat([x, torch.zeros(n, heads, 1, self.head_dim, dtype=x.dtype)], 2) for x in (k, v))
        if mask is not None:
            mask = ops.pad(mask, (0, k.shape[-2] - mask.shape[-1]))  # what was appended is visible to all
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = ops.matmul(ops.mul(q, math.sqrt(1 / self.head_dim)), ops.transpose(k, -2, -1))  # [N, heads, L, S]
            weights = F.softmax(scores if mask is None else ops.add(scores, mask), -1)
            weights = F.dropout(weights, p) if p > 0 else weights
            looked = ops.matmul(weights, v)
        else:  # as in torch, a query from which every key is hidden gets 0 here, and NaN above
            looked = F.scaled_dot_product_attention(q, k, v, mask, p)
        joined = ops.reshape(ops.permute(looked, (2, 0, 1, 3)), (length, n, self.embed_dim))
        output = self.out_proj(joined)
        if not batched:
            output = ops.squeeze(output, 1)
        elif self.batch_first:
            output = ops.transpose(output, 0, 1)
        if weights is None:
            return output, None
        shown = ops.mean(weights, 1) if average_attn_weights else weights
        return output, shown if batched else ops.squeeze(shown, 0)

    def _project(self, query: Any, key: Any, value: Any, same: bool) -> list[Any]:
        """Queries, keys and values, each [length, N, E]; one product where all three come from the same sequence."""
        if self.in_proj_weight is not None and same:
            return list(ops.chunk(F.linear(query, self.in_proj_weight, self.in_proj_bias), 3, -1))
        if self.in_proj_weight is not None:
            weights: list[Any] = list(ops.chunk(self.in_proj_weight, 3))
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        bias = self.in_proj_bias
        biases = [None] * 3 if bias is None else list(ops.chunk(bias, 3))
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _mask(self, padding: Any, attn: Any, length: int, source: int, n: int, dtype: torch.dtype) -> Any:
        """Both masks as one that is added to the scores, broadcasting to [N, heads, L, S]; None without any."""
        heads = self.num_heads
        total: Any = None
        padding_shapes: _Shapes = {(n, source): (n, 1, 1, source), (source,): (1, 1, 1, source)}
        attn_shapes: _Shapes = {(length, source): (length, source)}
        attn_shapes[n * heads, length, source] = (n, heads, length, source)
        for value, argument, allowed in (
            (padding, "key_padding_mask", padding_shapes),
            (attn, "attn_mask", attn_shapes),
        ):
            mask = raw(value, "MultiheadAttention", argument)
            if mask is None:
                continue
            if tuple(mask.shape) not in allowed:
                shapes = " or ".join(str(list(shape)) for shape in allowed)
                raise ShapeError(f"MultiheadAttention: {argument} must have shape {shapes}; got {list(mask.shape)}")
            if mask.dtype is torch.bool:
                mask = torch.zeros(mask.shape, dtype=dtype).masked_fill_(mask, -math.inf)
            elif not mask.is_floating_point():
                raise DTypeError(f"MultiheadAttention: {argument} must be bool or float; got {mask.dtype}")
            elif isinstance(value, Tensor) and value.requires_grad:
                mask = value  # learned
            mask = mask.reshape(allowed[tuple(mask.shape)])
            total = mask if total is None else total + mask
        return total
