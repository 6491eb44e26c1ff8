"""The result of loading a batch, and the worker processes that load."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.environment import LoadingProcessLost
from vlmdsl.runtime.data.report import Skipped
from vlmdsl.runtime.values import Batch
from vlmdsl.source import Span

__all__ = ["Counting", "LoadedBatch", "Tally", "in_order", "workers_for"]

T = TypeVar("T")
_PLACE = Span("<command line>", 0, 0)

_FEWEST_BATCHES = 100
"""Fewer are loaded sooner than worker processes have started."""

_MOST_WORKERS = 8
_SHARED_BYTES = 2**28
"""Shared memory, through which batches come, below which none are started: containers often have 64 MiB."""


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


def workers_for(setting: int | None, batches: int, loaders: int = 1) -> int:
    """How many processes load: as many as `data.workers` says; else one for each core of this process but one, shared by
    the `loaders` that load at the same time, and none for few batches or where there is little shared memory. A daemonic
    process (one of a pool, say) may start no others, so it loads by itself: batches are the same."""
    if multiprocessing.current_process().daemon:
        return 0
    if setting is not None:
        return setting
    if batches < _FEWEST_BATCHES or _shared_memory() < _SHARED_BYTES:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = cores // max(int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))), 1)
    return min(max(own - 1, 0), _MOST_WORKERS) // max(loaders, 1)


def _shared_memory() -> int:
    """Bytes of shared memory that are free; more than needed where that cannot be said."""
    with suppress(OSError):
        status = os.statvfs("/dev/shm")
        return status.f_bavail * status.f_frsize
    return _SHARED_BYTES


class Counting:
    """The positions from `start` on, without end; a class so that it can be pickled for worker processes."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        position = self._start
        while True:
            yield position
            position += 1


def in_order(batches: Dataset[T], positions: Iterable[int], workers: int) -> Iterator[T]:
    """What a data set has at `positions`, such as batches, loaded here or ahead by worker processes."""
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
    # A signal to end goes to the whole group of processes. The training process then takes its last step, and needs what it
    # waits for: workers end with it. The loader itself ends a worker that does not answer with one more SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    # The tokenizer's threads do not survive a fork; without this it warns on every batch.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
