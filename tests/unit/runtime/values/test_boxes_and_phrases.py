"""Boxes and phrases: what columns may hold, what a tower sees of a box, and which tokens name it."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import (
    BadSample,
    BoxesValue,
    ConceptsValue,
    FieldColumns,
    ImageFormat,
    NamingText,
    SampleColumns,
    TextFormat,
    family_of,
    joined_phrases,
    word_maps,
)

BOXES, PHRASES = FieldColumns("boxes", ("boxes",)), FieldColumns("phrases", ("phrases",))
FORM = TextFormat(train_tokenizer(["a red circle. a blue star", "two green squares"], 300), 24)


def boxes_of(value: object, extent: tuple[int, int] = (100, 60)) -> BoxesValue:
    read: BoxesValue = family_of("Boxes").read(SampleColumns({"boxes": value}, extent=lambda _: extent), BOXES)
    return read


def test_boxes_are_cut_at_the_edges_of_the_image() -> None:
    value = boxes_of([[-5, 10, 50, 70]])
    assert value.boxes.tolist() == [[0, 10, 50, 60]]
    assert value.shares(None).tolist() == [[0, 10 / 60, 0.5, 1]]


def test_a_tower_sees_boxes_in_the_part_of_the_image_that_it_sees() -> None:
    value = boxes_of([[20, 0, 80, 60], [0, 0, 10, 10], [10, 30, 50, 60]])
    assert value.shares(ImageFormat(32)).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0.5, 0.5, 1]]
    assert value.shares(ImageFormat(32, fitting="squash"))[2].tolist() == [0.1, 0.5, 0.5, 1]
    # The shorter side becomes 40 pixels, of which the middle 32 are seen: 48 of 60 pixels, from (26, 6) on.
    np.testing.assert_allclose(value.shares(ImageFormat(32, shorter=40))[2], [0, 0.5, 0.5, 1])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing"),
        ("box", "four numbers"),
        ([[1, 2, 3]], "four numbers"),
        ([[1, 2, float("nan"), 4]], "four numbers"),
        ([[5, 5, 5, 9]], "without an area"),
        ([[200, 200, 300, 300]], "outside the image"),
        (np.ones((1001, 4)), "too many"),
        ([[0.1, 0.2, 0.5, 1.0], [0, 0, 1, 1]], "in pixels, not shares"),
        ([[9, 2, 3, 4]], "without an area"),
        ([["1", "2", "30", "40"]], "four numbers"),
        (np.array([["1", "2", "30", "40"]]), "four numbers"),
        ([[1, 2, "30", 40]], "four numbers"),
        ([[False, False, True, True]], "four numbers"),
        ([[1, 2, None, 40]], "four numbers"),
        ([[1, 2, 30, 40], [1, 2, 30]], "four numbers"),
        ([[[1, 2, 30, 40]]], "four numbers"),
        ([1, 2, 30, 40], "four numbers"),
        ([[1, 2, 30, 10**400]], "four numbers"),
        ({"x": 1}, "four numbers"),
        (7, "four numbers"),
        ("", "four numbers"),
    ],
)
def test_damaged_boxes_are_bad_samples(value: object, reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        boxes_of(value)


def test_one_box_of_a_pixel_is_one_of_several() -> None:
    assert len(boxes_of([[0, 0, 1, 1], [0, 0, 50, 30]]).boxes) == 2
    assert len(boxes_of([[0, 0, 1, 1]], (1, 1)).boxes) == 1


def test_an_image_may_have_no_boxes() -> None:
    batch = family_of("Boxes").collate([boxes_of([]), boxes_of([[0, 0, 50, 30]])], None)
    boxes = batch[0]
    assert boxes is not None
    assert boxes.tolist() == [[[0, 0, 0, 0]], [[0, 0, 0.5, 0.5]]]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "a dog",
        ["a dog", ""],
        [["a"]],
        {"text": "a dog", "spans": [[[0, 6]]]},
        {"text": "a dog", "spans": [[[3, 2]]]},
        {"text": "", "spans": [[[0, 1]]]},
        {"text": "a dog", "spans": 3},
        {"text": "a dog", "spans": [["a", "b"]]},
        {"text": "a dog", "spans": [["0", "5"]]},
        {"text": "a dog", "spans": [[0, 1.5]]},
        {"text": "a dog", "spans": [[False, True]]},
        {"text": "a dog", "spans": [[[0, 1, 2]]]},
        {"text": "a dog", "spans": ["05"]},
        {"text": "a dog", "spans": [[[0, 1]] * 101]},
        {"text": 5, "spans": [[0, 1]]},
        [1, 2],
        ["a dog", 2],
        [1.5],
        [True],
        np.array([3, 4]),
        [None],
        ["a dog", {"name": "a cat"}],
        5,
        [b"a dog"],
        ["x"] * 1001,
    ],
)
def test_damaged_phrases_are_bad_samples(value: object) -> None:
    with pytest.raises(BadSample):
        family_of("Phrases").read(SampleColumns({"phrases": value}), PHRASES)


def test_numbers_instead_of_names_are_named() -> None:
    for kind, value in (("Phrases", [17, 3]), ("Concepts", ["a star", 3])):
        with pytest.raises(BadSample, match="names hold a number instead of a text"):
            family_of(kind).read(SampleColumns({"names": value}), FieldColumns("names", ("names",)))


def test_numbers_may_be_written_with_a_point() -> None:
    read = family_of("Phrases").read(SampleColumns({"phrases": {"text": "a dog", "spans": [[2.0, 5.0]]}}), PHRASES)
    assert read.names == ("dog",)
    assert boxes_of([[Decimal("1.5"), 2, 30, 40]]).boxes.tolist() == [[1.5, 2, 30, 40]]
    assert boxes_of([np.array([1, 2, 30, 40]), np.array([1, 2, 3, 4])]).boxes.shape == (2, 4)


def test_spans_may_be_several_or_none() -> None:
    value = {"text": "a dog and its dog", "spans": [[[2, 5], [14, 17]], [0, 5], [0, 0]]}
    read = family_of("Phrases").read(SampleColumns({"phrases": value}), PHRASES)
    assert read.spans == (((2, 5), (14, 17)), ((0, 5),), ())
    assert read.names == ("dog dog", "a dog", "")


def test_all_tokens_of_a_phrase_name_its_region_and_no_others() -> None:
    text = joined_phrases(["a blue star", "a red circle", "a blue star"], ["a red circle", "two squares", "a blue star"])
    (words,) = word_maps([text], FORM).words
    tokens = FORM.encode([text.text]).ids[0]
    named = [FORM.tokenizer.decode(tokens[row].tolist()) for row in words]
    assert named == ["a blue star", "a red circle", "a blue star"]


def test_tokens_that_are_cut_off_name_nothing() -> None:
    text = NamingText("two green squares " * 9 + "a star", spans=(((162, 168),),))
    assert not word_maps([text], FORM).words.any()


def test_concepts_are_padded_and_may_name_several_regions() -> None:
    values = [ConceptsValue(("a star", "a dog"), 3, ((0,), (1, 0))), ConceptsValue(("a",), 3, ())]
    batch, words = family_of("Concepts").collate(values, FORM), word_maps(values, FORM).words
    assert batch[2] is not None
    assert batch[2].tolist() == [[True, True, False], [True, False, False]]
    assert words.int().tolist() == [[[1, 0, 0], [1, 1, 0]], [[0, 0, 0], [0, 0, 0]]]
