"""tapegrad.data: what the data sets contain, that a seed decides everything, and what is refused."""

import importlib.util
import math
import re
import socket

import numpy as np
import pytest
import torch

import tapegrad as tg
from tapegrad import data
from tapegrad.core import _C, DTypeError, ShapeError

# --- points ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "centre"), [(data.disk, 0.5), (data.quarter_circle, 0.0)])
def test_labels_follow_the_circle(points, centre):
    x, labels = points(2000, seed=3)
    assert (x.shape, x.dtype) == ((2000, 2), torch.float32)
    assert (labels.shape, labels.dtype) == ((2000,), torch.int64)
    assert x.min() >= 0
    assert x.max() < 1
    inside = np.hypot(*(x.numpy().astype(np.float64) - centre).T) <= 1 / math.sqrt(2 * math.pi)
    assert np.array_equal(labels.numpy(), inside)


def test_half_of_the_disk_and_an_eighth_of_the_quarter_circle_are_inside():
    # four standard deviations of a mean of 100,000 draws
    assert data.disk(100_000, seed=0)[1].double().mean() == pytest.approx(0.5, abs=4 * 0.5 / 316)
    assert data.quarter_circle(100_000, seed=0)[1].double().mean() == pytest.approx(0.125, abs=4 * 0.33 / 316)


def test_a_seed_decides_the_points():
    torch.manual_seed(1)
    first, _ = data.disk(100, seed=5)
    torch.manual_seed(2)
    tg.manual_seed(3)
    again, _ = data.disk(100, seed=5)
    other, _ = data.disk(100, seed=6)
    assert torch.equal(first, again)
    assert not torch.isin(other, first).any()


@pytest.mark.parametrize("points", [data.disk, data.quarter_circle])
def test_a_number_of_points_below_one_is_refused(points):
    for n in (0, -3):
        with pytest.raises(ShapeError, match=f"{points.__name__}: n must be at least 1; got {n}"):
            points(n)
    with pytest.raises(TypeError, match=f"{points.__name__}: n must be an integer; got float 2.5"):
        points(2.5)
    with pytest.raises(TypeError, match=f"{points.__name__}: seed must be an integer; got str 'a'"):
        points(2, "a")


# --- photographs -------------------------------------------------------------------------------------------------


@pytest.fixture
def _offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("split", ["train", "test"])
def test_patches_are_photographs_with_clipped_noise(split):
    first, second, clean = data.noisy_patches(200, seed=1, split=split)
    for pictures in (first, second, clean):
        assert (pictures.shape, pictures.dtype) == ((200, 3, 32, 32), torch.float32)
        assert pictures.min() >= 0
        assert pictures.max() <= 1
    assert torch.equal((clean * 255).round() / 255, clean)  # 8-bit values
    assert clean.flatten(1).std(1).median() > 0.02  # pictures of something
    # where clipping cannot reach (3 sigma from black and white) the noise has mean 0 and SD 0.2, and the two differ
    noise, other = (x - clean for x in data.noisy_patches(200, sigma=0.1, seed=1, split=split)[:2])
    middle = (clean - 0.5).abs() < 0.2
    assert noise[middle].mean() == pytest.approx(0, abs=2e-3)
    assert noise[middle].std() == pytest.approx(0.1, rel=0.01)
    assert (noise[middle] * other[middle]).mean() == pytest.approx(0, abs=2e-4)


def test_train_and_test_patches_come_from_different_photographs():
    assert not set(data.PHOTOGRAPHS["train"]) & set(data.PHOTOGRAPHS["test"])


def test_train_and_test_share_no_noise():
    noise = [x - clean for x, _, clean in (data.noisy_patches(50, seed=1, split=s) for s in ("train", "test"))]
    correlation = torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(noise[0].numel())


def test_a_seed_decides_the_patches():
    a, b, other = (data.noisy_patches(7, size=16, seed=s) for s in (4, 4, 5))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[2], other[2])


