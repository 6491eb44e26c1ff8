"""Every rule of the algebra has an example; every example is what its rule says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from unit.passes.programs import Build
from vlmdsl.ir import Node
from vlmdsl.ir.text import program_text
from vlmdsl.passes.fold import RULES, fold
from vlmdsl.types import ScalarType

Make = Callable[[Build], Node]


def p(build: Build) -> Node:
    return build.parameter("p", 0.5)


def q(build: Build) -> Node:
    return build.parameter("q", 0.5)


def loss(build: Build) -> Node:
    return build.mean(score(build))


def score(build: Build) -> Node:
    return build.score(build.pooled("image", "Image"), build.pooled("text"))


def other(build: Build) -> Node:
    return build.score(build.pooled("image", "Image"), build.pooled("caption"))


def matrix(build: Build) -> Node:
    return build.similarity(build.pooled("image", "Image"), build.pooled("text"))


def clamped(build: Build) -> Node:
    return build.add("clamp", build.constant(7.0), type=ScalarType(), lower=None, upper=5.0, gradient="zero")


def smoothed(build: Build, target: Node) -> Node:
    return build.cross_entropy(matrix(build), target)


EXAMPLES: list[tuple[str, Make, Make]] = [
    ("evaluate", lambda b: b("exp", b("log", 4.0)), lambda b: b.constant(math.exp(math.log(4.0)))),
    ("clamp-constant", clamped, lambda b: b.constant(5.0)),
    ("order", lambda b: b("multiply", 2.0, loss(b)), lambda b: b("multiply", loss(b), 2.0)),
    (
        "order",
        lambda b: b("multiply", b("add", p(b), q(b)), b("add", q(b), p(b))),
        lambda b: b("multiply", b("add", p(b), q(b)), b("add", p(b), q(b))),
    ),
    ("times-one", lambda b: b("multiply", loss(b), 1.0), loss),
    ("times-zero", lambda b: b("multiply", loss(b), b("subtract", 2.0, 2.0)), lambda b: b.constant(0.0)),
    ("plus-zero", lambda b: b("add", loss(b), b("multiply", b("exp", loss(b)), 0.0)), loss),
    ("plus-zero", lambda b: b.mean(b("add", b("multiply", 0.0, other(b)), score(b))), loss),
    ("minus-zero", lambda b: b("subtract", 0.0, p(b)), lambda b: b("negate", p(b))),
    (
        "gather-scalars",
        lambda b: b.mean(b.cross_entropy(b("multiply", b("multiply", matrix(b), p(b)), q(b)), b.paired())),
        lambda b: b.mean(b.cross_entropy(b("multiply", matrix(b), b("multiply", p(b), q(b))), b.paired())),
    ),
    (
        "gather-scalars",
        lambda b: b("multiply", b("multiply", 2.0, p(b)), b("multiply", q(b), 3.0)),
        lambda b: b("multiply", b("multiply", p(b), q(b)), 6.0),
    ),
    ("gather-addends", lambda b: b("add", b("add", p(b), 1.0), 2.0), lambda b: b("add", p(b), 3.0)),
    ("negate-negate", lambda b: b("exp", b("negate", b("negate", p(b)))), lambda b: b("exp", p(b))),
    ("negate-product", lambda b: b("negate", b("multiply", p(b), 2.0)), lambda b: b("multiply", p(b), -2.0)),
    ("add-negated", lambda b: b("add", b("negate", p(b)), q(b)), lambda b: b("subtract", q(b), p(b))),
    ("subtract-negated", lambda b: b("subtract", p(b), b("negate", q(b))), lambda b: b("add", p(b), q(b))),
    ("subtract-constant", lambda b: b("subtract", p(b), 1.5), lambda b: b("add", p(b), -1.5)),
    ("log-exp", lambda b: b("log", b("exp", p(b))), p),
    (
        "divide-exp",
        lambda b: b("divide", loss(b), b("exp", b("negate", p(b)))),
        lambda b: b("multiply", loss(b), b("exp", p(b))),
    ),
    ("divide-constant", lambda b: b("divide", loss(b), 4.0), lambda b: b("multiply", loss(b), 0.25)),
    (
        "divide-reciprocal",
        lambda b: b("divide", loss(b), b("divide", 2.0, p(b))),
        lambda b: b("multiply", loss(b), b("multiply", p(b), 0.5)),
    ),
    ("divide-scalar", lambda b: b("divide", loss(b), p(b)), lambda b: b("multiply", loss(b), b("divide", 1.0, p(b)))),
    ("mean-of-product", lambda b: b.mean(b("multiply", score(b), 0.5)), lambda b: b("multiply", loss(b), 0.5)),
    (
        "not-not",
        lambda b: b.mean(score(b), b.negation(b.negation(b.field("f", "Flag")))),
        lambda b: b.mean(score(b), b.field("f", "Flag")),
    ),
    (
        "smooth-nothing",
        lambda b: b.mean(smoothed(b, b.smooth(b.paired(), 0.0))),
        lambda b: b.mean(smoothed(b, b.paired())),
    ),
]


def _text(make: Make, folded: bool) -> str:
    build = Build()
    program = build.program("example", loss=make(build))
    return program_text(fold(program) if folded else program).split("\n", 1)[
        1
    ]  # the signature names every field, used or not


@pytest.mark.parametrize(
    ("name", "before", "after"), EXAMPLES, ids=[f"{i}-{example[0]}" for i, example in enumerate(EXAMPLES)]
)
def test_rule(name: str, before: Make, after: Make) -> None:
    assert _text(before, folded=True) == _text(after, folded=False)


def test_every_rule_has_an_example() -> None:
    assert {rule.name for rule in RULES} == {name for name, _, _ in EXAMPLES}


@pytest.mark.parametrize("make", [lambda b: b("divide", 1.0, 0.0), lambda b: b("log", -1.0), lambda b: b("exp", 1000.0)])
def test_what_is_not_a_finite_number_stays_as_written(make: Make) -> None:
    assert _text(make, folded=True) == _text(make, folded=False)


def test_a_loss_that_became_a_scalar_keeps_the_types_right() -> None:
    build = Build()
    gone = build("multiply", loss(build), 0.0)
    program = fold(build.program("example", loss=build("minimum", gone, p(build))))
    assert program.terms[0].node.type == ScalarType()


def test_a_matrix_times_zero_still_says_who_is_a_candidate() -> None:
    build = Build()
    excluding = build.exclude(matrix(build), build.field("drop", "Flag"))
    logits = build("add", matrix(build), build("multiply", excluding, 0.0))
    program = fold(build.program("example", loss=build.mean(build.cross_entropy(logits, build.paired()))))
    assert "exclude" in {node.operation for node in program.nodes()}
