"""A Gaussian process: its three numbers by the marginal likelihood, with gradients through a Cholesky factor.

python examples/gaussian_process.py      prints what was found and time, with PyTorch's beside it, and draws
                                         gaussian_process.png
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

import tapegrad as tg

TRUE = {"length": 0.5, "amplitude": 1.0, "noise": 0.15}


def kernel(lib, a, b, length, amplitude):
    """amplitude^2 exp(-(a - b)^2 / (2 length^2)): [len(a), len(b)]."""
    return amplitude**2 * lib.exp(-0.5 * ((a[:, None] - b[None, :]) / length) ** 2)


def negative_likelihood(lib, logs, x, y, eye):
    """-log p(y | x) of a process of mean 0, a number's share: the mean over the points."""
    length, amplitude, noise = logs.exp()
    factor = lib.linalg.cholesky(kernel(lib, x, x, length, amplitude) + (noise**2 + 1e-8) * eye)
    half = lib.linalg.solve_triangular(factor, y[:, None], upper=False)
    return 0.5 * (half**2).mean() + lib.log(lib.diagonal(factor)).mean() + 0.5 * math.log(2 * math.pi)


def fit(lib, compile, x, y, updates):
    """(the three numbers, losses, seconds)."""
    logs = lib.tensor([0.0, 0.0, -1.0], dtype=lib.float64, requires_grad=True)
    x, y = lib.tensor(x, dtype=lib.float64), lib.tensor(y, dtype=lib.float64)
    eye = lib.eye(len(x), dtype=lib.float64)
    optimizer = lib.optim.Adam([logs], lr=0.05)

    def step():
        optimizer.zero_grad()
        loss = negative_likelihood(lib, logs, x, y, eye)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = compile(step)
    began = time.process_time()
    losses = [step().item() for _ in range(updates)]
    return logs.detach().exp().tolist(), losses, time.process_time() - began


def posterior(x, y, grid, length, amplitude, noise):
    """Mean and standard deviation at the points of a grid."""
    a, b, c = (tg.tensor(v, dtype=tg.float64) for v in (x, grid, y))
    factor = tg.linalg.cholesky(kernel(tg, a, a, length, amplitude) + noise**2 * tg.eye(len(x), dtype=tg.float64))
    across = kernel(tg, a, b, length, amplitude)
    mean = across.T @ tg.cholesky_solve(c[:, None], factor)
    half = tg.linalg.solve_triangular(factor, across, upper=False)
    return mean[:, 0].numpy(), (amplitude**2 - (half**2).sum(0)).clamp(min=0).sqrt().numpy()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer points and updates")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    points, updates = (40, 20) if options.quick else (150, 150)

    random = np.random.default_rng(3)
    x = np.sort(np.concatenate([random.uniform(-3, 0.5, points // 2), random.uniform(1.5, 3, points - points // 2)]))
    gram = np.exp(-0.5 * ((x[:, None] - x) / TRUE["length"]) ** 2) + 1e-9 * np.eye(points)
    y = np.linalg.cholesky(gram) @ random.standard_normal(points) + TRUE["noise"] * random.standard_normal(points)

    found = {
        "tapegrad": fit(tg, tg.compile, x, y, updates),
        "PyTorch": fit(torch, lambda step: step, x, y, updates),
    }
    print(f"{points} points, {updates} updates, {torch.get_num_threads()} threads")
    print("true:     " + ", ".join(f"{name} {value:.3f}" for name, value in TRUE.items()))
    for name, (values, losses, seconds) in found.items():
        text = ", ".join(f"{key} {value:.3f}" for key, value in zip(TRUE, values, strict=True))
        print(f"{name:9} {seconds:6.2f} s   {text}, -log p a point {losses[-1]:.4f}")
    grid = np.linspace(-3.5, 3.5, 300)
    draw(x, y, grid, *posterior(x, y, grid, *found["tapegrad"][0]), options.out / "gaussian_process.png")
    return {name: {"values": values, "losses": losses} for name, (values, losses, _) in found.items()}


def draw(x, y, grid, mean, spread, path):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axis.fill_between(grid, mean - 2 * spread, mean + 2 * spread, color="C0", alpha=0.25, label="mean ± 2 deviations")
    axis.plot(grid, mean, "C0", label="posterior mean")
    axis.plot(x, y, ".", color="C3", ms=4, label="data")
    axis.set(xlabel="x")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
