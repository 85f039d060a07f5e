"""Models to torch and back, states to files and back."""

from __future__ import annotations

import json
import math
import os
import warnings

import pytest
import torch
from layers import IDS, LAYERS, first
from safetensors.torch import load_file, save_file

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.core import ArgumentError, StateError
from tapegrad.files import from_torch, load, save, to_torch
from tapegrad.ops.random import default_generator


def assert_equal_states(a, b):
    assert list(a) == list(b)
    for key in a:
        assert torch.equal(getattr(a[key], "data", a[key]), getattr(b[key], "data", b[key])), key


# --- torch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), LAYERS, ids=IDS)
def test_every_layer_goes_to_torch_and_back(name, args, kwargs, inputs):
    with warnings.catch_warnings():  # torch's advice on nested tensors
        warnings.simplefilter("ignore")
        theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    ours = from_torch(theirs)
    assert type(ours) is getattr(nn, name)
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    assert_equal_states(ours.state_dict(), theirs.state_dict())
    back = to_torch(ours)
    assert type(back) is type(theirs)
    assert repr(back) == repr(theirs)
    assert_equal_states(back.state_dict(), theirs.state_dict())
    for module in (ours, back, theirs):
        module.eval()
    with warnings.catch_warnings():  # torch's advice on kl_div and on padding="same"
        warnings.simplefilter("ignore")
        expected, again = (first(module(*[x.clone() for x in inputs])) for module in (theirs, back))
    assert torch.equal(expected, again)
    # the same values; sums are taken in another order than torch's
    torch.testing.assert_close(first(ours(*inputs)).data, expected.detach(), rtol=1e-10, atol=1e-12)


def model(lib):
    return lib.Sequential(
        lib.Conv2d(1, 4, 3, padding="same", padding_mode="circular"),
        lib.BatchNorm2d(4),
        lib.ModuleList([lib.ReLU(), lib.ModuleDict({"a": lib.Linear(2, 3)})]),
        lib.Sequential(lib.Flatten(), lib.Linear(4, 4, bias=False)),
    )


@pytest.mark.parametrize("convert", [from_torch, to_torch])
def test_nesting_modes_and_flags_survive(convert):
    source = model(torch.nn if convert is from_torch else nn)
    source[1].eval()
    source[3].eval()
    source[3][1].train()
    source[0].bias.requires_grad_(False)
    copy = convert(source)
    assert repr(copy) == repr(source)
    assert_equal_states(copy.state_dict(), source.state_dict())
    assert [m.training for m in copy.modules()] == [m.training for m in source.modules()]
    assert [p.requires_grad for p in copy.parameters()] == [p.requires_grad for p in source.parameters()]
    storages = {getattr(p, "data", p).data_ptr() for p in source.parameters()}
    assert not storages & {getattr(p, "data", p).data_ptr() for p in copy.parameters()}


