"""`vlmdsl search`: the pictures that fit a text best."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vlmdsl_cli.options import as_json, pairs
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("search")
@click.argument("run_folder", metavar="RUN_DIR")
@click.argument("pictures", metavar="DATA")
@click.option("--query", metavar="TEXT", required=True, help="What to look for.")
@click.option("--best", type=click.IntRange(1, 1000), default=12, show_default=True, help="How many pictures.")
@click.option("--grid", metavar="PNG", help="Draw the best pictures in this file.")
@click.option("--map", "columns", metavar="image=COLUMN", multiple=True, help="Read pictures from a column of another name.")
@click.option("--device", metavar="DEVICE", help="`cpu`, `cuda` or `auto`; by default the run's.")
@as_json
def command(
    run_folder: str,
    pictures: str,
    query: str,
    best: int,
    grid: str | None,
    columns: Sequence[str],
    device: str | None,
    as_json: bool,
) -> None:
    """Print the pictures of DATA that the model of RUN_DIR finds most similar to a text."""
    from vlmdsl.api.search import search  # `search --help` does not wait for it

    result = search(run_folder, pictures, query, best=best, grid=grid, map=pairs(columns, "--map"), device=device)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())
