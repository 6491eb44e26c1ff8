"""`vlmdsl train`: a recipe, data and a run configuration to a trained model in a run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from vlmdsl.api.train import train
from vlmdsl_cli.options import as_json, choose_recipe, knob_values, pairs
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("train")
@click.argument("subject", metavar="RECIPE", required=False)
@click.option("-e", "expression", metavar="EXPRESSION", help="An expression in place of RECIPE.")
@click.option("--data", metavar="SPEC", multiple=True, help="Train on this: shapes, tar shards, an image folder; globs too.")
@click.option("--val", metavar="SPEC", multiple=True, help="Hold this out for the evaluation, in the same forms.")
@click.option("--map", "columns", metavar="FIELD=COLUMN", multiple=True, help="Take a field from a column of another name.")
@click.option("--config", metavar="FILE", help="The run configuration, YAML; `vlmdsl explain settings` lists what it takes.")
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Change a setting: optimizer.learning_rate=1e-4."
)
@click.option("--param", "knobs", metavar="KNOB=VALUE", multiple=True, help="Set a hyper-parameter of the recipe.")
@click.option("--steps", type=int, help="Optimiser steps.")
@click.option("--seed", type=int, help="Seed of weights, data order and views.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--out", metavar="DIR", help="The run folder; a new one under runs/ by default.")
@click.option("--resume", metavar="DIR", help="Go on with the run in DIR from its last checkpoint; it knows its recipe.")
@as_json
def command(
    subject: str | None,
    expression: str | None,
    data: Sequence[str],
    val: Sequence[str],
    columns: Sequence[str],
    config: str | None,
    settings: Sequence[str],
    knobs: Sequence[str],
    steps: int | None,
    seed: int | None,
    device: str | None,
    out: str | None,
    resume: str | None,
    as_json: bool,
) -> None:
    """Train a model with RECIPE, evaluate it, and leave everything in a run folder.

    Under torchrun the batch is shared by all processes: `torchrun --nproc-per-node 2 -m vlmdsl train clip`.
    """
    recipe = None if resume and subject is None and expression is None else choose_recipe(subject, expression, knobs)
    run = train(
        None if recipe is None else recipe.subject,
        expression=recipe is not None and recipe.expression,
        knobs=knob_values(knobs),
        data=data,
        val=val,
        map=pairs(columns, "--map"),
        config=config,
        overrides=settings,
        steps=steps,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # one process of torchrun speaks for all
    if as_json:
        json_data(run.to_json())
    else:
        print_data(run.to_text())
