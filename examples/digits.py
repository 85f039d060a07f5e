"""Digits: a small convolutional network learns the 1,797 handwritten digits of scikit-learn, with `Sequential.fit`.

python examples/digits.py        prints accuracy and time, with PyTorch's beside it, and draws digits.png
"""

import argparse
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits

import tapegrad as tg


def network(nn):
    """The same network of either library's layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),  # [N, 16, 8, 8]
        nn.ReLU(),
        nn.MaxPool2d(2),  # [N, 16, 4, 4]
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def train_torch(start, x, y, epochs):
    """PyTorch's usual loop from the same weights."""
    model = network(torch.nn)
    model.load_state_dict(start)
    optimizer, loss_fn = torch.optim.Adam(model.parameters(), lr=0.003), torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            loss_fn(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    epochs = 3 if options.quick else 25

    tg.manual_seed(0)
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)  # [N, 1, 8, 8]
    y = torch.tensor(digits.target)
    train, test = tg.data.kfold(len(x), k=5, seed=0)[0]

    model = network(tg.nn)
    start = {name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()}
    began = time.process_time()
    history = model.fit(
        x[train],
        y[train],
        loss=tg.nn.CrossEntropyLoss(),
        optimizer=tg.optim.Adam(model.parameters(), lr=0.003),
        epochs=epochs,
        batch_size=50,
        seed=0,
    )
    seconds = {"tapegrad": time.process_time() - began}
    scores = model.predict(x[test])
    right = {"tapegrad": (scores.argmax(1) == y[test]).float().mean().item()}

    began = time.process_time()
    other = train_torch(start, x[train], y[train], epochs)
    seconds["PyTorch"] = time.process_time() - began
    with torch.no_grad():
        right["PyTorch"] = (other(x[test]).argmax(1) == y[test]).float().mean().item()

    print(f"{epochs} epochs of {len(train) // 50 + 1} steps, batch 50, {torch.get_num_threads()} threads")
    for name in seconds:
        print(f"{name:9} {seconds[name]:6.2f} s   {right[name]:.1%} of {len(test)} test digits right")
    print("loss of the last epoch:", f"{history.loss[-1]:.4f}")
    draw(x[test], y[test], scores.data, options.out / "digits.png")
    return {"seconds": seconds, "right": right}


def draw(x, y, scores, path):
    """The digits that the network is least sure of, with what they are and what it says."""
    import matplotlib.pyplot as plt

    sure = scores.softmax(1).amax(1)
    figure, axes = plt.subplots(2, 8, figsize=(8, 2.8), layout="constrained")
    for axis, i in zip(axes.flat, sure.argsort()[:16], strict=True):
        said = scores[i].argmax().item()
        axis.imshow(x[i, 0].numpy(), cmap="gray_r")
        axis.set_title(f"{y[i].item()}, said {said}", fontsize=8, color="black" if said == y[i] else "red")
        axis.axis("off")
    figure.suptitle("the digits that the network is least sure of", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
