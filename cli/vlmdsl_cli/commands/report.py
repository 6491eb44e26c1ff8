"""`vlmdsl report`: the page of a run or of a comparison."""

from __future__ import annotations

import click

from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import data, json_data

__all__ = ["command"]


@click.command("report")
@click.argument("run_folder", metavar="RUN_DIR")
@as_json
def command(run_folder: str, as_json: bool) -> None:
    """Write report.html into RUN_DIR, the folder of a run or of a comparison: one file that any browser shows."""
    from vlmdsl.api.report import report  # `report --help` does not wait for it

    result = report(run_folder)
    if as_json:
        json_data(result.to_json())
    else:
        data(result.to_text())
