"""Laws of the passes: value and gradient stay, and a region is recognised however its sum is written.

The evaluator computes what is behind `stop` from inputs of its own, so equal values on random inputs mean equal gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unit.passes.evaluator import term_values
from unit.passes.programs import PROGRAMS, Build
from vlmdsl.ir import Node, Program
from vlmdsl.ir.text import program_text
from vlmdsl.passes import optimise
from vlmdsl.passes.contrast import contrast
from vlmdsl.passes.fold import fold
from vlmdsl.passes.fuse import contrast_of

SEEDS = st.integers(0, 2**20)


def assert_same_values(before: Program, after: Program, seed: int) -> None:
    with np.errstate(all="ignore"):
        wanted, found = term_values(before, seed), term_values(after, seed)
    for name, value in wanted.items():
        assume(np.isfinite(value) and abs(value) < 1e6)
        assert found.get(name, 0.0) == pytest.approx(value, rel=1e-9, abs=1e-9), program_text(after)


class Expressions:
    """Random losses over a few fields, drawn from all operations that the passes know."""

    def __init__(self, draw: Callable) -> None:
        self.draw, self.build = draw, Build()
        build = self.build
        self.features = [build.pooled("image", "Image"), build.pooled("text"), build.pooled("caption", unit=False)]
        self.scalars = [build.constant(value) for value in (0.0, 1.0, -1.0, 0.5, 3.0)]
        self.scalars += [build.temperature("temperature", 0.3), build.parameter("direct", 0.7)]

    def one_of(self, *choices: Callable[[], Node]) -> Node:
        return self.draw(st.sampled_from(choices))()

    def scalar(self) -> Node:
        first = self.draw(st.sampled_from(self.scalars))
        if self.draw(st.booleans()):
            return first
        return self.build(
            self.draw(st.sampled_from(("multiply", "add", "subtract"))), first, self.draw(st.sampled_from(self.scalars))
        )

    def score(self) -> Node:
        x, y = (self.draw(st.sampled_from(self.features)) for _ in range(2))
        plain = self.build.score(x, y)
        image, text = self.build.tokens("image", "Image"), self.build.tokens("text")
        return self.one_of(
            lambda: plain,
            lambda: self.build.stop(plain),
            lambda: self.build("exp", plain),
            lambda: self.build(
                "subtract", self.build.score(image, text, "tokenmax"), self.build.score(text, image, "tokenmax")
            ),
        )

    def condition(self) -> Node:
        return self.one_of(lambda: self.build.field("flag", "Flag"), lambda: self.build("less", self.score(), 0.1))

    def matrix(self, depth: int = 3) -> Node:
        build = self.build
        x, y = (self.draw(st.sampled_from(self.features)) for _ in range(2))
        base = build.similarity(x, y, self.draw(st.sampled_from(("dot", "dot", "euclidean"))))
        if depth == 0:
            return base
        return self.one_of(
            lambda: base,
            lambda: build.transpose(self.matrix(depth - 1)),
            lambda: build(
                self.draw(st.sampled_from(("multiply", "divide", "add", "subtract"))), self.matrix(depth - 1), self.scalar()
            ),
            lambda: build("multiply", self.scalar(), self.matrix(depth - 1)),
            lambda: build("negate", self.matrix(depth - 1)),
            lambda: build.reuse(self.matrix(depth - 1), self.draw(st.sampled_from(("rows", "columns")))),
            lambda: build("add", self.matrix(depth - 1), self.matrix(0)),
            lambda: build.similarity(build.tokens("image", "Image"), build.tokens("text"), "tokenmax"),
            lambda: build.similarity(build.tokens("text"), build.tokens("image", "Image"), "tokenmax"),
        )

    def target(self, depth: int = 2) -> Node:
        build = self.build
        if depth == 0:
            return self.one_of(build.paired, build.same)
        inner = self.target(depth - 1)
        return self.one_of(
            lambda: inner,
            lambda: build.smooth(inner, 0.2, self.draw(st.sampled_from(("all", "others")))),
            lambda: build(
                self.draw(st.sampled_from(("add", "subtract"))), inner, build("multiply", 0.5, self.target(depth - 1))
            ),
            lambda: build("multiply", inner, self.scalar()),
        )

    def loss_scores(self, depth: int = 2) -> Node:
        build = self.build
        along, denominator = (
            self.draw(st.sampled_from(pair)) for pair in (("rows", "columns"), ("all", "all", "negatives"))
        )
        plain = build.cross_entropy(self.matrix(), self.target(), along, denominator)
        if depth == 0:
            return plain
        return self.one_of(
            lambda: plain,
            lambda: build("multiply", self.score(), self.loss_scores(depth - 1)),
            lambda: build("multiply", self.loss_scores(depth - 1), self.scalar()),
            lambda: build("add", self.loss_scores(depth - 1), self.loss_scores(0)),
            lambda: build("subtract", self.score(), self.loss_scores(0)),
            lambda: build("add", plain, 1.0),
        )

    def loss(self, depth: int = 3) -> Node:
        build = self.build
        over = self.condition() if self.draw(st.integers(0, 3)) == 0 else None
        plain = build.mean(self.loss_scores(), over)
        if depth == 0:
            return plain
        return self.one_of(
            lambda: plain,
            lambda: build("add", self.loss(depth - 1), self.loss(depth - 1)),
            lambda: build("subtract", self.loss(depth - 1), self.loss(0)),
            lambda: build("divide", self.loss(depth - 1), 2.0),
            lambda: build("multiply", self.scalar(), self.loss(depth - 1)),
            lambda: build.stop(self.loss(depth - 1)),
            lambda: build("minimum", self.loss(depth - 1), self.scalar()),
        )


@dataclass
class Sample:
    """A program that shows itself readably when a test fails."""

    program: Program

    def __repr__(self) -> str:
        return "\n" + program_text(self.program)


@st.composite
def samples(draw: Callable) -> Sample:
    expressions = Expressions(draw)
    return Sample(expressions.build.program("random", first=expressions.loss(), second=expressions.loss(1)))


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
    found = contrast_of(term.node)
    assert term.node.operation == "contrast"
    assert found.fused
    for direction in (found.rows, found.columns):
        assert direction is not None
        assert direction.coefficient == 0.5
        assert [(part.kind, part.coefficient) for part in direction.targets] == [("paired", 1.0)]
        assert direction.scale == 2
        assert term.node.inputs[2].operation == "exp"
        assert (direction.weight, direction.bias, direction.over, direction.keep) == (None, None, None, None)


@given(sample=samples(), seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_recognition_alone_keeps_the_value(sample: Sample, seed: int) -> None:
    assert_same_values(sample.program, contrast(fold(sample.program)), seed)
