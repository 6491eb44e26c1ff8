"""`vlmdsl check`: every fault of recipes, as text, JSON or annotations of a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from vlmdsl.api.check import check, read, render
from vlmdsl.diagnostics import Diagnostic
from vlmdsl.diagnostics.fixes import apply_safe_fixes
from vlmdsl_cli.options import knob_values, read_stdin, recipe_files
from vlmdsl_cli.output import FAULT, FINE, coloured, data, talk

__all__ = ["command"]


@click.command("check")
@click.argument("recipes", metavar="[RECIPE]...", nargs=-1)
@click.option("-e", "expressions", metavar="EXPRESSION", multiple=True, help="Check an expression.")
@click.option("--param", "knobs", metavar="KNOB=VALUE", multiple=True, help="Set a hyper-parameter of the recipes.")
@click.option("--format", "style", type=click.Choice(["text", "json", "github"]), default="text", help="How to print.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--fix", "mend", is_flag=True, help="Apply the fixes that cannot change any other meaning to the files.")
def command(
    recipes: Sequence[str], expressions: Sequence[str], knobs: Sequence[str], style: str, as_json: bool, mend: bool
) -> int:
    """Find every fault of recipes: bundled names, .vlo files, folders, or - for standard input.

    Diagnostics for people go to stderr; --json and --format github print them on stdout. The exit code is 2 if one of
    them is an error.
    """
    if not recipes and not expressions:
        raise click.UsageError("give a RECIPE, - for standard input, or -e EXPRESSION")
    values = knob_values(knobs)
    found: list[Diagnostic] = []
    count = 0
    for name, text, path in _texts(recipes, expressions):
        found.extend(_mended(name, text, path, values) if mend and path else check(text, file=name, knobs=values))
        count += 1
    return _show(found, "json" if as_json else style, count)


def _texts(recipes: Sequence[str], expressions: Sequence[str]) -> Iterator[tuple[str, str, Path | None]]:
    """The name that messages show, the text, and the file to mend if there is one."""
    for recipe in recipe_files(recipes):
        if recipe == "-":
            yield "<stdin>", read_stdin(), None
        else:
            source = read(recipe)
            yield source.name, source.text, source.path
    for expression in expressions:
        source = read(expression, expression=True)
        yield source.name, source.text, None


def _mended(name: str, text: str, path: Path, knobs: Mapping[str, object]) -> list[Diagnostic]:
    """What is still wrong after the safe fixes; the file is written only if they change it."""
    better = apply_safe_fixes(text, name, check(text, file=name, knobs=knobs))
    if better != text:
        path.write_text(better, encoding="utf-8")
        talk(f"mended {path}")
    return check(better, file=name, knobs=knobs)


def _show(found: Sequence[Diagnostic], style: str, count: int) -> int:
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    if style != "text":
        data(render(found, style=style))
    elif found:
        talk(render(found, colour=coloured()))
    checked = "1 recipe" if count == 1 else f"{count} recipes"
    talk(f"{checked} checked: {_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}")
    return FAULT if errors else FINE


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
