"""The ends of a command: its exit code, and what is said when it was not fine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest

from cli.conftest import Run
from vlmdsl.diagnostics import Diagnostic, DiagnosticError, Label
from vlmdsl.source import Span
from vlmdsl_cli import failures, main

REPORT = "vlmdsl-report-"


def test_help_names_every_command_and_imports_none(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    listed = [line.split()[0] for line in result.stdout.split("Commands:\n")[1].splitlines()]
    assert listed == list(main.COMMANDS)
    modules = {path.stem for path in Path(main.__file__).parent.joinpath("commands").glob("[a-z]*.py")}
    assert set(listed) == modules


def test_no_command_is_a_usage_error(run: Run) -> None:
    assert run().code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chek", "clip"], "did you mean `check`?"),
        (["frobnicate"], "the commands are `train`, `eval`"),
        (["check"], "give a RECIPE"),
        (["check", "--fix", "-e", "contrast(image, text)"], "--fix changes files"),
        (["plan", "clip", "-e", "contrast(image, text)"], "either RECIPE or -e"),
        (["explain"], "either RECIPE or -e"),
        (["plan", "clip", "--param", "scale"], "NAME=VALUE"),
        (["plan", "clip", "--param", "a=1", "--param", "a=2"], "given twice"),
        (["plan", "clip", "--batch", "0"], "--batch"),
        (["fmt", "absent.vlo"], "absent.vlo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_line_is_the_users_fault(run: Run, arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert (result.code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())


def test_a_bug_leaves_a_page_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert failures.report(ZeroDivisionError("no such number"), ["plan", "a recipe"]) == 1
    said = capsys.readouterr().err
    (page,) = tmp_path.glob("*.md")
    assert str(page) in said
    assert "no such number" in said
    assert "Traceback" not in said
    text = page.read_text()
    assert "ZeroDivisionError: no such number" in text
    assert "vlmdsl plan 'a recipe'" in text


def test_trace_shows_the_page_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert failures.report(ZeroDivisionError("no such number"), ["--trace", "plan"]) == 1
    assert "ZeroDivisionError: no such number" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def diagnosed(*codes: str) -> DiagnosticError:
    return DiagnosticError(tuple(Diagnostic(code, "a fault", Label(Span("x.vlo", 0, 0))) for code in codes))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (diagnosed("V0304"), 2),
        (diagnosed("V0304", "V0901"), 2),
        (diagnosed("V0901"), 3),
        (OSError(errno.ENOSPC, "no space left on device"), 3),
        (ModuleNotFoundError("No module named 'transformers'", name="transformers"), 3),
        (ModuleNotFoundError("No module named 'vlmdsl.lost'", name="vlmdsl.lost"), 1),
        (MemoryError(), 3),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("wrong"), 2),
        (AssertionError("ours"), 1),
    ],
    ids=repr,
)
def test_exit_codes(error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert failures.report(error, []) == code


def test_a_pipe_whose_reader_left_is_not_a_fault() -> None:
    program = "import sys; from vlmdsl_cli.main import main; sys.exit(main(['--help']))"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(timeout=60), said) == (0, b"")


AT_THE_END = """
import atexit, os, sys
from vlmdsl_cli.main import run
class Aborts:
    __del__ = lambda self, abort=os.abort: abort()  # as a thread of gloo's does that outlives the interpreter
sys.argv, sys.kept = ["vlmdsl", *{arguments}], Aborts()
atexit.register(print, "left")
run()
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["check", "nothing"], 2)])
def test_a_process_of_torchrun_leaves_before_the_interpreter_ends(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-c", AT_THE_END.format(arguments=arguments)]
    done = subprocess.run(command, env=os.environ | {"RANK": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.endswith("left\n")
    alone = {name: value for name, value in os.environ.items() if name != "RANK"}
    assert subprocess.run(command, env=alone, capture_output=True, check=False).returncode == -6
