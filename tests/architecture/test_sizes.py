"""Files and functions stay small enough to be read in one go, tests and benchmarks included; folders are packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
FILES = sorted(
    path for folder in ("vlmdsl", "cli", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")
)  # fmt: skip


def too_long(text: str, name: str) -> Iterator[str]:
    """Every excess of one file, as `name:line what`."""
    lines = text.count("\n") + 1
    if lines > LONGEST_FILE:
        yield f"{name}: {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{name}:{node.lineno} {node.name}: {length} lines"


def test_files_and_functions_stay_small() -> None:
    excesses = [excess for path in FILES for excess in too_long(path.read_text("utf-8"), str(path.relative_to(ROOT)))]
    assert not excesses, "\n".join(excesses)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f():\n" + "    pass\n" * 59, []),
        ("def f():\n" + "    pass\n" * 60, ["x.py:1 f: 61 lines"]),
        ("\n" * 400, ["x.py: 401 lines"]),
    ],
)
def test_the_measure_itself(text: str, expected: list[str]) -> None:
    assert list(too_long(text, "x.py")) == expected


def test_every_folder_is_a_package() -> None:
    """The import contracts are blind to a folder without `__init__.py`."""
    folders = {path.parent for path in FILES if {"vlmdsl", "vlmdsl_cli"} & set(path.relative_to(ROOT).parts[:2])}
    lacking = [folder.relative_to(ROOT).as_posix() for folder in folders if not (folder / "__init__.py").is_file()]
    assert not lacking, f"without __init__.py: {sorted(lacking)}"
    assert len(folders) > 20
