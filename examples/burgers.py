"""Burgers' equation by a physics-informed network.

    u_t + u u_x = (0.1 / pi) u_xx,    u(0, x) = -sin(pi x),    u(t, -1) = u(t, 1) = 0

    python examples/burgers.py       prints the error against the exact solution and time, with PyTorch's beside it,
                                     and draws burgers.png

The network is trained on the equation's residual, in which stand its own second derivatives: Adam first, then LBFGS.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import tapegrad as tg

NU = 0.1 / np.pi


def exact(t, x):
    """The Cole-Hopf solution, its integrals by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite.hermgauss(120)
    if t == 0:
        return -np.sin(np.pi * x)
    y = x[:, None] - np.sqrt(4 * NU * t) * nodes
    kernel = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * NU))
    return -(kernel * np.sin(np.pi * y)).sum(1) / kernel.sum(1)


def network(nn):
    layers = [layer for n in (2, 20, 20, 20) for layer in (nn.Linear(n, 20), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(20, 1))


def make_loss(model, grad, inside, edge, values):
    """The mean squared residual at the points inside, and the distance from what is known at the edge."""

    def loss():
        u = model(inside)
        (first,) = grad(u.sum(), [inside], create_graph=True)  # [N, 2]: u_t, u_x
        u_t, u_x = first[:, 0], first[:, 1]
        (second,) = grad(u_x.sum(), [inside], create_graph=True)
        residual = u_t + u[:, 0] * u_x - NU * second[:, 1]
        return (residual**2).mean() + ((model(edge)[:, 0] - values) ** 2).mean()

    return loss


def train(optim, parameters, closure, adam_steps, lbfgs_steps):
    """Adam, then LBFGS; the loss after every step."""
    losses = []
    adam = optim.Adam(parameters, lr=0.005)
    for _ in range(adam_steps):
        losses.append(closure().item())
        adam.step()
    lbfgs = optim.LBFGS(parameters, lr=1.0, max_iter=20, history_size=50, line_search_fn="strong_wolfe")
    for _ in range(lbfgs_steps // 20):
        losses.append(lbfgs.step(closure).item())
    return losses


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer points and steps")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    points, adam_steps, lbfgs_steps = (200, 50, 20) if options.quick else (1000, 500, 800)

    random = np.random.default_rng(0)
    inside = random.uniform((0, -1), (1, 1), (points, 2)).astype(np.float32)  # t, x
    x0, t1 = random.uniform(-1, 1, 100), random.uniform(0, 1, 100)
    edge = np.concatenate([np.stack([0 * x0, x0], 1), np.stack([t1, np.sign(x0)], 1)]).astype(np.float32)
    values = np.concatenate([-np.sin(np.pi * x0), 0 * t1]).astype(np.float32)

    tg.manual_seed(0)
    model, other = network(tg.nn), network(torch.nn)
    other.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})

    parameters = list(model.parameters())
    loss = make_loss(model, tg.grad, tg.tensor(inside, requires_grad=True), tg.tensor(edge), tg.tensor(values))

    @tg.compile
    def closure():
        for p in parameters:
            p.grad = None
        value = loss()
        value.backward(inputs=parameters)
        return value

    began = time.process_time()
    losses = {"tapegrad": train(tg.optim, parameters, closure, adam_steps, lbfgs_steps)}
    seconds = {"tapegrad": time.process_time() - began}

    given = (torch.tensor(inside, requires_grad=True), torch.tensor(edge), torch.tensor(values))
    other_loss = make_loss(other, torch.autograd.grad, *given)

    def other_closure():
        other.zero_grad()
        value = other_loss()
        value.backward(inputs=list(other.parameters()))
        return value

    began = time.process_time()
    losses["PyTorch"] = train(torch.optim, list(other.parameters()), other_closure, adam_steps, lbfgs_steps)
    seconds["PyTorch"] = time.process_time() - began

    t, x = np.linspace(0, 1, 101), np.linspace(-1, 1, 201)
    grid = np.stack([np.repeat(t, len(x)), np.tile(x, len(t))], 1).astype(np.float32)
    truth = np.stack([exact(time, x) for time in t])
    with torch.no_grad():
        fields = {
            "tapegrad": model.predict(grid).numpy().reshape(truth.shape),
            "PyTorch": other(torch.tensor(grid)).numpy().reshape(truth.shape),
        }
    errors = {name: float(np.linalg.norm(u - truth) / np.linalg.norm(truth)) for name, u in fields.items()}

    print(f"{points} points, {adam_steps} steps of Adam, {lbfgs_steps} of LBFGS, {torch.get_num_threads()} threads")
    for name in seconds:
        print(f"{name:9} {seconds[name]:6.2f} s   loss {losses[name][-1]:.2e}   relative error {errors[name]:.3f}")
    draw(t, x, fields["tapegrad"], truth, options.out / "burgers.png")
    return {"seconds": seconds, "losses": losses, "errors": errors}


def draw(t, x, field, truth, path):
    import matplotlib.pyplot as plt

    figure, (whole, *slices) = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained", width_ratios=[2, 1, 1, 1])
    image = whole.pcolormesh(t, x, field.T, cmap="RdBu", vmin=-1, vmax=1, shading="auto")
    whole.set(xlabel="t", ylabel="x", title="u(t, x) of the network")
    figure.colorbar(image, ax=whole)
    for axis, i in zip(slices, (25, 50, 75), strict=True):
        axis.plot(x, truth[i], "k", lw=2, alpha=0.4, label="exact")
        axis.plot(x, field[i], "C3--", lw=1.2, label="network")
        axis.set(title=f"t = {t[i]:g}", xlabel="x", ylim=(-1.15, 1.15))
    slices[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
