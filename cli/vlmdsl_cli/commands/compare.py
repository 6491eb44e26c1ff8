"""`vlmdsl compare`: several recipes on the same data, encoders, order and evaluation, several seeds each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlmdsl_cli.options import as_json, parse_hyper_parameters, run_arguments
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data, talk

if TYPE_CHECKING:
    from vlmdsl.api.compare import Contender

__all__ = ["command"]


@click.command("compare")
@click.argument("subjects", metavar="[RECIPE]...", nargs=-1)
@click.option("-e", "expressions", metavar="EXPRESSION", multiple=True, help="Also compare this expression; repeatable.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Number of seeds per recipe.")
@run_arguments
@click.option(
    "--param",
    "hyper_parameters",
    metavar="[RECIPE.]NAME=VALUE",
    multiple=True,
    help="Set a hyper-parameter of one recipe, or of all.",
)
@click.option("--out", metavar="DIR", help="The folder of the comparison; default: runs/compare-RECIPE-RECIPE...")
@as_json
def command(
    subjects: Sequence[str],
    expressions: Sequence[str],
    seeds: int,
    hyper_parameters: Sequence[str],
    run: Mapping[str, Any],
    out: str | None,
    as_json: bool,
) -> None:
    """Train every RECIPE with every seed and compare each with the first one, paired by seed.

    Finished runs are not repeated, so the same command continues a comparison that was stopped.
    """
    from vlmdsl.api.compare import compare  # `compare --help` does not wait for it

    if not subjects and not expressions:
        raise click.UsageError("give at least one RECIPE or -e EXPRESSION")
    result = compare(
        _contenders(subjects, expressions, parse_hyper_parameters(hyper_parameters)),
        seeds=seeds,
        **run,
        out=out,
        say=talk,
    )
    if as_json:
        json_data(result.to_json())
    else:
        print_data(result.to_text())


def _contenders(
    subjects: Sequence[str], expressions: Sequence[str], hyper_parameters: Mapping[str, object]
) -> list[Contender]:
    """The recipes with their hyper-parameters; UsageError for a hyper-parameter of a recipe that is not compared."""
    from vlmdsl.api.compare import Contender

    names = [Path(subject).stem for subject in subjects]
    for name in hyper_parameters:
        owner, dot, _ = name.partition(".")
        if dot and owner not in names:
            raise click.UsageError(f"--param {name} is for {owner!r}, which is not among the recipes")
    shared = {name: value for name, value in hyper_parameters.items() if "." not in name}
    contenders = []
    for subject, name in zip(subjects, names, strict=True):
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in hyper_parameters.items() if key.startswith(prefix)}
        contenders.append(Contender(subject, knobs=shared | own))
    return contenders + [Contender(expression, expression=True, knobs=shared) for expression in expressions]
