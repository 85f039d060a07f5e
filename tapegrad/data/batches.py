"""What stands between an array and a training step: standardizing, batches, folds.

Arrays may be NumPy arrays, torch tensors or `Tensor`; what comes back are torch tensors (models, losses and ops take
them as they are), or `Tensor` where a `Tensor` came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import torch

from ..core import _C, DTypeError, ShapeError, Tensor
from .arguments import as_count, as_rows, as_seed
from .streams import drawn_seed

if TYPE_CHECKING:
    import numpy

Array: TypeAlias = "torch.Tensor | Tensor | numpy.ndarray[Any, Any]"
Batch: TypeAlias = "tuple[torch.Tensor | Tensor, ...]"


def _like(value: torch.Tensor, source: Any) -> torch.Tensor | Tensor:
    return Tensor(value) if isinstance(source, Tensor) else value


@overload
def standardize(train: Array, /) -> torch.Tensor | Tensor: ...
@overload
def standardize(train: Array, /, *others: Array) -> Batch: ...
def standardize(train: Any, /, *others: Any) -> Any:
    """Shift and scale each feature to mean 0 and standard deviation 1 on the training data.

    ``(x - mean(train, 0)) / sd(train, 0)``, with the SD over n (not n - 1), computed in float64. A constant feature is
    only shifted. The same mean and SD apply to `others` (validation, test), which have no say in them.

    Parameters
    ----------
    train : float32 or float64 [n, ...], samples along dimension 0
    others : any number of arrays [m, ...] with the same features

    Returns
    -------
    The standardized train alone if there are no others, else a tuple (train, *others); dtypes are kept.

    Raises
    ------
    ShapeError
        if train is empty, or another array's features have a different shape.
    DTypeError
        for integer arrays, which cannot hold the result.

    Source: report 3.
    """
    arrays = [train, *others]
    names = ["train", *[f"others[{i}]" for i in range(len(others))]]
    values = [as_rows(a, f"standardize: {name}") for a, name in zip(arrays, names, strict=True)]
    features = values[0].shape[1:]
    if values[0].numel() == 0:
        raise ShapeError(f"standardize: train must not be empty; got shape {list(values[0].shape)}")
    for name, value in zip(names, values, strict=True):
        if not value.is_floating_point():
            raise DTypeError(f"standardize: {name} must be float32 or float64; got {value.dtype}")
        if value.shape[1:] != features:
            raise ShapeError(
                f"standardize: {name}.shape[1:] = {list(value.shape[1:])} must equal train.shape[1:] = {list(features)}"
            )
    mean = values[0].double().mean(0)
    sd = values[0].double().std(0, correction=0)
    sd = torch.where(sd == 0, 1.0, sd)
    done = [
        _like(((value.double() - mean) / sd).to(value.dtype), source)
        for value, source in zip(values, arrays, strict=True)
    ]
    return tuple(done) if others else done[0]


def batches(
    *arrays: Array,
    batch_size: int,
    shuffle: bool = True,
    drop_last: bool = False,
    seed: int | None = None,
    epoch: int = 0,
) -> Iterator[Batch]:
    """One epoch of batches: tuples of rows of every array, in one random order.

    The order is the permutation of (seed, epoch), the one that a compiled ``step.run(..., seed=seed)`` uses in that
    epoch, so that both see the same batches.

    Parameters
    ----------
    arrays : at least one, [n, ...] each, with the same n
    batch_size : rows in a batch; the last batch may be smaller
    shuffle : False keeps the order of the arrays (and the batches are views of them)
    drop_last : leave out a last batch that is smaller
    seed : any integer; None draws one from the default generator, which ``tg.manual_seed`` sets
    epoch : number of the pass over the data; each gives its own order

    Returns
    -------
    An iterator of tuples, one entry per array: torch tensors, or `Tensor` where a `Tensor` was given.

    Raises
    ------
    ShapeError
        if batch_size < 1, there is no array, or their lengths differ; at the call, not at the first batch.
    """
    if not arrays:
        raise ShapeError("batches: at least one array is needed; got none")
    values = [as_rows(a, f"batches: arrays[{i}]") for i, a in enumerate(arrays)]
    batch_size = as_count(batch_size, "batches: batch_size")
    n = len(values[0])
    for i, value in enumerate(values):
        if len(value) != n:
            raise ShapeError(f"batches: len(arrays[{i}]) = {len(value)} must equal len(arrays[0]) = {n}")
    order = None
    if shuffle:
        chosen = drawn_seed() if seed is None else as_seed(seed, "batches: seed")
        order = _C.permutation(n, chosen, as_count(epoch, "batches: epoch", 0))
    stop = n - n % batch_size if drop_last else n
    return _slices(arrays, values, order, batch_size, stop)


def _slices(
    arrays: tuple[Any, ...], values: list[torch.Tensor], order: torch.Tensor | None, batch_size: int, stop: int
) -> Iterator[Batch]:
    for start in range(0, stop, batch_size):
        rows = slice(start, min(start + batch_size, stop))
        yield tuple(
            _like(value[rows] if order is None else value.index_select(0, order[rows]), source)
            for value, source in zip(values, arrays, strict=True)
        )


def kfold(n: int, k: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Split n samples into k folds; each is the validation set once.

    Fold i of the permutation of `seed` has n // k samples, the first n % k folds one more.

    Parameters
    ----------
    n : number of samples, at least 2
    k : number of folds, 2 <= k <= n
    seed : any integer (modulo 2**64)

    Returns
    -------
    A list of k pairs (train, validation) of row numbers, int64 [n - m] and [m].

    Raises
    ------
    ShapeError
        if k < 2 or k > n.

    Source: the further work of report 4.
    """
    n, k = as_count(n, "kfold: n"), as_count(k, "kfold: k", 2)
    if k > n:
        raise ShapeError(f"kfold: k = {k} folds must be at most n = {n} samples")
    folds = _C.permutation(n, as_seed(seed, "kfold: seed"), 0).tensor_split(k)
    return [(torch.cat([*folds[:i], *folds[i + 1 :]]), folds[i]) for i in range(k)]
