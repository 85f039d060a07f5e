"""Compiling and calling exported C: what the tests of `export_c` share."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import tapegrad as tg

F, nn = tg.nn.functional, tg.nn
STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
KINDS = {
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "uint8_t": ctypes.c_uint8,
}


def compiler(name: str = "cc") -> str | None:
    return shutil.which(name)


def run(command: Sequence[str]) -> str:
    """What a command printed; its errors where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command[:3]))} ...: {done.stderr[:3000]}"
    return done.stdout


def library(sources: Iterable[Path], to: Path, *more: str, math: str = "libm") -> ctypes.CDLL:
    """The sources as one library."""
    run(["cc", *STRICT, "-shared", "-fPIC", *sources, "-o", to, *(["-lm"] if math == "libm" else []), *more])
    return ctypes.CDLL(str(to))


def struct(header: str, name: str) -> type[ctypes.Structure]:
    """``struct name`` as a header declares it."""
    body = re.search(rf"struct {name} {{(.*?)\n}};", header, re.DOTALL)
    assert body
    fields: list[tuple[str, Any]] = []
    for line in re.sub(r"/\*.*?\*/", "", body[1]).split(";"):
        if not line.strip():
            continue
        kind, _, rest = line.strip().partition(" ")
        if kind == "struct":
            inner, _, member = rest.partition(" ")
            fields.append((member, struct(header, inner)))
            continue
        for one in rest.split(","):
            match = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", one.strip())
            assert match, line
            fields.append((match[1], KINDS[kind] * int(match[2]) if match[2] else KINDS[kind]))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def pointer(t: Any) -> ctypes.c_void_p:
    t = t.data if isinstance(t, tg.Tensor) else t
    assert t.is_contiguous()
    return ctypes.c_void_p(t.data_ptr())


class Step:
    """An exported training step, called through ctypes."""

    def __init__(self, lib: ctypes.CDLL, made: Any, name: str) -> None:
        self.kind = struct(made.header.read_text(), name)
        self.s = self.kind()
        self.init, self.step = getattr(lib, f"{name}_init"), getattr(lib, f"{name}_step")
        declared = made.functions[1].split()[0]
        self.step.restype = {"float": ctypes.c_float, "double": ctypes.c_double, "void": None}[declared]
        self.init(ctypes.byref(self.s))

    def __call__(self, *arguments: torch.Tensor) -> float:
        return self.step(ctypes.byref(self.s), *map(pointer, arguments))  # type: ignore[no-any-return]

    def __getitem__(self, member: str) -> np.ndarray[Any, Any]:
        return np.ctypeslib.as_array(getattr(self.s, member)).copy()


def constants(t: torch.Tensor) -> str:
    """A tensor as the elements of a C array, exact."""
    values = t.flatten().tolist()
    return ", ".join(v.hex() if isinstance(v, float) else str(v) for v in values)


def program(name: str, batches: Sequence[tuple[torch.Tensor, torch.Tensor]], out: int) -> str:
    """A ``main`` that trains on batches with ``name`` and runs ``name_net`` on the first; it prints all in hex."""
    kinds = {torch.float32: "float", torch.float64: "double", torch.int64: "int64_t"}
    arrays = [
        f"static const {kinds[t.dtype]} {label}[{len(batches)}][{t.numel()}] = "
        f"{{{', '.join(f'{{{constants(b[i])}}}' for b in batches)}}};"
        for i, (label, t) in enumerate(zip("xy", batches[0], strict=True))
    ]
    return f"""#include <stdio.h>
#include "{name}.h"
#include "{name}_net.h"
{chr(10).join(arrays)}
static struct {name} s;
int main(void) {{
  float out[{out}];
  {name}_init(&s);
  {name}_net_forward(x[0], out);
  for (int i = 0; i < {out}; ++i) printf("%a\\n", (double)out[i]);
  for (int i = 0; i < {len(batches)}; ++i) printf("%a\\n", (double){name}_step(&s, x[i], y[i]));
  return 0;
}}
"""


class Case(NamedTuple):
    """A network, an optimizer, a loss, its batches. ``settled``: no parameter has a gradient of rounding alone."""

    model: Callable[[], Any]
    optimizer: Callable[[Any], Any]
    loss: Callable[..., Any]
    x: Callable[[], torch.Tensor]
    y: Callable[[], torch.Tensor]
    dtype: torch.dtype = torch.float32
    math: str = "libm"
    settled: bool = True


def sequential(*layers: Any) -> Callable[[], Any]:
    return lambda: nn.Sequential(*[layer() for layer in layers])


def floats(*size: int, dtype: torch.dtype = torch.float32) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(size, dtype=dtype)


def labels(classes: int, *size: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randint(classes, size)


class Sentence(nn.Module):  # type: ignore[misc]
    """Embedding, attention with dropout and layer norms, a layer."""

    def __init__(self) -> None:
        self.words = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.1, activation="gelu", batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.block(self.words(x)).mean(1))


class Recurrent(nn.Module):  # type: ignore[misc]
    def __init__(self, kind: Any) -> None:
        self.cells = kind(4, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.cells(x)[0][:, -1])


def linear(n: int, m: int) -> Callable[[], Any]:
    return lambda: nn.Linear(n, m)


def conv(*arguments: Any, **named: Any) -> Callable[[], Any]:
    return lambda: nn.Conv2d(*arguments, **named)


def transposed(n: int, m: int) -> Callable[[], Any]:
    return lambda: nn.ConvTranspose2d(n, m, 3, 2, 1, 1)


