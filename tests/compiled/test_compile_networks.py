"""Networks trained by a compiled step and by the plain one: the same bits after every step."""

from __future__ import annotations

import functools
import itertools
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compile_checks import Training, assert_compiled_is_eager, assert_same, history, training_step, uncompiled
from optable.check import one_thread as one_thread

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.nn import functional as F


def training(model, optimizer, loss, xs, ys):
    """Batches xs[i], ys[i]."""
    step = training_step(model, optimizer, loss)
    return Training(step, [model], [optimizer], list(zip(xs.unbind(), ys.unbind(), strict=True)))


def mlp(sizes=(2, 25, 25, 25, 2), activation=nn.ReLU, loss=None, optimizer=None, dtype=torch.float32):
    """The reports' networks on random data, three batches of 25."""
    loss, optimizer = loss or nn.MSELoss(), optimizer or functools.partial(optim.SGD, lr=0.1)
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), activation())]
    model = nn.Sequential(*layers[:-1]).to(dtype)
    x = tg.randn(3, 25, sizes[0], dtype=dtype)
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        y = tg.randint(0, sizes[-1], (3, 25))
    else:
        y = tg.rand(3, 25, sizes[-1], dtype=dtype)
    return training(model, optimizer(model.parameters()), loss, x, y)


# --- the reports' networks ---------------------------------------------------------------------------------------

ACTIVATIONS = [
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus,
    nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.ReLU6, functools.partial(nn.GELU, approximate="tanh"),
]  # fmt: skip
LOSSES = [
    nn.MSELoss(), nn.MSELoss(reduction="sum"), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(delta=0.3),
    nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(weight=tg.tensor([0.3, 1.7])),
    nn.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(pos_weight=tg.tensor([2.0, 0.5])),
]  # fmt: skip
OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "maximize": True, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.03}),
    ("Adam", {"amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"weight_decay": 0.2, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.8, "centered": True, "weight_decay": 0.03}),
    ("RMSprop", {"maximize": True}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_two_hundred_steps_of_the_reports_network(dtype):
    assert_compiled_is_eager(functools.partial(mlp, dtype=dtype), steps=200)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: getattr(a, "__name__", "GELU tanh"))
def test_every_activation(activation):
    assert_compiled_is_eager(functools.partial(mlp, (2, 7, 2), activation))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_every_loss(loss):
    assert_compiled_is_eager(functools.partial(mlp, (2, 7, 2), loss=loss))


def test_losses_of_probabilities():
    def build(loss, last):
        model = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 3), last)
        y = tg.randint(0, 3, (3, 25)) if isinstance(loss, nn.NLLLoss) else tg.rand(3, 25, 3)
        return training(model, optim.SGD(model.parameters(), lr=0.1), loss, tg.randn(3, 25, 2), y)

    pairs = [
        (nn.BCELoss(), nn.Sigmoid()),
        (nn.NLLLoss(), nn.LogSoftmax(1)),
        (nn.KLDivLoss(reduction="batchmean"), nn.LogSoftmax(1)),
    ]
    for loss, last in pairs:
        assert_compiled_is_eager(functools.partial(build, loss, last))


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=[f"{n} {o}" for n, o in OPTIMIZERS])
def test_every_optimizer_and_option(name, options):
    make = functools.partial(getattr(optim, name), **options)
    assert_compiled_is_eager(functools.partial(mlp, (2, 7, 2), optimizer=make), steps=20)


def test_parameter_groups_with_options_of_their_own():
    def groups(parameters):
        weights, biases = [], []
        for p in parameters:
            (weights if p.ndim == 2 else biases).append(p)
        return optim.SGD(
            [{"params": weights, "weight_decay": 0.1, "momentum": 0.9}, {"params": biases, "lr": 0.01}], lr=0.1
        )

    assert_compiled_is_eager(functools.partial(mlp, (2, 7, 2), optimizer=groups))


def test_the_same_training_in_a_fresh_process(tmp_path):
    """The uncompiled side runs in an interpreter that never recorded anything."""
    program = """
import pickle, sys, torch
import test_compile_networks as networks
torch.set_num_threads(1)
sys.stdout.buffer.write(pickle.dumps(networks.history(networks.lenet5, 6, networks.uncompiled)[1]))
"""
    folders = [Path(__file__).parent, Path(tg.__file__).parents[1], *sys.path]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=path, cwd=tmp_path)
    assert_same(pickle.loads(ran.stdout), history(lenet5, 6, tg.compile)[1])


# --- images ------------------------------------------------------------------------------------------------------


def lenet5():
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Dropout(0.5), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    x, y = tg.randn(2, 8, 1, 28, 28), tg.randint(0, 10, (2, 8))
    return training(model, optim.Adam(model.parameters()), nn.CrossEntropyLoss(), x, y)


def test_lenet5_with_dropout():
    assert_compiled_is_eager(lenet5)


