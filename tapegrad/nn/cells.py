"""Recurrent cells: one time step, for loops that the user writes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from .. import ops
from ..core import ShapeError
from ..ops.recurrent import Weights, run
from . import init
from .checks import extent, one_of, parameter_dtype
from .module import Module
from .parameter import new_parameter


class RNNCellBase(Module):
    """What the cells share. Source: ``torch.nn.RNNCellBase``."""

    states: ClassVar[tuple[str, ...]] = ("hx",)
    mode: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = extent(input_size, name, "input_size")
        self.hidden_size = extent(hidden_size, name, "hidden_size")
        self.bias = bias
        dtype = parameter_dtype(device, dtype, name)
        gates = num_chunks * self.hidden_size
        self.weight_ih = new_parameter(name, (gates, self.input_size), dtype)
        self.weight_hh = new_parameter(name, (gates, self.hidden_size), dtype)
        self.bias_ih = new_parameter(name, (gates,), dtype) if bias else None
        self.bias_hh = new_parameter(name, (gates,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in ``+-1 / sqrt(hidden_size)``."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0.0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """[N, input_size] or [input_size], state [N, hidden_size] or [hidden_size] (zeros unless given) -> the next.

        The state of an `LSTMCell` is a pair (h, c).
        """
        name = type(self).__name__
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            shapes = f"[N, {self.input_size}] or [{self.input_size}]"
            raise ShapeError(f"{name}: input must have shape {shapes}; got {list(input.shape)}")
        pair = len(self.states) > 1
        if pair and hx is not None and not (isinstance(hx, tuple | list) and len(hx) == 2):
            raise TypeError(f"{name}: hx must be a tuple (h, c); got {type(hx).__name__}")
        expected = (*input.shape[:-1], self.hidden_size)
        given = [] if hx is None else hx if pair else [hx]  # zeros unless given
        for argument, value in zip(self.states, given, strict=False):
            if tuple(value.shape) != expected:
                raise ShapeError(f"{name}: {argument} must have shape {list(expected)}; got {list(value.shape)}")
        batched = input.ndim == 2
        if not batched:
            input, given = ops.unsqueeze(input, 0), [ops.unsqueeze(value, 0) for value in given]
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        _, *state = run(self.mode, input, [input.shape[0]], weights, given)
        if not batched:
            state = [ops.squeeze(value, 0) for value in state]
        return tuple(state) if pair else state[0]

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}"
        return shown if self.bias else f"{shown}, bias={self.bias}"


class RNNCell(RNNCellBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu. Source: ``torch.nn.RNNCell``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        one_of(nonlinearity, ("tanh", "relu"), "RNNCell", "nonlinearity")
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    @property
    def mode(self) -> str:  # type: ignore[override]
        """The step's name."""
        return f"RNN_{self.nonlinearity.upper()}"

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return shown if self.nonlinearity == "tanh" else f"{shown}, nonlinearity={self.nonlinearity}"


class GRUCell(RNNCellBase):
    """One step of a `GRU`. Source: ``torch.nn.GRUCell``."""

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)


class LSTMCell(RNNCellBase):
    """One step of an `LSTM`; the state is (h, c). Source: ``torch.nn.LSTMCell``."""

    mode = "LSTM"
    states = ("hx[0]", "hx[1]")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)
