"""Processes that have torch imported and wait to be forked, so that a job starts in milliseconds instead of seconds.

Each is a fresh interpreter with a hash seed of its own: what depends on the order of a set differs between ranks, as it does
under `torchrun`. It runs no job itself but forks for each, so that a job finds no state of another one.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

__all__ = ["Prepared", "Worker", "prepared"]

_VARIES = "PYTEST_CURRENT_TEST"
"""The one variable that differs between the tests of a session."""


class _Job(NamedTuple):
    """What to run: a pickled function with its arguments, from this folder, where this module will be needed."""

    call: bytes
    folder: str
    module: str
    path: list[str]


class Worker:
    """A process that runs one job."""

    def __init__(self, owner: Prepared, process: int) -> None:
        self._owner = owner
        self._process = process
        self._code: int | None = None

    def is_alive(self) -> bool:
        return self._code is None and not self._owner.connection.poll()

    def kill(self) -> None:
        """End it now, if it runs."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)

    def join(self) -> int:
        """Wait for its end, and return its exit code: negative for a signal."""
        if self._code is None:
            try:
                self._code = int(self._owner.connection.recv())
            except EOFError:  # the process that forked it was killed
                self._code = -int(signal.SIGKILL)
                self._owner.end()
            else:
                _idle.setdefault(os.getpid(), []).append(self._owner)
        return self._code


class Prepared:
    """A process that waits for jobs. What it has imported depends on its environment: another one needs another process."""

    def __init__(self) -> None:
        import torch.multiprocessing as multiprocessing

        context = multiprocessing.get_context("spawn")
        self.environment = _environment()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, module: str, function: Callable[..., Any], *arguments: Any) -> Worker:
        """Run `function(*arguments)` in a process of its own. `module` is imported before, for later jobs too."""
        self.connection.send(_Job(pickle.dumps((function, arguments)), os.getcwd(), module, sys.path))
        return Worker(self, self.connection.recv())

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


_OTHERS = 4
"""Processes that may wait beside those that have a job; each holds the memory of what it has imported."""
_idle: dict[int, list[Prepared]] = {}
"""Those that wait, by the process that started them: a fork of it has the list, but not the processes."""


def prepared(count: int) -> list[Prepared]:
    """As many processes that wait for jobs, in this environment. A worker that is joined gives its own back."""
    waiting, environment = _idle.setdefault(os.getpid(), []), _environment()
    for ended in [one for one in waiting if not one.process.is_alive()]:
        waiting.remove(ended)
        ended.end()
    chosen = [one for one in waiting if one.environment == environment][:count]
    for one in chosen:
        waiting.remove(one)
    while len(waiting) > _OTHERS:
        waiting.pop(0).end()
    return chosen + [Prepared() for _ in range(count - len(chosen))]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != _VARIES}


def _serve(connection: Connection) -> None:
    """Fork for every job: send which process has it, and after its end the exit code."""
    import torch._dynamo  # optimisers import it, which takes two seconds  # noqa: F401

    while True:
        try:
            job = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        sys.path[:] = job.path
        with suppress(BaseException):  # the job raises the same, and reports it
            importlib.import_module(job.module)
        process = os.fork()
        if process == 0:
            _do(job)
        connection.send(process)
        connection.send(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _do(job: _Job) -> None:
    """The job, and then the end of the process, whatever happens."""
    code = 1
    try:
        os.chdir(job.folder)
        function, arguments = pickle.loads(job.call)
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
