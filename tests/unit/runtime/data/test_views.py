"""Views: what is drawn, how often, and that a draw depends on seed, epoch and sample only."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Graph
from vlmdsl.runtime.data.views import View, ViewContext, view_of
from vlmdsl.runtime.values import ImageFormat, TextValue
from vlmdsl.types import FieldType

TEXT = TextValue("the text", tuple(f"rewrite number {number}" for number in range(1, 7)))
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def context(key: str = "k", epoch: int = 0, seed: int = 0, counts: Counter[str] | None = None) -> ViewContext:
    return ViewContext(seed, epoch, key, ImageFormat(8), Counter() if counts is None else counts)


def rewrite(count: int = 4, minimum_words: int = 1, draw: int = 0) -> View:
    return View("text", "Text", (("rewrite", (("count", count), ("draw", draw), ("minimum_words", minimum_words))),))


def augment(view: int = 0, draw: int = 0) -> View:
    return View("image", "Image", (("augment", (("draw", draw), ("pipeline", "crop"), ("view", view))),))


def drawn(view: View, value: TextValue, times: int, counts: Counter[str] | None = None) -> Counter[str]:
    texts: Counter[str] = Counter()
    for number in range(times):
        result = view.apply(value, context(f"sample {number}", counts=counts))
        assert isinstance(result, TextValue)
        texts[result.text] += 1
    return texts


def test_the_text_and_its_first_rewrites_are_drawn_alike() -> None:
    counts = drawn(rewrite(count=4), TEXT, 5000)
    assert set(counts) == {TEXT.text, *TEXT.rewrites[:4]}
    assert all(abs(count - 1000) < 130 for count in counts.values())


def test_fewer_rewrites_than_wanted_are_counted() -> None:
    counts: Counter[str] = Counter()
    texts = drawn(rewrite(count=4), TextValue("t", ("a", "b")), 600, counts)
    assert all(abs(texts[text] - 200) < 60 for text in ("t", "a", "b"))
    assert counts == {"rewrite: draws": 600, "rewrite: fewer than 4 rewrites": 600}
    assert drawn(rewrite(), TextValue("t"), 5) == {"t": 5}


def test_a_short_rewrite_falls_back_on_the_text() -> None:
    counts: Counter[str] = Counter()
    texts = drawn(rewrite(count=2, minimum_words=2), TextValue("t", ("one", "two words")), 600, counts)
    assert set(texts) == {"t", "two words"}
    assert texts["t"] > 330
    assert counts["rewrite: drawn text of fewer than 2 words"] == pytest.approx(200, abs=60)


def test_alternatives_are_the_text_and_its_rewrites_in_order() -> None:
    def alternative(number: int, value: TextValue) -> object:
        return View("text", "Text", (("alternative", (("view", number),)),)).apply(value, context())

    assert [alternative(number, TEXT) for number in range(3)] == [
        TextValue("the text"), TextValue("rewrite number 1"), TextValue("rewrite number 2")
    ]  # fmt: skip
    assert alternative(3, TextValue("t", ("a",))) == TextValue("t")


def texts(view: View, **where: int) -> list[object]:
    return [view.apply(TEXT, context(f"s{number}", **where)) for number in range(40)]


def test_a_draw_depends_on_seed_epoch_sample_and_draw() -> None:
    first = texts(rewrite())
    assert first == texts(rewrite())
    for other in (texts(rewrite(), epoch=1), texts(rewrite(), seed=1), texts(rewrite(draw=1))):
        same = sum(one == two for one, two in zip(first, other, strict=True))
        assert 1 <= same <= 18


def pixels(view: View, value: np.ndarray = NOISE, key: str = "k") -> np.ndarray:
    result = view.apply(value, context(key))
    assert isinstance(result, np.ndarray)
    return result


def test_views_of_a_set_differ_and_repeat() -> None:
    assert (pixels(augment(0)) == pixels(augment(0))).all()
    assert (pixels(augment(0)) != pixels(augment(1))).any()
    assert (pixels(augment(0), key="a") != pixels(augment(0), key="b")).any()


def test_the_chain_of_a_source_node() -> None:
    graph = Graph()
    text = graph.add("field", type=FieldType("Text"), name="caption")
    node = graph.add("rewrite", text, type=FieldType("Text"), count=2, minimum_words=1, draw=5)
    view = view_of(node)
    assert (view.field, view.kind, [operation for operation, _ in view.steps]) == ("caption", "Text", ["rewrite"])
    assert view_of(text) == View("caption", "Text")
    with pytest.raises(DiagnosticError) as caught:
        view_of(graph.add("join", graph.add("field", type=FieldType("Image"), name="image"), text))
    assert caught.value.diagnostics[0].code == "V0823"
