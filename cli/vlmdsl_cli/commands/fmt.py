"""`vlmdsl fmt`: formats recipes, keeping comments and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path

import click

from vlmdsl.api.format import format
from vlmdsl.api.sources import read
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl_cli.options import read_stdin, recipe_files
from vlmdsl_cli.output import FAULT, FINE, source, talk

__all__ = ["command"]


@click.command("fmt")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--check", "only_check", is_flag=True, help="Change no file; exit code 2 if one is not formatted.")
@click.option("--diff", "show_diff", is_flag=True, help="Change no file; print a diff.")
def command(paths: Sequence[str], only_check: bool, show_diff: bool) -> int:
    """Format recipes: .vlo files, folders, or - from standard input to standard output.

    A file that cannot be parsed is reported and left unchanged, and the exit code is 2; the others are written.
    """
    changed, faults = False, list[Diagnostic]()
    for path in recipe_files(paths):
        try:
            changed |= _format(path, write=not (only_check or show_diff), diff=show_diff)
        except DiagnosticError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise DiagnosticError(tuple(faults))
    return FAULT if only_check and changed else FINE


def _format(path: str, *, write: bool, diff: bool) -> bool:
    """Format one text, report what changed, and return whether it was not formatted yet."""
    before = read_stdin() if path == "-" else read(Path(path)).text
    after = format(before, file="<stdin>" if path == "-" else path)
    if diff:
        source("".join(unified_diff(before.splitlines(True), after.splitlines(True), path, f"{path} (formatted)")))
    elif path == "-" and write:
        source(after)
    elif before != after:
        talk(f"{'formatted' if write else 'would format'} {path}")
        if write:
            Path(path).write_text(after, encoding="utf-8", newline="\n")
    return before != after
