"""A pendulum whose length and friction are learned through 500 simulated steps, from noisy measurements of its angle.

    python examples/pendulum.py      prints what was found and time, with PyTorch's beside it, and draws pendulum.png

The simulation is a plain Python loop. `tg.compile` records it, its gradient and the update, and replays that in C++.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import tapegrad as tg

DT = 0.01  # seconds
TRUE = {"length": 0.7, "friction": 0.35}


def simulate(lib, parameters, steps):
    """Angles [steps] of a pendulum let go at 2.0 rad: semi-implicit Euler."""
    length, friction = parameters.exp()  # positive
    angle, speed = lib.tensor(2.0, dtype=lib.float64), lib.tensor(0.0, dtype=lib.float64)
    angles = []
    for _ in range(steps):
        speed = speed - DT * (9.81 / length * lib.sin(angle) + friction * speed)
        angle = angle + DT * speed
        angles.append(angle)
    return lib.stack(angles)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer simulated steps and updates")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    steps, updates = (100, 10) if options.quick else (500, 120)

    with tg.no_grad():
        truth = simulate(tg, tg.tensor([np.log(v) for v in TRUE.values()], dtype=tg.float64), steps).numpy()
    measured = truth + 0.05 * np.random.default_rng(0).standard_normal(steps)
    guess = np.log([1.0, 0.1])

    def fit(lib, compile):
        """Adam on the squared distance from the measurements; (parameters, losses, seconds)."""
        parameters = lib.tensor(guess, dtype=lib.float64, requires_grad=True)
        target = lib.tensor(measured, dtype=lib.float64)
        optimizer = lib.optim.Adam([parameters], lr=0.03)

        def step():
            optimizer.zero_grad()
            loss = ((simulate(lib, parameters, steps) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        step = compile(step)
        began = time.process_time()
        losses = [step().item() for _ in range(updates)]
        return parameters.detach().exp().tolist(), losses, time.process_time() - began

    found = {"tapegrad": fit(tg, tg.compile), "PyTorch": fit(torch, lambda step: step)}

    print(f"{updates} updates through {steps} steps of {DT} s, {torch.get_num_threads()} threads")
    print("true:     " + ", ".join(f"{name} {value:.3f}" for name, value in TRUE.items()))
    for name, (values, losses, seconds) in found.items():
        text = ", ".join(f"{key} {value:.3f}" for key, value in zip(TRUE, values, strict=True))
        print(f"{name:9} {seconds:6.2f} s   {text}, mean squared error {losses[-1]:.5f}")
    values = found["tapegrad"][0]
    with tg.no_grad():
        before = simulate(tg, tg.tensor(guess, dtype=tg.float64), steps).numpy()
        after = simulate(tg, tg.tensor(np.log(values), dtype=tg.float64), steps).numpy()
    draw(measured, before, after, {name: side[1] for name, side in found.items()}, options.out / "pendulum.png")
    return {name: {"values": values, "losses": losses} for name, (values, losses, _) in found.items()}


def draw(measured, before, after, losses, path):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", width_ratios=[2, 1])
    t = DT * np.arange(1, len(measured) + 1)
    left.plot(t, measured, ".", ms=3, color="0.6", label="measured")
    left.plot(t, before, "C0:", label="first guess")
    left.plot(t, after, "C3", label="learned")
    left.set(xlabel="seconds", ylabel="angle")
    left.legend(fontsize=8)
    for (name, curve), style in zip(losses.items(), ("C3", "k:"), strict=True):
        right.semilogy(curve, style, label=name)
    right.set(xlabel="update", title="mean squared error")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
