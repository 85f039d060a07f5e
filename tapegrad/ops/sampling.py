"""Bags of embeddings, Gumbel samples, and images sampled at the points of a grid: composed of ops, so that derivatives
of every order pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, IndexShapeError, ShapeError, Tensor, integers, raw, tensor_argument, verify
from .activation import softmax
from .attention import embedding
from .elementwise import where
from .indexing import gather, index_add
from .linalg import matmul
from .random import rand_like
from .shape import flatten, reshape, transpose, unsqueeze

__all__ = ["affine_grid", "embedding_bag", "grid_sample", "gumbel_softmax"]


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of bags of looked-up rows; an empty bag gives 0.

    Parameters
    ----------
    input : [B, n], B bags of n indices each; or [n], where ``offsets`` [B] says at which index each bag starts
    weight : [num_embeddings, E]
    max_norm, norm_type, scale_grad_by_freq : as of `embedding`
    mode : "sum", "mean" or "max"
    sparse : not offered; gradients are dense
    per_sample_weights : like the input; with "sum", each row is multiplied by its weight
    include_last_offset : the last of the offsets is the end of the last bag
    padding_idx : row that belongs to no bag

    Returns [B, E].
    """
    name = "embedding_bag"
    index, rows = raw(input, name, "input"), tensor_argument(weight, name, "weight")
    starts = None if offsets is None else raw(offsets, name, "offsets")
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError(f"{name}: mode must be sum, mean or max; got {mode!r}")
    if sparse or (mode == "max" and scale_grad_by_freq):
        raise ArgumentError(f"{name}: sparse gradients, and scale_grad_by_freq with max, are not offered")
    if rows.ndim != 2 or index.ndim not in (1, 2) or (index.ndim == 2) != (starts is None):
        raise ShapeError(
            f"{name}: weight must be [num_embeddings, E], and input [B, n] without offsets or [n] with offsets; "
            f"got {list(rows.shape)} and {list(index.shape)}"
        )
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != index.shape):
        raise ArgumentError(
            f"{name}: per_sample_weights must have the input's shape {list(index.shape)} and mode be 'sum'; "
            f"got {list(per_sample_weights.shape)} and {mode!r}"
        )
    bags = index.shape[0]
    if starts is None:
        starts = torch.arange(bags) * index.shape[1]
    elif include_last_offset:
        starts = starts[:-1]
    index, starts, bags = index.reshape(-1), starts.contiguous(), len(starts)
    ordered = torch.cat([starts[:1] == 0, starts.diff() >= 0, starts[-1:] <= len(index)])
    verify(
        ordered,
        lambda: IndexShapeError(f"{name}: offsets must rise from 0 to at most {len(index)}; got {starts.tolist()}"),
    )
    bag = torch.searchsorted(starts, torch.arange(len(index), dtype=starts.dtype), right=True) - 1
    kept = torch.ones(len(index), dtype=rows.dtype)
    if padding_idx is not None:
        kept = (index != padding_idx % len(rows)).to(rows.dtype)
    found = embedding(index, rows, padding_idx, max_norm, norm_type, scale_grad_by_freq)  # [n, E]
    count = torch.zeros(bags, dtype=rows.dtype).index_add(0, bag, kept).unsqueeze(1)
    if mode == "max":
        places = torch.embedding_bag(rows.data, index, starts, False, 2, False, None, False, padding_idx)[3]
        return where(count == 0, 0.0, gather(rows, 0, places.long().clamp(min=0)))
    factor = unsqueeze(Tensor(kept) if per_sample_weights is None else reshape(per_sample_weights, (-1,)) * kept, 1)
    total = index_add(torch.zeros(bags, rows.shape[1], dtype=rows.dtype), 0, bag, found * factor)
    return total / count.clamp(min=1) if mode == "mean" else total


def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """``softmax((logits + gumbel noise) / tau)``: a sample of one-hot vectors made soft, differentiable by the logits.

    With ``hard``, the one-hot vector itself, with the soft one's gradient. ``eps`` has no effect, as in torch. Source:
    Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax (2017).
    """
    x = tensor_argument(logits, "gumbel_softmax", "logits")
    uniform = rand_like(x).data.clamp(min=torch.finfo(x.dtype).tiny)
    soft = softmax((x - torch.log(-torch.log(uniform))) / tau, dim)
    if not hard:
        return soft
    place = soft.data.argmax(dim, keepdim=True)
    return Tensor(torch.zeros_like(soft.data).scatter(dim, place, 1.0)) - soft.detach() + soft


# --- grids -------------------------------------------------------------------------------------------------------


