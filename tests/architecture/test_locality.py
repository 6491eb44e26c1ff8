"""How many files an addition touches: the table of CONTRIBUTING.md is held to the source and to the plug-in of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| a (mask rule|target|module on features|kind of field) \|", line)
]
NAMES = {
    "a mask rule": r'name="random"',
    "a target": r"transport|TRANSPORT",
    "a module on features": r"PixelDecoder|PixelDecoderSettings|PixelDecoders",
    "a kind of field": r"FlagFamily",
}
"""The identifiers by which the examples of the table go."""
PLUGIN_FILES = {
    "a mask rule": "masks.py",
    "a target": "targets.py",
    "a module on features": "fusion.py",
    "a kind of field": "descriptors.py",
}


def test_every_addition_has_a_row() -> None:
    assert [row[0] for row in ROWS] == list(NAMES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_existing_one_is_named_in_the_files_of_its_row(row: list[str]) -> None:
    addition, _, count, _, files = row
    pattern = re.compile(rf"(?<!\w)(?:{NAMES[addition]})(?!\w)")
    package = ROOT / "vlmdsl"
    named = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert named == set(re.findall(r"`([\w/]+\.py)`", files))
    assert int(count) == len(named)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_plug_in_has_it_in_one_file(row: list[str]) -> None:
    """None of the plug-in's files imports another one, so what is in a file is all of it."""
    package = ROOT / "tests" / "plugin_example" / "vlmdsl_student"
    text = (package / PLUGIN_FILES[row[0]]).read_text(encoding="utf-8")
    assert "vlmdsl_student" not in text
    assert int(row[1]) == 1
    entries = (package.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"vlmdsl_student.{PLUGIN_FILES[row[0]].removesuffix(".py")}"' in entries