def autoencoder(decoder):
    """Report 5's, on 16 by 16 images."""
    encoder = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()]
    model = nn.Sequential(*encoder, *decoder(), nn.Sigmoid())
    x = tg.rand(2, 5, 3, 16, 16)
    return training(model, optim.SGD(model.parameters(), lr=0.5, momentum=0.9), nn.MSELoss(), x, x.clone())


def upsampled():
    up = functools.partial(nn.Upsample, scale_factor=2)
    return [up(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), up(), nn.Conv2d(8, 3, 3, padding=1)]


def folded():
    return [nn.UpsampleConv2d(8, 8, 3, padding=1), nn.ReLU(), nn.UpsampleConv2d(8, 3, 3, padding=1)]


def transposed():
    return [nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)]


def bilinear():
    return [nn.Upsample(scale_factor=4, mode="bilinear"), nn.Conv2d(8, 3, 3, padding="same")]


@pytest.mark.parametrize("decoder", [upsampled, folded, transposed, bilinear], ids=lambda f: f.__name__)
def test_autoencoders(decoder):
    assert_compiled_is_eager(functools.partial(autoencoder, decoder))


def normalized():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3, groups=8),
        nn.GroupNorm(2, 8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4),
        nn.LayerNorm(4),
    )  # fmt: skip
    return training(
        model, optim.AdamW(model.parameters()), nn.HuberLoss(), tg.randn(2, 6, 3, 10, 10), tg.randn(2, 6, 4)
    )


def test_normalizations_with_running_statistics():
    assert_compiled_is_eager(normalized)


def test_a_network_in_eval_mode_uses_its_statistics_and_keeps_them():
    def build():
        made = normalized()
        made.models[0].eval()
        return made

    assert_compiled_is_eager(build)


# --- sequences, agents, equations --------------------------------------------------------------------------------


class Block(nn.Module):
    """Embedding, attention, feed-forward."""

    def __init__(self, width=8, words=11):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.position = nn.Parameter(tg.randn(1, 6, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.forwards = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, words)

    def forward(self, x):
        h = self.embedding(x) + self.position
        q = self.norms[0](h)
        h = h + self.attention(q, q, q)[0]
        h = h + self.forwards(self.norms[1](h))
        return self.head(h)


def transformer():
    model = Block()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).reshape(-1, 11), y.reshape(-1))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss, norm

    x = tg.randint(0, 11, (2, 4, 7))
    return Training(step, [model], [optimizer], [(x[i, :, :-1].clone(), x[i, :, 1:].clone()) for i in range(2)])


def actor_critic():
    def network(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))

    actor, critic, target = network(4, 2), network(6, 1), network(6, 1)
    target.load_state_dict(critic.state_dict())
    target.requires_grad_(False)
    optimizers = optim.Adam(actor.parameters()), optim.Adam(critic.parameters())

    def step(s, a, r, following):
        with tg.no_grad():
            noisy = actor(following).tanh() + 0.1 * tg.randn(16, 2)
            wanted = r + 0.99 * target(tg.cat([following, noisy], 1))
        optimizers[1].zero_grad()
        critic_loss = F.mse_loss(critic(tg.cat([s, a], 1)), wanted)
        critic_loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        actor_loss = -critic(tg.cat([s, actor(s).tanh()], 1)).mean()
        actor_loss.backward()
        optimizers[0].step()
        with tg.no_grad():
            for p, t in zip(critic.parameters(), target.parameters(), strict=True):
                t.mul_(0.995).add_(0.005 * p)
        return {"critic": critic_loss, "actor": actor_loss}

    batches = [tuple(tg.randn(16, n) for n in (4, 2, 1, 4)) for _ in range(3)]
    return Training(step, [actor, critic, target], list(optimizers), batches)


def burgers():
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    start, known = tg.rand(10, 2), tg.rand(10, 1)

    def step(points):
        optimizer.zero_grad()
        points = points.detach().requires_grad_()
        u = model(points)
        (du,) = tg.grad(u.sum(), [points], create_graph=True)
        ux, ut = du[:, 0:1], du[:, 1:2]
        (d2u,) = tg.grad(ux.sum(), [points], create_graph=True)
        residual = ut + u * ux - 0.01 / math.pi * d2u[:, 0:1]
        loss = (residual**2).mean() + F.mse_loss(model(start), known)
        loss.backward()
        optimizer.step()
        return loss

    return Training(step, [model], [optimizer], [(tg.rand(32, 2),) for _ in range(3)])


@pytest.mark.parametrize("build", [transformer, actor_critic, burgers], ids=lambda f: f.__name__)
def test_steps_of_their_own(build):
    assert_compiled_is_eager(build)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_for_any_number_of_threads(threads):
    torch.set_num_threads(threads)
    try:
        _, compiled = history(lenet5, 4, tg.compile)
        torch.set_num_threads(1)
        assert_same(history(lenet5, 4, uncompiled)[1], compiled)
    finally:
        torch.set_num_threads(1)
