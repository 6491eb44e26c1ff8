"""Signals that end a run: SIGINT (Ctrl-C), SIGTERM (schedulers) and SIGHUP (a closed terminal).

Between the first and the last step of training a signal is only noted, and the run ends at the next step boundary with a
checkpoint. Elsewhere nothing is lost by ending at once. The exit code is 128 and the signal's number: 130, 143, 129.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["StopSignals", "ended_by"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


class StopSignals:
    """A context that takes over the signals that would end the process; `received` is the number of the first one, or 0.

    While `deferred` is set a signal is noted and nothing more, unless Ctrl-C is pressed again; else it ends the current
    work. Nothing is taken over if the host program has its own handler, if a signal is ignored (`nohup`), and in threads
    other than the main one.
    """

    def __init__(self) -> None:
        self.received = 0
        self.deferred = False
        self._before: dict[int, object] = {}
        self._alone = int(os.environ.get("WORLD_SIZE", "1")) == 1

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) in _DEFAULT:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    def unless_asked(self, action: Callable[[], object]) -> None:
        """Run optional work, unless the process was asked to end; a signal interrupts it."""
        if self.received:
            return
        before, self.deferred = self.deferred, False
        try:
            action()
        except (KeyboardInterrupt, SystemExit):
            if not self.received:
                raise
        finally:
            self.deferred = before

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Under torchrun Ctrl-C arrives twice: from the terminal and from torchrun, which ends its processes itself.
        again = number == signal.SIGINT and self.received == signal.SIGINT and self._alone
        self.received = self.received or number
        if again or not self.deferred:
            raise ended_by(number)


def ended_by(number: int) -> BaseException:
    """The exception for a signal: KeyboardInterrupt for Ctrl-C, else SystemExit with the usual code."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
