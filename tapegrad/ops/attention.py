"""Embedding, one-hot vectors and attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import (
    ArgumentError,
    Array,
    DTypeError,
    IndexShapeError,
    ShapeError,
    Tensor,
    mode,
    op,
    raw,
    tensor_argument,
    verify,
)
from .activation import softmax
from .elementwise import where
from .indexing import index_sum
from .linalg import matmul
from .random import Generator, dropout
from .shape import expand, reshape, unsqueeze

__all__ = [
    "embedding",
    "one_hot",
    "scaled_dot_product_attention",
]


def _embedding_rule(
    g: Any, input: Any, weight_shape: torch.Size, padding_idx: int | None, scale_grad_by_freq: bool
) -> Any:
    """Each looked-up row's gradient added to its row; the padding row gets none."""
    if padding_idx is not None:
        g = torch.where((input == padding_idx % weight_shape[0]).unsqueeze(-1), 0, g)
    if scale_grad_by_freq:
        index = input.data if isinstance(input, Tensor) else input
        flat = index.reshape(-1).long()
        count = torch.zeros(weight_shape[0], dtype=torch.int64).index_add(0, flat, torch.ones_like(flat))
        g = g / count[index].unsqueeze(-1)
    index = input.reshape(-1)
    return index_sum(g.reshape(index.shape[0], weight_shape[1]), weight_shape, 0, index)


@op(name="embedding", weight=_embedding_rule)
def embedding_op(input: Array, weight: Array, padding_idx: int | None, scale_grad_by_freq: bool) -> Any:
    """`embedding` of checked indices."""
    if input.dtype not in (torch.int64, torch.int32):
        raise DTypeError(f"embedding: input must hold int64 or int32 indices; got {input.dtype}")
    good = (input >= 0) & (input < weight.shape[0])

    def failure() -> IndexShapeError:
        return IndexShapeError(f"embedding: indices must lie in [0, {weight.shape[0]}); got {int(input[~good][0])}")

    verify(good, failure)
    return torch.nn.functional.embedding(input, weight)


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """``y[...] = weight[input[...]]``: rows looked up by index.

    Parameters
    ----------
    input : integers in [0, num_embeddings), any shape
    weight : [num_embeddings, embedding_dim]
    padding_idx : row that gets no gradient; negative counts from the end
    max_norm : first scale the looked-up rows of weight, in place, to at most this ``norm_type`` norm
    scale_grad_by_freq : divide each row's gradient by how often it was looked up
    sparse : not offered; gradients are dense

    Returns [*input.shape, embedding_dim].
    """
    if sparse:
        raise ArgumentError("embedding: sparse gradients are not offered; leave sparse=False")
    rows = raw(weight, "embedding", "weight")
    if padding_idx is not None and isinstance(rows, torch.Tensor) and not -len(rows) <= padding_idx < len(rows):
        raise IndexShapeError(f"embedding: padding_idx must name one of the {len(rows)} rows; got {padding_idx}")
    if max_norm is not None:
        try:
            torch.embedding_renorm_(rows, raw(input, "embedding", "input").reshape(-1), max_norm, norm_type)
        except IndexError as error:
            raise IndexShapeError(f"embedding: indices must lie in [0, {len(rows)}): {error}") from error
    return embedding_op(input, weight, padding_idx, scale_grad_by_freq)


@op
def one_hot(tensor: Array, num_classes: int = -1) -> Any:
    """int64 vectors with a 1 at the index: [...] to [..., num_classes]; -1 classes means the largest index + 1."""
    if num_classes <= 0 or tensor.dtype is not torch.int64:  # torch reads the largest index, or says what is wrong
        if tensor.numel() and int(tensor.min()) < 0:
            raise IndexShapeError(f"one_hot: indices must not be negative; got {int(tensor.min())}")
        return torch.nn.functional.one_hot(tensor, num_classes)
    good = (tensor >= 0) & (tensor < num_classes)
    verify(good, lambda: _no_class(tensor[~good][0], num_classes))
    zeros = torch.zeros((*tensor.shape, num_classes), dtype=torch.int64)
    return zeros.scatter(-1, tensor.unsqueeze(-1), 1)


def _no_class(index: torch.Tensor, num_classes: int) -> IndexShapeError:
    return IndexShapeError(f"one_hot: indices must lie in [0, {num_classes}); got {int(index)}")


def _grouped_heads(x: Any, query: Any, argument: str) -> Any:
    """[..., H', S, E] with each head repeated, one after the other, to the query's number H."""
    name = "scaled_dot_product_attention"
    if query.ndim < 3 or x.ndim < 3 or not x.shape[-3] or query.shape[-3] % x.shape[-3]:
        raise ShapeError(
            f"{name}: with enable_gqa, {argument}.shape[-3] must divide query.shape[-3]; "
            f"got shapes {list(x.shape)} and {list(query.shape)}"
        )
    heads, several = query.shape[-3], query.shape[-3] // x.shape[-3]
    lead, size = list(x.shape[:-3]), list(x.shape[-2:])
    repeated = expand(unsqueeze(x, -3), [*lead, x.shape[-3], several, *size])
    return reshape(repeated, [*lead, heads, *size])


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``softmax(query key^T * scale + mask) value``, rows that may look at nothing being 0.

    Parameters
    ----------
    query : [..., L, E]
    key : [..., S, E]
    value : [..., S, Ev]
    attn_mask : broadcasts to [..., L, S]; bool (True may look), or float, added to the scores
    dropout_p : share of the weights set to 0 (Dropout)
    is_causal : position i looks at positions 0 .. i only
    scale : 1 / sqrt(E) unless given
    enable_gqa : key and value [..., H', S, E] have fewer heads than the query [..., H, L, E], and each serves H / H'

    Returns [..., L, Ev]. Source: Vaswani et al., Attention Is All You Need (2017), equation 1.
    """
    name = "scaled_dot_product_attention"
    query, key = tensor_argument(query, name, "query"), tensor_argument(key, name, "key")
    value = tensor_argument(value, name, "value")
    for argument, x in (("query", query), ("key", key), ("value", value)):
        if x.ndim < 2:
            raise ShapeError(f"{name}: {argument} must have at least 2 dimensions; got shape {list(x.shape)}")
    if enable_gqa:
        key, value = (_grouped_heads(x, query, argument) for argument, x in (("key", key), ("value", value)))
    if key.shape[-1] != query.shape[-1]:
        raise ShapeError(f"{name}: key.shape[-1] = {key.shape[-1]} must equal query.shape[-1] = {query.shape[-1]}")
    if value.shape[-2] != key.shape[-2]:
        raise ShapeError(f"{name}: value.shape[-2] = {value.shape[-2]} must equal key.shape[-2] = {key.shape[-2]}")
    if is_causal and attn_mask is not None:
        raise ArgumentError("scaled_dot_product_attention: give attn_mask or is_causal, not both")
    scores = matmul(query, key.mT) * (1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale)
    if is_causal:  # every query sees at least the first key
        scores = where(torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), scores, -math.inf)
    if attn_mask is not None:
        mask = raw(attn_mask, "scaled_dot_product_attention", "attn_mask")
        scores = where(mask, scores, -math.inf) if mask.dtype is torch.bool else scores + attn_mask
        blind = (scores.data == -math.inf).all(-1, keepdim=True)
        if mode.tracer is not None or bool(blind.any()):  # a recording must serve every mask
            return matmul(
                dropout(where(blind, 0, softmax(where(blind, 0, scores), -1)), dropout_p, generator=generator), value
            )
    return matmul(dropout(softmax(scores, -1), dropout_p, generator=generator), value)
