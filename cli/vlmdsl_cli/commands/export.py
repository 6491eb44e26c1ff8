"""`vlmdsl export`: a trained model for others."""

from __future__ import annotations

from typing import Literal

import click

from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import data, json_data

__all__ = ["command"]


@click.command("export")
@click.argument("run_folder", metavar="RUN_DIR")
@click.argument("out", metavar="OUT_DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", "hf", "open_clip", "onnx", "torch-export"]),
    default="safetensors",
    show_default=True,
    help="Weights that `vlmdsl.load` loads, a model of transformers or open_clip, or programs of ONNX or torch.",
)
@as_json
def command(
    run_folder: str, out: str, form: Literal["safetensors", "hf", "open_clip", "onnx", "torch-export"], as_json: bool
) -> None:
    """Write the model of RUN_DIR to a new folder, with a model card."""
    from vlmdsl.api.export import export  # `export --help` does not wait for it

    result = export(run_folder, out, format=form)
    if as_json:
        json_data(result.to_json())
    else:
        data(result.to_text())
