"""Noise to clean photographs: an autoencoder that is shown pairs of noisy pictures, never a clean one.

    python examples/denoise.py       prints PSNR and time, with PyTorch's beside it, and draws denoise.png

The photographs come with scikit-learn and scikit-image; two of seven are kept for testing.
"""

import argparse
import math
import time
from pathlib import Path

import torch

import tapegrad as tg


def network(nn, up):
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),  # [N, 32, 8, 8]
        nn.ReLU(),
        up(32, 32),  # [N, 32, 16, 16]
        nn.ReLU(),
        up(32, 3),  # [N, 3, 32, 32]
        nn.Sigmoid(),
    )


def upsampled(inputs, outputs):
    """torch has no such layer."""
    return torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(inputs, outputs, 3, padding=1))


def psnr(picture, clean):
    """Decibels: 10 log10(1 / mean squared error)."""
    return -10 * math.log10(((picture - clean) ** 2).mean().item())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures and epochs")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    patches, epochs = (400, 2) if options.quick else (1500, 8)

    first, second, _ = tg.data.noisy_patches(patches, sigma=0.2, seed=0)
    noisy, _, clean = tg.data.noisy_patches(200, sigma=0.2, seed=0, split="test")

    tg.manual_seed(0)
    torch.manual_seed(0)
    model = network(tg.nn, lambda inputs, outputs: tg.nn.UpsampleConv2d(inputs, outputs, 3, padding=1))
    other = network(torch.nn, upsampled)
    start = [torch.tensor(p.numpy()) for p in model.state_dict().values()]
    for p, value in zip(other.parameters(), start, strict=True):
        p.data.copy_(value)

    optimizer, loss_fn = tg.optim.Adam(model.parameters(), lr=0.004), tg.nn.MSELoss()

    @tg.compile
    def step(x, target):
        optimizer.zero_grad()
        loss = loss_fn(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    began = time.process_time()
    losses = step.run(first, second, batch_size=50, epochs=epochs, seed=0)
    seconds = {"tapegrad": time.process_time() - began}
    output = model.predict(noisy).data

    began = time.process_time()
    other_optimizer, other_loss = torch.optim.Adam(other.parameters(), lr=0.004), torch.nn.MSELoss()
    for _ in range(epochs):
        for rows in torch.randperm(len(first)).split(50):
            other_optimizer.zero_grad()
            other_loss(other(first[rows]), second[rows]).backward()
            other_optimizer.step()
    seconds["PyTorch"] = time.process_time() - began
    with torch.no_grad():
        scores = {"tapegrad": psnr(output, clean), "PyTorch": psnr(other(noisy), clean)}

    print(f"{losses.numel()} steps of 50 patches of 32 x 32, {torch.get_num_threads()} threads")
    print(f"noisy pictures: {psnr(noisy, clean):.2f} dB")
    for name in seconds:
        print(f"{name:9} {seconds[name]:6.2f} s   {scores[name]:.2f} dB")
    draw([("noisy", noisy), ("restored", output), ("clean", clean)], options.out / "denoise.png")
    return {"seconds": seconds, "psnr": scores, "noisy": psnr(noisy, clean)}


def draw(rows, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 10, figsize=(10, 3.2), layout="constrained")
    for (name, pictures), line in zip(rows, axes, strict=True):
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture.permute(1, 2, 0).numpy())
            axis.axis("off")
        line[0].set_title(name, fontsize=9, loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
