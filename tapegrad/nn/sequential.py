"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..core import Tensor, mode, no_grad, raw
from .checks import extent
from .containers import Numbered
from .layers import Embedding
from .module import Module

if TYPE_CHECKING:
    from ..optim import Optimizer
    from ..training import Callback, History

Self = TypeVar("Self", bound="Sequential")


def as_input(model: Module, x: Any, what: str = "predict: x") -> Any:
    """Samples with the dtype of the model's parameters if they are floating-point numbers, else as they are."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    value = raw(x, *what.split(": "))
    if dtype is None or not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype is dtype:
        return x
    return x.to(dtype) if isinstance(x, Tensor) else value.to(dtype)


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

    __slots__ = ("_calls", "_predictions")  # `Habit`s; no part of the model's state, and so not in __dict__

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

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not mode.record and len(args) == 1 and not kwargs and self._hooks is None:
            return self._habit("_calls", "forward", modes=False)(*args)
        return super().__call__(*args, **kwargs)

    def _habit(self, slot: str, method: str, modes: bool) -> Any:
        """What serves calls that come again and again; see `tapegrad.compiled.habit`."""
        try:
            return getattr(self, slot)
        except AttributeError:
            from ..compiled import Habit

            setattr(self, slot, Habit(self, method, modes))
            return getattr(self, slot)

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
        x : what the model takes: Tensor, torch tensor or NumPy array, batch first; floating-point numbers are converted
            to the dtype of the parameters
        """
        return self._habit("_predictions", "_predicted", modes=True)(x)  # type: ignore[no-any-return]

    def _predicted(self, x: Any) -> Tensor:
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            with no_grad():
                return self(as_input(self, x))  # type: ignore[no-any-return]
        finally:
            for module, training in modes:
                module.training = training

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Optimizer,
        epochs: int,
        batch_size: int,
        validation_data: tuple[Any, Any] | None = None,
        metrics: tuple[str, ...] = ("accuracy",),
        shuffle: bool = True,
        seed: int | None = None,
        progress: bool = True,
        compile: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train on `X` and `y`: the same as, bit for bit, and after a check of everything that is given,

        ::

            for epoch in range(epochs):
                for xb, yb in tg.data.batches(X, y, batch_size=batch_size, shuffle=shuffle, seed=seed, epoch=epoch):
                    optimizer.zero_grad()
                    loss(model(xb), yb).backward()
                    optimizer.step()

        >>> import tapegrad as tg
        >>> _ = tg.manual_seed(0)
        >>> model = tg.nn.Sequential(tg.nn.Linear(2, 25), tg.nn.ReLU(), tg.nn.Linear(25, 2))
        >>> x, labels = tg.data.disk(1000, seed=1)
        >>> history = model.fit(
        ...     tg.data.standardize(x), labels, loss=tg.nn.CrossEntropyLoss(),
        ...     optimizer=tg.optim.Adam(model.parameters(), lr=0.01), epochs=20, batch_size=25, seed=0
        ... )
        >>> history.accuracy[-1] > 0.95
        True

        Parameters
        ----------
        X : samples [n, ...]: NumPy array, torch tensor or Tensor; floating-point numbers are converted to the dtype of
            the parameters, here and in `predict`
        y : targets [n, ...], likewise. CrossEntropyLoss and NLLLoss take class indices or one-hot; MSELoss, L1Loss,
            SmoothL1Loss, HuberLoss, BCELoss and BCEWithLogitsLoss take the output's shape, or for an output [N, C]
            class indices, which become one-hot, or for [N, 2] -1 and +1, which become (1, -1) and (-1, 1); any other
            loss gets them as they are
        loss : a function of (output, target), such as one of the loss modules
        optimizer : made with parameters of this model
        epochs, batch_size : passes over the data, rows of a step; the last batch of an epoch may be smaller
        validation_data : a pair (X, y), looked at after every epoch
        metrics : ("accuracy",) or (); accuracy is left out for targets that name no classes
        shuffle, seed : as in `tapegrad.data.batches`; one seed is drawn for all epochs if it is None
        progress : draw a bar with loss and steps per second, on a terminal or in a notebook, if tqdm is installed
        compile : replay the step in C++ (`tapegrad.compile`); a step that cannot be compiled runs as it is, after a
            warning that says why
        callbacks : of `tapegrad.callbacks`, told after every epoch: EarlyStopping, Checkpoint, CSVLogger, TensorBoard,
            Schedule, or your own `Callback`

        A model in evaluation mode is put into training mode; one in training mode keeps the modes of its layers, so
        that a frozen normalisation stays frozen.

        Returns
        -------
        The `History`: lists of loss, accuracy, val_loss, val_accuracy and seconds, one entry per epoch. Ctrl-C ends the
        training after the step under way and returns the history of the epochs that were completed.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError, TypeError
            before any parameter changes, for what does not fit: "CrossEntropyLoss: targets must be class indices in
            [0, 2); got 5 at row 17".
        """
        from ..training import fit

        return fit(
            self,
            X,
            y,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            validation_data=validation_data,
            metrics=metrics,
            shuffle=shuffle,
            seed=seed,
            progress=progress,
            compile=compile,
            callbacks=callbacks,
        )

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
