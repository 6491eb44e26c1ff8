"""Which flow each step of a stage runs, and the batches of all flows as one sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vlmdsl.ir import Node, ramps_at
from vlmdsl.runtime.data.loader import BatchLoader
from vlmdsl.runtime.data.report import SkipReport
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values import Batch

__all__ = ["MixedBatches", "Mixture", "seed_of"]

_BLOCK = 1024
"""Steps whose flows are drawn together, so that the flows of a long run are counted quickly."""


def seed_of(seed: int, stage: str, flow: str) -> int:
    """The seed of the data of a flow, so that flows and stages over one source read it in different orders; without stages
    and flows it is the seed of the run.

    >>> seed_of(7, "", ""), seed_of(7, "first", "") == seed_of(7, "second", "")
    (7, False)
    """
    return seed if not (stage or flow) else int(generator(seed, "flow", stage, flow).integers(2**63))


class Mixture:
    """The flow of each step: drawn with the probabilities `shares`, a function of seed, stage and step alone.

    >>> mixture = Mixture({"pairs": 0.85, "texts": 0.15}, seed=0, stage="")
    >>> first = [mixture.flow(step) for step in range(100)]
    >>> mixture.before(100) == {name: first.count(name) for name in ("pairs", "texts")}
    True
    """

    def __init__(self, shares: Mapping[str, float], seed: int, stage: str) -> None:
        self.shares, self.names = dict(shares), tuple(shares)
        self._bounds = np.cumsum([*shares.values()])[:-1]
        self._seed, self._stage = seed, stage
        self._block: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def flow(self, step: int) -> str:
        """The name of the flow of a step of the stage, counted from 0."""
        block, place = divmod(step, _BLOCK)
        return self.names[self._drawn(block)[place]]

    def before(self, step: int) -> dict[str, int]:
        """How many of the steps before this one run each flow."""
        counts = np.zeros(len(self.names), np.int64)
        for block in range(-(-step // _BLOCK)):
            counts += np.bincount(self._drawn(block)[: step - block * _BLOCK], minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def _drawn(self, block: int) -> np.ndarray:
        if self._block[0] != block:
            uniform = generator(self._seed, "mixture", self._stage, block).random(_BLOCK)
            self._block = block, np.searchsorted(self._bounds, uniform, side="right")
        return self._block[1]


class MixedBatches:
    """An endless iterator over this process's share of the batch of each step of a stage, like `BatchLoader`.

    The k-th batch of a flow is the k-th batch of its loader. So every batch is a function of data, seed and step; it does
    not depend on the number of processes and workers or on where the run was resumed.

    Args:
        mixture: the flow of each step.
        loaders: the loader of each flow, without the ramps.
        ramps: by flow, the numbers that are a function of the step of the stage, not of the flow.
        steps: number of steps of the stage.
    """

    def __init__(
        self, mixture: Mixture, loaders: Mapping[str, BatchLoader], ramps: Mapping[str, Sequence[Node]], steps: int
    ) -> None:
        self._mixture, self._loaders = mixture, loaders
        self._ramps, self._steps = ramps, steps
        self._step = 0
        self._tell: Callable[[str], None] = lambda line: None
        self.report = SkipReport(
            notes=[f"flow {name}: {note}" for name, own in loaders.items() for note in own.report.notes]
        )
        for own in loaders.values():
            own.report = self.report

    @property
    def tell(self) -> Callable[[str], None]:
        """A function that is called with a line about the samples skipped so far."""
        return self._tell

    @tell.setter
    def tell(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        for own in self._loaders.values():
            own.tell = tell

    @property
    def batches_per_epoch(self) -> int:
        """0: each flow has its own epochs, and batches mark where one ends."""
        return 0

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch; there is no common epoch."""
        return {"epoch": 0, "batch": self._step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a position; affects iterators created afterwards."""
        self._step = state["batch"]
        for name, count in self._mixture.before(self._step).items():
            self._loaders[name].go_to(count)

    def __iter__(self) -> Iterator[Batch]:
        iterators = {name: iter(own) for name, own in self._loaders.items()}
        while True:
            name = self._mixture.flow(self._step)
            batch = next(iterators[name])
            following = self._following(name)
            self._step += 1
            ends_epoch = self._loaders[name].state_dict()["batch"] == 0
            yield replace(batch, flow=name, draws=batch.draws | following, ends_epoch=ends_epoch)

    def _following(self, flow: str) -> dict[str, Tensor]:
        """The values of the ramps at this step; an epoch of a flow is counted as its average number of steps."""
        per_epoch = round(self._loaders[flow].batches_per_epoch / self._mixture.shares[flow])
        values = ramps_at(self._ramps[flow], self._step, self._steps, per_epoch)
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
