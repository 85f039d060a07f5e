"""Pictures of a training: learning curves, decision boundaries, images, the flow of gradients.

Every function returns a matplotlib `Figure` of its own, without a window or global state, to be written with
``figure.savefig("a.png", dpi=150)``. matplotlib is an extra, ``pip install "tapegrad[plot]"``, imported when the first
picture is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..core import ArgumentError, ShapeError, Tensor, no_grad
from ..data.arguments import as_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..nn import Module, Sequential
    from .loop import History

INK = "#333333"
COLOURS = ("#1f4e8c", "#c8431d", "#3a7d44", "#8a5aa8", "#b8860b", "#2a9d9d")  # of classes; the first two: train, val
GRID = 300  # points along each side of a decision boundary's picture


def _figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plot: matplotlib is missing: pip install "tapegrad[plot]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def _plain(ax: Axes) -> None:
    """No frame where nothing is read off, and a grid that stays behind."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.tick_params(color="#999999", labelcolor=INK)
    ax.grid(True, which="major", lw=0.4, alpha=0.5)
    ax.set_axisbelow(True)


# --- learning curves ---------------------------------------------------------------------------------------------


def learning_curves(history: History) -> Figure:
    """Loss, and accuracy where it was kept, by epoch: training and validation.

    Parameters
    ----------
    history : what `Sequential.fit` returned, with at least one epoch

    The best validation epoch is marked. The loss axis is logarithmic where the curves span more than a decade.
    """
    if not history.loss:
        raise ArgumentError("learning_curves: history must hold at least one epoch; got none")
    panels = ["loss", "accuracy"] if history.accuracy else ["loss"]
    figure = _figure(4.6 * len(panels), 3.4)
    for ax, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _curve(ax, getattr(history, name), COLOURS[0], "training")
        if validation := getattr(history, f"val_{name}"):
            _curve(ax, validation, COLOURS[1], "validation")
            _mark_best(ax, validation, min if name == "loss" else max)
        ax.set(xlabel="epoch", ylabel=name if name == "loss" else "accuracy (%)")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.margins(x=0.02)
        _plain(ax)
    axes = figure.axes
    values = [value for value in (*history.loss, *history.val_loss) if math.isfinite(value)]
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter(lambda value, position: f"{value:g}")
        axes[0].yaxis.set_minor_formatter(lambda value, position: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    if history.accuracy:
        axes[1].yaxis.set_major_formatter(lambda share, position: f"{100 * share:g}")
    if history.val_loss:
        axes[-1].legend(frameon=False, loc="best")
    return figure


def _curve(ax: Axes, values: list[float], colour: str, label: str) -> None:
    marker = "o" if len(values) == 1 else ""
    ax.plot(range(1, len(values) + 1), values, color=colour, lw=1.6, marker=marker, label=label)


def _mark_best(ax: Axes, values: list[float], best: Callable[[list[float]], float]) -> None:
    """A dot at the best epoch."""
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        epoch = values.index(best(finite)) + 1
        ax.plot(epoch, values[epoch - 1], "o", color=COLOURS[1], ms=5, mec="white", mew=0.8, zorder=5)


# --- decision boundary -------------------------------------------------------------------------------------------


def decision_boundary(
    model: Sequential | Callable[[Any], Any],
    points: Any,
    labels: Any,
    *,
    circle: tuple[float, float, float] | None = None,
    transform: Callable[[torch.Tensor], Any] | None = None,
) -> Figure:
    """Points of the plane with their classes, on the areas that a model gives to each class.

    Parameters
    ----------
    model : a Sequential, or a function; maps float64 [M, 2] to [M, C], the class being the largest entry, or to [M] or
        [M, 1], class 1 being above 0 (logits, or -1 and +1)
    points : [n, 2], NumPy array, torch tensor or Tensor
    labels : [n] integer classes from 0
    circle : (x, y, radius) of the true boundary, drawn dashed: ``(0.5, 0.5, tg.data.RADIUS)`` for `tapegrad.data.disk`
    transform : what was done to the points before the model saw them (standardizing, say): [M, 2] -> [M, 2]

    Points that the model gets wrong have a dark ring.

    Raises
    ------
    ShapeError
        if points are not [n, 2], labels not [n], or the output is none of the above.
    """
    xy, classes = as_rows(points, "decision_boundary: points"), as_rows(labels, "decision_boundary: labels")
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) == 0:
        raise ShapeError(f"decision_boundary: points must be [n, 2] with n > 0; got {list(xy.shape)}")
    if classes.shape != xy.shape[:1] or classes.is_floating_point():
        got = f"{classes.dtype} {list(classes.shape)}"
        raise ShapeError(f"decision_boundary: labels must be integers [{len(xy)}]; got {got}")
    xy, classes = xy.double(), classes.long()
    low, high = xy.amin(0), xy.amax(0)
    pad = 0.04 * (high - low).clamp(min=1e-9)
    (x0, y0), (x1, y1) = (low - pad).tolist(), (high + pad).tolist()
    grid = torch.cartesian_prod(
        torch.linspace(y0, y1, GRID, dtype=torch.float64), torch.linspace(x0, x1, GRID, dtype=torch.float64)
    ).flip(1)  # [GRID^2, 2], x fastest
    areas = _classes(model, grid, transform).reshape(GRID, GRID)
    right = _classes(model, xy, transform) == classes

    figure = _figure(6.4, 0.6 + 4.4 * min(2.0, max(0.4, (y1 - y0) / (x1 - x0))))
    ax = figure.subplots()
    number = int(max(classes.max(), areas.max())) + 1
    colours = [COLOURS[i % len(COLOURS)] for i in range(number)]
    levels = [i - 0.5 for i in range(number + 1)]
    xs, ys = torch.linspace(x0, x1, GRID).numpy(), torch.linspace(y0, y1, GRID).numpy()
    ax.contourf(xs, ys, areas.numpy(), levels=levels, colors=colours, alpha=0.16)
    if areas.min() < areas.max():
        ax.contour(xs, ys, areas.numpy(), levels=levels[1:-1], colors=INK, linewidths=1.2)
        ax.plot([], [], color=INK, lw=1.2, label="boundary")
    for i in range(number):
        of_class = classes == i
        ax.scatter(xy[of_class, 0], xy[of_class, 1], s=9, color=colours[i], alpha=0.75, lw=0, label=f"class {i}")
    wrong = f"wrong ({int((~right).sum())})"
    ax.scatter(xy[~right, 0], xy[~right, 1], s=22, facecolors="none", edgecolors=INK, lw=0.9, label=wrong)
    if circle is not None:
        _circle(ax, *circle)
    ax.set(
        xlim=(x0, x1), ylim=(y0, y1), aspect="equal", title=f"{100 * right.double().mean():.1f} % of {len(xy)} right"
    )
    _plain(ax)
    ax.grid(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _circle(ax: Axes, x: float, y: float, radius: float) -> None:
    angle = torch.linspace(0, 2 * math.pi, 400)
    ax.plot(x + radius * angle.cos(), y + radius * angle.sin(), color=INK, ls="--", lw=1.2, label="truth")


def _classes(model: Any, points: torch.Tensor, transform: Callable[[torch.Tensor], Any] | None) -> torch.Tensor:
    """The class of every point [M, 2], as integers [M]."""
    with no_grad():
        output = getattr(model, "predict", model)(points if transform is None else transform(points))
    value = output.data if isinstance(output, Tensor) else output
    if value.shape == (len(points),) or value.shape == (len(points), 1):
        return (value.reshape(-1) > 0).long()
    if value.ndim != 2 or len(value) != len(points):
        raise ShapeError(f"decision_boundary: the model must map [M, 2] to [M, C]; got {list(value.shape)}")
    return value.argmax(1)


# --- images ------------------------------------------------------------------------------------------------------


def images(rows: Mapping[str, Any], *, limit: int = 10) -> Figure:
    """Rows of pictures under one another: noisy, denoised and clean, say.

    Parameters
    ----------
    rows : pictures by the row's name, each [n, 3, H, W], [n, 1, H, W] or [n, H, W]; values outside [0, 1] are clipped
    limit : how many of a row to show, from its first

    Raises
    ------
    ShapeError
        if a row holds no pictures.
    """
    if not rows:
        raise ArgumentError("images: rows must not be empty")
    kept = {name: _pictures(pictures, name)[:limit] for name, pictures in rows.items()}
    columns = max(len(pictures) for pictures in kept.values())
    height, width = next(iter(kept.values())).shape[1:3]
    names = 0.1 * max(map(len, kept)) + 0.2  # inches left of the pictures
    figure = _figure(columns + names, len(kept) * height / width)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(len(kept), columns, squeeze=False)
    for line, (name, pictures) in zip(axes, kept.items(), strict=True):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, picture in zip(line, pictures, strict=False):
            ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
    return figure


def _pictures(pictures: Any, name: str) -> torch.Tensor:
    """[n, H, W, 3] or [n, H, W] in [0, 1]."""
    value = as_rows(pictures, f"images: rows[{name!r}]")
    if len(value) == 0 or not (value.ndim == 3 or (value.ndim == 4 and value.shape[1] in (1, 3))):
        raise ShapeError(
            f"images: rows[{name!r}] must be [n, 3, H, W], [n, 1, H, W] or [n, H, W] with n > 0; "
            f"got {list(value.shape)}"
        )
    value = value.detach().double().clamp(0, 1)
    return value.permute(0, 2, 3, 1).squeeze(-1) if value.ndim == 4 else value


# --- gradients ---------------------------------------------------------------------------------------------------


def gradient_flow(model: Module) -> Figure:
    """The size of every parameter's gradient, from the input's end to the output's, on a logarithmic axis.

    Bars are the root mean square of the gradient's entries, ticks their largest size. A bar that shrinks towards the
    input says that gradients vanish on the way. Parameters without a gradient, or with one that is 0, are named in red.

    Parameters
    ----------
    model : a module after ``loss.backward()``

    Raises
    ------
    ArgumentError
        if no parameter has a gradient.
    """
    sizes = [(name, *_size(p)) for name, p in model.named_parameters()]
    if not any(largest > 0 for _, _, largest in sizes):
        raise ArgumentError("gradient_flow: the model has no gradients; call it after loss.backward()")
    names, means, largest = (list(column) for column in zip(*sizes, strict=True))
    figure = _figure(max(4.0, 0.42 * len(names) + 1.2), 3.6)
    ax = figure.subplots()
    ax.bar(names, means, color=COLOURS[0], alpha=0.8, width=0.66, label="root mean square")
    ax.plot(names, largest, "_", color=COLOURS[1], ms=11, mew=2, label="largest")
    smallest = min(value for value in means if value > 0)
    ax.set(yscale="log", ylim=(smallest / 2, None), ylabel="size of the gradient")
    ax.margins(x=0.02)
    _plain(ax)
    ax.grid(False, axis="x")
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    for label, value in zip(ax.get_xticklabels(), largest, strict=True):
        label.set_color(INK if value > 0 else COLOURS[1])
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def _size(parameter: Tensor) -> tuple[float, float]:
    """(root mean square, largest absolute value) of the gradient; NaN, which is not drawn, where there is none."""
    if parameter.grad is None or parameter.grad.numel() == 0:
        return math.nan, math.nan
    g = parameter.grad.data.double()
    return g.square().mean().sqrt().item(), g.abs().max().item()
