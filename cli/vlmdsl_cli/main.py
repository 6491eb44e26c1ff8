"""The entry point: finds the command, imports only that one, and turns every outcome into an exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import click

import vlmdsl
from vlmdsl_cli import failures
from vlmdsl_cli.output import data

__all__ = ["COMMANDS", "application", "main", "run"]

COMMANDS = {
    "train": "Train a model with a recipe.",
    "eval": "Evaluate a trained model: retrieval and zero-shot classification.",
    "classify": "Classify pictures with a trained model.",
    "search": "Find the pictures that fit a text, with a trained model.",
    "ground": "Find where phrases are in a picture, with a trained model.",
    "caption": "Write captions of pictures, with a trained model.",
    "report": "Write the page of a run or of a comparison.",
    "encode": "Write the features of a data set by a trained model to a file.",
    "export": "Write a trained model for others, with a model card.",
    "data": "Check, preview and convert data.",
    "compare": "Train several recipes in the same way and compare their results.",
    "check": "Check recipes for errors.",
    "fmt": "Format recipes.",
    "explain": "Explain a recipe, a primitive or a diagnostic code.",
    "plan": "Show what a recipe will run and what it costs.",
    "emit": "Print the torch code that a recipe compiles to.",
    "diff": "Compare the meaning of two recipes.",
    "recipes": "List the bundled recipes.",
    "overfit": "Check that a recipe can learn a few samples, else say why not.",
    "verify": "Check that processes and micro-batches change nothing.",
    "new": "Begin a recipe: its file, a test and settings.",
    "doctor": "Show what this environment has, and what it lacks.",
}
"""Every command and its line in `--help`; the command itself is `commands/NAME.py`."""


def _imported(name: str) -> ModuleType:
    """Import a module with the garbage collector off, and freeze what it created, since none of it is garbage."""
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, so that `check` does not load what `train` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = _imported(f"vlmdsl_cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from vlmdsl.diagnostics import suggestion

            ctx.fail(f"no command {name!r}; {suggestion(name, COMMANDS, 'the commands')}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, _option: click.Parameter, show: bool) -> None:
    if show and not ctx.resilient_parsing:
        data(f"vlmdsl {vlmdsl.__version__}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version.")
@click.option("--trace", is_flag=True, help="Show the Python traceback of an internal error.")
def application(trace: bool) -> None:
    """A language, a compiler and a trainer for the pre-training objectives of vision-language models.

    RECIPE is the name of a bundled recipe, the path of a .vlo file, or an expression after -e.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 success, 1 a bug in vlmdsl, 2 an error in the input, 3 an error of the environment (a full disk, a missing package);
    130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Else pydantic looks through all installed distributions for plug-ins of its own: a tenth of the time of `check`.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        result = application.main(args=words, prog_name="vlmdsl", standalone_mode=False)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        return failures.report(error, words)
    return result if isinstance(result, int) else 0


def run() -> NoReturn:
    """The whole of a process of `vlmdsl`: one command, then its exit code.

    A process that torchrun started ends without the interpreter's own end: now and then a thread of gloo's still runs there,
    asks for an interpreter that is gone, and aborts a process that has long done its work.
    """
    code = main()
    if "RANK" not in os.environ:
        gc.freeze()  # what is left ends with the process: looking through it for garbage takes a thirtieth of `check`
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any longer
            stream.flush()
    os._exit(code)
