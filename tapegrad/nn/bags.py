"""EmbeddingBag: sums, means and maxima of looked-up vectors."""

from __future__ import annotations

from typing import Any

import torch

from . import functional as F
from . import init
from .checks import extent, one_of, require
from .module import Module
from .parameter import rows_of, table


class EmbeddingBag(Module):
    """The sum, mean or maximum of each bag of vectors looked up in a table; arguments as `Embedding` takes them.

    Parameters
    ----------
    mode : "sum", "mean" or "max"
    include_last_offset : the last of the offsets is the end of the last bag
    padding_idx : a row that starts at 0 and belongs to no bag
    _weight : the table, [num_embeddings, embedding_dim], instead of a random one

    Shapes: input [B, n] or, with offsets [B], [n]; output [B, embedding_dim].
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = "EmbeddingBag"
        n = self.num_embeddings = extent(num_embeddings, name, "num_embeddings")
        self.embedding_dim = extent(embedding_dim, name, "embedding_dim")
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        one_of(mode, ("sum", "mean", "max"), name, "mode")
        require(not sparse, name, "sparse", "be False (gradients are dense)", sparse)
        if padding_idx is not None:
            require(-n <= padding_idx < n, name, "padding_idx", f"lie in [{-n}, {n})", padding_idx)
            padding_idx %= n
        self.padding_idx = padding_idx
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset
        self.weight = table(name, n, self.embedding_dim, _weight, False, device, dtype)
        if _weight is None:
            self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, *args: Any, **options: Any) -> EmbeddingBag:
        """A bag with the rows of ``embeddings`` [n, m] as its table, which learns unless ``freeze``; options as of
        the class.
        """
        if len(args) > 5:  # torch's order has the table among the options
            args = (*args[:5], embeddings, *args[5:])
        else:
            options["_weight"] = embeddings
        return cls(*rows_of(cls.__name__, embeddings), *args, **options)._frozen(freeze)

    def _frozen(self, freeze: bool) -> EmbeddingBag:
        self.weight.requires_grad = not freeze
        return self

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx].zero_()

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        """input [B, n], or [n] with offsets [B] -> [B, embedding_dim]."""
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        shown = [str(self.num_embeddings), str(self.embedding_dim)]
        defaults = {"max_norm": None, "norm_type": 2, "scale_grad_by_freq": False, "mode": None, "padding_idx": None}
        shown += [f"{key}={getattr(self, key)!r}" for key, default in defaults.items() if getattr(self, key) != default]
        return ", ".join(shown)
