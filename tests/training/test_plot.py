"""tapegrad.plot: the numbers behind the pictures, and what is refused."""

from __future__ import annotations

import ast
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import ArgumentError, ShapeError
from tapegrad.training import plot
from tapegrad.training.loop import History

FULL = History(
    loss=[2.0, 0.5, 0.1],
    accuracy=[0.5, 0.75, 1.0],
    val_loss=[2.5, 0.6, 0.9],
    val_accuracy=[0.4, 0.6, 0.7],
    seconds=[1] * 3,
)


def drawn(figure: Figure) -> Figure:
    """The figure, laid out and painted once: what cannot be drawn fails here."""
    figure.draw_without_rendering()
    return figure


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


# --- learning curves ---------------------------------------------------------------------------------------------


def test_learning_curves_show_both_sets_and_the_best_epoch():
    loss, accuracy = drawn(plot.learning_curves(FULL)).axes
    assert lines(loss)["training"] == FULL.loss
    assert lines(loss)["validation"] == FULL.val_loss
    assert lines(accuracy)["training"] == FULL.accuracy
    assert lines(accuracy)["validation"] == FULL.val_accuracy
    assert [list(line.get_xdata()) for line in loss.get_lines()] == [[1, 2, 3], [1, 2, 3], [2]]
    assert list(accuracy.get_lines()[-1].get_xdata()) == [3]
    assert loss.get_yscale() == "log"  # from 0.1 to 2.5
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training", "validation"]
    assert accuracy.yaxis.get_major_formatter()(0.975) == "97.5"


def test_learning_curves_of_what_there_is():
    (ax,) = drawn(plot.learning_curves(History(loss=[2.0, 1.0]))).axes
    assert list(lines(ax)) == ["training"]
    assert ax.get_yscale() == "linear"
    assert ax.get_legend() is None
    (ax,) = drawn(plot.learning_curves(History(loss=[math.nan], val_loss=[math.inf]))).axes
    assert len(ax.get_lines()) == 2  # no best epoch among these
    with pytest.raises(ArgumentError, match="history must hold at least one epoch; got none"):
        plot.learning_curves(History())


# --- decision boundary -------------------------------------------------------------------------------------------

POINTS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def halves(scale: float, outputs: int) -> nn.Sequential:
    """Class 1 where x > 1/2, the input being `scale` times x."""
    layer = nn.Linear(2, outputs)
    layer.weight.data[:] = 0
    layer.bias.data[:] = 0
    layer.weight.data[-1, 0] = 1
    layer.bias.data[-1] = -scale / 2
    return nn.Sequential(layer)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_boundary_lies_where_the_model_changes_its_mind(outputs, scale):
    labels = np.array([0, 1, 0, 0])
    model = halves(scale, outputs)
    figure = drawn(
        plot.decision_boundary(model, POINTS.numpy(), labels, circle=(0.5, 0.25, 0.5), transform=lambda p: p * scale)
    )
    (ax,) = figure.axes
    assert ax.get_title() == "75.0 % of 4 right"
    points = {c.get_label(): c.get_offsets().tolist() for c in ax.collections if not c.get_label().startswith("_")}
    assert points["class 0"] == [[0, 0], [0, 1], [1, 1]]
    assert points["class 1"] == [[1, 0]]
    assert points["wrong (1)"] == [[1, 1]]
    areas, boundary = (c for c in ax.collections if c.get_label().startswith("_"))
    xs = np.concatenate([path.vertices[:, 0] for path in boundary.get_paths()])
    assert xs == pytest.approx(0.5, abs=1.08 / plot.GRID)  # within a step of the grid
    assert len(areas.get_paths()) == 2
    x, y = next(line for line in ax.get_lines() if line.get_label() == "truth").get_data()
    assert np.hypot(x - 0.5, y - 0.25) == pytest.approx(0.5, rel=1e-5)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["boundary", "class 0", "class 1", "wrong (1)", "truth"]


