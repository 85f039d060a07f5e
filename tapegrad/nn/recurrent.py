"""Recurrent networks over sequences: parameters by layer and direction, states in and out as torch's."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch

from .. import ops
from ..core import ShapeError
from ..ops.recurrent import Weights, run
from . import init
from .checks import extent, layers, one_of, parameter_dtype, require
from .module import Module
from .parameter import Parameter, new_parameter
from .utils.rnn import PackedSequence

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


class RNNBase(Module):
    """What `RNN`, `GRU` and `LSTM` share. Source: ``torch.nn.RNNBase``."""

    states: ClassVar[tuple[str, ...]] = ("hx",)  # what the arguments that hold the state are called

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        one_of(mode, tuple(_GATES), name, "mode")
        self.mode = mode
        self.input_size = extent(input_size, name, "input_size", 1)
        self.hidden_size = extent(hidden_size, name, "hidden_size", 1)
        self.proj_size = extent(proj_size, name, "proj_size")
        nbytes = 4 * _GATES[mode] * self.hidden_size * (self.proj_size or self.hidden_size)
        self.num_layers = layers(num_layers, name, "num_layers", nbytes, 1)
        for argument, flag in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name}: {argument} must be a bool; got {flag!r}")
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        if isinstance(dropout, bool) or not isinstance(dropout, int | float):
            raise TypeError(f"{name}: dropout must be a number; got {dropout!r}")
        require(0 <= dropout <= 1, name, "dropout", "lie in [0, 1]", dropout)
        self.dropout = float(dropout)
        if dropout and num_layers == 1:
            warnings.warn(
                f"{name}: dropout={dropout} acts between layers, and num_layers=1: nothing is dropped", stacklevel=3
            )
        require(proj_size < hidden_size, name, "proj_size", f"be smaller than hidden_size = {hidden_size}", proj_size)
        dtype = parameter_dtype(device, dtype, name)
        gates, out = _GATES[mode] * hidden_size, proj_size or hidden_size
        for layer in range(self.num_layers):
            features = input_size if layer == 0 else out * self._directions
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, features), "weight_hh": (gates, out)}
            if bias:
                shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
            if proj_size:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for suffix in self._suffixes(layer):
                for key, shape in shapes.items():
                    setattr(self, key + suffix, new_parameter(name, shape, dtype))
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self._directions]

    def _weights(self, suffix: str) -> Weights:
        keys = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return Weights(*(getattr(self, key + suffix, None) for key in keys))

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        suffixes = [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]
        return [[w for w in self._weights(suffix) if w is not None] for suffix in suffixes]

    def flatten_parameters(self) -> None:
        """Nothing: on a CPU the parameters need not lie in one piece."""

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in ``+-1 / sqrt(hidden_size)``."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    # --- forward ----------------------------------------------------------------------------------------------

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run over the sequence.

        Parameters
        ----------
        input : [L, N, input_size] (batch first if ``batch_first``), [L, input_size], or a `PackedSequence`
        hx : the state before the first step, [layers * directions, N, H] (without N for input without N), zeros unless
            given; of an LSTM a pair, H being ``proj_size`` (or ``hidden_size``) for h, ``hidden_size`` for c

        Returns (outputs h of the last layer for every step, [L, N, directions * H] or packed as the input; the state
        after the last step, as ``hx``).
        """
        if isinstance(input, PackedSequence):
            data, _, order, back = input
            sizes = input.sizes
            self._check_input(data, 2)
            output, state = self._run(data, sizes, self._start(hx, sizes[0], False, order))
            return input.with_data(output), self._given(
                state if back is None else [ops.index_select(s, 1, back) for s in state]
            )
        batched = input.ndim != 2
        self._check_input(input, 3 if batched else 2)
        x = input if batched else ops.unsqueeze(input, 1)
        if batched and self.batch_first:
            x = ops.transpose(x, 0, 1)
        length, n = x.shape[:2]
        if length == 0:
            raise ShapeError(f"{type(self).__name__}: input must have at least one step; got {list(input.shape)}")
        rows = ops.reshape(x, (length * n, self.input_size))  # [L, N, F] -> [L * N, F]
        output, state = self._run(rows, [n] * length, self._start(hx, n, not batched, None))
        output = ops.reshape(output, (length, n, output.shape[1]))
        if not batched:
            return ops.squeeze(output, 1), self._given([ops.squeeze(s, 1) for s in state])
        return ops.transpose(output, 0, 1) if self.batch_first else output, self._given(state)

    def _check_input(self, input: Any, ndim: int) -> None:
        if input.ndim != ndim or input.shape[-1] != self.input_size:
            steps = "[L, N, {0}] or [L, {0}]" if ndim == 3 else "[..., {0}]"
            expected = steps.format(self.input_size)
            raise ShapeError(f"{type(self).__name__}: input must have shape {expected}; got {list(input.shape)}")

    def _start(self, hx: Any, n: int, unbatched: bool, order: Any) -> list[Any]:
        """The state before the first step, [layers * directions, N, H] each; empty for zeros."""
        layers, name = self.num_layers * self._directions, type(self).__name__
        widths = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self.states)]
        if hx is None:
            return []
        if len(self.states) > 1 and not (isinstance(hx, tuple | list) and len(hx) == len(self.states)):
            raise TypeError(f"{name}: hx must be a tuple (h, c); got {type(hx).__name__}")
        given = hx if len(self.states) > 1 else (hx,)
        state = []
        for argument, value, width in zip(self.states, given, widths, strict=True):
            shape = (layers, width) if unbatched else (layers, n, width)
            if tuple(value.shape) != shape:
                raise ShapeError(f"{name}: {argument} must have shape {list(shape)}; got {list(value.shape)}")
            value = ops.unsqueeze(value, 1) if unbatched else value
            state.append(value if order is None else ops.index_select(value, 1, order))
        return state

    def _run(self, x: Any, sizes: list[int], state: list[Any]) -> tuple[Any, list[Any]]:
        """All layers over rows x [M, F] in steps of `sizes`."""
        before = list(zip(*(ops.unbind(s) for s in state), strict=True))  # by layer and direction
        after: list[tuple[Any, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout:
                x = ops.dropout(x, self.dropout)
            outputs = []
            for reverse, suffix in enumerate(self._suffixes(layer)):
                start = before[len(after)] if before else ()
                output, *last = run(self.mode, x, sizes, self._weights(suffix), start, bool(reverse))
                outputs.append(output)
                after.append(tuple(last))
            x = ops.cat(outputs, 1) if self.bidirectional else outputs[0]
        if len(after) == 1:
            return x, [ops.unsqueeze(value, 0) for value in after[0]]
        return x, [ops.stack(values) for values in zip(*after, strict=True)]

    def _given(self, state: list[Any]) -> Any:
        """The state as the user sees it."""
        return tuple(state) if len(self.states) > 1 else state[0]

    def extra_repr(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0}
        for key, default in (defaults | {"bidirectional": False}).items():
            if getattr(self, key) != default:
                shown.append(f"{key}={getattr(self, key)}")
        return ", ".join(shown)


class RNN(RNNBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` over a sequence, or relu. Source: Elman (1990); ``torch.nn.RNN``.

    Parameters
    ----------
    input_size, hidden_size : features of the input and of h
    num_layers : each further layer runs over the outputs of the one below
    nonlinearity : ``"tanh"`` or ``"relu"``
    bias : learn ``b_ih`` and ``b_hh``
    batch_first : input and output are [N, L, ...] instead of [L, N, ...]; the state is not
    dropout : probability with which an output between two layers is dropped in training
    bidirectional : a second set of weights runs from the end; its outputs are appended
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        one_of(nonlinearity, ("tanh", "relu"), "RNN", "nonlinearity")
        self.nonlinearity = nonlinearity
        mode = f"RNN_{nonlinearity.upper()}"
        flags = (bias, batch_first, dropout, bidirectional)
        super().__init__(mode, input_size, hidden_size, num_layers, *flags, device=device, dtype=dtype)


class GRU(RNNBase):
    """Gated recurrent units over a sequence: ``h' = (1 - z) n + z h`` with

    ``r, z = sigmoid(W_i x + b_i + W_h h + b_h)``, ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``; the rows of the
    weights are those of r, z, n. Arguments as `RNN`. Source: Cho et al. (2014); ``torch.nn.GRU``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        flags = (bias, batch_first, dropout, bidirectional)
        super().__init__("GRU", input_size, hidden_size, num_layers, *flags, device=device, dtype=dtype)


class LSTM(RNNBase):
    """Long short-term memory over a sequence: ``c' = f c + i g``, ``h' = o tanh(c')`` with

    ``i, f, o = sigmoid(W_i x + b_i + W_h h + b_h)`` and g the same with tanh; the rows of the weights are those of
    i, f, g, o. With ``proj_size`` h is ``W_hr h'``. Other arguments as `RNN`. Source: Hochreiter and Schmidhuber
    (1997); ``torch.nn.LSTM``.
    """

    states = ("hx[0]", "hx[1]")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        flags = (bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__("LSTM", input_size, hidden_size, num_layers, *flags, device=device, dtype=dtype)
