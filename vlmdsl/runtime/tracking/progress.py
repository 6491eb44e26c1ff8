"""Shows the progress of a run on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

from vlmdsl.diagnostics import plain
from vlmdsl.runtime.tracking.metrics import WORDS, Tracker, loss_at_chance, term_names

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Display", "LiveProgress", "PlainProgress", "describe", "progress"]


class Display(Tracker, Protocol):
    """A tracker that people watch."""

    def note(self, line: str) -> None:
        """Show a line of text, safe for a terminal."""

    def warn(self, page: str) -> None:
        """Show the lines of a rendered diagnostic."""


def progress(steps: int, stream: TextIO | None = None) -> Display:
    """The display that suits `stream` (stderr unless given) for a run of `steps` steps."""
    from rich.console import Console

    stream = stream or sys.stderr
    console = Console(file=stream)
    return LiveProgress(steps, console) if console.is_terminal else PlainProgress(steps, stream)


class PlainProgress:
    """One line per record, with the time since the start."""

    def __init__(self, steps: int, stream: TextIO) -> None:
        self._steps, self._stream = steps, stream
        self._started = time.monotonic()

    def log(self, record: Mapping[str, float]) -> None:
        """Write the line and let it be seen."""
        step = f"{record['step']:.0f}".rjust(len(str(self._steps)))
        seconds = time.monotonic() - self._started
        print(f"step {step}/{self._steps}  {describe(record)}  {seconds:.0f} s", file=self._stream, flush=True)

    def note(self, line: str) -> None:
        """Write the line."""
        print(plain(f"note: {line}"), file=self._stream, flush=True)

    def warn(self, page: str) -> None:
        """Write the lines."""
        print("\n".join(map(plain, page.splitlines())), file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is left to do."""


class LiveProgress:
    """A bar that fills as steps are done, with the newest numbers and the time that is left."""

    def __init__(self, steps: int, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("training", total=steps, numbers="")
        self._progress.start()

    def log(self, record: Mapping[str, float]) -> None:
        """Move the bar to the record's step."""
        self._progress.update(self._task, completed=record["step"], numbers=describe(record))

    def note(self, line: str) -> None:
        """Write the line above the bar."""
        self._progress.console.print(plain(f"note: {line}"), markup=False, highlight=False)

    def warn(self, page: str) -> None:
        """Write the lines above the bar."""
        for line in page.splitlines():
            self._progress.console.print(plain(line), markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


def describe(record: Mapping[str, float]) -> str:
    """The most important numbers of a record, in one line.

    >>> describe({"step": 1, "loss": 4.2, "terms/clip": 4.2, "clip.chance": 4.85, "clip.accuracy": 0.125})
    'loss 4.200 (chance 4.850)  accuracy 12.5 %'
    """
    chance = loss_at_chance(record)
    words = [str(record[name]) for name in WORDS if name in record]
    words += [f"loss {record['loss']:z.3f}" + ("" if chance is None else f" (chance {chance:.3f})")]
    terms = term_names(record)
    if len(terms) > 1:
        words += [f"{name} {record[f'terms/{name}']:z.3f}" for name in terms]
    for name in terms:
        if f"{name}.accuracy" in record:
            label = "accuracy" if len(terms) == 1 else f"{name} accuracy"
            words.append(f"{label} {100 * record[f'{name}.accuracy']:.1f} %")
    words += [f"{name} {record[name]:.4g}" for name in record if name.startswith("temperature")]
    if record.get("skipped_steps"):
        words.append(f"skipped steps {record['skipped_steps']:.0f}")
    if "samples_per_second" in record:
        words.append(f"{record['samples_per_second']:.0f} samples/s")
    if "seconds_per_step" in record:
        step, waiting = (f"{1000 * record[name]:.0f} ms" for name in ("seconds_per_step", "seconds_waiting"))
        words.append(f"step {step}, {waiting} of it for data")
    return "  ".join(words)
