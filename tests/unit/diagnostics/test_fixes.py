from __future__ import annotations

import pytest

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, Label, apply_safe_fixes
from vlmdsl.source import Span

TEXT = "abcdef"


def offer(*edits: tuple[int, int, str], safe: bool = True, file: str = "x.vlo") -> Diagnostic:
    """A diagnostic whose fix replaces these ranges."""
    changes = tuple(Edit(Span(file, start, end), replacement) for start, end, replacement in edits)
    return Diagnostic("V0101", "a fault", Label(Span(file, 0, 0)), fix=Fix("fix", changes, safe))


@pytest.mark.parametrize(
    ("diagnostics", "expected"),
    [
        ([], TEXT),
        ([offer((1, 3, "XYZ"))], "aXYZdef"),
        ([offer((4, 5, "")), offer((0, 1, "AA"))], "AAbcdf"),
        ([offer((1, 3, "X")), offer((2, 4, "Y"))], "aXdef"),
        ([offer((1, 3, "X")), offer((3, 4, "Y"))], "aXYef"),
        ([offer((1, 3, "X")), offer((2, 2, "Y"), (5, 6, "Z"))], "aXdef"),
        ([offer((2, 2, "X")), offer((2, 2, "X"))], "abXcdef"),
        ([offer((1, 3, "X"), safe=False)], TEXT),
        ([offer((1, 3, "X"), file="other.vlo")], TEXT),
        ([Diagnostic("V0101", "no fix", Label(Span("x.vlo", 0, 0)))], TEXT),
    ],
)
def test_safe_fixes_are_applied_whole_and_once(diagnostics: list[Diagnostic], expected: str) -> None:
    assert apply_safe_fixes(TEXT, "x.vlo", diagnostics) == expected
