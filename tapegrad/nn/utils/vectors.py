"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ...core import ShapeError, Tensor, raw
from ...ops import cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The parameters' elements one after the other, a recorded value. Source: torch's function of that name."""
    vector: Tensor = cat([p.reshape(-1) for p in parameters])
    return vector


def vector_to_parameters(vec: Tensor | torch.Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy a vector's elements into the parameters, in order; nothing changes if it is too short. It may be longer."""
    vector, params = raw(vec, "vector_to_parameters", "vec"), list(parameters)
    size = sum(p.numel() for p in params)
    if vector.dim() != 1 or vector.numel() < size:
        raise ShapeError(f"vector_to_parameters: vec must have shape [{size}]; got {list(vector.shape)}")
    begin = 0
    for p in params:
        p.data.copy_(vector[begin : begin + p.numel()].view(p.shape))
        begin += p.numel()
