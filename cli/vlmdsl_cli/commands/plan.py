"""`vlmdsl plan`: what a recipe will run and what it costs, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from vlmdsl.api.plan import dump, plan_flows
from vlmdsl_cli.options import Recipe, as_json, lowering_option, passes_option, recipe_arguments
from vlmdsl_cli.output import data, json_data

__all__ = ["command"]

COUNT = click.IntRange(min=1)
DTYPE = click.Choice(["float32", "bfloat16", "float16", "float64"])


def of_run(usual: object) -> str:
    """What a size is where no option says it."""
    return f"default: that of the run with settings, else {usual}."


@click.command("plan")
@recipe_arguments
@click.option("--batch", type=COUNT, help=f"Samples in the global batch; {of_run(1024)}")
@click.option("--world", type=COUNT, default=1, show_default=True, help="Processes.")
@click.option("--dim", type=COUNT, help=f"Feature dimension; {of_run(512)}")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True, help="Data type of the features.")
@click.option("--vocabulary", type=COUNT, help=f"Vocabulary size, for masked language modelling; {of_run('49,408')}")
@click.option("--image-size", type=COUNT, help=f"Side of an image, in pixels; {of_run(224)}")
@click.option("--image-tokens", type=COUNT, help=f"Patches of an image; {of_run(49)}")
@click.option("--text-tokens", type=COUNT, help=f"Tokens of a text; {of_run(32)}")
@click.option("--micro", type=COUNT, help="Samples of a process that go through the towers at once (`train.micro`).")
@click.option("--references", type=COUNT, help=f"Number of samples in a reference set; {of_run('65,536')}")
@click.option("--samples", type=COUNT, help=f"Samples in the data set, for numbers kept per sample; {of_run('1,000,000')}")
@lowering_option
@passes_option
@click.option(
    "--config", metavar="FILE", help="Settings of a run, in YAML: plan that run, with the sizes and weights of its towers."
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="The same with this setting, such as `model.freeze.vision=1`; repeatable.",
)
@click.option("--dump", "stage", metavar="PASS", help="Print the graph after this pass instead.")
@as_json
def command(
    recipe: Recipe,
    lowering: Mapping[str, str],
    config: str | None,
    settings: Sequence[str],
    stage: str | None,
    as_json: bool,
    **sizes: Any,
) -> None:
    """Show what RECIPE will run: encoder calls, shared values, FLOPs, memory, memory traffic, collectives, lowerings.

    With settings of a run its towers are built and its data opened: sizes are theirs unless an option says another, and the
    weights of towers and modules, their gradients and moments are shown too.
    """
    if stage is not None:
        data(dump(recipe.subject, stage, expression=recipe.expression, knobs=recipe.hyper_parameters))
        return
    planned = plan_flows(
        recipe.subject,
        expression=recipe.expression,
        knobs=recipe.hyper_parameters,
        config=config,
        overrides=settings,
        lowering=lowering,
        **sizes,
    )
    if as_json:
        json_data(planned.to_json())
    else:
        data(planned.to_text())
