"""Sequences of different lengths in one batch: padded, or packed so that nothing is computed for padding.

Packed means the rows of all steps one after another, [M, ...], longest sequence first: step t has ``batch_sizes[t]``
rows, one for each sequence longer than t. Names and arguments are those of ``torch.nn.utils.rnn``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from ... import ops
from ...core import ArgumentError, ShapeError, Tensor
from ..checks import one_of, require

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class _Packed(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Packed):
    """Sequences, longest first, their rows by time.

    Fields
    ------
    data : [M, ...], the rows of all steps
    batch_sizes : int64 [L], how many rows each step has
    sorted_indices, unsorted_indices : int64 [N], the permutation that sorted the sequences and its inverse, or None

    Made by `pack_padded_sequence` and `pack_sequence`. Source: ``torch.nn.utils.rnn.PackedSequence``.
    """

    _sizes: list[int] | None = None  # batch_sizes as they were given: a compiled step must not read them

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None, unsorted_indices: Any = None
    ) -> PackedSequence:
        if batch_sizes is None:
            if not (isinstance(data, tuple | list) and len(data) == 2):
                raise TypeError("PackedSequence: batch_sizes must be given, or data be a pair (data, batch_sizes)")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    @property
    def sizes(self) -> list[int]:
        """The batch sizes as numbers."""
        return [int(size) for size in self.batch_sizes.tolist()] if self._sizes is None else self._sizes

    def with_data(self, data: Any) -> PackedSequence:
        """Other rows [M, ...] of the same sequences."""
        other = type(self)(data, *self[1:])
        other._sizes = self._sizes
        return other

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The rows converted as `Tensor.to` does."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self.with_data(data)

    def double(self) -> PackedSequence:
        """The rows in float64."""
        return self.to(torch.float64)

    def float(self) -> PackedSequence:
        """The rows in float32."""
        return self.to(torch.float32)

    def cpu(self) -> PackedSequence:
        """Itself."""
        return self

    @property
    def is_cuda(self) -> bool:
        """False."""
        return False


def invert_permutation(permutation: Any) -> Any:
    """The inverse of a permutation [N] of 0 ... N - 1; None for None."""
    return None if permutation is None else ops.argsort(permutation)


def _lengths(lengths: Any, n: int, name: str) -> list[int]:
    """The lengths as ints, one for each of n sequences."""
    values = [int(k) for k in (lengths.tolist() if hasattr(lengths, "tolist") else lengths)]
    if len(values) != n:
        raise ShapeError(f"{name}: lengths must have {n} elements, one for each sequence; got {len(values)}")
    return values


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Leave out the padding.

    Parameters
    ----------
    input : [L, N, ...], or [N, L, ...] if ``batch_first``
    lengths : N integers from 1 to L: how long each sequence is
    enforce_sorted : the lengths must not grow (default); else the sequences are sorted, and sorted back by
        `pad_packed_sequence` and the recurrent layers

    Source: ``torch.nn.utils.rnn.pack_padded_sequence``.
    """
    name = "pack_padded_sequence"
    if input.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions; got shape {list(input.shape)}")
    x = ops.transpose(input, 0, 1) if batch_first else input
    length, n = x.shape[:2]
    values = _lengths(lengths, n, name)
    require(n > 0, name, "input", "hold at least one sequence", list(input.shape))
    require(min(values) > 0, name, "lengths", "be at least 1", values)
    require(max(values) <= length, name, "lengths", f"not exceed the {length} steps of input", values)
    order = None
    if not enforce_sorted:
        indices = sorted(range(n), key=lambda k: -values[k])  # ties stay in order, as in torch
        values, order = [values[k] for k in indices], Tensor(torch.tensor(indices))
        x = ops.index_select(x, 1, order)
    elif any(a < b for a, b in itertools.pairwise(values)):
        raise ArgumentError(f"{name}: lengths must not grow (or pass enforce_sorted=False); got {values}")
    sizes = [sum(k > t for k in values) for t in range(values[0])]
    rows = ops.reshape(x, (length * n, *x.shape[2:]))  # [L, N, ...] -> [L * N, ...]
    kept = torch.tensor([t * n + row for t, size in enumerate(sizes) for row in range(size)])
    packed = PackedSequence(ops.index_select(rows, 0, kept), Tensor(torch.tensor(sizes)), order)
    packed._sizes = sizes
    return packed


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Any, Tensor]:
    """Put the padding back: (padded [L, N, ...] or [N, L, ...], lengths [N]), in the order before sorting.

    Parameters
    ----------
    padding_value : what stands behind the end of a sequence
    total_length : L, if it shall be more than the longest sequence

    Source: ``torch.nn.utils.rnn.pad_packed_sequence``.
    """
    sizes = sequence.sizes
    longest = len(sizes)
    total = longest if total_length is None else total_length
    require(total >= longest, "pad_packed_sequence", "total_length", f"be at least {longest}", total_length)
    data, m, n = sequence.data, sum(sizes), sizes[0]
    # row (t, k) of the result is row starts[t] + k of the packed ones, or row m, which is padding
    starts = [sum(sizes[:t]) for t in range(longest)]
    index = torch.full((total, n), m)
    for t, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        index[t, :size] = torch.arange(start, start + size)
    if batch_first:
        index = index.T
    padding = torch.full((1, *data.shape[1:]), padding_value, dtype=data.dtype)
    padded = ops.index_select(ops.cat([data, padding]), 0, index.reshape(-1))
    padded = ops.reshape(padded, (*index.shape, *data.shape[1:]))
    lengths = Tensor(torch.tensor([sum(size > k for size in sizes) for k in range(n)]))
    back = sequence.unsorted_indices
    if back is None:
        return padded, lengths
    return ops.index_select(padded, 0 if batch_first else 1, back), ops.index_select(lengths, 0, back)


def pad_sequence(
    sequences: Iterable[Any], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Any:
    """Sequences [L_k, ...] of different lengths as one padded batch [L, N, ...], or [N, L, ...].

    Source: ``torch.nn.utils.rnn.pad_sequence``.
    """
    name = "pad_sequence"
    one_of(padding_side, ("left", "right"), name, "padding_side")
    parts = list(sequences)
    require(bool(parts), name, "sequences", "not be empty", parts)
    longest = max(part.shape[0] for part in parts)
    padded = []
    for part in parts:
        missing = longest - part.shape[0]
        if missing:
            padding = torch.full((missing, *part.shape[1:]), padding_value, dtype=part.dtype)
            part = ops.cat([part, padding] if padding_side == "right" else [padding, part])
        padded.append(part)
    return ops.stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Any]:
    """The sequences of a padded batch, each with its own length. Source: ``torch.nn.utils.rnn.unpad_sequence``."""
    x = padded_sequences if batch_first else ops.transpose(padded_sequences, 0, 1)
    values = _lengths(lengths, x.shape[0], "unpad_sequence")
    return [ops.narrow(row, 0, 0, min(k, x.shape[1])) for row, k in zip(ops.unbind(x), values, strict=True)]


def pack_sequence(sequences: Iterable[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences [L_k, ...] packed. Source: ``torch.nn.utils.rnn.pack_sequence``."""
    parts = list(sequences)
    return pack_padded_sequence(pad_sequence(parts), [p.shape[0] for p in parts], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Any]:
    """The inverse of `pack_sequence`. Source: ``torch.nn.utils.rnn.unpack_sequence``."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
