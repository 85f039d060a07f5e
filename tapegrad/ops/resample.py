"""Resampling of sequences, images and volumes in torch's modes. The map is linear; its transpose is its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C, ArgumentError, Array, Ints, ShapeError, Tensor, either, op, tensor_argument
from .conv import output_size, upsample_nearest2d_op
from .shape import squeeze, unsqueeze
from .versions import has_lanczos

__all__ = ["interpolate"]

_DIMENSIONS = {  # mode: of how many spatial dimensions
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "lanczos": (2,),
    "trilinear": (3,),
}
_BLOCKS = ("nearest", "nearest-exact", "area")  # their results are copies or means: no corners to align
_ANTIALIASED = ("bilinear", "bicubic", "lanczos")


@op(
    input=lambda g, input_shape, mode, align_corners, factors: either(
        "resample_backward", g, input_shape[2:], mode, align_corners, factors
    )
)
def resample(input: Array, size: Sequence[int], mode: str, align_corners: bool, factors: Any) -> Any:
    """`interpolate` with the size worked out; "-aa" behind a mode stands for ``antialias``."""
    return _C.resample(input, list(size), mode, align_corners, factors)


@op(g=lambda u, g_shape, mode, align_corners, factors: either("resample", u, g_shape[2:], mode, align_corners, factors))
def resample_backward(g: Array, size: Sequence[int], mode: str, align_corners: bool, factors: Any) -> Any:
    """The transpose of `resample`: g [N, C, ...] to [N, C, size...], the size of what was resampled."""
    return _C.resample_backward(g, list(size), mode, align_corners, factors)


def interpolate(
    input: Any,
    size: Ints = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """The input resampled to another length, height and width, or depth, height and width.

    Parameters
    ----------
    input : [N, C, L], [N, C, H, W] or [N, C, D, H, W]
    size : output extents, int or one for each spatial dimension; or
    scale_factor : number, or one for each
    mode : "nearest", "nearest-exact" or "area" (means of blocks) for all three; "linear" for [N, C, L]; "bilinear",
        "bicubic" or "lanczos" for [N, C, H, W]; "trilinear" for [N, C, D, H, W]
    align_corners : linear to bicubic only: the corners' centres of input and output coincide
    recompute_scale_factor : take the scale from the sizes instead of ``scale_factor`` itself
    antialias : bilinear, bicubic and lanczos only (which needs it): widen the window where the output is smaller

    Returns [N, C, ...] of that size. Raises ArgumentError for options that do not go together, ShapeError for an input
    that the mode is not for.
    """
    name = "interpolate"
    input = tensor_argument(input, name, "input")
    _check(input, mode, align_corners, antialias)
    out, factors = output_size(input, size, scale_factor, name)
    if recompute_scale_factor and factors is None:
        raise ArgumentError(f"{name}: recompute_scale_factor has no meaning with size = {size}; give scale_factor")
    if mode != "area" and min(out) < 1:
        raise ShapeError(f"{name}: the output size must be at least 1; got {out} for shape {list(input.shape)}")
    if recompute_scale_factor or mode == "area":
        factors = None
    if mode == "nearest" and input.ndim == 4:
        return upsample_nearest2d_op(input, out, factors)
    if mode == "area" and input.ndim == 3:
        return squeeze(resample(unsqueeze(input, 2), [1, *out], mode, False, None), 2)
    return resample(input, out, mode + "-aa" * antialias, bool(align_corners), factors)


def _check(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    """Refuse what torch refuses: options that do not go together, and modes for other inputs."""
    name = "interpolate"
    if mode not in _DIMENSIONS:
        raise ArgumentError(f"{name}: mode must be one of {', '.join(_DIMENSIONS)}; got {mode!r}")
    if mode in _BLOCKS and align_corners is not None:
        raise ArgumentError(f"{name}: align_corners goes with linear, bilinear, bicubic and trilinear; got {mode!r}")
    if mode == "lanczos" and (align_corners or not antialias):
        got = f"{antialias}, {align_corners}"
        raise ArgumentError(f"{name}: lanczos needs antialias=True and align_corners=False; got {got}")
    if antialias and mode not in _ANTIALIASED:
        raise ArgumentError(f"{name}: antialias goes with {', '.join(_ANTIALIASED)}; got {mode!r}")
    if mode == "lanczos" and not has_lanczos:
        raise ArgumentError(f"{name}: torch {torch.__version__} has no lanczos; 2.12 has")
    if 0 in input.shape[1:] and mode != "area":
        raise ShapeError(f"{name}: channels and spatial sizes must be at least 1; got shape {list(input.shape)}")
    if input.ndim - 2 not in _DIMENSIONS[mode]:
        allowed = " or ".join(str(n + 2) for n in _DIMENSIONS[mode])
        raise ShapeError(
            f"{name}: input must have {allowed} dimensions [N, C, ...] for mode {mode!r}; got shape {list(input.shape)}"
        )
