"""`vlmdsl data`: look through data, preview it, and convert it to shards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from vlmdsl_cli.options import as_json, pairs
from vlmdsl_cli.output import data as print_data
from vlmdsl_cli.output import json_data

__all__ = ["command"]


@click.group("data")
def command() -> None:
    """Check, preview or convert data, in all formats of `train --data`."""


def _of_data(function: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that all of them have; what the function returns is printed."""

    @click.argument("data", metavar="SPEC...", nargs=-1, required=True)
    @click.option("--map", "columns", metavar="FIELD=COLUMN", multiple=True, help="Read from a column of another name.")
    @click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting of `data`.")
    @as_json
    @functools.wraps(function)
    def wrapped(
        *, data: Sequence[str], columns: Sequence[str], overrides: Sequence[str], as_json: bool, **others: object
    ) -> None:
        result = function(data=data, map=pairs(columns, "--map"), overrides=overrides, **others)
        if as_json:
            json_data(result.to_json())
        else:
            print_data(result.to_text())

    return wrapped


@command.command("check")
@click.option("--samples", type=click.IntRange(1), help="Read so many, spread evenly; default: all.")
@click.option("--tokens", type=click.IntRange(2), default=32, show_default=True, help="Length that texts are cut at.")
@_of_data
def check(**arguments: Any) -> Any:
    """Read data: samples, damage and why, sizes, cut texts, repeated images and texts, scripts."""
    from vlmdsl.api.data import check_data  # `--help` does not wait for it

    return check_data(**arguments)


@command.command("preview")
@click.option("--out", metavar="PNG", help="Draw the images with their texts in this file.")
@click.option("--samples", type=click.IntRange(1, 1000), default=24, show_default=True, help="How many, spread evenly.")
@_of_data
def preview(**arguments: Any) -> Any:
    """Show some samples: key, size and text, and a grid of pictures."""
    from vlmdsl.api.data import preview_data

    return preview_data(**arguments)


@command.command("convert")
@click.option("--out", metavar="DIR", required=True, help="The folder for the shards.")
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Samples in a shard.")
@click.option("--shuffle", metavar="SEED", type=click.IntRange(0), help="Put the samples into a random order.")
@_of_data
def convert(**arguments: Any) -> Any:
    """Write webdataset shards, without what cannot be used."""
    from vlmdsl.api.data import convert_data

    return convert_data(**arguments)
