"""A character language model: a small GPT reads the help texts that ship with Python, and writes on.

python examples/characters.py    prints bits a character, a sample and time, with PyTorch's beside it, and draws
                                 characters.png
"""

import argparse
import math
import pydoc_data.topics
import time
from pathlib import Path

import numpy as np
import torch

import tapegrad as tg

LENGTH, WIDTH, HEADS, BLOCKS = 48, 64, 4, 2


def make_gpt(lib):
    """The class for either library: the text is the same."""
    nn = lib.nn

    class GPT(nn.Module):
        """Characters [N, L] -> scores of the next one [N, L, characters]."""

        def __init__(self, characters):
            super().__init__()
            self.characters = nn.Embedding(characters, WIDTH)
            self.places = nn.Embedding(LENGTH, WIDTH)
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
                for _ in range(BLOCKS)
            )
            self.norm = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, characters)
            self.register_buffer("mask", lib.triu(lib.ones(LENGTH, LENGTH), 1) > 0, persistent=False)

        def forward(self, text):
            length = text.shape[1]
            x = self.characters(text) + self.places.weight[:length]
            for block in self.blocks:
                x = block(x, src_mask=self.mask[:length, :length])
            return self.head(self.norm(x))

    return GPT


def train(lib, model, text, starts, compile):
    """One step for each row of `starts`, places in the text; the losses and seconds."""
    optimizer = lib.optim.AdamW(model.parameters(), lr=2e-3)

    def step(x, y):
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        return loss.detach()

    step, losses = compile(step), []
    began = time.process_time()
    for row in starts:
        window = row[:, None] + np.arange(LENGTH + 1)
        batch = lib.tensor(text[window])
        losses.append(step(batch[:, :-1].clone(), batch[:, 1:].clone()).item())
    return losses, time.process_time() - began


def write(model, alphabet, start, length, seed):
    """`length` more characters, drawn one by one."""
    text, generator = [alphabet.index(c) for c in start], np.random.default_rng(seed)
    with tg.no_grad():
        for _ in range(length):
            scores = model(tg.tensor([text[-LENGTH:]]))[0, -1]
            chances = (scores / 0.7).softmax(0).numpy().astype(np.float64)
            text.append(int(generator.choice(len(alphabet), p=chances / chances.sum())))
    return "".join(alphabet[i] for i in text)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    steps, batch = (6, 8) if options.quick else (1000, 16)

    topics = pydoc_data.topics.topics
    whole = "\n".join(topics[name] for name in sorted(topics))
    whole = "".join(c for c in whole if c.isascii())
    alphabet = sorted(set(whole))
    text = np.array([alphabet.index(c) for c in whole[:200_000]])
    starts = np.random.default_rng(0).integers(0, len(text) - LENGTH - 1, (steps, batch))

    tg.manual_seed(0)
    model, other = make_gpt(tg)(len(alphabet)), make_gpt(torch)(len(alphabet))
    other.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})

    found = {
        "tapegrad": train(tg, model, text, starts, tg.compile),
        "PyTorch": train(torch, other, text, starts, lambda step: step),
    }
    count = sum(p.numel() for p in model.parameters())
    print(f"{count:,} parameters, {steps} steps of {batch} x {LENGTH} characters, {torch.get_num_threads()} threads")
    for name, (losses, seconds) in found.items():
        bits = np.mean(losses[-steps // 10 :]) / math.log(2)
        print(
            f"{name:9} {seconds:6.2f} s   {bits:.2f} bits a character ({math.log2(len(alphabet)):.2f} before training)"
        )
    sample = write(model, alphabet, "The statement ", 40 if options.quick else 300, seed=0)
    print("a sample:\n   ", sample.replace("\n", "\n    "))
    draw({name: losses for name, (losses, _) in found.items()}, options.out / "characters.png")
    return {"losses": {name: losses for name, (losses, _) in found.items()}, "sample": sample}


def draw(losses, path):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for (name, curve), style in zip(losses.items(), ("C3", "k:"), strict=True):
        window = min(10, len(curve))
        smooth = np.convolve(curve, np.ones(window) / window, "valid") / math.log(2)
        axis.plot(np.arange(window, len(curve) + 1), smooth, style, label=name)
    axis.set(xlabel="step", ylabel="bits a character")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