def test_a_model_of_one_mind_and_more_classes_have_pictures_too():
    (ax,) = drawn(plot.decision_boundary(lambda p: torch.zeros(len(p)), POINTS, tg.tensor([0, 1, 2, 0]))).axes
    assert ax.get_title() == "50.0 % of 4 right"
    assert "boundary" not in [text.get_text() for text in ax.get_legend().get_texts()]
    (ax,) = drawn(plot.decision_boundary(lambda p: tg.Tensor(p[:, [0, 1, 0]]), POINTS[:1], torch.tensor([7]))).axes
    assert len([c for c in ax.collections if c.get_label().startswith("class")]) == 8


def test_what_a_boundary_refuses():
    model = halves(1, 2)
    with pytest.raises(ShapeError, match=re.escape("points must be [n, 2] with n > 0; got [4, 3]")):
        plot.decision_boundary(model, torch.zeros(4, 3), torch.zeros(4).long())
    with pytest.raises(ShapeError, match=re.escape("labels must be integers [4]; got torch.float32 [4]")):
        plot.decision_boundary(model, POINTS, torch.zeros(4))
    with pytest.raises(ShapeError, match=re.escape("the model must map [M, 2] to [M, C]; got [90000, 2, 1]")):
        plot.decision_boundary(lambda p: p[..., None], POINTS, torch.zeros(4).long())


# --- images ------------------------------------------------------------------------------------------------------


def test_images_show_rows_of_colour_and_grey():
    colour = torch.rand(3, 3, 4, 6) * 3 - 1
    grey = np.random.default_rng(0).random((2, 4, 6))
    figure = drawn(plot.images({"colour": colour, "grey": grey, "channel": tg.Tensor(colour[:, :1])}, limit=2))
    axes = np.array(figure.axes).reshape(3, 2)
    assert [row[0].get_ylabel() for row in axes] == ["colour", "grey", "channel"]
    shown = [[np.asarray(ax.get_images()[0].get_array()) for ax in row] for row in axes]
    assert np.array_equal(shown[0][1], colour[1].permute(1, 2, 0).clamp(0, 1).double())
    assert np.array_equal(shown[1][0], grey[0])
    assert np.array_equal(shown[2][1], colour[1, 0].clamp(0, 1).double())
    assert axes[1][0].get_images()[0].get_clim() == (0, 1)


def test_rows_of_different_length_leave_gaps():
    figure = drawn(plot.images({"a": torch.zeros(3, 2, 2), "b": torch.zeros(1, 2, 2)}))
    assert [len(ax.get_images()) for ax in figure.axes] == [1, 1, 1, 1, 0, 0]


def test_what_images_refuse():
    for shape in ([2, 4, 5, 5], [0, 3, 4, 4], [4]):
        with pytest.raises(
            ShapeError,
            match=re.escape(f"rows['a'] must be [n, 3, H, W], [n, 1, H, W] or [n, H, W] with n > 0; got {shape}"),
        ):
            plot.images({"a": torch.zeros(shape)})
    with pytest.raises(ArgumentError, match="rows must not be empty"):
        plot.images({})


# --- gradients ---------------------------------------------------------------------------------------------------


def test_gradient_flow_draws_the_size_of_every_gradient():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    model[0].weight.grad = torch.tensor([[3.0, -4.0], [0.0, 0.0], [0.0, 0.0]])
    model[0].bias.grad = torch.zeros(3)
    (ax,) = drawn(plot.gradient_flow(model)).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.weight", "0.bias", "1.weight"]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[0] == pytest.approx(5 / math.sqrt(6))
    assert heights[1] == 0
    assert math.isnan(heights[2])
    assert lines(ax)["largest"][:2] == [4, 0]
    red = [text.get_color() != plot.INK for text in ax.get_xticklabels()]
    assert red == [False, True, True]


def test_no_gradients_have_no_flow():
    model = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(ArgumentError, match=r"the model has no gradients; call it after loss\.backward\(\)"):
        plot.gradient_flow(model)


# --- matplotlib is an extra --------------------------------------------------------------------------------------


def test_importing_tapegrad_does_not_import_the_extras():
    package = Path(tg.__file__).parent
    for path in set(package.rglob("*.py")) - set((package / "sklearn").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not re.search(r"\b(matplotlib|tqdm|numpy|sklearn|skimage|PIL)\b", ast.unparse(node)), path.name


def test_without_matplotlib_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=re.escape('matplotlib is missing: pip install "tapegrad[plot]"')):
        plot.learning_curves(FULL)
