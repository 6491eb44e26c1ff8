"""Which processes take part, on which device, and their random generators."""

from __future__ import annotations

import inspect
import itertools
import os
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import PrefixStore
from torch.nn.parallel import DistributedDataParallel

from vlmdsl.backends.torch.collectives import gather_numbers, gather_objects, process_count, process_index
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.devices import DeviceMissing
from vlmdsl.runtime.data import SkipReport
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.training.meeting import LONGEST_WAIT, compare, no_answer, started_together, store_of_processes, together
from vlmdsl.source import Span

__all__ = [
    "World",
    "in_parallel",
    "join_processes",
    "join_reports",
    "highest",
    "seed_generators",
    "seed_step",
    "wait_for_all",
]

_BROKEN = re.compile(r"connection (?:closed|reset|refused)|broken pipe|timed out|gloo|nccl", re.IGNORECASE)
"""Messages of the libraries when another process is gone."""
_groups = itertools.count()
_STEPS_AT_ONCE = 64
"""Steps whose seeds are computed together."""


@dataclass(frozen=True)
class World:
    """This process's place: `rank` of `size`, computing on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder, evaluates and reports."""
        return self.rank == 0


@contextmanager
def join_processes(device: str, facts: Mapping[str, object] | None = None) -> Iterator[World]:
    """The world that `torchrun` started (it sets RANK, WORLD_SIZE and LOCAL_RANK), or this process alone.

    `device` is `auto`, `cpu` or `cuda`. Raises `DiagnosticError`, on all processes: V0910 if there is no such device, V0852
    if `facts`, what a run is given, are not equal on all of them, V0904 if one of them ends or cannot be reached.
    """
    with together():
        chosen = _device(device)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    compare({**(facts or {}), "kinds of device": chosen.type})
    started_here = started_together() > 1 and not dist.is_initialized()
    try:
        if started_here:
            _form_group(chosen)
        yield World(process_index(), process_count(), chosen)
    except RuntimeError as error:
        if process_count() > 1 and (isinstance(error, dist.DistError) or _BROKEN.search(str(error))):
            raise no_answer(error) from error
        raise
    finally:
        if started_here and dist.is_initialized():
            dist.destroy_process_group()


def _form_group(device: torch.device) -> None:
    store = PrefixStore(f"vlmdsl/group/{next(_groups)}", store_of_processes())
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=started_together(),
        timeout=LONGEST_WAIT,
    )


def highest(number: int) -> int:
    """The highest of all processes' numbers, the same on each: which signal asks any of them to end, 0 for none."""
    return max(gather_numbers(number))


def wait_for_all() -> None:
    """Returns when every process has come here."""
    gather_objects(None)


def join_reports(report: SkipReport) -> None:
    """Add to this process's report what the others met, so that the first one can report all."""
    for index, other in enumerate(gather_objects(report)):
        if index != process_index():
            report.merge(other)


def in_parallel(model: nn.Module, *, parts_of_it: bool = False) -> nn.Module:
    """The model whose gradients are the mean over processes; the model itself where there is one process.

    A step may train only `parts_of_it`, the same on all processes: the others then get no gradient.

    Buffers are not sent at every step, as DDP does by itself. Queues, running means, norms of heads and reference sets come
    out equal on all processes, because each is a function of the global batch, and a reference set may be larger than the
    model. What a foreign tower keeps of its own part of the batch is read in evaluation only, which the first process does.
    """
    if process_count() == 1:
        return model
    # The argument was renamed: from torch 2.13 on, `broadcast_buffers` warns.
    accepted = inspect.signature(DistributedDataParallel).parameters
    options: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in accepted else "broadcast_buffers": False}
    return DistributedDataParallel(model, find_unused_parameters=parts_of_it, **options)


def seed_generators(*purpose: int | str) -> None:
    """Seed torch (the CPU and CUDA), numpy and Python from `purpose`, such as (seed, "weights", tower)."""
    _seed(_number_of(*purpose))


def seed_step(seed: int, step: int, rank: int) -> None:
    """`seed_generators(seed, step, rank)`, at little cost.

    Done before every step, it makes what is drawn (dropout) a function of the step: evaluations in between and resumed
    runs change nothing, and a checkpoint needs no generator state.
    """
    block, place = divmod(step, _STEPS_AT_ONCE)
    _seed(_numbers_of_steps(seed, block, rank)[place])


@lru_cache(maxsize=1)
def _numbers_of_steps(seed: int, block: int, rank: int) -> tuple[int, ...]:
    """The numbers of the steps around one. One after the other they take a tenth of the time: what a step computes between
    them leaves none of this code in the caches."""
    return tuple(_number_of(seed, step, rank) for step in range(block * _STEPS_AT_ONCE, (block + 1) * _STEPS_AT_ONCE))


def _number_of(*purpose: int | str) -> int:
    return int(generator("process", *purpose).integers(2**63))


def _seed(number: int) -> None:
    # `torch.manual_seed` notes a stack trace for each kind of device that is not there, 2 ms in all.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DiagnosticError((DeviceMissing.at(Span("<command line>", 0, 0), device=name, torch=torch.__version__),))
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
