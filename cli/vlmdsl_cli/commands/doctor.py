"""`vlmdsl doctor`: what this environment has, and what it lacks."""

from __future__ import annotations

import click

from vlmdsl_cli.options import as_json
from vlmdsl_cli.output import ENVIRONMENT, data, json_data

__all__ = ["command"]


@click.command("doctor")
@click.option("--compile/--no-compile", "compiled", default=True, help="Whether to try torch.compile, which takes seconds.")
@as_json
@click.pass_context
def command(ctx: click.Context, compiled: bool, as_json: bool) -> None:
    """Show versions, devices, the compiler, memory and optional packages, and what to do about what is lacking."""
    from vlmdsl.api.doctor import doctor  # `doctor --help` does not wait for it

    checkup = doctor(compile=compiled)
    if as_json:
        json_data(checkup.to_json())
    else:
        data(checkup.to_text())
    if not checkup.sound:
        ctx.exit(ENVIRONMENT)
