"""Report 5, "Building a neural network from scratch": modules against PyTorch's, and a denoising autoencoder.

Corrected: the convolution's output size is ``floor((H + 2P - D (K - 1) - 1) / S) + 1``, and the sigmoid's gradient is
``g y (1 - y)`` (theirs is off by 0.25, the largest value of ``y (1 - y)``, so it was zero where x = 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..cli import Options
from ..common import plots
from . import autoencoder, drawing, modules
from .record import Result, add_goal, add_picture, add_table, result, scientific
from .workers import Workers

# The report's tables: forward differences, backward differences (input, weight, bias), microseconds.
PRINTED_FORWARD = {
    "ReLU": "0 ± 0",
    "Sigmoid": "0 ± 0",
    "MSE": "0 ± 0",
    "Conv2d": "(3.77 ± 1.08)e-7",
    "Upsampling": "0 ± 0",
}
PRINTED_BACKWARD = {
    ("ReLU", "input"): "not tested",
    ("Sigmoid", "input"): "(2.49991 ± 0.00001)e-1",
    ("MSE", "input"): "0 ± 0",
    ("Conv2d", "input"): "(7.29 ± 2.17)e-10",
    ("Conv2d", "weight"): "(8.62 ± 1.34)e-8",
    ("Conv2d", "bias"): "(1.25 ± 1.11)e-8",
    ("Upsampling", "input"): "(6.15 ± 1.73)e-12",
    ("Upsampling", "weight"): "(1.90 ± 0.84)e-7",
    ("Upsampling", "bias"): "0 ± 0",
}
PRINTED_TIMES: dict[str, dict[str, tuple[float, float]]] = {
    "ReLU": {"tapegrad": (17.8, 3.8), "torch": (4.5, 0.7)},
    "Sigmoid": {"tapegrad": (35.8, 4.8), "torch": (3.2, 0.2)},
    "MSE": {"tapegrad": (25.8, 2.24), "torch": (44.2, 4.6)},
    "Conv2d": {"tapegrad": (121.8, 13.9), "torch": (48.4, 5.2)},
    "Upsampling": {"tapegrad": (353.9, 49.0), "torch": (73.3, 5.3)},
}
# A difference is at rounding level where tapegrad is as close to float64 as PyTorch is: at most this many times as far
# in the mean (the order of summation is another).
AS_CLOSE = 2.0
GAIN = 5.0  # dB over the noisy input
NEAR = 0.1  # dB from PyTorch's


def run(options: Options, workers: Workers) -> Result:
    """Differences and trainings on the workers, then the times alone."""
    runs = 1000 if options.quick else 10_000
    jobs = [(name, first, runs // 10) for name in modules.CASES for first in range(0, runs, runs // 10)]
    parts = iter(workers.map(modules.differences, jobs, [job[2] for job in jobs], "r5 differences"))
    found = {name: modules.summed_up([next(parts) for _ in range(10)]) for name in modules.CASES}
    trained = autoencoder.run(options.quick, workers)
    times = {name: modules.times(name, 50 if options.quick else 1000) for name in modules.CASES}
    conditions = [
        f"Modules on {modules.shape_text()}: differences over {runs} runs with fresh numbers (seeds 0 to {runs - 1}), "
        "of each run the largest of any entry; float64 is PyTorch's. Conv2d and Upsampling (nearest "
        "x 2, then convolution) have 3 channels and 3 x 3 kernels; their gradients come from the MSE to random "
        "targets, those of ReLU and Sigmoid from the sum.",
        *autoencoder.conditions(trained),
    ]
    one = result("r5", "Convolution, upsampling, and an autoencoder that denoises", conditions)
    one["data"] = {"differences": found, "times": times, "training": trained["data"]}
    add_differences(one, found, runs)
    add_times(one, options, times)
    add_training(one, options, trained)
    return one


def add_differences(one: Result, found: dict[str, dict[str, dict[str, dict[str, float]]]], runs: int) -> None:
    """Tables I and II."""

    def cells(name: str, part: str) -> list[str]:
        return [scientific(row["mean"], row["sd"]) for row in found[name][part].values()]

    columns = ["", "printed", *modules.COMPARED]
    rows = [[name, printed, *cells(name, "output")] for name, printed in PRINTED_FORWARD.items()]
    add_table(one, f"Table I: differences of the forward pass, mean ± SD over {runs} runs", columns, rows)
    rows = [[f"{name}, {part}", printed, *cells(name, part)] for (name, part), printed in PRINTED_BACKWARD.items()]
    add_table(one, f"Table II: differences of the gradients, mean ± SD over {runs} runs", columns, rows)
    ratios = {
        f"{name}, {part}": error_ratio(compared) for name, parts in found.items() for part, compared in parts.items()
    }
    worst = max(ratios, key=ratios.__getitem__)
    goal = f"every difference at rounding: at most {AS_CLOSE:g} times as far from float64 as PyTorch"
    add_goal(one, goal, f"at most {ratios[worst]:.2f} times ({worst})", ratios[worst] <= AS_CLOSE)


def error_ratio(compared: dict[str, dict[str, float]]) -> float:
    """How many times as far from float64 tapegrad is as PyTorch, in the mean; 0 where it equals PyTorch."""
    if compared["tapegrad - PyTorch"]["largest"] == 0:
        return 0.0
    return compared["tapegrad - float64"]["mean"] / compared["PyTorch - float64"]["mean"]


def add_times(one: Result, options: Options, times: dict[str, dict[str, Any]]) -> None:
    """Table III."""
    rows = []
    for name, row in times.items():
        printed = PRINTED_TIMES[name]
        cells = [f"{printed[side][0]} ± {printed[side][1]}" for side in ("tapegrad", "torch")]
        cells += [f"{row[side][0]:.1f} ± {row[side][1]:.1f}" for side in ("tapegrad", "torch")]
        rows.append([name, *cells, f"{row['ratio']:.2f}x", f"{row['layout']}, {row['runs']} x {row['calls']}"])
    columns = ["µs", "theirs, printed", "PyTorch, printed", "tapegrad", "PyTorch", "faster", "PyTorch's layout, runs"]
    add_table(one, "Table III: time of a forward call in µs, one thread, mean ± SD over runs", columns, rows)
    behind = [name for name, row in times.items() if row["ratio"] <= 1]
    found = (
        "behind: " + ", ".join(behind) if behind else f"by {min(row['ratio'] for row in times.values()):.2f}x or more"
    )
    add_goal(one, "every time ahead of PyTorch's", found, not behind)
    file = "r5_times.png"
    here = {name: {side: row[side][0] for side in ("tapegrad", "torch")} for name, row in times.items()}
    printed_means = {name: {side: figure[0] for side, figure in row.items()} for name, row in PRINTED_TIMES.items()}
    drawing.times(options.out / file, here, printed_means)
    add_picture(one, file, "Time of a forward call, beside the times that the report printed for its own machine")


def add_training(one: Result, options: Options, trained: dict[str, Any]) -> None:
    """The autoencoder's table, goals and pictures."""
    noisy, curves = trained["data"]["noisy"], trained["data"]["curves"]
    ours, theirs = (curves[side]["psnr"][-1] for side in ("tapegrad", "torch"))
    rows: list[Sequence[str]] = [["noisy input", "", f"{noisy:.2f}", ""]]
    for side, printed, value in (("PyTorch", "", theirs), ("tapegrad", "collapsed to zeros", ours)):
        rows.append([side, printed, f"{value:.2f}", f"{value - noisy:+.2f}"])
    columns = ["", "printed", "PSNR in dB", "over the input"]
    add_table(one, f"The autoencoder on unseen photographs after {trained['data']['steps']} steps", columns, rows)
    add_goal(one, f"PSNR at least {GAIN:g} dB above the noisy input's", f"{ours - noisy:+.2f} dB", ours - noisy >= GAIN)
    gap = ours - theirs
    add_goal(one, f"PSNR within {NEAR:g} dB of PyTorch's", f"{gap:+.3f} dB", abs(gap) <= NEAR)
    file = "r5_training.png"
    drawing.training_curve(options.out / file, curves, noisy)
    add_picture(one, file, "Training on pairs of noisy pictures, both frameworks")
    file = "r5_denoised.png"
    rows_of = [(name, torch.tensor(images)) for name, images in trained["pictures"].items()]
    plots.pictures(options.out / file, rows_of)
    add_picture(one, file, "Patches of unseen photographs: noisy, denoised by both frameworks, clean")
