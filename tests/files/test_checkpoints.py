"""What scripts put into files: checkpoints, whole models, file objects; and torch's own files."""

import io
import json
import pickle
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

import tapegrad as tg
from tapegrad import nn


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.width, self.activation = width, nn.functional.relu
        self.layers = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Dropout(0.5))
        self.head = nn.Linear(width, width)
        self.tied = self.head
        self.head.bias.requires_grad_(False)
        self.sizes = {"a": [1, 2.5], "b": None}

    def forward(self, x):
        return self.tied(self.activation(self.layers(x)))


def trained():
    tg.manual_seed(0)
    net = Net()
    optimizer = tg.optim.Adam(net.parameters())
    schedule = tg.optim.lr_scheduler.StepLR(optimizer, 1)
    net(tg.randn(4, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    return net, optimizer, schedule


def same(a, b):
    if isinstance(a, tg.Tensor | torch.Tensor):
        return torch.equal(getattr(a, "data", a), getattr(b, "data", b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    net, optimizer, schedule = trained()
    checkpoint = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "epoch": 3,
        "args": OrderedDict(lr=0.1, name="run", flag=True, nothing=None),
        "history": [(0, 0.5), (1, float("inf"))],
        "rng": tg.get_rng_state(),
        "numpy": np.random.RandomState(0).get_state(),
        "array": np.arange(6.0).reshape(2, 3).T,
        "size": tg.Size([2, 3]),
        "dtype": tg.float64,
        "seen": {1, 2},
        (1, "a"): torch.tensor([True, False]),
    }
    path = tmp_path / "run.pt"
    tg.save(checkpoint, path)
    assert same(tg.load(path, map_location="cpu", weights_only=False), checkpoint)
    again = Net()
    again.load_state_dict(tg.load(path)["model"])
    assert same(again.state_dict(), net.state_dict())


def test_files_that_are_open():
    buffer = io.BytesIO()
    first, second = {"a": tg.ones(2)}, [tg.zeros(3), "text"]
    tg.save(first, buffer)
    tg.save(second, buffer, _use_new_zipfile_serialization=False)
    buffer.seek(0)
    assert same(tg.load(buffer), first)
    assert same(tg.load(buffer), second)


def test_where_tensors_go():
    buffer = io.BytesIO()
    tg.save({"a": tg.ones(2)}, buffer)
    for place in (None, "cpu", tg.device("cpu"), lambda storage, location: storage, {"cuda:0": "cpu"}):
        buffer.seek(0)
        assert tg.load(buffer, map_location=place)["a"].tolist() == [1.0, 1.0]
    buffer.seek(0)
    with pytest.raises(tg.DTypeError, match="map_location"):
        tg.load(buffer, map_location="cuda:0")


# --- whole models ------------------------------------------------------------------------------------------------


def test_a_whole_model_is_made_anew_of_its_class(tmp_path):
    net, _, _ = trained()
    net.eval()
    path = tmp_path / "model"
    tg.save({"model": net}, path)
    again = tg.load(path)["model"]
    assert type(again) is Net
    assert again.tied is again.head
    assert again.sizes == net.sizes
    assert not again.training
    assert not again.head.bias.requires_grad
    assert list(again.state_dict()) == list(net.state_dict())
    x = tg.randn(5, 2)
    assert torch.equal(again(x).data, net(x).data)
    with pytest.raises(tg.StateError, match=r"holds a whole model .*Net.*; leave weights_only=True out"):
        tg.load(path, weights_only=True)


def test_a_model_without_a_class_that_can_be_named_is_refused():
    class Local(nn.Module):
        pass

    with pytest.raises(TypeError, match=r"save: model is a .*Local, .*save model.state_dict\(\)"):
        tg.save({"model": Local()}, io.BytesIO())
    net = Net()
    net.function = lambda x: x
    with pytest.raises(TypeError, match=r"save: function must be .* got function; save model.state_dict\(\)"):
        tg.save(net, io.BytesIO())


def test_a_class_is_not_imported_by_a_file(monkeypatch):
    buffer = io.BytesIO()
    tg.save(Net(), buffer)
    buffer.seek(0)
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(tg.StateError, match=r"class .*Net is not there; define or import it"):
        tg.load(buffer, weights_only=False)


def test_a_class_that_is_no_module_is_refused(tmp_path):
    def write_tree(path, tree):
        header = json.dumps({"__metadata__": {"tapegrad": json.dumps(tree)}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)

    path = tmp_path / "file"
    write_tree(path, {"module": [["subprocess", "Popen"], {}, []]})
    with pytest.raises(tg.StateError, match="damaged"):
        tg.load(path, weights_only=False)
    write_tree(path, {"function": ["os", "system"]})
    with pytest.raises(tg.StateError, match="damaged"):
        tg.load(path, weights_only=False)


# --- torch's files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_torchs_checkpoints_are_read(tmp_path, zipped):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2, "best": [0.5, (1, "x")]}
    path = tmp_path / "torch.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    found = tg.load(path, map_location=tg.device("cpu"), weights_only=True)
    assert isinstance(found["model"]["0.weight"], tg.Tensor)
    assert same(found, checkpoint) or list(found) == list(checkpoint)
    ours = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ours.load_state_dict(found["model"])
    assert torch.equal(ours[0].weight.data, model[0].weight.detach())
    adam = tg.optim.Adam(ours.parameters())
    adam.load_state_dict(found["optimizer"])
    assert torch.equal(adam.state_dict()["state"][0]["exp_avg"].data, optimizer.state_dict()["state"][0]["exp_avg"])
    assert found["best"] == [0.5, (1, "x")]


def test_pickles_that_would_run_code_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    for weights_only in (True, False, None):
        with pytest.raises(tg.StateError, match="weights_only=True says"):
            tg.load(path, weights_only=weights_only)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(tg.StateError, match="save a state dict"):
        tg.load(path)


def test_torchs_half_precision_is_refused_by_its_key(tmp_path):
    path = tmp_path / "half.pt"
    torch.save({"model": {"w": torch.ones(2, dtype=torch.float16)}}, path)
    with pytest.raises(tg.DTypeError, match=r"model\.w' has dtype torch.float16"):
        tg.load(path)
