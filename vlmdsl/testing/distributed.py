"""Run a function in several processes of one gloo group, and return their results."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmdsl.testing.prepared import Worker, prepared

__all__ = ["run_processes"]


def run_processes(function: Callable[..., Any], processes: int, *arguments: Any, timeout: float = 120.0) -> list[Any]:
    """Run `function(*arguments)` in `processes` processes and return their results by rank.

    The function is imported by name in other processes, so it must be defined at the top level of a module; its result
    must consist of tensors, numbers, strings, lists and dictionaries. If a process raises or takes longer than `timeout`
    seconds, all are terminated and RuntimeError is raised with its traceback. Nothing that a function does is left for the
    next one; the modules that are imported are.
    """
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = [
            one.run(function.__module__, _work, function, rank, processes, folder, arguments)
            for rank, one in enumerate(prepared(processes))
        ]
        try:
            _wait(workers, folder, time.monotonic() + timeout)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        return [torch.load(folder / f"result-{rank}", weights_only=True) for rank in range(processes)]


def _wait(workers: list[Worker], folder: Path, deadline: float) -> None:
    while any(worker.is_alive() for worker in workers):
        _raise_failure(folder)
        if time.monotonic() > deadline:
            raise RuntimeError("the processes did not finish in time")
        time.sleep(0.05)
    _raise_failure(folder)
    codes = {rank: code for rank, worker in enumerate(workers) if (code := worker.join())}
    # The others fail because one was ended by a signal (negative), so that one comes first.
    for rank, code in sorted(codes.items(), key=lambda each: each[1] > 0):
        raise RuntimeError(f"process {rank} ended with exit code {code}")


def _raise_failure(folder: Path) -> None:
    for failure in sorted(folder.glob("failure-*")):
        raise RuntimeError(f"process {failure.name.removeprefix('failure-')} raised:\n{failure.read_text()}")


def _work(function: Callable[..., Any], rank: int, processes: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=processes)
    try:
        torch.save(function(*arguments), folder / f"result-{rank}")
    except BaseException:
        unfinished = folder / f"unfinished-{rank}"
        unfinished.write_text(traceback.format_exc())
        unfinished.rename(folder / f"failure-{rank}")
        raise
    # Nobody leaves while another one still waits for it. Then at once, without the end of the interpreter: now and then a
    # thread of gloo's is still running there, which aborts a process that has long given its result.
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
