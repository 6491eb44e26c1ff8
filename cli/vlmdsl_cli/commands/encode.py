"""`vlmdsl encode`: the features of a whole data set as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import click

from vlmdsl_cli.options import as_json, pairs
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("encode")
@click.argument("run_folder", metavar="RUN_DIR")
@click.argument("samples", metavar="DATA")
@click.option(
    "--out", metavar="FILE", required=True, help="The file to write, NAME.npy or NAME.parquet; one row per sample."
)
@click.option("--what", type=click.Choice(["image", "text"]), default="image", show_default=True, help="What to encode.")
@click.option("--batch", type=click.IntRange(1, 100_000), default=64, show_default=True, help="How many at a time.")
@click.option("--map", "columns", metavar="FIELD=COLUMN", multiple=True, help="Read from a column of another name.")
@click.option("--device", metavar="DEVICE", help="`cpu`, `cuda` or `auto`; by default the run's.")
@as_json
def command(
    run_folder: str,
    samples: str,
    out: str,
    what: Literal["image", "text"],
    batch: int,
    columns: Sequence[str],
    device: str | None,
    as_json: bool,
) -> None:
    """Write the features of all images or texts of DATA, by the model of RUN_DIR, to a file.

    The same command continues one that was interrupted.
    """
    from vlmdsl.api.encode import encode  # `encode --help` does not wait for it

    result = encode(run_folder, samples, out, what=what, map=pairs(columns, "--map"), device=device, batch=batch)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())