@pytest.mark.parametrize("convert", [from_torch, to_torch])
def test_stacks_of_transformer_layers_are_converted_part_by_part(convert):
    lib, other = (torch.nn, nn) if convert is from_torch else (nn, torch.nn)
    options = {"dim_feedforward": 5, "batch_first": True, "dropout": 0.25}
    layer = lib.TransformerEncoderLayer(4, 2, activation=lib.ReLU(), bias=False, **options)
    encoder = lib.TransformerEncoder(layer, 3, lib.LayerNorm(4), enable_nested_tensor=False)
    encoder.layers[1].dropout1 = lib.Identity()
    encoder.layers[2] = encoder.layers[0]
    encoder.layers[1].norm2 = encoder.layers[1].norm1
    encoder.layers[1].eval()
    decoder = lib.TransformerDecoder(lib.TransformerDecoderLayer(4, 2, activation="gelu", **options), 1)
    source = lib.Sequential(encoder, decoder, lib.TransformerDecoder(decoder.layers[0], 0))
    copy = convert(source)
    written = [repr(side).replace("NonDynamicallyQuantizableLinear", "Linear") for side in (copy, source)]
    assert written[0] == written[1]
    assert_equal_states(copy.state_dict(), source.state_dict())
    assert [m.training for m in copy.modules()] == [m.training for m in source.modules()]
    assert copy[0].num_layers == 3
    assert copy[0].layers[2] is copy[0].layers[0]
    assert copy[0].layers[1].norm2 is copy[0].layers[1].norm1
    assert type(copy[0].layers[0].activation) is other.ReLU
    assert copy[1].layers[0].activation is other.functional.gelu
    x = torch.randn(2, 3, 4)
    for side in (source, copy):
        side.eval()
    y, t = (side[1](x, side[0](x)) for side in (source, copy))
    torch.testing.assert_close(getattr(y, "data", y), getattr(t, "data", t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("convert", [from_torch, to_torch])
def test_a_loss_keeps_its_distance(convert):
    lib, other = (torch.nn, nn) if convert is from_torch else (nn, torch.nn)
    source = lib.TripletMarginWithDistanceLoss(distance_function=lib.Bilinear(2, 2, 1), swap=True)
    copy = convert(source)
    assert type(copy.distance_function) is other.Bilinear
    assert_equal_states(copy.state_dict(), source.state_dict())
    assert convert(lib.TripletMarginWithDistanceLoss(distance_function=math.dist)).distance_function is math.dist
    functional = lib.TripletMarginWithDistanceLoss(distance_function=lib.functional.pairwise_distance)
    assert convert(functional).distance_function is other.functional.pairwise_distance


@pytest.mark.parametrize("convert", [from_torch, to_torch])
def test_sharing_survives(convert):
    lib = torch.nn if convert is from_torch else nn
    layer = lib.Linear(2, 2)
    source = lib.Sequential(layer, lib.Linear(2, 2), layer)
    source[1].weight = layer.weight
    copy = convert(source)
    assert copy[0] is copy[2]
    assert copy[1].weight is copy[0].weight
    assert copy[1].bias is not copy[0].bias


def test_conversion_draws_no_random_numbers():
    ours, theirs = (
        lib.Sequential(model(lib), lib.LSTM(2, 2), lib.GRUCell(2, 2), lib.TransformerEncoderLayer(2, 1))
        for lib in (nn, torch.nn)
    )
    before, torch_before = default_generator.get_state(), torch.get_rng_state()
    from_torch(theirs)
    to_torch(ours)
    assert default_generator.get_state() == before
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_upsample_conv_becomes_two_layers():
    ours = nn.UpsampleConv2d(2, 3, 3, (2, 3), padding=1, groups=1).double()
    theirs = to_torch(ours)
    assert [type(layer) for layer in theirs] == [torch.nn.Upsample, torch.nn.Conv2d]
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x).data, theirs(x).detach(), rtol=1e-10, atol=1e-12)


