"""The reports' data sets, and what stands between an array and a training step: standardizing, batching, folds.

Every function is a function of its arguments and ``seed`` alone: the numbers come from the package's counter-based
generator (Philox, `csrc/ops/random.h`), not from a state that other code moves. Arrays may be NumPy arrays, torch
tensors or `Tensor`; what comes back are torch tensors (models, losses and ops take them as they are), or `Tensor` where
a `Tensor` came in.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import torch

from .arguments import as_count, as_rows, as_seed
from .core import _C, DTypeError, ShapeError, Tensor
from .ops.random import Generator, default_generator, normal, uniform

if TYPE_CHECKING:
    import numpy
    from PIL import Image

Array: TypeAlias = "torch.Tensor | Tensor | numpy.ndarray[Any, Any]"
Batch: TypeAlias = "tuple[torch.Tensor | Tensor, ...]"

RADIUS = 1 / math.sqrt(2 * math.pi)  # a disk of area 1/2, so that its two classes are equal in size

# Colour photographs inside the wheels, so that nothing is ever downloaded: (package, path below the package).
PHOTOGRAPHS = {
    "train": [
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/rocket.jpg"),
        ("sklearn", "datasets/images/flower.jpg"),
    ],
    "test": [
        ("skimage", "data/chelsea.png"),
        ("sklearn", "datasets/images/china.jpg"),
    ],
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
INSTALL = 'pip install "tapegrad[bench]"'


def _stream(seed: int, number: int = 0) -> Generator:
    """The random numbers of one seed; streams of different `number` share none."""
    generator = Generator(seed)
    generator.offset = number << 48
    return generator


def drawn_seed() -> int:
    """A seed from the default generator, which ``tg.manual_seed`` sets."""
    return _integers(2**62, 1, default_generator)[0]


def _integers(high: int, n: int, generator: Generator) -> list[int]:
    """`n` uniform integers in [0, high)."""
    values: list[int] = _C.random_int(0, high, [n], *generator.take(n, torch.int64)).tolist()
    return values


def _like(value: torch.Tensor, source: Any) -> torch.Tensor | Tensor:
    return Tensor(value) if isinstance(source, Tensor) else value


# --- the reports' points -----------------------------------------------------------------------------------------


def disk(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the unit square, labelled by the disk that covers half of it.

    ``label = 1 where (x - 0.5)^2 + (y - 0.5)^2 <= 1 / (2 pi), else 0``, x and y uniform in [0, 1).

    Parameters
    ----------
    n : number of points, at least 1
    seed : any integer (modulo 2**64); another seed gives independent points (1,000 to train, 1,000 to test)

    Returns
    -------
    points, labels : float32 [n, 2] and int64 [n]

    Raises
    ------
    ShapeError
        if n < 1.

    Source: reports 1 to 3 (EPFL, Deep Learning EE-559, project 2); report 2 misprints the radius 1 / sqrt(2 pi).
    """
    return _points(n, seed, "disk", centre=0.5)


