"""The arguments that several commands share: which recipe, with which hyper-parameters, and the files of a path."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

__all__ = [
    "Recipe",
    "as_json",
    "data_arguments",
    "parse_hyper_parameters",
    "lowering_option",
    "pairs",
    "passes_option",
    "read_stdin",
    "recipe_arguments",
    "recipe_files",
    "run_arguments",
]

Command = Callable[..., Any]


class Recipe(NamedTuple):
    """Which recipe a command is about; `subject` is a bundled name, a path, or with `expression` the text itself."""

    subject: str
    expression: bool
    hyper_parameters: Mapping[str, object]


def recipe_arguments(command: Command) -> Command:
    """`RECIPE | -e EXPRESSION [--param NAME=VALUE]...`, handed on as the keyword `recipe`."""

    @click.argument("subject", metavar="[RECIPE]", required=False)
    @click.option("-e", "expression", metavar="EXPRESSION", help="An expression in place of RECIPE.")
    @click.option(
        "--param", "hyper_parameters", metavar="NAME=VALUE", multiple=True, help="Set a hyper-parameter of the recipe."
    )
    @functools.wraps(command)
    def wrapped(*, subject: str | None, expression: str | None, hyper_parameters: Sequence[str], **others: object) -> object:
        return command(recipe=choose_recipe(subject, expression, hyper_parameters), **others)

    return wrapped


def choose_recipe(subject: str | None, expression: str | None, hyper_parameters: Sequence[str]) -> Recipe:
    """One recipe from a command's words; UsageError unless exactly one of RECIPE and -e is given."""
    values = parse_hyper_parameters(hyper_parameters)
    if expression is not None and subject is None:
        return Recipe(expression, True, values)
    if subject is not None and expression is None:
        return Recipe(subject, False, values)
    raise click.UsageError("give either RECIPE or -e EXPRESSION")


def pairs(words: Sequence[str], option: str) -> dict[str, str]:
    """`["a=1", "b=2"]` as a dictionary; UsageError for a word without `=` or a name given twice."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip()
        if not equals or not name:
            raise click.UsageError(f"{option} takes NAME=VALUE, not {word!r}")
        if name in values:
            raise click.UsageError(f"{option} {name} is given twice")
        values[name] = value.strip()
    return values


def parse_hyper_parameters(words: Sequence[str]) -> dict[str, object]:
    """The hyper-parameters that `--param` sets, numbers as numbers: the recipe's own types judge them."""
    return {name: _parse_value(text) for name, text in pairs(words, "--param").items()}


def _parse_value(text: str) -> object:
    """A number where the text is one (`2`, `0.5`, `15%`), else the text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    if text.endswith("%"):
        try:
            return float(text[:-1]) / 100
        except ValueError:
            return text
    return text


def recipe_files(words: Sequence[str]) -> list[str]:
    """The words, every directory replaced by the `.vlo` files below it, in order of name; UsageError where it has none."""
    paths: list[str] = []
    for word in words:
        if not os.path.isdir(word):  # unlike Path: false for "", and for a word too long to be a path
            paths.append(word)
            continue
        files = sorted(str(file) for file in Path(word).rglob("*.vlo") if file.is_file())
        if not files:
            raise click.UsageError(f"no .vlo file is in the folder {word!r}")
        paths.extend(files)
    return paths


def read_stdin() -> str:
    """Standard input as text; bytes that are not UTF-8 become the replacement character, which no recipe may hold."""
    if sys.stdin is None:
        raise click.UsageError("standard input is closed; give a file, or pipe the text: `... | vlmdsl check -`")
    return sys.stdin.buffer.read().decode("utf-8", errors="replace")


def data_arguments(command: Command) -> Command:
    """`--data`, `--val`, `--map`, `--config` and `--set`, handed on as the keyword `run`, a dictionary of arguments of the
    functions that read data."""

    @click.option(
        "--data",
        metavar="SPEC",
        multiple=True,
        help="Training data: shapes, tar shards, a table, an image folder, or a glob.",
    )
    @click.option(
        "--val",
        metavar="SPEC",
        multiple=True,
        help="Held-out data for the evaluation: in the same formats, or a share of the training data: 10%.",
    )
    @click.option(
        "--map", "columns", metavar="FIELD=COLUMN", multiple=True, help="Read a field from a column with another name."
    )
    @click.option("--config", metavar="FILE", help="The run configuration in YAML; see `vlmdsl explain settings`.")
    @click.option(
        "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting: optimizer.learning_rate=1e-4."
    )
    @functools.wraps(command)
    def wrapped(
        *,
        data: Sequence[str],
        val: Sequence[str],
        columns: Sequence[str],
        config: str | None,
        overrides: Sequence[str],
        **others: object,
    ) -> object:
        run = {"data": data, "val": val, "map": pairs(columns, "--map"), "config": config, "overrides": overrides}
        return command(run=run, **others)

    return wrapped


def run_arguments(command: Command) -> Command:
    """Those of `data_arguments`, `--steps` and `--device`, handed on as the keyword `run`, a dictionary of arguments of
    `vlmdsl.train` and `vlmdsl.compare`."""

    @data_arguments
    @click.option("--steps", type=int, help="Number of optimiser steps.")
    @click.option("--device", help="auto, cpu or cuda.")
    @functools.wraps(command)
    def wrapped(*, run: Mapping[str, object], steps: int | None, device: str | None, **others: object) -> object:
        return command(run={**run, "steps": steps, "device": device}, **others)

    return wrapped


def lowering_option(command: Command) -> Command:
    """`--lowering [TERM=]NAME`, handed on as the keyword `lowering`: one name for all terms, or terms with theirs."""

    @click.option(
        "--lowering",
        "words",
        metavar="[TERM=]NAME",
        multiple=True,
        help="How similarities of all pairs, or a term's, are computed: auto, dense or chunked.",
    )
    @functools.wraps(command)
    def wrapped(*, words: Sequence[str], **others: object) -> object:
        return command(lowering=_lowering(words), **others)

    return wrapped


def _lowering(words: Sequence[str]) -> dict[str, str]:
    """Lowerings by term, that of all others under `*`; UsageError for two of these."""
    whole = [word for word in words if "=" not in word]
    if len(whole) > 1:
        raise click.UsageError("--lowering is given twice for all terms")
    return ({"*": whole[0]} if whole else {}) | pairs([word for word in words if "=" in word], "--lowering")


passes_option = click.option(
    "--passes",
    metavar="all|off|NAME,...",
    default="all",
    show_default=True,
    help="Which passes of the compiler run; the loss is the same.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
