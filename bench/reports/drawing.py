"""The reports' pictures, written as PNG files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from tapegrad.data import RADIUS

from ..common.plots import BASELINE, OURS, THEIRS, plain
from .training import LABELS

COLOURS = {"PyTorch": THEIRS, "tapegrad": OURS}
WIDTHS = {"torch": (THEIRS, 3.6), "tapegrad": (OURS, 1.2)}  # ours lies on top of PyTorch's


def bars(path: Path, scores: Mapping[str, Sequence[float]], label: str) -> None:
    """A bar per method: mean and SD."""
    figure = Figure(figsize=(7, 0.5 * len(scores) + 1.1), layout="constrained")
    ax = figure.subplots()
    names = list(scores)[::-1]
    for place, name in enumerate(names):
        mean, sd = statistics.mean(scores[name]), statistics.stdev(scores[name])
        ax.barh(place, mean, xerr=sd, height=0.62, color=COLOURS.get(name, BASELINE), ecolor="black", capsize=3)
        ax.text(mean + sd + 1.5, place, f"{mean:.2f}", va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 112), xlabel=label)
    plain(ax)
    ax.grid(False, axis="y")
    ax.set_xticks(range(0, 101, 20))
    figure.savefig(path, dpi=130)


def predictions(path: Path, points: torch.Tensor, labels: torch.Tensor, panels: Mapping[str, Sequence[int]]) -> None:
    """A panel per framework: the points by predicted class, wrong ones as crosses, and the true circle."""
    figure = Figure(figsize=(4.4 * len(panels), 5.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, predicted) in zip(axes, panels.items(), strict=True):
        inside = torch.tensor(predicted) == 1
        wrong = torch.tensor(predicted) != labels
        for kind, colour, name in ((inside, OURS, "inside"), (~inside, THEIRS, "outside")):
            right = points[kind & ~wrong]
            ax.scatter(right[:, 0], right[:, 1], s=9, color=colour, alpha=0.55, lw=0, label=f"predicted {name}")
            ax.scatter(*points[kind & wrong].T, s=42, color=colour, marker="x", lw=1.8)
        ax.add_patch(Circle((0.5, 0.5), RADIUS, fill=False, ls="--", lw=1.4))
        ax.set(title=title, aspect="equal", xlim=(0, 1), ylim=(0, 1))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=130)


def rows(
    path: Path,
    names: Sequence[str],
    printed: Sequence[tuple[float, float]],
    scores: Sequence[Mapping[str, Sequence[float]]],
) -> None:
    """A line per row: printed, PyTorch, tapegrad, mean and SD."""
    figure = Figure(figsize=(8.5, 0.42 * len(names) + 1.2), layout="constrained")
    ax = figure.subplots()
    places = [len(names) - 1 - i for i in range(len(names))]
    style: dict[str, Any] = {"ls": "", "capsize": 2.5, "lw": 1.2, "ms": 5}
    means, sds = zip(*printed, strict=True)
    ax.errorbar(means, [p + 0.22 for p in places], xerr=sds, fmt="s", color=BASELINE, label="printed", **style)
    for side, shift, mark in (("torch", 0.0, "D"), ("tapegrad", -0.22, "o")):
        means = [statistics.mean(one[side]) for one in scores]
        sds = [statistics.stdev(one[side]) for one in scores]
        colour = WIDTHS[side][0]
        ax.errorbar(means, [p + shift for p in places], xerr=sds, fmt=mark, color=colour, label=LABELS[side], **style)
    ax.set_yticks(places, names)
    ax.set(xlabel="test accuracy in %, mean and SD")
    plain(ax)
    ax.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=130)


def grid_search(path: Path, searched: Mapping[str, Mapping[float, float]]) -> None:
    """A panel per optimizer, a line per loss and activation; the chosen rate is the large mark."""
    optimizers = list(dict.fromkeys(name.split(", ")[1] for name in searched))
    figure = Figure(figsize=(5 * len(optimizers), 4), layout="constrained")
    axes = figure.subplots(1, len(optimizers), sharey=True, squeeze=False)[0]
    for ax, optimizer in zip(axes, optimizers, strict=True):
        lines = {name: means for name, means in searched.items() if name.split(", ")[1] == optimizer}
        for i, (name, means) in enumerate(lines.items()):
            loss, _, activation = name.split(", ")
            colour, style = f"C{i % 3}", "--" if i < 3 else "-"
            ax.plot(list(means), list(means.values()), style, color=colour, label=f"{loss}, {activation}")
            best = max(means, key=lambda rate, means=means: (means[rate], -rate))
            ax.plot(best, means[best], "o", color=colour)
        ax.set(xscale="log", title=optimizer, xlabel="learning rate", ylim=(88, 100.4))  # 50: it diverged
        plain(ax)
    axes[0].set_ylabel("validation accuracy in %")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def learning_curves(path: Path, models: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> None:
    """A column per model: loss above, accuracy below; training solid, test dashed."""
    figure = Figure(figsize=(4.2 * len(models), 6), layout="constrained")
    axes = figure.subplots(2, len(models), squeeze=False, sharey="row")
    for column, (name, sides) in enumerate(models.items()):
        for row, what in enumerate(("loss", "accuracy")):
            for part, style in (("train", "-"), ("test", "--")):
                both(axes[row][column], sides, f"{part}_{what}", style, f", {'training' if part == 'train' else part}")
            plain(axes[row][column])
        axes[0][column].set(title=name, yscale="log")
        axes[1][column].set(xlabel="epoch")
    axes[0][0].set_ylabel("loss (MSE)")
    axes[1][0].set_ylabel("accuracy")
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def both(ax: Axes, sides: Mapping[str, Mapping[str, Sequence[float]]], what: str, style: str, suffix: str) -> None:
    """A curve of both sides over the epochs, PyTorch's wide and tapegrad's on top of it."""
    for side, (colour, width) in WIDTHS.items():
        values = sides[side][what]
        alpha = 0.45 if side == "torch" else 1.0
        epochs = range(1, len(values) + 1)
        ax.plot(epochs, values, style, color=colour, lw=width, alpha=alpha, label=LABELS[side] + suffix)


def accuracy_by_activation(path: Path, models: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> None:
    """Test accuracy at the left, balanced at the right, a line per activation and framework."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, what, constant in zip(axes, ("test_accuracy", "test_balanced"), (0.875, 0.5), strict=True):
        for (name, sides), style in zip(models.items(), ("-", "--"), strict=True):
            both(ax, sides, what, style, f", {name.rpartition(', ')[2]}")
        ax.axhline(constant, color=BASELINE, ls=":", lw=1.2)
        ax.annotate("constant answer", (1, constant), xycoords=("axes fraction", "data"), color=BASELINE, fontsize=8,
                    xytext=(-4, 3), textcoords="offset points", ha="right")  # fmt: skip
        ax.set(xlabel="epoch", ylabel={"test_accuracy": "test accuracy", "test_balanced": "balanced accuracy"}[what])
        plain(ax)
    axes[1].legend(frameon=False, fontsize=8, loc="center right")
    figure.savefig(path, dpi=130)


