"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from ..mode import no_grad
from ..tensor import Tensor
from .checks import extent
from .containers import Numbered
from .layers import Embedding
from .module import Module

Self = TypeVar("Self", bound="Sequential")


class Sequential(Numbered):
    """Layers that feed one another: ``Sequential(a, b, c)(x) = c(b(a(x)))``.

    Parameters
    ----------
    layers : modules, named "0", "1", ...; or one dict of modules by name

    >>> import tapegrad as tg
    >>> model = tg.nn.Sequential(tg.nn.Linear(2, 25), tg.nn.ReLU(), tg.nn.Linear(25, 2))
    >>> print(model.describe((2,)))
    layer                                                     output   parameters
    0      Linear(in_features=2, out_features=25, bias=True)  [N, 25]          75
    1      ReLU()                                             [N, 25]           0
    2      Linear(in_features=25, out_features=2, bias=True)  [N, 2]           52
    total  127 parameters, 127 trainable, 508 B

    Source: ``torch.nn.Sequential``.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__()
        self.training = True
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            for name, module in layers[0].items():
                self.add_module(name, module)
        else:
            self.add(*layers)

    def add(self: Self, *layers: Module) -> Self:
        """Put layers at the end; returns the model, so that calls can be chained."""
        return self.extend(layers)

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if isinstance(index, slice):  # a part keeps the names, as torch's does
            for name, _ in part._items():
                delattr(part, name)
            for name, module in self._items()[index]:
                setattr(part, name, module)
        return part

    def forward(self, input: Any) -> Any:
        """The input through every layer in turn."""
        for layer in list(self.__dict__.values()):
            if isinstance(layer, Module):
                input = layer(input)
        return input

    def predict(self, x: Any) -> Tensor:
        """The output for `x` in evaluation mode, without recording; every layer's mode is restored afterwards.

        Parameters
        ----------
        x : what the model takes: Tensor, torch tensor or NumPy array, batch first
        """
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            with no_grad():
                return self(x)  # type: ignore[no-any-return]
        finally:
            for module, training in modes:
                module.training = training

    def describe(self, input_shape: Sequence[int] | None = None) -> str:
        """A table of layers, output shapes and numbers of parameters.

        Parameters
        ----------
        input_shape : of one example, without the batch dimension; None leaves the column of output shapes out

        Returns the table as text. Raises what the layers raise for an input of that shape.
        """
        shapes: dict[int, str] = {}
        if input_shape is not None:
            sizes = [extent(n, "describe", "input_shape") for n in input_shape]
            self._probe(sizes, shapes)
        rows = [("layer", "", "output" if shapes else "", "parameters"), *self._rows("", shapes)]
        widths = [max(len(row[i]) for row in [*rows, ("total", "", "", "")]) for i in range(4)]
        lines = []
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False) if width]
            lines.append("  ".join([*cells, row[3].rjust(widths[3])]))
        parameters = list(self.parameters())
        count = sum(p.numel() for p in parameters)
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        size = sum(p.numel() * p.dtype.itemsize for p in parameters)
        total = f"{count:,} parameters, {trainable:,} trainable, {size:,} B"
        return "\n".join([*lines, f"{'total'.ljust(widths[0])}  {total}"])

    def _rows(self, prefix: str, shapes: dict[int, str]) -> list[tuple[str, str, str, str]]:
        """(name, layer, output shape, parameters) of every layer, nested ones after their Sequential."""
        rows = []
        for name, layer in self._items():
            text = repr(layer).split("\n")[0]
            text = text if len(text) <= 70 else text[:66].rstrip(", ") + ", ..."
            if isinstance(layer, Sequential):
                rows.append((prefix + name, type(layer).__name__, shapes.get(id(layer), ""), ""))
                rows += layer._rows(f"{prefix}{name}.", shapes)
            else:
                count = sum(p.numel() for p in layer.parameters())
                rows.append((prefix + name, text.rstrip("("), shapes.get(id(layer), ""), f"{count:,}"))
        return rows

    def _probe(self, sizes: list[int], shapes: dict[int, str]) -> None:
        """Run zeros through the model and note every layer's output shape, by the layer's id."""
        first = next((m for m in self.modules() if not isinstance(m, Sequential)), None)
        parameter = next(self.parameters(), None)
        dtype = torch.int64 if isinstance(first, Embedding) else torch.float32 if parameter is None else parameter.dtype

        def note(layer: Module, args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            shapes[id(layer)] = "[" + ", ".join(["N", *map(str, value.shape[1:])]) + "]"

        handles = [module.register_forward_hook(note) for module in self.modules()]
        try:
            self.predict(torch.zeros(1, *sizes, dtype=dtype))
        finally:
            for handle in handles:
                handle.remove()