def affine_grid(theta: Any, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points that affine maps ``theta`` [N, 2, 3] send the pixels of images of ``size`` (N, C, H, W) to.

    Returns [N, H, W, 2] for `grid_sample`; coordinates run from -1 to 1, in the outer pixels' centres with
    ``align_corners``, else at their outer edges. For (N, C, D, H, W), theta is [N, 3, 4].
    """
    t = tensor_argument(theta, "affine_grid", "theta")
    extents = [int(n) for n in integers(list(size), "affine_grid", "size")]
    k = len(extents) - 2
    if k not in (2, 3) or tuple(t.shape) != (extents[0], k, k + 1):
        raise ShapeError(
            f"affine_grid: theta must be [N, k, k + 1] for a size of N, C and k; got {list(t.shape)}, {extents}"
        )
    axes = []
    for n in extents[2:]:
        axis = torch.linspace(-1, 1, n, dtype=t.dtype) if n > 1 else torch.zeros(n, dtype=t.dtype)
        axes.append(axis if align_corners else axis * ((n - 1) / max(n, 1)))
    mesh = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack([*mesh[::-1], torch.ones_like(mesh[0])], -1).reshape(-1, k + 1)  # x first
    return reshape(matmul(points, transpose(t, 1, 2)), (extents[0], *extents[2:], k))


def _pixel(x: Any, n: int, align_corners: bool) -> Any:
    """Coordinates from -1 to 1 as positions among n pixels."""
    return (x + 1) * ((n - 1) / 2) if align_corners else ((x + 1) * n - 1) / 2


def _bounded(x: Any, n: int, padding_mode: str, align_corners: bool) -> Any:
    """Positions inside the n pixels, unless ``padding_mode`` is "zeros"."""
    if padding_mode == "reflection":
        low, span = (0.0, float(n - 1)) if align_corners else (-0.5, float(n))
        if span == 0:
            return x * 0
        x = x - low
        x = where(x.data < 0, -x, x)
        flips = torch.floor(x.data / span)
        inside = x - flips * span
        x = where(flips % 2 == 0, inside, span - inside) + low
    if padding_mode != "zeros":
        x = where(x.data <= 0, 0.0, where(x.data >= n - 1, float(n - 1), x))
    return x


def _cubic(t: Any) -> list[Any]:
    """The weights of the pixels at -1, 0, 1, 2 for a point t behind pixel 0: Keys' kernel (1981) with a = -3/4."""
    a = -0.75

    def near(x: Any) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def grid_sample(
    input: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The images, or volumes, at the points of a grid.

    Parameters
    ----------
    input : [N, C, H, W] or [N, C, D, H, W]
    grid : [N, h, w, 2], points (x, y) from -1 to 1, or [N, d, h, w, 3], points (x, y, z)
    mode : "bilinear", "nearest" (which gives the grid no gradient), or, for images, "bicubic"
    padding_mode : outside is "zeros", the "border"'s pixel, or the image's "reflection"
    align_corners : whether -1 and 1 are the outer pixels' centres, or their outer edges

    Returns [N, C, h, w] or [N, C, d, h, w].
    """
    x, points = tensor_argument(input, "grid_sample", "input"), tensor_argument(grid, "grid_sample", "grid")
    k = x.ndim - 2
    if mode not in ("bilinear", "nearest", "bicubic") or padding_mode not in ("zeros", "border", "reflection"):
        raise ArgumentError(
            f"grid_sample: mode must be bilinear, nearest or bicubic, padding_mode zeros, border or reflection; "
            f"got {mode!r} and {padding_mode!r}"
        )
    fits = k in (2, 3) and points.ndim == x.ndim and points.shape[-1] == k and points.shape[0] == x.shape[0]
    if not fits or 0 in x.shape[2:] or (mode == "bicubic" and k == 3):
        raise ShapeError(
            f"grid_sample: input must be [N, C, H, W], H and W not 0, and grid [N, h, w, 2], or, not bicubic, both "
            f"with a depth more; got {list(x.shape)} and {list(points.shape)}, mode {mode!r}"
        )
    n, c, extents, size = *x.shape[:2], tuple(x.shape[2:]), tuple(points.shape[1:-1])
    flat = flatten(x, -k)
    corners, outside = bool(align_corners), "zeros" if mode == "bicubic" else padding_mode
    positions = [
        _bounded(_pixel(points[..., k - 1 - d], extent, corners), extent, outside, corners)
        for d, extent in enumerate(extents)
    ]  # each [N, h, w]

    def at(places: Sequence[torch.Tensor]) -> Tensor:
        """The pixels at these places, 0 outside: [N, C, h, w]."""
        inside: Any = True
        place: Any = 0
        for i, extent in zip(places, extents, strict=True):
            inside = inside & (i >= 0) & (i < extent)
            place = place * extent + i.clamp(0, extent - 1).long()
        read = gather(flat, 2, place.reshape(n, 1, -1).expand(n, c, -1))
        return where(inside.unsqueeze(1), reshape(read, (n, c, *size)), 0.0)

    if mode == "nearest":
        return at([torch.round(p.data) for p in positions])

    def mixed(places: list[torch.Tensor]) -> Tensor:
        """The mean over the pixels next to the point along the dimensions that are not placed yet."""
        d = len(places)
        if d == k:
            return at(places)
        first = torch.floor(positions[d].data)
        share = unsqueeze(positions[d] - first, 1)
        if mode == "bilinear":
            return mixed([*places, first]) * (1 - share) + mixed([*places, first + 1]) * share
        total: Any = 0
        for i, weight in enumerate(_cubic(share)):
            tap = _bounded(Tensor(first + (i - 1)), extents[d], padding_mode, corners)
            total = total + mixed([*places, tap.data]) * weight
        return total  # type: ignore[no-any-return]

    return mixed([])
