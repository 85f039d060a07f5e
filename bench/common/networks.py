"""Every network that is measured. Each is one function of `nn`, tapegrad's or torch's."""

from __future__ import annotations

from typing import Any


def mlp(nn: Any, hidden: int = 3, activation: tuple[Any, ...] = ("ReLU",), last: str = "", dropout: float = 0.0) -> Any:
    """The reports' network 2-25-...-25-2: `hidden` layers of 25, an activation (name, arguments) behind each.

    `last` is the activation of the output, if any; `dropout` the share of each hidden layer that is left out.
    """
    layers: list[Any] = []
    for i in range(hidden):
        layers += [nn.Linear(25 if i else 2, 25), getattr(nn, activation[0])(*activation[1:])]
        layers += [nn.Dropout(dropout)] if dropout else []
    layers.append(nn.Linear(25, 2))
    layers += [getattr(nn, last)()] if last else []
    return nn.Sequential(*layers)


def digits_mlp(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet(nn: Any) -> Any:
    """LeNet-5 for 28 x 28 pictures, with ReLU and maximum pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),  # [N, 6, 28, 28]
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),  # [N, 16, 10, 10]
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def tanh_mlp(nn: Any) -> Any:
    """A policy of 17 observations and 6 actions."""
    return nn.Sequential(nn.Linear(17, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 6))


def sequences(nn: Any, kind: str, features: int, hidden: int) -> Any:
    """One number for each sequence [N, L, features]: an LSTM or a GRU, and a linear layer on its last h."""

    class Last(nn.Module):  # type: ignore[misc]
        """The outputs of a recurrent layer -> the last step's."""

        def forward(self, outputs: Any) -> Any:
            return outputs[0][:, -1]

    return nn.Sequential(getattr(nn, kind)(features, hidden, batch_first=True), Last(), nn.Linear(hidden, 1))


def field(nn: Any) -> Any:
    """u(x, t) of a physics-informed network."""
    layers = [layer for n in (2, 32, 32) for layer in (nn.Linear(n, 32), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(32, 1))


def digits_network(nn: Any) -> Any:
    """A small convolutional network for 8 x 8 pictures."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),  # [N, 16, 8, 8]
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),  # [N, 32, 4, 4]
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def autoencoder(nn: Any) -> Any:
    """Report 5's network; its "upsampling layer" is nearest upsampling, then a convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),  # [N, 32, 8, 8]
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 32, 3, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 3, 3, padding=1),  # [N, 3, 32, 32]
        nn.Sigmoid(),
    )


def folded_autoencoder(nn: Any) -> Any:
    """`autoencoder` with report 5's upsampling layer as one layer, which only tapegrad has."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),  # [N, 32, 8, 8]
        nn.ReLU(),
        nn.UpsampleConv2d(32, 32, 3, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.UpsampleConv2d(32, 3, 3, padding=1),  # [N, 3, 32, 32]
        nn.Sigmoid(),
    )
