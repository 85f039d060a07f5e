"""``tg.utils.data``: torch's data sets, samplers and loaders; batches of Tensors are Tensors.

The classes are torch's own, worker processes included. A ``generator=`` may be a `tapegrad.Generator`: the order is
then drawn from it, and repeats with its seed; without one it comes from torch's generator, which
`tapegrad.manual_seed` seeds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import data as theirs
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
    get_worker_info,
)
from torch.utils.data._utils.collate import default_collate_fn_map

from ..core import Tensor
from ..ops import Generator, stack

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "StackDataset",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "random_split",
]


def _collated(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    """Samples that are Tensors, as one Tensor [samples, ...]."""
    return stack(list(batch))


default_collate_fn_map[Tensor] = _collated


def _torchs(generator: Any) -> Any:
    """torch's generator, seeded with the next number of ours; anything else as it is."""
    if not isinstance(generator, Generator):
        return generator
    seed, offset = generator.take(1, torch.int64)
    return torch.Generator().manual_seed((seed ^ offset * 0x9E3779B97F4A7C15) % 2**63)


class DataLoader(theirs.DataLoader[Any]):
    """torch's loader: batches of a data set, by worker processes if asked. As ``torch.utils.data.DataLoader``."""

    def __init__(self, *args: Any, generator: Any = None, **kwargs: Any) -> None:
        kwargs["generator"] = _torchs(generator)
        super().__init__(*args, **kwargs)


class RandomSampler(theirs.RandomSampler):
    """The indices in random order. Arguments as ``torch.utils.data.RandomSampler``."""

    def __init__(
        self, data_source: Any, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        super().__init__(data_source, replacement, num_samples, _torchs(generator))


class SubsetRandomSampler(theirs.SubsetRandomSampler):
    """Given indices in random order. Arguments as ``torch.utils.data.SubsetRandomSampler``."""

    def __init__(self, indices: Any, generator: Any = None) -> None:
        super().__init__(indices, _torchs(generator))


class WeightedRandomSampler(theirs.WeightedRandomSampler):
    """Indices drawn with probabilities proportional to weights. As ``torch.utils.data.WeightedRandomSampler``."""

    def __init__(self, weights: Any, num_samples: int, replacement: bool = True, generator: Any = None) -> None:
        weights = weights.data if isinstance(weights, Tensor) else weights
        super().__init__(weights, num_samples, replacement, _torchs(generator))


def random_split(dataset: Any, lengths: Any, generator: Any = None) -> list[Any]:
    """``torch.utils.data.random_split``: the data set in random parts of these lengths (or shares that add up to 1)."""
    return theirs.random_split(dataset, lengths, generator=_torchs(generator) or torch.default_generator)
