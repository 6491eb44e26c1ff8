"""The digest is of meaning: layout and order do not count, every number does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unit.passes.programs import PROGRAMS, Build
from vlmdsl.ir import Node, Program
from vlmdsl.ir.digest import digest
from vlmdsl.source import Span


def _loss(build: Build, start: float = 0.07, target: str = "paired", swap: bool = False, name: str = "temperature") -> Node:
    image, text = build.pooled("image", "Image"), build.pooled("text")
    logits = build("divide", build.similarity(image, text), build.temperature(name, start))
    matrix = build.paired() if target == "paired" else build.same()
    a, b = (build.mean(build.cross_entropy(logits, matrix, along)) for along in ("rows", "columns"))
    return build("add", b, a) if swap else build("add", a, b)


def _digest(**changes: object) -> str:
    build = Build()
    return digest(build.program("p", loss=_loss(build, **changes)))


def test_order_of_a_sum_names_of_parameters_and_spans_do_not_count() -> None:
    assert _digest() == _digest(swap=True) == _digest(name="tau")
    build = Build()
    loss = _loss(build)
    build.graph.answer_for(loss, [Span("a.vlo", 0, 4)])
    assert digest(build.program("other", loss=loss)) == _digest()


@pytest.mark.parametrize("change", [{"start": 0.1}, {"target": "same"}])
def test_numbers_and_operations_count(change: dict[str, object]) -> None:
    assert _digest(**change) != _digest()


def test_one_temperature_for_two_terms_is_not_two() -> None:
    shared, apart = Build(), Build()
    one = shared.program("p", a=_loss(shared), b=shared("exp", _loss(shared)))
    two = apart.program("p", a=_loss(apart), b=apart("exp", _loss(apart, name="other")))
    assert digest(one) != digest(two)


def test_every_example_has_a_digest_of_its_own() -> None:
    programs: list[Callable[[], Program]] = list(PROGRAMS)
    assert len({digest(make()) for make in programs}) == len(programs)