LENET = (
    *(conv(1, 6, 5, padding=2), nn.ReLU, lambda: nn.MaxPool2d(2), conv(6, 16, 5), nn.ReLU, lambda: nn.MaxPool2d(2)),
    *(nn.Flatten, linear(400, 120), nn.ReLU, linear(120, 84), nn.ReLU, linear(84, 10)),
)
UP = (lambda: nn.Upsample(scale_factor=2), conv(8, 8, 3, padding=1), nn.ReLU)
AUTOENCODER = (conv(3, 8, 3, 2, 1), nn.ReLU, conv(8, 8, 3, 2, 1), nn.ReLU, *UP, transposed(8, 3), nn.Sigmoid)


def normed() -> Any:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 1, bias=False), nn.GroupNorm(2, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(36, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    )


def mlp(activation: Any) -> Callable[[], Any]:
    return sequential(linear(7, 16), activation, linear(16, 16), activation, linear(16, 3))


optim = tg.optim
CASES = {
    "sgd": Case(mlp(nn.ReLU), lambda p: optim.SGD(p, 0.1), F.cross_entropy, floats(5, 7), labels(3, 5)),
    "momentum": Case(
        mlp(nn.Tanh),
        lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3, dampening=0.1),
        *(F.mse_loss, floats(5, 7), floats(5, 3)),
    ),
    "adamw": Case(
        mlp(nn.GELU),
        lambda p: optim.AdamW(p, 0.01),
        lambda a, b: F.cross_entropy(a, b, label_smoothing=0.1, ignore_index=1),
        *(floats(5, 7), labels(3, 5)),
        math="own",
    ),
    "wide": Case(
        sequential(linear(7, 16), nn.SiLU, lambda: nn.LayerNorm(16), linear(16, 3), lambda: nn.Softmax(1)),
        lambda p: optim.Adam(p, 0.01, amsgrad=True),
        *(F.mse_loss, floats(5, 7, dtype=torch.float64), floats(5, 3, dtype=torch.float64), torch.float64),
        math="own",
        settled=False,
    ),
    "rms": Case(
        sequential(linear(7, 16), lambda: nn.LeakyReLU(0.05), lambda: nn.Dropout(0.3), linear(16, 3)),
        lambda p: optim.RMSprop(p, 0.005, momentum=0.5, centered=True),
        *(F.binary_cross_entropy_with_logits, floats(5, 7), lambda: torch.rand(5, 3)),
    ),
    "lenet": Case(
        *(sequential(*LENET), lambda p: optim.Adam(p, 0.002), F.cross_entropy),
        *(floats(2, 1, 28, 28), labels(10, 2)),
    ),
    "images": Case(
        *(sequential(*AUTOENCODER), lambda p: optim.Adam(p, 0.01), F.mse_loss),
        *(lambda: torch.rand(2, 3, 8, 8), lambda: torch.rand(2, 3, 8, 8)),
    ),
    "norms": Case(
        *(normed, lambda p: optim.Adam(p, 0.01), F.cross_entropy, floats(4, 3, 8, 8), labels(3, 4)),
    ),
    "words": Case(
        *(Sentence, lambda p: optim.Adam(p, 0.01), F.cross_entropy, labels(11, 4, 6), labels(3, 4)), settled=False
    ),
    "gru": Case(lambda: Recurrent(nn.GRU), lambda p: optim.SGD(p, 0.1), F.cross_entropy, floats(3, 4, 4), labels(3, 3)),
    "lstm": Case(
        lambda: Recurrent(nn.LSTM), lambda p: optim.SGD(p, 0.1), F.cross_entropy, floats(3, 4, 4), labels(3, 3)
    ),
}
OPTIMIZERS = {
    "nesterov": lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adadelta": lambda p: optim.Adadelta(p, 0.5, weight_decay=1e-3),
    "adagrad": lambda p: optim.Adagrad(p, 0.05, lr_decay=0.1),
    "adamax": lambda p: optim.Adamax(p, 0.01, weight_decay=1e-3),
    "nadam": lambda p: optim.NAdam(p, 0.01, weight_decay=1e-3),
    "nadamw": lambda p: optim.NAdam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, 0.01, weight_decay=1e-3),
    "radamw": lambda p: optim.RAdam(p, 0.01, betas=(0.8, 0.9), weight_decay=0.1, decoupled_weight_decay=True),
    "rmsprop": lambda p: optim.RMSprop(p, 0.005, weight_decay=1e-3),
    "rmsmoves": lambda p: optim.RMSprop(p, 0.005, momentum=0.5),
    "rprop": lambda p: optim.Rprop(p, 0.01),
}
CASES |= {
    name: Case(
        *(sequential(linear(7, 6), nn.Tanh, linear(6, 3)), make, F.mse_loss),
        *(floats(5, 7, dtype=torch.float64), floats(5, 3, dtype=torch.float64), torch.float64),
    )
    for name, make in OPTIMIZERS.items()
}


class Ready(NamedTuple):
    case: Case
    model: Any
    optimizer: Any
    step: Any
    batches: list[tuple[torch.Tensor, torch.Tensor]]
    random: tuple[int, int]  # the generator's state when it was made


def ready(case: Case, batches: int = 50) -> Ready:
    """A model with its compiled step and its batches, the same every time."""
    torch.manual_seed(0)
    tg.manual_seed(0)
    model = case.model().to(case.dtype)
    optimizer = case.optimizer(model.parameters())

    @tg.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = case.loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    data = [(case.x(), case.y()) for _ in range(batches)]
    return Ready(case, model, optimizer, step, data, tg.default_generator.get_state())
