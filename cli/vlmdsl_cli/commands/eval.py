"""`vlmdsl eval`: the quality of a trained model on held-out data."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vlmdsl_cli.options import as_json, pairs
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("eval")
@click.argument("run_folder", metavar="RUN_DIR")
@click.option(
    "--data",
    "--val",
    "data",
    metavar="SPEC",
    multiple=True,
    help="Evaluate on these sources; by default on the run's held-out data.",
)
@click.option(
    "--map", "columns", metavar="FIELD=COLUMN", multiple=True, help="Read a field from a column with another name."
)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting: evaluation.zero_shot=false.")
@click.option("--out", metavar="FILE", help="Also write the results to this file, as JSON.")
@as_json
def command(
    run_folder: str, data: Sequence[str], columns: Sequence[str], overrides: Sequence[str], out: str | None, as_json: bool
) -> None:
    """Evaluate the model of RUN_DIR: retrieval and zero-shot accuracy, beside chance and the untrained model."""
    from vlmdsl.api.evaluate import evaluate  # `eval --help` does not wait for it

    result = evaluate(run_folder, data=data, map=pairs(columns, "--map"), overrides=overrides, out=out)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())
