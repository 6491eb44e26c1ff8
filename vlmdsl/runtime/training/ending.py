"""The end of a run before its last step: the message, how to resume, and unlocking the folder."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import CannotWrite, ProcessLost
from vlmdsl.diagnostics.cells import plain
from vlmdsl.runtime.training.lock import locked
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.stopping import StopSignals

__all__ = ["Ending"]

_REMEDIES = {CannotWrite.code: "make room; then", ProcessLost.code: "when the cause is fixed,"}
"""Errors of the machine after which a run can be resumed, and what to do first."""


class Ending:
    """The messages of a run that ends before its last step, and how to resume it."""

    def __init__(self) -> None:
        self.signals = StopSignals()
        self.folder: RunFolder | None = None
        """Where the run can be resumed, once it can, on the process that talks."""
        self.done: int | None = None
        """The step of the last checkpoint."""
        self._locks = ExitStack()

    def __enter__(self) -> Ending:
        self.signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._locks.close()
        self.signals.__exit__()
        if self.folder is None or error is None:
            return
        advice = (
            f"`{self._command()}` continues from step {self.done}"
            if self.done
            else f"`{self._command()}` starts from scratch"
        )
        if isinstance(error, KeyboardInterrupt | SystemExit):
            words = f"interrupted: {advice}"
            if isinstance(error, KeyboardInterrupt):
                error.args = (words,)
            with suppress(OSError):  # the terminal may be gone
                print(plain(words), file=sys.stderr, flush=True)
        elif isinstance(error, DiagnosticError) and error.diagnostics[0].code in _REMEDIES:
            first = error.diagnostics[0]
            help = f"{_REMEDIES[first.code]} {advice}"
            raise DiagnosticError((replace(first, help=(help,)),)) from error

    def lock(self, folder: RunFolder) -> None:
        """Lock the folder until the run ends; V0851 if another process has."""
        self._locks.enter_context(locked(folder.path))

    def _command(self) -> str:
        assert self.folder is not None
        return f"vlmdsl train --resume {shlex.quote(str(self.folder.path))}"
