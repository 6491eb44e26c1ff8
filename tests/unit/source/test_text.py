from __future__ import annotations

import pytest

from vlmdsl.source import SourceMap, SourceText, Span

TEXT = SourceText("a.vlo", "ab\n\ncdé\r\nf")


@pytest.mark.parametrize(
    ("offset", "position"),
    [(0, (1, 1)), (2, (1, 3)), (3, (2, 1)), (4, (3, 1)), (7, (3, 4)), (9, (4, 1)), (10, (4, 2)), (99, (4, 2)), (-5, (1, 1))],
)
def test_position_counts_code_points_from_one(offset: int, position: tuple[int, int]) -> None:
    assert TEXT.position(offset) == position


@pytest.mark.parametrize(("number", "line"), [(1, "ab"), (2, ""), (3, "cdé"), (4, "f"), (5, ""), (0, "")])
def test_line(number: int, line: str) -> None:
    assert TEXT.line(number) == line


def test_slice_and_merge() -> None:
    span = Span("a.vlo", 4, 5).merge(Span("a.vlo", 6, 7))
    assert TEXT.slice(span) == "cdé"
    assert span.merge(Span("b.vlo", 0, 99)) == span


def test_a_map_finds_texts_by_name() -> None:
    sources = SourceMap()
    assert sources.add(TEXT) is TEXT
    assert sources.get("a.vlo") is TEXT
    assert sources.get("b.vlo") == SourceText("b.vlo", "")
