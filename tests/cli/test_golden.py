"""Every file of `golden/` is one command with what it prints and its exit code; VLMDSL_ACCEPT=1 rewrites them.

The commands run in `recipes/`, so paths in the output are short and the same everywhere.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from cli.conftest import Result, Run

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.txt"))


def transcript(command: str, result: Result) -> str:
    """The text of a golden file."""
    parts = [f"$ vlmdsl {command}\n", f"[exit {result.code}]\n"]
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            parts.append(f"--- {name}\n{text}")
    return "".join(parts)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE / "recipes")
    expected = path.read_text(encoding="utf-8")
    command = expected.splitlines()[0].removeprefix("$ vlmdsl ")
    actual = transcript(command, run(*shlex.split(command)))
    if os.environ.get("VLMDSL_ACCEPT"):
        path.write_text(actual, encoding="utf-8")
    assert actual == expected
