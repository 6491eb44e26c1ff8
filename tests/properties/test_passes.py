"""Laws of the passes: value and gradient stay, and a region is recognised however its sum is written.

The evaluator computes what is behind `stop` from inputs of its own, so equal values on random inputs mean equal gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unit.passes.evaluator import term_values
from unit.passes.programs import PROGRAMS, Build
from unit.passes.samples import Sample, samples
from vlmdsl.ir import Program
from vlmdsl.ir.text import program_text
from vlmdsl.passes import optimise
from vlmdsl.passes.fuse import contrast_of

SEEDS = st.integers(0, 2**20)


def assert_same_values(before: Program, after: Program, seed: int) -> None:
    with np.errstate(all="ignore"):
        expected, values = term_values(before, seed), term_values(after, seed)
    for name, value in expected.items():
        assume(np.isfinite(value) and abs(value) < 1e6)
        assert values.get(name, 0.0) == pytest.approx(value, rel=1e-9, abs=1e-9), program_text(after)


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
@given(seed=SEEDS)
@settings(max_examples=5, deadline=None)
def test_recipes_keep_value_and_gradient(make: Callable[[], Program], seed: int) -> None:
    program = make()
    assert_same_values(program, optimise(program), seed)


@given(sample=samples(), seed=SEEDS)
@settings(max_examples=150, deadline=None)
def test_random_programs_keep_value_and_gradient_after_every_pass(sample: Sample, seed: int) -> None:
    stages: list[Program] = []
    optimise(sample.program, dump=lambda name, stage: stages.append(stage))
    for stage in stages:
        assert_same_values(sample.program, stage, seed)


@given(sample=samples())
@settings(max_examples=100, deadline=None)
def test_optimising_twice_changes_nothing(sample: Sample) -> None:
    once = optimise(sample.program)
    assert program_text(optimise(once)) == program_text(once)


@st.composite
def clip_by_hand(draw: Callable) -> Sample:
    """CLIP's loss with its sum, factors and transposes in a random arrangement."""
    build = Build()
    image, text = build.pooled("image", "Image"), build.pooled("text")
    log_scale = build.parameter("temperature", 2.66)
    swapped = draw(st.booleans())
    matrix = build.transpose(build.similarity(text, image)) if swapped else build.similarity(image, text)
    scaled = draw(
        st.sampled_from(
            (
                lambda: build("divide", matrix, build("exp", build("negate", log_scale))),
                lambda: build("multiply", build("exp", log_scale), matrix),
                lambda: build("negate", build("multiply", matrix, build("negate", build("exp", log_scale)))),
                lambda: build("multiply", build("multiply", matrix, 4.0), build("divide", build("exp", log_scale), 4.0)),
            )
        )
    )()
    directions = [
        build.cross_entropy(scaled, build.paired(), "rows"),
        build.cross_entropy(build.transpose(scaled), build.paired(), "rows")
        if draw(st.booleans())
        else build.cross_entropy(scaled, build.paired(), "columns"),
    ]
    if draw(st.booleans()):
        directions.reverse()
    a, b = directions
    arrange = draw(
        st.sampled_from(
            (
                lambda: build("divide", build("add", build.mean(a), build.mean(b)), 2.0),
                lambda: build("add", build("multiply", 0.5, build.mean(a)), build("multiply", build.mean(b), 0.5)),
                lambda: build("multiply", 0.5, build.mean(build("add", a, b))),
                lambda: build.mean(build("subtract", build("divide", a, 2.0), build("multiply", b, -0.5))),
                lambda: build(
                    "add",
                    build("multiply", 0.25, build.mean(a)),
                    build.mean(build("multiply", 0.25, build("add", a, build("multiply", 2.0, b)))),
                ),
            )
        )
    )
    return Sample(build.program("by_hand", contrast=arrange()))


@given(sample=clip_by_hand())
@settings(max_examples=100, deadline=None)
def test_however_the_sum_is_written_the_region_is_the_same(sample: Sample) -> None:
    optimised = optimise(sample.program)
    (term,) = optimised.terms
    region = contrast_of(term.node)
    assert term.node.operation == "contrast"
    assert region.fused
    for direction in (region.rows, region.columns):
        assert direction is not None
        assert direction.coefficient == 0.5
        assert [(part.kind, part.coefficient) for part in direction.targets] == [("paired", 1.0)]
        assert direction.scale == 2
        assert term.node.inputs[2].operation == "exp"
        assert (direction.weight, direction.bias, direction.over, direction.keep) == (None, None, None, None)
