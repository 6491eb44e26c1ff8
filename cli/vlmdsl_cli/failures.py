"""What is said when a command fails, and the exit code it ends with; nobody sees a raw traceback unless they ask."""

from __future__ import annotations

import io
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence

import click

import vlmdsl
from vlmdsl_cli.output import BUG, ENVIRONMENT, FAULT, FINE, diagnose, talk

__all__ = ["report"]

INTERRUPTED = 130
"""What shells give for a command that Ctrl-C ended."""


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what went wrong, on stderr, and give the exit code."""
    try:
        return _told(error, arguments)
    except OSError:  # stderr takes nothing: the exit code is all that can be said
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
        talk("interrupted")
        return INTERRUPTED
    if isinstance(error, SystemExit):  # only click's, when the reader of a pipe went away: `vlmdsl recipes | head -1`
        return FINE
    return _diagnosed(error) or _environment(error) or _bug(error, arguments)


def _diagnosed(error: BaseException) -> int | None:
    from vlmdsl.diagnostics import DiagnosticError

    if not isinstance(error, DiagnosticError):
        return None
    diagnose(error.diagnostics)
    return ENVIRONMENT if all(diagnostic.code.startswith("V09") for diagnostic in error.diagnostics) else FAULT


def _environment(error: BaseException) -> int | None:
    """Out of disk, memory or permission, or a package that is not there: no fault of the recipe and none of ours."""
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    missing = isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("vlmdsl")
    if not memory and not missing and not isinstance(error, OSError):
        return None
    reason = " ".join(str(error).split()) or type(error).__name__
    talk(f"error: {reason}")
    if memory:
        talk("help: out of memory: a smaller batch or a smaller model needs less; `vlmdsl plan` estimates it")
    return ENVIRONMENT


def _bug(error: BaseException, arguments: Sequence[str]) -> int:
    page = _page(error, arguments)
    if "--trace" in arguments:
        talk(page)
    else:
        with tempfile.NamedTemporaryFile("w", prefix="vlmdsl-report-", suffix=".md", delete=False, encoding="utf-8") as file:
            file.write(page)
        talk(f"error: vlmdsl has a bug ({type(error).__name__}: {' '.join(str(error).split())})")
        talk(f"help: please report it with {file.name}; `vlmdsl --trace ...` shows where it happened")
    return BUG


def _page(error: BaseException, arguments: Sequence[str]) -> str:
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
