"""Every `bad/NAME.vlo` gives the messages of `bad/NAME.expected`; VLMDSL_ACCEPT=1 rewrites them: read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlmdsl.api.check import check, render
from vlmdsl.syntax import read_source

FOLDER = Path(__file__).parent / "bad"
PROGRAMS = sorted(FOLDER.glob("*.vlo"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    source, faults = read_source(path.read_bytes(), path.name)
    assert not faults
    actual = render(check(source.text, file=path.name)) + "\n"
    expected = path.with_suffix(".expected")
    if os.environ.get("VLMDSL_ACCEPT"):
        expected.write_text(actual, encoding="utf-8")
    assert actual == expected.read_text(encoding="utf-8")
    assert "error[" in actual or "warning[" in actual


def test_every_expectation_has_its_program() -> None:
    assert {path.stem for path in FOLDER.glob("*.expected")} == {path.stem for path in PROGRAMS}
