"""Assignments of patches and segments: what is accepted, and what is refused, with the reason."""

from __future__ import annotations

import pytest

import vlmdsl

HEAD = "recipe r(image: Image, text: Text, segments: Segments)\nlet groups = assignment(image)\n"
TERM = "minimize contrast(image, text) + assignment_divergence(groups, {})"
FAULTS = {
    "dropped patches": (TERM.format("segment_mean(assignment(drop(image, share=50%)), segments)"), "V0405", "assignment"),
    "a mixture": (TERM.format("segment_mean(assignment(mix(image, by=beta(1, 1))), segments)"), "V0405", "mixed"),
    "the features of a head": (TERM.format("assignment(project(vision)(image))"), "V0304", "pooled"),
    "a text": (TERM.format("assignment(text)"), "V0301", "image"),
    "no segments": (TERM.format("segment_mean(groups, image)"), "V0301", "segments"),
    "a mean of a mean": (TERM.format("segment_mean(segment_mean(groups, segments), segments)"), "V0301", "assignment"),
}


def test_an_assignment_and_its_mean_are_compared() -> None:
    assert vlmdsl.check(HEAD + TERM.format("segment_mean(groups, segments)")) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said(fault: str) -> None:
    text, code, word = FAULTS[fault]
    errors = [diagnostic for diagnostic in vlmdsl.check(HEAD + text) if diagnostic.severity == "error"]
    assert [diagnostic.code for diagnostic in errors] == [code], errors
    assert word in str(errors[0])