# --- report 5 ----------------------------------------------------------------------------------------------------


def times(path: Path, rows: Mapping[str, Mapping[str, float]], printed: Mapping[str, Mapping[str, float]]) -> None:
    """A group of bars per module: microseconds of both sides here, and of both sides as printed, as hollow bars."""
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    ax = figure.subplots()
    for i, (side, (colour, _)) in enumerate(WIDTHS.items()):
        here = [one[side] for one in rows.values()]
        then = [printed[name][side] for name in rows]
        places = [float(j) for j in range(len(rows))]
        ax.bar([p - 0.3 + 0.2 * i for p in places], here, 0.18, color=colour, label=f"{LABELS[side]}, here")
        name = "PyTorch" if side == "torch" else "the report's framework"
        ax.bar([p + 0.1 + 0.2 * i for p in places], then, 0.18, color="none", ec=colour, label=f"{name}, printed")
    ax.set_xticks(range(len(rows)), list(rows))
    ax.set(yscale="log", ylabel="µs per forward call")
    plain(ax)
    ax.grid(False, axis="x")
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    figure.savefig(path, dpi=130)


def training_curve(path: Path, curves: Mapping[str, Mapping[str, Sequence[float]]], noisy: float) -> None:
    """Training loss by epoch at the left, PSNR on unseen photographs at the right."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, what in zip(axes, ("loss", "psnr"), strict=True):
        both(ax, curves, what, "-", "")
        ax.set(xlabel="epoch")
        plain(ax)
    axes[0].set(ylabel="training loss (MSE to the other noisy picture)")
    axes[1].axhline(noisy, color=BASELINE, ls=":", lw=1.2)
    axes[1].annotate("noisy input", (1, noisy), xycoords=("axes fraction", "data"), color=BASELINE, fontsize=8,
                     xytext=(-4, 3), textcoords="offset points", ha="right")  # fmt: skip
    axes[1].set(ylabel="PSNR on unseen photographs in dB")
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=130)