def test_unknown_layers_are_named_by_path():
    class Other(torch.nn.Module):
        pass

    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(Other()))
    with pytest.raises(ArgumentError, match=r"from_torch: module '1\.0' is a Other, which tapegrad does not have"):
        from_torch(other)
    for convert, lib in ((from_torch, torch), (to_torch, tg)):
        with pytest.raises(tg.StateError, match=r"_torch: the module is a LazyLinear without values; call it"):
            convert(lib.nn.LazyLinear(2))
    decoder = torch.nn.TransformerDecoder(Other(), 1)
    with pytest.raises(ArgumentError, match=r"from_torch: module 'layers\.0' is a Other, which"):
        from_torch(decoder)
    loss = torch.nn.TripletMarginWithDistanceLoss(distance_function=Other())
    with pytest.raises(ArgumentError, match="from_torch: module 'distance_function' is a Other, which"):
        from_torch(loss)

    class Own(nn.Module):
        pass

    with pytest.raises(ArgumentError, match=r"to_torch: module '1\.0' is a Own, which torch\.nn does not have"):
        to_torch(nn.Sequential(nn.ReLU(), nn.ModuleList([Own()])))
    with pytest.raises(tg.DTypeError, match=r"from_torch: module '0': weight has dtype torch\.float16"):
        from_torch(torch.nn.Sequential(torch.nn.Linear(2, 2)).half())
    with warnings.catch_warnings():  # that weight_norm is deprecated
        warnings.simplefilter("ignore")
        normed = torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="a Linear with bias, weight_g, weight_v; expected weight, bias"):
        from_torch(normed)
    changed = nn.ReLU()
    changed.slope = nn.Parameter(torch.ones(1))
    with pytest.raises(ArgumentError, match="the module is a ReLU with slope; expected no parameters"):
        to_torch(changed)
    with pytest.raises(ArgumentError, match="Embedding: sparse must be False"):
        from_torch(torch.nn.Embedding(3, 2, sparse=True))
    with pytest.raises(TypeError, match=r"from_torch: module must be a torch\.nn\.Module; got Linear"):
        from_torch(nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"to_torch: module must be a tapegrad\.nn\.Module; got Linear"):
        to_torch(torch.nn.Linear(1, 1))


# --- files -------------------------------------------------------------------------------------------------------

VALUES = {
    "b": torch.tensor([[1.5, -2.0, math.nan]], dtype=torch.float64),
    "a": torch.tensor(3.25),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "long": torch.tensor([2**62, -1]),
    "short": torch.tensor([[1], [2]], dtype=torch.int16).T,
}


def test_a_state_dict_is_a_safetensors_file_for_everyone(tmp_path):
    path = tmp_path / "values.safetensors"
    save(VALUES, path)
    theirs = load_file(path)
    ours = load(path)
    assert list(ours) == list(VALUES)
    for key, value in VALUES.items():
        for read in (theirs[key], ours[key].data):
            assert read.dtype == value.dtype
            torch.testing.assert_close(read, value, rtol=0, atol=0, equal_nan=True)
    save_file({key: value.contiguous() for key, value in VALUES.items()}, path, metadata={"note": "foreign"})
    foreign = load(str(path))
    assert sorted(foreign) == sorted(VALUES)
    for key, value in VALUES.items():
        torch.testing.assert_close(foreign[key].data, value, rtol=0, atol=0, equal_nan=True)


