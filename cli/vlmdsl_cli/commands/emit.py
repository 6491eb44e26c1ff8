"""`vlmdsl emit`: the torch source that a recipe compiles to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from vlmdsl.api.emit import emit
from vlmdsl_cli.options import Recipe, lowering_option, passes_option, recipe_arguments
from vlmdsl_cli.output import data

__all__ = ["command"]


@click.command("emit")
@recipe_arguments
@lowering_option
@passes_option
@click.option(
    "--batch", type=click.IntRange(min=1), default=1024, show_default=True, help="Samples that `auto` chooses for."
)
def command(recipe: Recipe, lowering: Mapping[str, str], passes: str, batch: int) -> None:
    """Print the torch code that RECIPE compiles to, one file; every value names the line of the recipe it is from."""
    options: dict[str, Any] = {"lowering": lowering, "passes": passes, "batch": batch}
    data(emit(recipe.subject, expression=recipe.expression, knobs=recipe.hyper_parameters, **options))
