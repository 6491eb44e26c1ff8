"""Messages and exit codes of commands that fail; a raw traceback is shown only with `--trace`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

import vlmdsl
from vlmdsl_cli.output import BUG, ENVIRONMENT, FAULT, FINE, diagnose, talk

__all__ = ["report"]

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""The message of torch's RuntimeError if the CPU's memory is too small."""

INTERRUPTED = 130
"""The exit code of shells after Ctrl-C: 128 plus the number of the signal, as for SIGTERM (143) and SIGHUP (129)."""
_SIGNALS = 128


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Print what went wrong on stderr, and return the exit code."""
    try:
        return _told(error, arguments)
    except OSError:  # stderr is closed: only the exit code is left
        return ENVIRONMENT


def _told(error: BaseException, arguments: Sequence[str]) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        talk(shown.getvalue())
        return FAULT
    if isinstance(error, click.Abort | KeyboardInterrupt):
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        if not (isinstance(cause, KeyboardInterrupt) and cause.args):  # the run has already printed how to resume it
            talk("interrupted")
        return INTERRUPTED
    if isinstance(error, SystemExit):
        # A run that a signal ended, or click's, when the reader of a pipe went away: `vlmdsl recipes | head -1`.
        return error.code if isinstance(error.code, int) and error.code > _SIGNALS else FINE
    return _diagnosed(error) or _environment(error) or _bug(error, arguments)


def _diagnosed(error: BaseException) -> int | None:
    from vlmdsl.diagnostics import DiagnosticError

    if not isinstance(error, DiagnosticError):
        return None
    diagnose(error.diagnostics)
    return ENVIRONMENT if all(diagnostic.code.startswith("V09") for diagnostic in error.diagnostics) else FAULT


def _environment(error: BaseException) -> int | None:
    """Out of disk or memory, no permission, or a missing package: an error of neither the recipe nor vlmdsl."""
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(error)
    missing = isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("vlmdsl")
    if not memory and not missing and not isinstance(error, OSError):
        return None
    talk(f"error: {_in_a_line(error)}")
    if memory:
        talk("help: out of memory: use a smaller batch or model; `vlmdsl plan` estimates the memory")
    return ENVIRONMENT


def _in_a_line(error: BaseException) -> str:
    """What an error says, which may quote the user's text, for the terminal."""
    from vlmdsl.diagnostics.cells import plain

    return plain(" ".join(str(error).split())) or type(error).__name__


def _bug(error: BaseException, arguments: Sequence[str]) -> int:
    import tempfile  # as below: a command that does not fail waits for nothing that only a report needs

    page = _page(error, arguments)
    if "--trace" in arguments:
        talk(page)
    else:
        with tempfile.NamedTemporaryFile("w", prefix="vlmdsl-report-", suffix=".md", delete=False, encoding="utf-8") as file:
            file.write(page)
        talk(f"error: bug in vlmdsl ({type(error).__name__}: {_in_a_line(error)})")
        talk(f"help: please report it with {file.name}; `vlmdsl --trace ...` shows where it happened")
    return BUG


def _page(error: BaseException, arguments: Sequence[str]) -> str:
    import platform
    import shlex
    import traceback

    torch = sys.modules.get("torch")
    lines = [
        "# A bug of vlmdsl",
        "",
        f"- command: `vlmdsl {shlex.join(arguments)}`",
        f"- vlmdsl {vlmdsl.__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"- torch {getattr(torch, '__version__', 'not loaded')}",
        "",
        "```",
        "".join(traceback.format_exception(error)).rstrip("\n"),
        "```",
    ]
    return "\n".join(lines) + "\n"