def test_without_noise_the_pair_is_the_clean_patch():
    first, second, clean = data.noisy_patches(3, sigma=0, seed=0)
    assert torch.equal(first, clean)
    assert torch.equal(second, clean)


def test_photographs_of_a_folder(tmp_path):
    from PIL import Image

    for i in range(5):
        Image.new("RGB", (40, 36), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("not an image")

    def shades(split):
        clean = data.noisy_patches(10, split=split, folder=tmp_path)[2]
        return sorted({round(x.item() * 255) for x in clean[:, 0, 0, 0]})

    assert shades("train") == [0, 100, 150, 200]
    assert shades("test") == [50]
    with pytest.raises(ShapeError, match=re.escape("size = 37 must fit '0.png' of 40 x 36 pixels")):
        data.noisy_patches(1, size=37, folder=tmp_path)
    (tmp_path / "0.png").write_text("no image")
    with pytest.raises(ValueError, match=re.escape("'0.png' cannot be read as an image")):
        data.noisy_patches(1, folder=tmp_path)


def test_what_patches_refuse(tmp_path):
    with pytest.raises(ShapeError, match="n must be at least 1; got 0"):
        data.noisy_patches(0)
    with pytest.raises(ShapeError, match="size must be at least 1; got 0"):
        data.noisy_patches(1, size=0)
    with pytest.raises(ShapeError, match=re.escape("size = 3000 must fit 'astronaut.png' of 512 x 512 pixels")):
        data.noisy_patches(1, size=3000)
    with pytest.raises(ValueError, match="split must be 'train' or 'test'; got 'dev'"):
        data.noisy_patches(1, split="dev")
    for sigma in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"sigma must be a finite number of at least 0; got {sigma}"):
            data.noisy_patches(1, sigma=sigma)
    with pytest.raises(ValueError, match="folder must hold at least 2 images, one to test on; got 0"):
        data.noisy_patches(1, folder=tmp_path)
    with pytest.raises(ValueError, match="folder must be a folder of images; got"):
        data.noisy_patches(1, folder=tmp_path / "none")


