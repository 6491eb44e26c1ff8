"""`vlmdsl check`: all errors and warnings of recipes, as text, JSON or annotations of a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import click

from vlmdsl.api.check import check, read, render
from vlmdsl.diagnostics import Diagnostic, DiagnosticError, apply_safe_fixes
from vlmdsl_cli.options import parse_hyper_parameters, read_stdin, recipe_files
from vlmdsl_cli.output import FAULT, FINE, data, diagnose, talk

__all__ = ["command"]

MAXIMUM_ROUNDS = 20
"""How often `--fix` checks a file again: an error may hide the next one."""

Style = Literal["text", "json", "github"]


@click.command("check")
@click.argument("recipes", metavar="[RECIPE]...", nargs=-1)
@click.option("-e", "expressions", metavar="EXPRESSION", multiple=True, help="Check an expression.")
@click.option(
    "--param", "hyper_parameters", metavar="NAME=VALUE", multiple=True, help="Set a hyper-parameter of the recipes."
)
@click.option("--format", "style", type=click.Choice(get_args(Style)), help="Output format; default: text.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--fix", is_flag=True, help="Apply the safe fixes to the files.")
def command(
    recipes: Sequence[str],
    expressions: Sequence[str],
    hyper_parameters: Sequence[str],
    style: Style | None,
    as_json: bool,
    fix: bool,
) -> int:
    """Check recipes for errors: bundled names, .vlo files, folders, or - for standard input.

    Diagnostics are printed to stderr, those of --json and --format github to stdout. The exit code is 2 if there is an
    error.
    """
    if as_json and style is not None and style != "json":
        raise click.UsageError(f"--json and --format {style} contradict each other: leave one of them out")
    if not recipes and not expressions:
        raise click.UsageError("give a RECIPE, - for standard input, or -e EXPRESSION")
    if fix and (expressions or "-" in recipes):
        raise click.UsageError("--fix changes files; give paths")
    values = parse_hyper_parameters(hyper_parameters)
    choices = [(recipe, False) for recipe in recipe_files(recipes)] + [(text, True) for text in expressions]
    diagnostics = [diagnostic for choice in choices for diagnostic in _faults(*choice, values, fix)]
    return _show(diagnostics, "json" if as_json else style or "text", len(choices))


def _faults(recipe: str, expression: bool, hyper_parameters: Mapping[str, object], fix: bool) -> list[Diagnostic]:
    """The diagnostics of one recipe; one that cannot be read is a diagnostic too, so that the others are still checked."""
    if recipe == "-" and not expression:
        return check(read_stdin(), file="<stdin>", knobs=hyper_parameters)
    try:
        source = read(recipe, expression=expression)
    except DiagnosticError as error:
        return list(error.diagnostics)
    if fix and source.path is not None:
        return _fixed(source.name, source.text, source.path, hyper_parameters)
    return check(source.text, file=source.name, knobs=hyper_parameters)


def _fixed(name: str, text: str, path: Path, hyper_parameters: Mapping[str, object]) -> list[Diagnostic]:
    """The diagnostics that remain after the safe fixes, repeated for errors that appear only then."""
    fixed, diagnostics = text, check(text, file=name, knobs=hyper_parameters)
    for _ in range(MAXIMUM_ROUNDS):
        better = apply_safe_fixes(fixed, name, diagnostics)
        if better == fixed:
            break
        fixed, diagnostics = better, check(better, file=name, knobs=hyper_parameters)
    if fixed != text:
        path.write_text(fixed, encoding="utf-8", newline="\n")
        talk(f"fixed {path}")
    return diagnostics


def _show(diagnostics: Sequence[Diagnostic], style: Style, count: int) -> int:
    if style != "text":
        data(render(diagnostics, style=style))
    elif diagnostics:
        diagnose(diagnostics)
    else:
        talk("1 recipe is correct" if count == 1 else f"{count} recipes are correct")
    return FAULT if any(diagnostic.severity == "error" for diagnostic in diagnostics) else FINE
