"""Transformers: layers of attention and a small network, stacked to encoders and decoders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from ..core import ShapeError, Tensor
from . import functional as F
from . import init
from .attention import MultiheadAttention
from .checks import layers, one_of
from .containers import ModuleList
from .layers import Dropout, Linear
from .module import Module
from .norms import LayerNorm

Activation = str | Callable[[Any], Any]
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": F.relu, "gelu": F.gelu}


class _Layer(Module):
    """What encoder and decoder layers share: attention to the sequence itself, and two linear layers at its end."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(activation, str):
            one_of(activation, tuple(_ACTIVATIONS), name, "activation")
            activation = _ACTIVATIONS[activation]
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        attention = {"dropout": dropout, "batch_first": batch_first, **made}
        self.self_attn = MultiheadAttention(d_model, nhead, **attention)
        if self.blocks == 3:
            self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)
        self.linear1 = Linear(d_model, dim_feedforward, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **made)
        self.norm_first = norm_first
        for i in range(1, self.blocks + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, **made))
        for i in range(1, self.blocks + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = activation

    blocks = 2

    def _add(self, x: Any, i: int, block: Callable[[Any], Any]) -> Any:
        """x and what block i makes of it, with its norm before the block or after the sum."""
        norm, drop = getattr(self, f"norm{i}"), getattr(self, f"dropout{i}")
        if self.norm_first:
            return x + drop(block(norm(x)))
        return norm(x + drop(block(x)))

    def _self_attention(self, mask: Any, padding: Any, is_causal: bool) -> Callable[[Any], Any]:
        return lambda x: self.self_attn(x, x, x, padding, False, mask, is_causal=is_causal)[0]

    def _feed_forward(self, x: Any) -> Any:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a network of two linear layers, each added to its input and normalised.

    Parameters
    ----------
    d_model, nhead : size E of the sequence's vectors, and of how many heads the attention has
    dim_feedforward : width of the network
    dropout : probability of dropout: in attention weights, in the network, and behind both
    activation : "relu", "gelu", or a function of a Tensor
    layer_norm_eps : of the norms
    batch_first : sequences are [N, L, E] instead of [L, N, E]
    norm_first : normalise what goes into attention and network instead of the sums
    bias : learn biases, in linear layers and norms

    Source: Vaswani et al., Attention is all you need (2017); norm_first: Xiong et al., On layer normalization in the
    Transformer architecture (2020), Fig. 1.
    """

    def forward(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        """src [L, N, E] (or batch first, or without N) -> the same shape; masks as `MultiheadAttention` takes them."""
        x = self._add(src, 1, self._self_attention(src_mask, src_key_padding_mask, is_causal))
        return self._add(x, 2, self._feed_forward)  # type: ignore[no-any-return]


class TransformerDecoderLayer(_Layer):
    """As `TransformerEncoderLayer`, with attention to an encoder's output (the memory) in between."""

    blocks = 3

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt [L, N, E], memory [S, N, E] (or batch first, or without N) -> the shape of tgt."""

        def look(x: Any) -> Any:
            given = (memory_key_padding_mask, False, memory_mask)
            return self.multihead_attn(x, memory, memory, *given, is_causal=memory_is_causal)[0]

        x = self._add(tgt, 1, self._self_attention(tgt_mask, tgt_key_padding_mask, tgt_is_causal))
        return self._add(self._add(x, 2, look), 3, self._feed_forward)  # type: ignore[no-any-return]


class _Stack(Module):
    """Copies of one layer, one after the other, and a norm at the end if there is one."""

    def __init__(self, layer: Any, num_layers: int, norm: Module | None) -> None:
        super().__init__()
        nbytes = 0 if layer is None else sum(p.data.nbytes for p in layer.parameters())
        self.num_layers = layers(num_layers, type(self).__name__, "num_layers", nbytes)
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(self.num_layers)])
        self.norm = norm

    def _run(self, x: Any, *args: Any) -> Any:
        for layer in self.layers:
            x = layer(x, *args)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """``num_layers`` copies of a `TransformerEncoderLayer`, then ``norm``.

    ``enable_nested_tensor`` and ``mask_check`` are taken as torch takes them; they choose how torch computes.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def forward(
        self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Tensor:
        """src through all layers; ``is_causal`` says that ``mask``, which must be given, is the causal one."""
        return self._run(src, mask, src_key_padding_mask, bool(is_causal))  # type: ignore[no-any-return]


class TransformerDecoder(_Stack):
    """``num_layers`` copies of a `TransformerDecoderLayer`, then ``norm``."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt and memory through all layers."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self._run(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)  # type: ignore[no-any-return]


class Transformer(Module):
    """An encoder and a decoder that attends to what it makes; arguments as `TransformerEncoderLayer` takes them.

    Parameters
    ----------
    num_encoder_layers, num_decoder_layers : how many layers each has
    custom_encoder, custom_decoder : modules that are called instead, with the same arguments

    Matrices start as ``xavier_uniform_``. Source: Vaswani et al., Attention is all you need (2017).
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        layer = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, **made)

        self.encoder, self.decoder = custom_encoder, custom_decoder
        if custom_encoder is None:
            self.encoder = TransformerEncoder(TransformerEncoderLayer(*layer, **made), num_encoder_layers, norm())
        if custom_decoder is None:
            self.decoder = TransformerDecoder(TransformerDecoderLayer(*layer, **made), num_decoder_layers, norm())
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw new initial values of all matrices."""
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        """[sz, sz]: 0 where a query may see a key (itself and those before), -inf above the diagonal."""
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return Tensor(torch.full((sz, sz), -torch.inf, dtype=dtype).triu(1))

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """src [S, N, E], tgt [L, N, E] (or batch first, or without N) -> the shape of tgt.

        Masks [S, S], [L, L], [L, S] as `MultiheadAttention` takes them, padding masks [N, S], [N, L], [N, S].
        """
        batch = 0 if self.batch_first else 1
        same = src.ndim == tgt.ndim and (src.ndim != 3 or src.shape[batch] == tgt.shape[batch])
        if not same or src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ShapeError(
                f"Transformer: src and tgt must have one batch size and {self.d_model} features; "
                f"got {list(src.shape)} and {list(tgt.shape)}"
            )
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(  # type: ignore[no-any-return]
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
