"""Where output goes: data to stdout, everything said about it to stderr; and what the exit codes mean."""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

import click

__all__ = ["BUG", "ENVIRONMENT", "FAULT", "FINE", "coloured", "data", "json_data", "talk"]

FINE = 0
BUG = 1
"""A fault of vlmdsl itself."""
FAULT = 2
"""The recipe, the data or the command line is at fault; what was said tells how."""
ENVIRONMENT = 3
"""The machine is at fault: something is not installed, not readable, not large enough."""


def data(text: str) -> None:
    """What was asked for."""
    click.echo(text.rstrip("\n"))


def json_data(value: object) -> None:
    """What was asked for, for a machine; non-finite numbers are no JSON, so they are refused here."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def talk(text: str) -> None:
    """What is said beside the data."""
    click.echo(text.rstrip("\n"), err=True)


def coloured(stream: TextIO | None = None) -> bool:
    """Whether to colour what goes to `stream` (stderr): a terminal, and nobody set NO_COLOR."""
    stream = sys.stderr if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR")
