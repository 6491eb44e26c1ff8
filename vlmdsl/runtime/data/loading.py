"""What loading a batch gives, and the worker processes that load."""

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
    """What loading one batch gave: the batch (None if no sample was good), and what is to be reported."""

    batch: Batch | None
    skipped: list[Skipped]
    views: Counter[str]
    fault: Diagnostic | None = None


@dataclass(frozen=True)
class Tally:
    """What was met while a batch was made."""

    skipped: list[Skipped]
    counts: Counter[str]


class Counting:
    """The positions from `start` on, without end; a class because worker processes need it pickled."""

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
    # A generator of its own: the loader draws a seed for its workers, which nobody needs, from torch's global one otherwise.
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
    # The tokenizer's threads do not survive the fork; without this it says so on every batch.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
