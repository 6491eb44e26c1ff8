"""`vlmdsl ground`: where phrases are in an image."""

from __future__ import annotations

from collections.abc import Sequence

import click

from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


def _box(text: str) -> tuple[float, float, float, float]:
    """Four numbers with commas between."""
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise click.UsageError("a --box is four numbers of pixels: --box 10,20,110,90") from None
    return left, top, right, bottom


@click.command("ground")
@click.argument("run_folder", metavar="RUN_DIR")
@click.argument("image", metavar="IMAGE")
@click.option("--phrases", metavar="PHRASE,PHRASE,...", required=True, help="What to look for, with commas between.")
@click.option("--best", type=click.IntRange(1, 1000), default=10, show_default=True, help="At most how many boxes.")
@click.option(
    "--box",
    "boxes",
    metavar="LEFT,TOP,RIGHT,BOTTOM",
    multiple=True,
    help="Say which phrase is in this box, in pixels, instead of predicting boxes; repeatable.",
)
@click.option("--picture", metavar="PNG", help="Draw the image with its boxes in this file.")
@click.option("--device", metavar="DEVICE", help="`cpu`, `cuda` or `auto`; by default the run's.")
@as_json
def command(
    run_folder: str,
    image: str,
    phrases: str,
    best: int,
    boxes: Sequence[str],
    picture: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Print where phrases are in IMAGE, by the model of RUN_DIR: boxes with scores, the best first."""
    from vlmdsl.api.ground import ground  # `ground --help` does not wait for it

    names = [phrase.strip() for phrase in phrases.split(",") if phrase.strip()]
    if not names:
        raise click.UsageError("--phrases needs at least one phrase: --phrases 'a dog, a red ball'")
    places = [*map(_box, boxes)] or None
    result = ground(run_folder, image, names, boxes=places, best=best, picture=picture, device=device)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())
