"""What notebooks show of tensors, tapes, models and steps: the values in it, and nothing changed by it."""

import base64
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

import tapegrad as tg
from tapegrad import nn


def pictures(cell):
    """The images of a cell, [H, W, 3] of 0 to 255."""
    return [decoded(base64.b64decode(text)) for text in re.findall(r"data:image/png;base64,([^\"]+)", cell)]


def decoded(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + content),)
        found[name] = content
        at += 12 + length
    width, height = struct.unpack(">II", found[b"IHDR"][:8])
    rows = torch.tensor(list(zlib.decompress(found[b"IDAT"]))).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_a_small_tensor_shows_its_values():
    cell = tg.tensor([[1.5, -2.0], [3.25, 4.0]], requires_grad=True)._repr_html_()
    assert all(number in cell for number in ("1.5000", "-2.0000", "3.2500", "f32[2, 2]", "16 B", "requires_grad"))
    assert "<img" not in cell
    assert "<svg" not in cell


@pytest.mark.parametrize(
    ("shape", "as_shown"),
    [
        ((20, 30), lambda t: [t[..., None].expand(-1, -1, 3)]),
        ((1, 20, 30), lambda t: [t[0, ..., None].expand(-1, -1, 3)]),
        ((3, 20, 30), lambda t: [t.permute(1, 2, 0)]),
        ((20, 30, 3), lambda t: [t]),
        ((2, 3, 20, 30), lambda t: [t[0].permute(1, 2, 0), t[1].permute(1, 2, 0)]),
    ],
    ids=lambda v: str(v) if isinstance(v, tuple) else "",
)
def test_what_may_be_an_image_is_a_picture(shape, as_shown):
    value = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 7 - 2
    shown = pictures(tg.tensor(value)._repr_html_())
    scaled = (value - value.min()) / (value.max() - value.min()) * 255
    assert len(shown) == len(as_shown(scaled))
    for image, expected in zip(shown, as_shown(scaled), strict=True):
        assert (image - expected).abs().max() <= 0.51  # half a step of a byte


def test_a_large_picture_is_thinned_out_and_bad_values_are_red():
    value = torch.zeros(300, 600)
    value[:, 300:] = 1.0
    value[0, 0] = float("nan")
    cell = tg.tensor(value)._repr_html_()
    (image,) = pictures(cell)
    assert tuple(image.shape) == (100, 200, 3)
    assert image[0, 0].tolist() == [217, 51, 51]
    assert image[5, 10].tolist() == [0, 0, 0]
    assert image[5, 150].tolist() == [255, 255, 255]
    assert "1 not finite" in cell


def test_a_large_tensor_shows_how_its_values_are_spread():
    value = torch.cat([torch.full((700,), -1.0), torch.full((300,), 3.0), torch.tensor([float("inf")])])
    cell = tg.tensor(value)._repr_html_()
    assert re.findall(r"<title>(\d+) values", cell) == ["700", "300"]
    assert "mean 0.2  " in cell
    assert "from -1 to 3" in cell
    assert "1 not finite" in cell


@pytest.mark.parametrize(
    "value",
    [
        torch.empty(0),
        torch.tensor(2.0),
        torch.full((500,), float("nan")),
        torch.full((20, 20), float("inf")),
        torch.tensor([1e308, -1e308] * 200, dtype=torch.float64),
        torch.randn(40, 20).t()[::2],
        torch.ones(1).expand(500),
        torch.arange(600) % 2 == 0,
        torch.randint(0, 9, (30, 30)),
    ],
    ids=["empty", "0-dim", "nan", "inf image", "huge", "strided", "expanded", "bool", "integers"],
)
def test_every_tensor_has_a_cell(value):
    cell = tg.as_tensor(value)._repr_html_()
    assert str(list(value.shape)) in cell
    assert cell.count("<div") == cell.count("</div>")


def test_showing_records_nothing_and_changes_nothing():
    x = tg.randn(20, 20, requires_grad=True)
    with tg.Tape() as tape:
        y = x * 2
        before = (len(tape), y._data._version, y.grad_fn, y.requires_grad)
        y._repr_html_()
        tape._repr_html_()
        assert (len(tape), y._data._version, y.grad_fn, y.requires_grad) == before
        z = (y * y).sum()
    z._repr_html_()
    z.backward()
    assert x.grad.data.equal(8 * x.data)


def test_a_tapes_cell_has_its_lines_and_leaves_out_the_middle_of_many():
    y = tg.ones(3, requires_grad=True)
    with tg.Tape() as tape:
        y = y * 2
    cell = tape._repr_html_()
    assert "%1 = mul(%0, 2)" in cell
    assert "test_cells.py:" in cell
    with tg.Tape() as long:
        for _ in range(500):
            y = y + 1
    cell = long._repr_html_()
    assert "... 441 more ..." in cell
    assert cell.count("<tr>") == 62


def test_a_models_cell_has_its_layers():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2, bias=False))
    cell = model._repr_html_()
    assert "21 parameters" in cell
    assert "in_features=4, out_features=3, bias=True" in cell
    assert "[3, 4], [3]" in cell
    assert "[2, 3]" in cell


def test_a_steps_cell_has_its_programs():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    step = tg.compile(lambda x: model(x).sum().detach())
    assert "0 programs" in step._repr_html_()
    for _ in range(3):
        step(tg.ones(2, 4))
    cell = step._repr_html_()
    assert "linear(argument 0, 0.weight, 0.bias)" in cell
    assert "1 replays" in cell


def test_names_are_escaped():
    kind = type("<script>alert(1)</script>", (nn.Module,), {"extra_repr": lambda self: "<b>"})
    cell = kind()._repr_html_()
    assert "&lt;script&gt;" in cell
    assert "<script" not in cell + tg.compile(kind()).__class__._repr_html_(kind())
    assert "<b>" not in cell.replace("<b>&lt;script", "")


def test_cells_need_no_matplotlib(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import tapegrad as tg\nassert 'data:image/png' in tg.randn(30, 30)._repr_html_()\n"
        "assert 'tapegrad.sklearn' not in sys.modules"
    )
    folder = str(Path(tg.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r})\n{code}"], check=True, cwd=tmp_path
    )
