"""A pole on a cart, balanced by policy gradients (REINFORCE with a baseline); the cart is thirty lines of NumPy.

    python examples/cartpole.py      prints steps balanced and time, with PyTorch's beside it, and draws cartpole.png

Acting asks the network about one state at a time: there Python's cost is all there is, and `tg.compile(model)` answers
without it.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

import tapegrad as tg

LIMIT = 300  # steps of an episode, at most


class Cart:
    """State: place, speed, angle, angular speed. The equations of Barto, Sutton and Anderson (1983)."""

    GRAVITY, CART, POLE, HALF, FORCE, DT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

    def __init__(self, random):
        self.random = random

    def reset(self):
        self.state = self.random.uniform(-0.05, 0.05, 4)
        return self.state.astype(np.float32)

    def step(self, action):
        """(state, whether the episode is over) after a push to the right (1) or to the left (0)."""
        _, speed, angle, turning = self.state
        push = self.FORCE if action else -self.FORCE
        sin, cos, mass = math.sin(angle), math.cos(angle), self.CART + self.POLE
        inner = (push + self.POLE * self.HALF * turning**2 * sin) / mass
        inertia = self.HALF * (4 / 3 - self.POLE * cos**2 / mass)
        turn = (self.GRAVITY * sin - cos * inner) / inertia
        accelerate = inner - self.POLE * self.HALF * turn * cos / mass
        change = np.array([speed, accelerate, turning, turn])
        self.state = self.state + self.DT * change
        over = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.2095
        return self.state.astype(np.float32), over


def network(nn):
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))


def returns_of(length):
    """Discounted sums of a reward of 1 a step."""
    return np.cumsum(0.99 ** np.arange(length))[::-1].astype(np.float32)


def train(act, learn, episodes, batch, seed):
    """`act(state)` gives the probability of a push to the right, `learn` takes a batch of episodes; their lengths."""
    random = np.random.default_rng(seed)
    cart, lengths = Cart(random), []
    for _ in range(episodes // batch):
        states, actions, returns = [], [], []
        for _ in range(batch):
            state, length, over = cart.reset(), 0, False
            while not over and length < LIMIT:
                states.append(state)
                actions.append(int(random.random() < act(state)))
                state, over = cart.step(actions[-1])
                length += 1
            returns.append(returns_of(length))
            lengths.append(length)
        gains = np.concatenate(returns)
        learn(np.stack(states), np.array(actions), (gains - gains.mean()) / (gains.std() + 1e-6))
    return lengths


def tapegrad_side(model):
    optimizer = tg.optim.Adam(model.parameters(), lr=0.02)
    policy = tg.compile(model)

    def act(state):
        with tg.no_grad():
            return policy(state[None]).softmax(1)[0, 1].item()

    def learn(states, actions, gains):
        optimizer.zero_grad()
        chosen = tg.distributions.Categorical(logits=model(states)).log_prob(tg.tensor(actions))
        (-(chosen * tg.tensor(gains)).mean()).backward()
        optimizer.step()

    return act, learn


def torch_side(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def act(state):
        with torch.no_grad():
            return model(torch.from_numpy(state[None])).softmax(1)[0, 1].item()

    def learn(states, actions, gains):
        optimizer.zero_grad()
        logits = model(torch.from_numpy(states))
        chosen = torch.distributions.Categorical(logits=logits).log_prob(torch.from_numpy(actions))
        (-(chosen * torch.from_numpy(gains)).mean()).backward()
        optimizer.step()

    return act, learn


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer episodes")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the picture")
    options = parser.parse_args(argv)
    episodes, batch = (40, 8) if options.quick else (320, 8)

    tg.manual_seed(0)
    model, other = network(tg.nn), network(torch.nn)
    other.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})

    lengths, seconds = {}, {}
    for name, (act, learn) in {"tapegrad": tapegrad_side(model), "PyTorch": torch_side(other)}.items():
        began = time.process_time()
        lengths[name] = train(act, learn, episodes, batch, seed=0)
        seconds[name] = time.process_time() - began

    print(f"{episodes} episodes of at most {LIMIT} steps, {torch.get_num_threads()} threads")
    for name, run in lengths.items():
        each = 1e6 * seconds[name] / sum(run)
        last = np.mean(run[-episodes // 8 :])
        print(
            f"{name:9} {seconds[name]:6.2f} s   {each:5.0f} us a step   {last:.0f} steps balanced in the last episodes"
        )
    draw(lengths, batch, options.out / "cartpole.png")
    return {"lengths": lengths, "seconds": seconds}


def draw(lengths, batch, path):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for (name, run), style in zip(lengths.items(), ("C3", "k:"), strict=True):
        axis.plot(batch * np.arange(1, len(run) // batch + 1), np.reshape(run, (-1, batch)).mean(1), style, label=name)
    axis.set(xlabel="episodes", ylabel="steps balanced", ylim=(0, LIMIT * 1.05))
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print("picture:", path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
