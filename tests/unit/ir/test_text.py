"""The printed form: one node a line, places of the recipe, the same text for the same program."""

from __future__ import annotations

from unit.passes.programs import Build, clip
from vlmdsl.ir.text import program_text
from vlmdsl.passes import optimise
from vlmdsl.source import SourceMap, SourceText, Span
from vlmdsl.types import ScalarType


def test_a_line_shows_operation_inputs_attributes_type_and_place() -> None:
    build = Build()
    one = build.graph.add("constant", type=ScalarType(), value=1.5, span=Span("a.vlo", 8, 11))
    two = build.graph.add("exp", one, type=ScalarType(), span=Span("a.vlo", 6, 12))
    sources = SourceMap()
    sources.add(SourceText("a.vlo", "vlo 1\n\nexp(1.5)\n"))
    assert program_text(build.program("tiny", loss=two), sources) == (
        "program tiny()\n"
        "  %0 = constant() {value: 1.5} : Scalar   # a.vlo:3\n"
        "  %1 = exp(%0) : Scalar   # a.vlo:2\n"
        "  term loss = %1\n"
    )


def test_numbers_of_nodes_do_not_depend_on_dead_ones() -> None:
    build = Build()
    build.constant(3.0)
    assert "%0 = constant() {value: 4.0}" in program_text(build.program("tiny", loss=build.constant(4.0)))


def test_a_region_shows_only_what_differs_from_the_default() -> None:
    text = program_text(optimise(clip()))
    assert "contrast(%3, %7, %9) {contrast: fused=True, rows=Direction(coefficient=0.5, targets=" in text
    assert "weight" not in text
    assert text == program_text(optimise(clip()))