def test_a_missing_extra_is_named_with_the_command(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skimage" else find(name))
    with pytest.raises(ImportError, match=re.escape('scikit-image, which is missing: pip install "tapegrad[bench]"')):
        data.noisy_patches(1)


# --- standardize -------------------------------------------------------------------------------------------------


def test_standardize_uses_the_training_mean_and_sd():
    train, test = np.array([[0.0, 5.0], [2.0, 5.0]]), torch.tensor([[4.0, 6.0]])
    a, b = data.standardize(train, test)
    assert a.tolist() == [[-1, 0], [1, 0]]  # SD over n; the constant feature is only shifted
    assert b.tolist() == [[3, 1]]
    assert (a.dtype, b.dtype) == (torch.float64, torch.float32)
    assert data.standardize(train).tolist() == a.tolist()
    assert train.tolist() == [[0, 5], [2, 5]]


def test_standardize_gives_tensors_for_tensors():
    a, b = data.standardize(tg.tensor([[0.0], [2.0]]), torch.zeros(1, 1))
    assert isinstance(a, tg.Tensor)
    assert isinstance(b, torch.Tensor)


def test_what_standardize_refuses():
    with pytest.raises(ShapeError, match=re.escape("train must not be empty; got shape [0, 2]")):
        data.standardize(torch.zeros(0, 2))
    with pytest.raises(DTypeError, match=re.escape("others[0] must be float32 or float64; got torch.int64")):
        data.standardize(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ShapeError, match=re.escape("others[1].shape[1:] = [3] must equal train.shape[1:] = [2]")):
        data.standardize(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="train must have samples along dimension 0; got a 0-dim tensor"):
        data.standardize(torch.tensor(1.0))
    with pytest.raises(TypeError, match="train"):
        data.standardize([1.0, 2.0])


# --- batches -----------------------------------------------------------------------------------------------------


def test_batches_follow_the_permutation_of_seed_and_epoch():
    x = torch.arange(10)
    for epoch in (0, 1):
        got = torch.cat([b for (b,) in data.batches(x, batch_size=4, seed=7, epoch=epoch)])
        assert torch.equal(got, _C.permutation(10, 7, epoch))
    assert not torch.equal(_C.permutation(10, 7, 0), _C.permutation(10, 7, 1))


def test_arrays_stay_together_and_keep_their_kind():
    x, y, z = np.arange(10.0), torch.arange(10), tg.tensor([float(i) for i in range(10)])
    got = list(data.batches(x, y, z, batch_size=4, seed=0))
    assert [len(a) for a, _, _ in got] == [4, 4, 2]
    for a, b, c in got:
        assert type(a) is torch.Tensor
        assert a.dtype == torch.float64
        assert type(b) is torch.Tensor
        assert isinstance(c, tg.Tensor)
        assert a.tolist() == b.tolist() == c.tolist()


def test_drop_last_and_no_shuffle():
    x = torch.arange(10)
    assert [b.tolist() for (b,) in data.batches(x, batch_size=4, shuffle=False)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    kept = data.batches(x, batch_size=4, shuffle=False, drop_last=True)
    assert [b.tolist() for (b,) in kept] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [len(b) for (b,) in data.batches(x, batch_size=100)] == [10]
    assert list(data.batches(torch.zeros(0), batch_size=2)) == []


def test_without_a_seed_the_default_generator_decides():
    x = torch.arange(1000)
    orders = []
    for seed in (1, 1, 2):
        tg.manual_seed(seed)
        orders.append([next(data.batches(x, batch_size=1000))[0] for _ in range(2)])
    assert torch.equal(orders[0][0], orders[1][0])
    assert not torch.equal(orders[0][0], orders[0][1])
    assert not torch.equal(orders[0][0], orders[2][0])


def test_what_batches_refuse_at_the_call():
    x = torch.arange(4)
    with pytest.raises(ShapeError, match="batches: batch_size must be at least 1; got 0"):
        data.batches(x, batch_size=0)
    with pytest.raises(ShapeError, match=re.escape("batches: len(arrays[1]) = 3 must equal len(arrays[0]) = 4")):
        data.batches(x, x[:3], batch_size=2)
    with pytest.raises(ShapeError, match="batches: at least one array is needed; got none"):
        data.batches(batch_size=2)
    with pytest.raises(TypeError, match=re.escape("batches: arrays[0] must be")):
        data.batches([1, 2], batch_size=2)
    with pytest.raises(ShapeError, match="batches: epoch must be at least 0; got -1"):
        data.batches(x, batch_size=2, epoch=-1)
    with pytest.raises(TypeError, match="batches: seed must be an integer; got float"):
        data.batches(x, batch_size=2, seed=1.5)


# --- folds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(10, 2), (11, 3), (5, 5)])
def test_each_sample_is_in_one_validation_fold(n, k):
    folds = data.kfold(n, k, seed=2)
    assert len(folds) == k
    for train, validation in folds:
        assert sorted(train.tolist() + validation.tolist()) == list(range(n))
        assert len(validation) in (n // k, n // k + 1)
    assert sorted(i for _, validation in folds for i in validation.tolist()) == list(range(n))


def test_a_seed_decides_the_folds():
    a, b, other = (data.kfold(50, 2, seed=s)[0][1] for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_what_kfold_refuses():
    with pytest.raises(ShapeError, match="kfold: k = 5 folds must be at most n = 4 samples"):
        data.kfold(4, 5)
    with pytest.raises(ShapeError, match="kfold: k must be at least 2; got 1"):
        data.kfold(4, 1)
    with pytest.raises(ShapeError, match="kfold: n must be at least 1; got 0"):
        data.kfold(0, 2)
