"""`vlmdsl verify`: is a recipe the same on several processes and in micro-batches?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from vlmdsl_cli.options import Recipe, as_json, data_arguments, recipe_arguments
from vlmdsl_cli.output import FAULT, json_data
from vlmdsl_cli.output import data as print_data

__all__ = ["command"]


@click.command("verify")
@recipe_arguments
@data_arguments
@click.option("--world", type=click.IntRange(1, 64), default=2, show_default=True, help="Number of processes.")
@click.option("--micro", type=click.IntRange(1, 4096), default=2, show_default=True, help="Number of micro-batches.")
@as_json
@click.pass_context
def command(ctx: click.Context, recipe: Recipe, run: Mapping[str, Any], world: int, micro: int, as_json: bool) -> None:
    """Train RECIPE for two steps on one process, on several, and in micro-batches, and compare what they leave.

    Losses, gradients, weights and state must be equal up to rounding in float64; the exit code is 2 if they are not.
    Nothing is evaluated: `--val` is only set aside.
    """
    from vlmdsl.api.verify import verify  # `verify --help` does not wait for it

    verification = verify(
        recipe.subject, expression=recipe.expression, knobs=recipe.hyper_parameters, world=world, micro=micro, **run
    )
    if as_json:
        json_data(verification.to_json())
    else:
        print_data(verification.to_text())
    if not verification.equal:
        ctx.exit(FAULT)
