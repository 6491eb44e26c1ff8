"""`vlmdsl classify`: the classes that a trained model gives to pictures."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vlmdsl_cli.options import as_json, pairs
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("classify")
@click.argument("run_folder", metavar="RUN_DIR")
@click.argument("pictures", metavar="FOLDER")
@click.option(
    "--classes",
    metavar="NAME,NAME,...|FILE",
    required=True,
    help="The names of the classes with commas between, or a file of them, one per line.",
)
@click.option("--template", "templates", multiple=True, help="A prompt with {} for the name of a class; repeatable.")
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="How many classes to print.")
@click.option("--map", "columns", metavar="image=COLUMN", multiple=True, help="Read pictures from a column of another name.")
@click.option("--device", metavar="DEVICE", help="`cpu`, `cuda` or `auto`; by default the run's.")
@as_json
def command(
    run_folder: str,
    pictures: str,
    classes: str,
    templates: Sequence[str],
    top: int,
    columns: Sequence[str],
    device: str | None,
    as_json: bool,
) -> None:
    """Print the likeliest class of every picture in FOLDER, or of other data, by the model of RUN_DIR."""
    from vlmdsl.api.classify import classify  # `classify --help` does not wait for it

    result = classify(run_folder, pictures, classes, templates=templates, map=pairs(columns, "--map"), device=device)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text(top))
