"""`vlmdsl diff`: the differences in meaning between two recipes."""

from __future__ import annotations

import click

from vlmdsl.api.diff import diff
from vlmdsl_cli.output import data, talk

__all__ = ["command"]


@click.command("diff")
@click.argument("before", metavar="RECIPE")
@click.argument("after", metavar="RECIPE")
def command(before: str, after: str) -> None:
    """Compare the meaning of two recipes: their compiled graphs, not their text."""
    difference = diff(before, after)
    if difference:
        data(difference)
    else:
        talk(f"{before} and {after} mean the same")
