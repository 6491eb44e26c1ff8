"""The result of loading a batch, and the worker processes that load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.environment import LoadingProcessLost
from vlmdsl.runtime.data.report import Skipped
from vlmdsl.runtime.values import Batch
from vlmdsl.source import Span

__all__ = ["Counting", "LoadedBatch", "Tally", "in_order"]

_PLACE = Span("<command line>", 0, 0)


@dataclass(frozen=True)
class LoadedBatch:
    """The result of loading one batch: the batch (None if no sample was good), and what to report."""

    batch: Batch | None
    skipped: list[Skipped]
    views: Counter[str]
    fault: Diagnostic | None = None


@dataclass(frozen=True)
class Tally:
    """Skipped samples and counts of one batch."""

    skipped: list[Skipped]
    counts: Counter[str]


class Counting:
    """The positions from `start` on, without end; a class so that it can be pickled for worker processes."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        position = self._start
        while True:
            yield position
            position += 1


def in_order(batches: Dataset[LoadedBatch], positions: Iterable[int], workers: int) -> Iterator[LoadedBatch]:
    """The batches at `positions`, loaded here or ahead by worker processes."""
    if not workers:
        yield from (batches[position] for position in positions)
        return
    # A separate generator: otherwise the loader draws an unused seed for its workers from torch's global one.
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        generator=torch.Generator(),
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except RuntimeError as fault:
        if "DataLoader worker" not in str(fault):
            raise
        help = "`--set data.workers=0` loads in the training process, or use fewer"
        raise DiagnosticError((LoadingProcessLost.at(_PLACE, reason=str(fault), help=(help,)),)) from fault


def _start_worker(_number: int) -> None:
    # The tokenizer's threads do not survive a fork; without this it warns on every batch.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
