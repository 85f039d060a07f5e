"""An ensemble for a regression in one dimension: sixteen networks at once, whose spread says where they do not know.

    python examples/ensemble.py      prints error, coverage and time, with PyTorch's beside it, and draws ensemble.png

`tg.run_together` trains all of them side by side, each as it would have become alone, bit for bit.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import tapegrad as tg


def truth(x):
    return np.sin(3 * x) + 0.3 * x


def network(nn):
    return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def make_step(model, optim, loss_fn):
    """One step of training, for either library."""
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer networks and epochs")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    members, epochs = (4, 20) if options.quick else (16, 150)

    random = np.random.default_rng(0)
    x = np.concatenate([random.uniform(-2, -0.5, 80), random.uniform(0.7, 2, 80)])[:, None].astype(np.float32)
    y = (truth(x) + 0.1 * random.standard_normal(x.shape)).astype(np.float32)
    rows = [random.integers(0, len(x), len(x)) for _ in range(members)]  # a bootstrap sample each

    tg.manual_seed(0)
    models = [network(tg.nn) for _ in range(members)]
    others = [network(torch.nn) for _ in range(members)]
    for model, other in zip(models, others, strict=True):
        other.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})

    began = time.process_time()
    steps = [tg.compile(make_step(model, tg.optim, tg.nn.MSELoss())) for model in models]
    losses = tg.run_together(steps, x, y, rows=rows, batch_size=20, epochs=epochs, seed=0)
    seconds = {"tapegrad": time.process_time() - began}

    began = time.process_time()
    for other, sample in zip(others, rows, strict=True):
        step = make_step(other, torch.optim, torch.nn.MSELoss())
        inputs, targets = torch.from_numpy(x[sample]), torch.from_numpy(y[sample])
        for _ in range(epochs):
            for batch in torch.randperm(len(sample)).split(20):
                step(inputs[batch], targets[batch])
    seconds["PyTorch"] = time.process_time() - began

    grid = np.linspace(-3, 3, 301, dtype=np.float32)[:, None]
    known = ((grid > -2) & (grid < -0.5)) | ((grid > 0.7) & (grid < 2))
    with torch.no_grad():
        curves = {
            "tapegrad": np.stack([model.predict(grid).numpy() for model in models])[..., 0],  # [members, 301]
            "PyTorch": np.stack([other(torch.from_numpy(grid)).numpy() for other in others])[..., 0],
        }
    print(f"{members} networks of {losses[0].numel()} steps, {torch.get_num_threads()} threads")
    found = {}
    for name, curve in curves.items():
        mean, spread = curve.mean(0), curve.std(0)
        error = np.abs(mean - truth(grid[:, 0]))[known[:, 0]].mean()
        inside, outside = spread[known[:, 0]].mean(), spread[~known[:, 0]].mean()
        found[name] = {"error": error, "inside": inside, "outside": outside}
        print(
            f"{name:9} {seconds[name]:6.2f} s   mean error {error:.3f} where there are data; "
            f"spread {inside:.3f} there, {outside:.3f} elsewhere"
        )
    draw(x, y, grid[:, 0], curves["tapegrad"], options.out / "ensemble.png")
    return {"seconds": seconds, "found": found}


def draw(x, y, grid, curves, path):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    mean, spread = curves.mean(0), curves.std(0)
    axis.fill_between(grid, mean - 2 * spread, mean + 2 * spread, color="C0", alpha=0.25, label="mean ± 2 spreads")
    axis.plot(grid, curves.T, color="C0", lw=0.5, alpha=0.5)
    axis.plot(grid, truth(grid), "k--", lw=1, label="truth")
    axis.plot(x, y, ".", color="C3", ms=4, label="data")
    axis.set(ylim=(-3, 3), xlabel="x")
    axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
