"""`vlmdsl train`: a recipe, data and a run configuration to a trained model in a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from vlmdsl_cli.options import as_json, choose_recipe, lowering_option, parse_hyper_parameters, run_arguments
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.command("train")
@click.argument("subject", metavar="[RECIPE]", required=False)
@click.option("-e", "expression", metavar="EXPRESSION", help="An expression in place of RECIPE.")
@run_arguments
@click.option(
    "--param", "hyper_parameters", metavar="NAME=VALUE", multiple=True, help="Set a hyper-parameter of the recipe."
)
@lowering_option
@click.option("--seed", type=int, help="Seed of weights, data order and views.")
@click.option("--out", metavar="DIR", help="The run folder; default: a new one under runs/.")
@click.option("--resume", metavar="DIR", help="Resume the run in DIR from its last checkpoint; its recipe is in DIR.")
@as_json
def command(
    subject: str | None,
    expression: str | None,
    hyper_parameters: Sequence[str],
    run: Mapping[str, Any],
    lowering: Mapping[str, str],
    seed: int | None,
    out: str | None,
    resume: str | None,
    as_json: bool,
) -> None:
    """Train a model with RECIPE, evaluate it, and save everything in a run folder.

    Under torchrun the batch is split among all processes: `torchrun --nproc-per-node 2 -m vlmdsl train clip`.
    """
    from vlmdsl.api.train import train  # `train --help` does not wait for it

    recipe = (
        None if resume and subject is None and expression is None else choose_recipe(subject, expression, hyper_parameters)
    )
    trained = train(
        None if recipe is None else recipe.subject,
        expression=recipe is not None and recipe.expression,
        knobs=parse_hyper_parameters(hyper_parameters),
        **run,
        lowering=lowering,
        seed=seed,
        out=out,
        resume=resume,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # one process of torchrun speaks for all
    if as_json:
        json_data(trained.to_json())
    else:
        print_data(trained.to_text())
