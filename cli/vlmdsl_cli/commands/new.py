"""`vlmdsl new`: the files to begin a recipe of one's own with."""

from __future__ import annotations

import click

from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import data, json_data

__all__ = ["command"]


@click.command("new")
@click.argument("name")
@click.option("--from", "source", metavar="RECIPE", default="clip", show_default=True, help="The recipe to begin with.")
@click.option("--folder", metavar="DIR", default=".", help="Where to write the files.")
@as_json
def command(name: str, source: str, folder: str, as_json: bool) -> None:
    """Write NAME.vlo, a copy of RECIPE under a new name, with a test and the settings of a run."""
    from vlmdsl.api.new import new  # `new --help` does not wait for it

    result = new(name, source=source, folder=folder)
    if as_json:
        json_data(result.to_json())
    else:
        data(result.to_text())
