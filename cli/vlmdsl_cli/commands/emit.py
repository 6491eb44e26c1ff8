"""`vlmdsl emit`: the torch source that a recipe compiles to."""

from __future__ import annotations

import click

from vlmdsl.api.emit import emit
from vlmdsl_cli.options import Recipe, recipe_arguments
from vlmdsl_cli.output import data

__all__ = ["command"]


@click.command("emit")
@recipe_arguments
def command(recipe: Recipe) -> None:
    """Print the torch code that RECIPE compiles to, one file; every line names the line of the recipe that it comes from."""
    data(emit(recipe.subject, expression=recipe.expression, knobs=recipe.knobs))