def quarter_circle(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the unit square, labelled by the quarter disk around the origin.

    ``label = 1 where x^2 + y^2 <= 1 / (2 pi), else 0``, x and y uniform in [0, 1). One point in eight is inside, so
    that the constant answer 0 scores 0.875: report balanced accuracy beside accuracy.

    Parameters
    ----------
    n : number of points, at least 1
    seed : any integer (modulo 2**64)

    Returns
    -------
    points, labels : float32 [n, 2] and int64 [n]

    Raises
    ------
    ShapeError
        if n < 1.

    Source: report 4.
    """
    return _points(n, seed, "quarter_circle", centre=0.0)


def _points(n: int, seed: int, name: str, centre: float) -> tuple[torch.Tensor, torch.Tensor]:
    n = as_count(n, f"{name}: n")
    points = uniform([n, 2], torch.float32, _stream(as_seed(seed, f"{name}: seed")), name)
    # float64, so that the boundary is not moved by rounding
    inside = (points.double() - centre).square().sum(1) <= RADIUS**2
    return points, inside.long()


# --- photographs -------------------------------------------------------------------------------------------------


def noisy_patches(
    n: int,
    size: int = 32,
    sigma: float = 0.2,
    seed: int = 0,
    split: str = "train",
    folder: str | Path | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of noisy pictures of the same patch of a photograph, with the clean patch.

    ``noisy = clamp(clean + sigma * z, 0, 1)``, z standard normal, drawn anew for each of the two; a network trained to
    map one onto the other learns to remove the noise without ever seeing a clean picture.

    Patches are cut at uniform positions from each photograph in turn. The photographs are seven that scikit-learn and
    scikit-image ship inside their wheels (nothing is downloaded), five for ``split="train"`` and two others for
    ``"test"``; or the images of `folder`, in the order of their names, every fourth one for ``"test"``.

    Parameters
    ----------
    n : number of patches, at least 1
    size : height and width of a patch in pixels
    sigma : standard deviation of the noise, on the scale where black is 0 and white is 1
    seed : any integer; train and test never share noise, whatever their seeds
    split : "train" or "test"
    folder : a folder of images (png, jpg, bmp, tif, webp) to use instead; at least two

    Returns
    -------
    first, second, clean : float32 [n, 3, size, size], values in [0, 1]

    Raises
    ------
    ShapeError
        if n or size is below 1, or a photograph is smaller than a patch.
    ValueError
        for an unknown split, a negative sigma, a folder with fewer than two images, or a file that is no image.
    ImportError
        if the packages with the photographs are missing; the message has the command that installs them.

    Source: report 5, with Lehtinen et al., "Noise2Noise", ICML 2018, for training on pairs.
    """
    n, size = as_count(n, "noisy_patches: n"), as_count(size, "noisy_patches: size")
    if split not in PHOTOGRAPHS:
        raise ValueError(f"noisy_patches: split must be 'train' or 'test'; got {split!r}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"noisy_patches: sigma must be a finite number of at least 0; got {sigma!r}")
    generator = _stream(as_seed(seed, "noisy_patches: seed"), list(PHOTOGRAPHS).index(split))
    paths = _shipped(split) if folder is None else _in_folder(Path(folder), split)
    clean = torch.empty(n, 3, size, size)
    for first, path in enumerate(paths[:n]):
        clean[first :: len(paths)] = _cut(_load(path, size), len(range(first, n, len(paths))), size, generator)
    return _noisy(clean, sigma, generator), _noisy(clean, sigma, generator), clean


def _noisy(clean: torch.Tensor, sigma: float, generator: Generator) -> torch.Tensor:
    noise = normal(clean.shape, torch.float32, generator, "noisy_patches")
    return (clean + sigma * noise).clamp_(0, 1)


def _shipped(split: str) -> list[Path]:
    """Where the photographs of a split lie. They are opened by path: the packages' own loaders may download."""
    paths = []
    for package, name in PHOTOGRAPHS[split]:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            pip_name = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
            raise ImportError(f"noisy_patches: the photographs come with {pip_name}, which is missing: {INSTALL}")
        path = Path(spec.origin).parent / name
        if not path.is_file():
            raise ImportError(f"noisy_patches: the {package} that is installed comes without {name}: {INSTALL}")
        paths.append(path)
    return paths


def _in_folder(folder: Path, split: str) -> list[Path]:
    """The user's images of a split: every fourth by name is for testing."""
    if not folder.is_dir():
        raise ValueError(f"noisy_patches: folder must be a folder of images; got '{folder}'")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise ValueError(f"noisy_patches: folder must hold at least 2 images, one to test on; got {len(paths)}")
    test = paths[1::4]
    return test if split == "test" else [p for p in paths if p not in test]


def _load(path: Path, size: int) -> torch.Tensor:
    """An image as uint8 [3, H, W]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"noisy_patches: reading images needs Pillow, which is missing: {INSTALL}") from error
    try:
        with Image.open(path) as image:
            return _pixels(image.convert("RGB"), path, size)
    except OSError as error:
        raise ValueError(f"noisy_patches: '{path.name}' cannot be read as an image: {error}") from error


def _pixels(image: Image.Image, path: Path, size: int) -> torch.Tensor:
    width, height = image.size
    if min(width, height) < size:
        raise ShapeError(f"noisy_patches: size = {size} must fit '{path.name}' of {width} x {height} pixels")
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.view(height, width, 3).permute(2, 0, 1)  # [H, W, 3] -> [3, H, W]


def _cut(image: torch.Tensor, n: int, size: int, generator: Generator) -> torch.Tensor:
    """`n` patches at uniform positions, float32 [n, 3, size, size] in [0, 1]."""
    _, height, width = image.shape
    tops = _integers(height - size + 1, n, generator)
    lefts = _integers(width - size + 1, n, generator)
    patches = [image[:, y : y + size, x : x + size] for y, x in zip(tops, lefts, strict=True)]
    return torch.stack(patches).float() / 255


# --- from arrays to batches --------------------------------------------------------------------------------------


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
