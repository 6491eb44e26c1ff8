"""`vlmdsl overfit`: can a recipe learn a few fixed samples, and if it cannot, why not?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from vlmdsl_cli.options import Recipe, as_json, recipe_arguments, run_arguments
from vlmdsl_cli.output import FAULT, json_data
from vlmdsl_cli.output import data as print_data

__all__ = ["command"]


@click.command("overfit")
@recipe_arguments
@run_arguments
@click.option("--samples", type=click.IntRange(2, 4096), default=64, show_default=True, help="Number of training samples.")
@as_json
@click.pass_context
def command(ctx: click.Context, recipe: Recipe, run: Mapping[str, Any], samples: int, as_json: bool) -> None:
    """Train RECIPE on a few fixed samples, which it must learn; if it does not, say what the likely reason is.

    Learned are 90 % of them: of pairs told apart, boxes named, tokens of captions predicted, and pairs and negatives
    recognised, whichever of these RECIPE is for. The losses of other terms must fall. The exit code is 2 if they are not
    learned. Nothing is written, and nothing is evaluated: `--val` is only set aside.
    """
    from vlmdsl.api.overfit import overfit  # `overfit --help` does not wait for it

    result = overfit(recipe.subject, expression=recipe.expression, knobs=recipe.hyper_parameters, samples=samples, **run)
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())
    if not result.learned:
        ctx.exit(FAULT)
