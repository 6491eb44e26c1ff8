"""Communication between processes before there is a process group, through the rendezvous store.

An error on one process ends all of them with a message, and none waits for a missing one."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from vlmdsl.backends.torch.collectives import gather_objects
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import ProcessLost
from vlmdsl.diagnostics.catalog.runs import ProcessesDiffer
from vlmdsl.source import Span

__all__ = ["LONGEST_WAIT", "compare", "lost", "no_answer", "started_together", "store_of_processes", "together"]

LONGEST_WAIT = timedelta(hours=2)
"""How long processes wait for the first one, which evaluates."""
_LONGEST_START = timedelta(minutes=5)
"""How long they wait for each other to start."""
_LINGER = timedelta(seconds=20)
"""How long the first one stays after an error, so that the others can read it."""
_rounds = itertools.count()
_PLACE = Span("<command line>", 0, 0)


def started_together() -> int:
    """The number of processes that train together: WORLD_SIZE, as set by `torchrun` or another launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def together() -> Iterator[None]:
    """An error in this context on one process ends all of them: that one with its error, the others with V0904.

    All processes enter as often, and leave only when all have come to the end.
    """
    try:
        yield
    except BaseException as error:
        _tell(error)
        raise
    for rank, answer in enumerate(_exchange("")):
        if answer:
            raise lost(f"process {rank} ended", f"process {rank} reports {json.loads(answer)}")


def compare(facts: Mapping[str, object]) -> None:
    """V0852 on every process unless all have equal `facts`; the message names those that differ."""
    everybody = [dict(json.loads(answer)) for answer in _exchange(json.dumps(facts, sort_keys=True, default=str))]
    first = everybody[0]
    names = dict.fromkeys(name for own in everybody for name in own)
    differing = [name for name in names if any(own.get(name) != first.get(name) for own in everybody)]
    if not differing:
        return
    notes = []
    for name in differing:
        rank = next(rank for rank, own in enumerate(everybody) if own.get(name) != first.get(name))
        notes.append(
            f"{name}: {_shown(first.get(name))} on process 0, {_shown(everybody[rank].get(name))} on process {rank}"
        )
    what = differing[0] if len(differing) == 1 else f"{', '.join(differing[:-1])} and {differing[-1]}"
    help = "give every process the same arguments and the same data"
    raise DiagnosticError((ProcessesDiffer.at(_PLACE, what=what, notes=tuple(notes), help=(help,)),))


def lost(reason: str, *notes: str) -> DiagnosticError:
    """The error V0904."""
    return DiagnosticError((ProcessLost.at(_PLACE, reason=reason, notes=notes),))


def no_answer(error: Exception) -> DiagnosticError:
    """The error V0904 for what the libraries raise where another process is gone, without where in them that was."""
    said = re.sub(r"^\[[^]]*\] ", "", str(error).partition("\n")[0]).partition(". ")[0]
    return lost("another process ended or does not answer", said)


@cache
def store_of_processes() -> Any:
    """The store of this job; V0904 if the processes do not find each other within five minutes."""
    try:
        store, _, _ = next(rendezvous("env://", timeout=_LONGEST_START))
    except (RuntimeError, ValueError, TypeError) as error:
        raise lost("they did not find each other", str(error).splitlines()[0]) from error
    return store


def _tell(error: BaseException) -> None:
    """Report to the others why this process ends; its own error has precedence over failures here."""
    diagnostics = getattr(error, "diagnostics", ())
    message = f"{diagnostics[0].code}: {diagnostics[0].message}" if diagnostics else f"{type(error).__name__}: {error}"
    with suppress(Exception):
        if dist.is_initialized() and isinstance(error, Exception):
            gather_objects(json.dumps(message))
        elif not dist.is_initialized() and started_together() > 1:
            number, rank, store = next(_rounds), int(os.environ["RANK"]), store_of_processes()
            store.set(f"vlmdsl/{number}/{rank}", json.dumps(message))
            _stay(store, number, _LINGER)


def _exchange(word: str) -> list[str]:
    """The words of all processes, in their order."""
    if dist.is_initialized():
        return gather_objects(word)
    size = started_together()
    if size == 1:
        return [word]
    number, rank, store = next(_rounds), int(os.environ["RANK"]), store_of_processes()
    try:
        store.set_timeout(LONGEST_WAIT if number else _LONGEST_START)
        store.set(f"vlmdsl/{number}/{rank}", word or "-")
        words = [store.get(f"vlmdsl/{number}/{other}").decode() for other in range(size)]
        _stay(store, number, _LONGEST_START)
    except RuntimeError as error:
        raise no_answer(error) from error
    return ["" if answer == "-" else answer for answer in words]


def _stay(store: Any, number: int, longest: timedelta) -> None:
    """The first process may be the one that keeps the store: it stays until all have read what was said."""
    rank, size = int(os.environ["RANK"]), started_together()
    store.set(f"vlmdsl/{number}/{rank}/read", "-")
    if rank == 0:
        store.wait([f"vlmdsl/{number}/{other}/read" for other in range(size)], longest)


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
