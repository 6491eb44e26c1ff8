"""`vlmdsl explain`: the page of a recipe, a primitive, a diagnostic code, or the settings of a run."""

from __future__ import annotations

import click

from vlmdsl.api.explain import explain
from vlmdsl_cli.options import Recipe, as_json, recipe_arguments
from vlmdsl_cli.output import data, json_data

__all__ = ["command"]


@click.command("explain")
@recipe_arguments
@click.option("--latex", is_flag=True, help="Print only the formula, in LaTeX.")
@as_json
def command(recipe: Recipe, latex: bool, as_json: bool) -> None:
    """Explain RECIPE, or instead a primitive (tokenmax), a diagnostic code (V0304), or the settings of a run
    (`settings` for all, `optimizer` for a section, `train.batch`).

    The page of a recipe shows its formula, its terms, and the fields, encoders and state that it needs.
    """
    if latex and as_json:
        raise click.UsageError("--latex and --json contradict each other: --json holds the formula, too")
    page = explain(recipe.subject, expression=recipe.expression, knobs=recipe.hyper_parameters)
    if as_json:
        json_data(page.to_json())
    elif not latex:
        data(page.to_text())
    elif page.latex:
        data(page.latex)
    else:
        raise click.UsageError(f"{recipe.subject} has no formula")
