"""`vlmdsl caption`: what a trained model writes of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("caption")
@click.argument("run_folder", metavar="RUN_DIR")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--prompt", metavar="TEXT", default="", help="The text to continue, for models trained with prompts.")
@click.option("--beams", type=click.IntRange(1, 64), default=1, show_default=True, help="Beams of the search; 1: greedy.")
@click.option("--device", metavar="DEVICE", help="`cpu`, `cuda` or `auto`; by default the run's.")
@as_json
def command(run_folder: str, images: Sequence[str], prompt: str, beams: int, device: str | None, as_json: bool) -> None:
    """Print the caption that the model of RUN_DIR writes of each IMAGE."""
    from vlmdsl.api.caption import caption  # `caption --help` does not wait for it

    result = caption(run_folder, images, prompt=prompt, beams=beams, device=device)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())
