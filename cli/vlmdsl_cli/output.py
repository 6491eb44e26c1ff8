"""Where output goes: data to stdout, everything said about it to stderr; and what the exit codes mean.

Recipes, paths and data may say what they like: nothing of it reaches a terminal that could control one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from vlmdsl.diagnostics import Diagnostic

__all__ = ["BUG", "ENVIRONMENT", "FAULT", "FINE", "coloured", "data", "diagnose", "json_data", "source", "talk"]

FINE = 0
BUG = 1
"""A bug in vlmdsl."""
FAULT = 2
"""The recipe, the data or the command line is wrong; the message says how."""
ENVIRONMENT = 3
"""The environment is the cause: something is not installed, not readable or not large enough."""


def data(text: str) -> None:
    """What was asked for."""
    click.echo(_plain(text.rstrip("\n")))


def source(text: str) -> None:
    """The text of a recipe, as it is where a program reads it."""
    click.echo(_plain(text) if sys.stdout.isatty() else text, nl=False, color=True)


def json_data(value: object) -> None:
    """What was asked for, for a machine; non-finite numbers are not JSON, so they are refused here."""
    from vlmdsl.diagnostics.cells import json_text

    click.echo(json_text(value))


def talk(text: str) -> None:
    """What is said beside the data."""
    click.echo(_plain(text.rstrip("\n")), err=True)


def diagnose(diagnostics: Sequence[Diagnostic]) -> None:
    """Diagnostics for people, on stderr; the renderer sees to it that what they quote is plain."""
    from vlmdsl.api.check import render

    click.echo(render(diagnostics, colour=coloured()), err=True)


def _plain(text: str) -> str:
    from vlmdsl.diagnostics.cells import plain  # help pages print nothing of ours, and load nothing

    return plain(text)


def coloured(stream: TextIO | None = None) -> bool:
    """Whether to colour what goes to `stream` (stderr): a terminal, and nobody set NO_COLOR."""
    stream = sys.stderr if stream is None else stream
    return stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")
