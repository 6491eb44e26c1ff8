"""The verifier accepts what the table of operations allows, and names the pass and the node otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from unit.passes.programs import PROGRAMS, Build, clip
from vlmdsl.ir import Contrast, Direction, Graph, Node, Program, TargetPart
from vlmdsl.ir.verify import InternalError, verify
from vlmdsl.types import LossType, ScalarType, ScoreType, TargetType, VecType


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_programs_of_the_language_pass(make: Callable[[], Program]) -> None:
    verify(make())


def _vec(build: Build) -> Node:
    return build.pooled("image", "Image")


BROKEN: dict[str, tuple[Callable[[Build], Node], str]] = {
    "missing attribute": (lambda b: b.add("constant", type=ScalarType()), "wants ['value']"),
    "attribute of another kind": (
        lambda b: b.add("same", b.field("label", "Label"), type=TargetType(), missing="x"),
        "missing is 'x'",
    ),
    "too few inputs": (lambda b: b.add("normalize", type=VecType(), epsilon=0.0), "has 0 inputs"),
    "another type": (lambda b: b.add("mean", b.score(_vec(b), _vec(b)), type=ScalarType()), "wants Loss"),
    "input of another type": (lambda b: b.add("mean", _vec(b), type=LossType()), "input 0 is Vec[B, D]"),
    "scores and losses do not mix": (
        lambda b: b.add("add", b.mean(b.score(_vec(b), _vec(b))), b.score(_vec(b), _vec(b)), type=LossType()),
        "cannot combine Loss and Score[B]",
    ),
    "infinite constant": (lambda b: b.add("constant", type=ScalarType(), value=float("inf")), "the value is inf"),
    "direction out of range": (
        lambda b: b.add(
            "cross_entropy", b.similarity(_vec(b), _vec(b)), b.paired(), type=ScoreType(), along="up", denominator="all"
        ),
        "along is 'up'",
    ),
    "position out of range": (
        lambda b: b.add(
            "contrast",
            b.similarity(_vec(b), _vec(b)),
            type=LossType(),
            contrast=Contrast(False, Direction(1.0, (TargetPart("paired", 1.0),), scale=4), None),
        ),
        "scale is input 4 of 1",
    ),
    "pooled features as targets": (
        lambda b: b.add("smooth", _vec(b), type=TargetType(), epsilon=0.1, over="all"),
        "wants Target",
    ),
    "encoder of another field": (
        lambda b: b.add("encode", b.field("text", "Text"), type=_vec(b).inputs[0].inputs[0].type, encoder=_encoder(b)),
        "vision encodes Image, got Text",
    ),
}


def _encoder(build: Build) -> object:
    return _vec(build).inputs[0].inputs[0].attribute("encoder")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_node_is_named_with_the_pass_that_made_it(name: str) -> None:
    make, reason = BROKEN[name]
    build = Build()
    node = make(build)
    program = build.program("broken", loss=build.constant(0.0))
    program = replace(program, metrics=(replace(clip().metrics[0], name="broken", node=node),))
    with pytest.raises(InternalError) as caught:
        verify(program, "share")
    assert caught.value.stage == "share"
    assert caught.value.node is node
    assert reason in str(caught.value)


def test_an_unknown_operation_is_refused_at_once() -> None:
    with pytest.raises(InternalError, match="'convolve' is not an operation"):
        Build().add("convolve")


def test_the_type_of_a_node_follows_from_its_inputs() -> None:
    build = Build()
    assert build.add("mean", build.score(_vec(build), _vec(build))).type == LossType()
    with pytest.raises(InternalError, match=r"after the making of a node at .*: input 0 is Vec"):
        build.add("mean", _vec(build))


def test_two_parameters_of_one_name_are_refused() -> None:
    build = Build()
    total = build("add", build.parameter("t", 1.0), build.parameter("t", 2.0))
    with pytest.raises(InternalError, match="the parameter name 't' is taken"):
        verify(build.program("twice", loss=total))


def test_a_node_of_another_graph_is_refused() -> None:
    program = clip()
    with pytest.raises(InternalError, match="another graph"):
        verify(replace(program, graph=Graph()))


def test_a_term_that_is_not_a_loss_is_refused() -> None:
    build = Build()
    with pytest.raises(InternalError, match="the term loss is not a loss"):
        verify(build.program("matrix", loss=build.similarity(_vec(build), _vec(build))))
