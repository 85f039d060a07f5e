"""Passes over the data in orders of rows that somebody else draws, for several models at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .members import Known, Model
from .step import Compiled
from .together import Together


class Passes(Together):
    """`run_together`, one epoch at a time.

    Parameters
    ----------
    steps : compiled steps, one for each model
    arrays : [n, ...] each: a list of K arrays
    batch_size : rows of a batch
    known : programs of earlier trainings, which models like theirs run
    tell : called as ``tell(k, rows)`` before the hyper-parameters of model k for batches of so many rows are read
    """

    only_finite = False

    def __init__(
        self,
        steps: Sequence[Compiled],
        arrays: Sequence[list[torch.Tensor]],
        batch_size: int,
        known: Known,
        tell: Callable[[int, int], None],
    ) -> None:
        super().__init__(steps, tuple(arrays), batch_size, 1, False, False, None, None, False)
        self.known, self._told_to = known, tell

    def run_pass(self, orders: dict[int, torch.Tensor | None]) -> list[torch.Tensor]:
        """One pass of these models over the rows in these orders (None: as they come). Returns the steps' losses."""
        active = [self.models[k] for k in orders]
        for model in active:
            model.rows, model.epochs, model.at = orders[model.index], 0, 0
            if model.network is not None:
                model.network.set_rows(model.rows)
                model.network.epoch = model.network.at = 0
        self._bind(active, 0)
        self._train(active, 1)
        return [model.losses.space(torch.get_default_dtype())[0] for model in active]

    def _tell(self, model: Model, first: int) -> int:
        rows = super()._tell(model, first)
        self._told_to(model.index, rows)
        return rows
