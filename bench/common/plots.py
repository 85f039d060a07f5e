"""The pictures of a result, written as PNG files; no window, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, THEIRS, BASELINE = "#c8431d", "#1f4e8c", "#777777"


def learning_curves(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """A column per training: the training loss above, the test score below, both frameworks in each."""
    figure = Figure(figsize=(4.2 * len(results), 6), layout="constrained")
    axes = figure.subplots(2, len(results), squeeze=False)
    for column, result in enumerate(results):
        loss, score = axes[0][column], axes[1][column]
        for side, colour, width in (("torch", THEIRS, 3.2), ("tapegrad", OURS, 1.1)):
            one = result["sides"][side]
            smooth = moving_mean(one["losses"], max(1, len(one["losses"]) // 60))
            first = len(one["losses"]) - len(smooth) + 1
            label = "PyTorch" if side == "torch" else side
            loss.plot(range(first, first + len(smooth)), smooth, color=colour, lw=width, label=label)
            score.plot(result["score_steps"], one["scores"], color=colour, lw=width, marker="o", ms=width + 1.5)
        name, value = result["baseline"]
        score.axhline(value, color=BASELINE, ls=":", lw=1.2)
        score.annotate(name, (1, value), xycoords=("axes fraction", "data"), color=BASELINE, fontsize=8,
                       xytext=(-4, 3), textcoords="offset points", ha="right")  # fmt: skip
        loss.set(title=result["name"], yscale="log", ylabel=f"training loss ({result['loss']})")
        score.set(xlabel=f"step (batch {result['batch_size']})", ylabel=f"test {result['score_name']}")
        for ax in (loss, score):
            plain(ax)
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def pictures(path: Path, rows: Sequence[tuple[str, torch.Tensor]]) -> None:
    """Rows of pictures [n, 3, H, W] in [0, 1], one row per kind, the kind's name at the left."""
    n = len(rows[0][1])
    figure = Figure(figsize=(1.05 * n + 1.3, 1.08 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), n, squeeze=False)
    for line, (name, images) in zip(axes, rows, strict=True):
        for ax, image in zip(line, images, strict=True):
            ax.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=160)


def moving_mean(values: Sequence[float], width: int) -> list[float]:
    """Means of `width` neighbours."""
    return torch.tensor(values, dtype=torch.float64).unfold(0, width, 1).mean(1).tolist()


def plain(ax: Axes) -> None:
    """No frame where nothing is read off."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", lw=0.4, alpha=0.5)