def test_any_nesting_survives(tmp_path):
    path = tmp_path / "run"
    value = {
        "model": {"0.weight": torch.ones(2), "0": {"weight": torch.zeros(2)}},
        "state": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "nesterov": False, "params": [0, 1]}],
        "best": math.inf,
        "note": 'a "name"\n',
        "nothing": None,
        "": torch.tensor([1]),
    }
    save(value, path)
    read = load(path)

    def plain(node):
        if isinstance(node, torch.Tensor | tg.Tensor):
            return ("tensor", str(node.dtype), node.tolist())
        if isinstance(node, dict):
            return [(key, plain(item)) for key, item in node.items()]
        return type(node)(plain(item) for item in node) if isinstance(node, list | tuple) else node

    assert plain(read) == plain(value)
    assert isinstance(read["model"]["0.weight"], tg.Tensor)
    save(torch.ones(2), path)
    assert load(path).tolist() == [1, 1]
    save({}, path)
    assert load(path) == {}


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_training_resumes_bit_for_bit_from_a_file(tmp_path, name):
    x, y = torch.randn(12, 3), torch.randn(12, 2)
    options = {"lr": 0.05, **({"momentum": 0.9, "dampening": 0.3} if name == "SGD" else {})}

    def start():
        network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
        optimizer = getattr(optim, name)(network.parameters(), **options)
        return network, optimizer, optim.lr_scheduler.StepLR(optimizer, 2)

    def train(network, optimizer, schedule, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.MSELoss()(network(x), y).backward()
            optimizer.step()
            schedule.step()

    tg.manual_seed(0)
    run = start()
    train(*run, 3)
    save(
        {
            "model": run[0].state_dict(),
            "optimizer": run[1].state_dict(),
            "schedule": run[2].state_dict(),
            "random": default_generator.get_state(),
        },
        tmp_path / "run",
    )
    train(*run, 3)

    resumed, saved = start(), load(tmp_path / "run")
    for part, key in zip(resumed, ("model", "optimizer", "schedule"), strict=True):
        part.load_state_dict(saved[key])
    default_generator.set_state(saved["random"])
    train(*resumed, 3)
    assert_equal_states(resumed[0].state_dict(), run[0].state_dict())
    assert resumed[1].param_groups[0]["lr"] == run[1].param_groups[0]["lr"]


def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "values"
    save({"a": torch.ones(1)}, path)
    with pytest.raises(TypeError, match=r"save: layers\.0 must be a tensor, .*; got object"):
        save({"a": torch.zeros(1), "layers": [object()]}, path)
    with pytest.raises(TypeError, match=r"save: obj: keys must be numbers, str, None or tuples of them; got b'1'"):
        save({b"1": torch.zeros(1)}, path)
    with pytest.raises(tg.DTypeError, match="save: a has dtype"):
        save({"a": torch.zeros(1, dtype=torch.float16)}, path)

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save({"a": torch.zeros(1)}, path)
    assert os.listdir(tmp_path) == ["values"]
    assert load(path)["a"].item() == 1
    with pytest.raises(FileNotFoundError):
        save({}, tmp_path / "missing" / "values")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(begin=0, end=8, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(0, 8)}, b"1234", "incomplete metadata, file not fully covered"),
        ({"a": entry(0, 8)}, b"123456789", "incomplete metadata, file not fully covered"),
        ({"a": entry(4, 12)}, b"1" * 12, "invalid offset for tensor `a`"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"1" * 12, "invalid offset for tensor `b`"),
        ({"a": entry(0, 8, (3,))}, b"1" * 8, "invalid shape, data type, or offset for tensor"),
        ({"a": entry(0, 8, (-2, -1))}, b"1" * 8, "invalid JSON in header"),
        ({"a": entry(0, 8, (2**33, 2**33))}, b"1" * 8, "overflow"),
        ({"a": {"dtype": "F32"}}, b"", "invalid JSON in header"),
        ({"a": 3}, b"", "invalid JSON in header"),
        ([1], b"", "invalid JSON in header"),
        (b"{nonsense", b"", "invalid JSON in header"),
        (b"\xff\xfe\xfa\xfb", b"", "invalid UTF-8 in header"),
        ({"__metadata__": {"tapegrad": '{"tensor": "a"}'}}, b"", "KeyError: 'a'"),
        ({"__metadata__": {"tapegrad": '{"object": []}'}}, b"", "KeyError: 'object'"),
    ],
)
def test_damaged_files_are_said_to_be(tmp_path, header, data, message):
    path = tmp_path / "bad"
    write(path, header, data)
    with pytest.raises(StateError, match=rf"(?s)load: '.*bad' is damaged or not a safetensors file: .*{message}"):
        load(path)


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "values"
    save({"a": torch.ones(3), "b": {"c": torch.zeros(2, dtype=torch.int64)}}, path)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(StateError):
            load(path)


def test_foreign_dtypes_and_files_are_named(tmp_path):
    path = tmp_path / "foreign"
    write(path, {"h": entry(0, 4, (2,), "BF16")}, b"1234")
    with pytest.raises(tg.DTypeError, match="load: tensor 'h' has dtype BF16; expected one of F64, F32"):
        load(path)
    path.write_bytes(b"a text that is no file of tensors")
    with pytest.raises(StateError, match="header too large"):
        load(path)
