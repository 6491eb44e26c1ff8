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


@click.command("plan")
@recipe_arguments
@click.option("--batch", type=COUNT, help="Samples in the global batch; default: `train.batch` where it is set, or 1024.")
@click.option("--world", type=COUNT, default=1, show_default=True, help="Processes.")
@click.option("--dim", type=COUNT, default=512, show_default=True, help="Feature dimension.")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True, help="Data type of the features.")
@click.option(
    "--vocabulary", type=COUNT, default=49_408, show_default=True, help="Vocabulary size, for masked language modelling."
)
@click.option("--image-size", type=COUNT, default=224, show_default=True, help="Side of an image, in pixels.")
@click.option("--image-tokens", type=COUNT, default=49, show_default=True, help="Patches of an image.")
@click.option("--text-tokens", type=COUNT, default=32, show_default=True, help="Tokens of a text.")
@click.option("--micro", type=COUNT, help="Samples of a process that go through the towers at once (`train.micro`).")
@click.option("--references", type=COUNT, default=65_536, show_default=True, help="Number of samples in a reference set.")
@click.option(
    "--samples",
    type=COUNT,
    default=1_000_000,
    show_default=True,
    help="Samples in the data set, for numbers kept per sample.",
)
@lowering_option
@passes_option
@click.option("--config", metavar="FILE", help="Settings of a run, in YAML: its batch, and the weights of its towers.")
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

    With settings of a run also the weights of its towers and modules, their gradients and moments.
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
    weights = None
    if config is not None or settings:
        from vlmdsl.api.weights import planned_weights  # which builds the towers, with torch

        run = {"config": config, "settings": settings, "world": sizes["world"]}
        weights = planned_weights(recipe.subject, expression=recipe.expression, knobs=recipe.hyper_parameters, **run)
    if as_json:
        json_data(planned.to_json() | ({} if weights is None else {"weights": weights.to_json()}))
    else:
        data(planned.to_text() + ("" if weights is None else f"\n\n{weights.to_text()}"))
