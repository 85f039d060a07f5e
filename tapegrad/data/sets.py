"""The reports' data sets.

Every function is a function of its arguments and ``seed`` alone: the numbers come from the package's counter-based
generator (Philox, `csrc/ops/random.h`), not from a state that other code moves. What comes back are torch tensors,
which models, losses and ops take as they are.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..core import ShapeError
from ..ops.random import Generator, raw_normal, raw_uniform
from .arguments import as_count, as_seed
from .streams import integers, stream

if TYPE_CHECKING:
    from PIL import Image

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
    points = raw_uniform([n, 2], torch.float32, stream(as_seed(seed, f"{name}: seed")), name)
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
    generator = stream(as_seed(seed, "noisy_patches: seed"), list(PHOTOGRAPHS).index(split))
    paths = _shipped(split) if folder is None else _in_folder(Path(folder), split)
    clean = torch.empty(n, 3, size, size)
    for first, path in enumerate(paths[:n]):
        clean[first :: len(paths)] = _cut(_load(path, size), len(range(first, n, len(paths))), size, generator)
    return _noisy(clean, sigma, generator), _noisy(clean, sigma, generator), clean


def _noisy(clean: torch.Tensor, sigma: float, generator: Generator) -> torch.Tensor:
    noise = raw_normal(clean.shape, torch.float32, generator, "noisy_patches")
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
    tops = integers(height - size + 1, n, generator)
    lefts = integers(width - size + 1, n, generator)
    patches = [image[:, y : y + size, x : x + size] for y, x in zip(tops, lefts, strict=True)]
    return torch.stack(patches).float() / 255
