"""Progress bars: tqdm's, on a terminal and in notebooks; elsewhere nothing is written."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from ..core import ArgumentError

_INTEGRATED = "ZMQInteractiveShell"  # IPython's shell behind a notebook


def in_notebook() -> bool:
    """Whether a notebook shows what this process prints."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == _INTEGRATED


def tqdm_bar(total: int, unit: str = "step") -> Any:
    """A bar over ``total`` steps; None where nothing would be seen. ImportError without tqdm."""
    if in_notebook():
        try:
            from tqdm import TqdmWarning

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TqdmWarning)
                from tqdm.auto import tqdm as widget

                return widget(total=total, unit=unit, disable=False, dynamic_ncols=True)
        except ImportError:  # no ipywidgets: a bar of characters
            pass
    from tqdm import tqdm

    bar = tqdm(total=total, unit=unit, disable=False if in_notebook() else None, dynamic_ncols=True)
    return None if bar.disable else bar


class Bar:
    """A bar over all steps of a run, with the epoch and the loss; nothing where none is wanted or seen."""

    def __init__(self, total: int, wanted: bool, epochs: int = 1) -> None:
        self.bar: Any = None
        self.epochs = epochs
        if wanted:
            try:
                self.bar = tqdm_bar(total)
            except ImportError as error:
                raise ArgumentError('run: progress=True needs tqdm: pip install "tapegrad[progress]"') from error

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def to(self, steps: int, loss: Any = None) -> None:
        """So many steps more are done, the last with a loss, a tensor of one number, where that is known."""
        # update is True where it was drawn, some ten times a second
        if self.bar is not None and steps and self.bar.update(steps) and loss is not None:
            self.bar.set_postfix_str(f"loss {loss.item():.4g}", refresh=False)

    def epoch(self, epoch: int, *losses: torch.Tensor | None) -> None:
        """An epoch is done; ``losses`` [epochs, ...] of the models that have some."""
        if self.bar is not None:
            means = [float(of[epoch].double().mean()) for of in losses if of is not None]
            self.bar.set_description(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
            if means:
                self.bar.set_postfix_str(f"loss {sum(means) / len(means):.4g}", refresh=False)

    def stage(self, text: str) -> None:
        """What goes on where no steps are done: a long recording, a long plan."""
        if self.bar is not None:
            self.bar.set_description(text)
