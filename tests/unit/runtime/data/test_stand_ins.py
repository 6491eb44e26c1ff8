"""Stand-ins for fields that the data lacks: what each makes, that the choice is reported, and what a wrong one is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import BadSample, Requirement, calls_of, map_fields, open_source, with_stand_ins
from vlmdsl.runtime.data.stand_ins import STAND_INS, columns_of


def stand_in(name: str, *values: object) -> object:
    return STAND_INS[name].make(*values)


def test_texts_that_stand_in() -> None:
    assert stand_in("summarize", "A dog. It runs.") == "A dog."
    assert stand_in("template", ["red dog", "cat", "cat", None], "sun") == "a picture of red dog, cat and sun"
    assert stand_in("template", "sun") == "a picture of sun"
    for name, value in (("summarize", " "), ("template", []), ("hash", None)):
        with pytest.raises(BadSample):
            stand_in(name, value)


def test_equal_texts_share_a_class_that_every_process_agrees_on() -> None:
    assert stand_in("hash", "a dog ") == stand_in("hash", "a dog") != stand_in("hash", "a cat")
    assert stand_in("hash", "a dog") == 169595832081577


def test_a_grid_is_nine_regions_with_their_pixels_and_places() -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    image[:10, 40:] = 255
    grid = stand_in("grid", image)
    assert isinstance(grid, np.ndarray)
    assert (grid.shape, grid.dtype) == ((9, 8 * 8 * 3 + 4), np.float32)
    middles = grid[:, :192].reshape(9, 8, 8, 3)[:, 3:5, 3:5]
    assert [middle.mean() for middle in middles] == [-1, -1, 1, -1, -1, -1, -1, -1, -1]
    assert grid[2, 192:] == pytest.approx([2 / 3, 0, 1, 1 / 3])
    assert grid[3, 192:] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])


def test_boxes_are_regions_as_far_as_they_are_in_the_image() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:10, :10], image[30:, 30:] = 255, 51
    regions = stand_in("crops", image, [[0, 0, 10, 10], [30, 30, 60, 60], [5, 5, 5, 9]])
    assert isinstance(regions, np.ndarray)
    assert regions.shape == (2, 196)
    middles = regions[:, :192].reshape(2, 8, 8, 3)[:, 3:5, 3:5]
    assert [middle.mean() for middle in middles] == pytest.approx([1, -0.6])
    assert regions[:, 192:] == pytest.approx(np.array([[0, 0, 0.25, 0.25], [0.75, 0.75, 1, 1]]))
    for boxes in ([], None, [[1, 2, 3]], [[0, 0, 10**400, 5]], "boxes"):
        with pytest.raises(BadSample):
            stand_in("crops", image, boxes)


def test_a_blank_image_shows_nothing_but_its_size() -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    blank = stand_in("blank", image)
    assert isinstance(blank, np.ndarray)
    assert (blank.shape, blank.dtype, np.unique(blank).tolist()) == (image.shape, image.dtype, [128])


def test_a_stand_in_is_a_column_named_as_it_is_written() -> None:
    calls = calls_of({"summary": "summarize( text )", "text_rewrites": "tags, template(phrases,text)"})
    assert columns_of("tags, template(phrases,text)") == ("tags", "template(phrases,text)")
    source = with_stand_ins(open_source("shapes:samples=4"), [call for several in calls.values() for call in several])
    sample = source[1]
    assert source.columns[-2:] == ("summarize(text)", "template(phrases,text)")
    assert sample["summarize(text)"] == sample["text"]
    assert str(sample["template(phrases,text)"]).startswith("a picture of ")
    mapping = map_fields(
        source, [Requirement("summary", "Text"), Requirement("text", "Text")], {"summary": "summarize(text)"}
    )
    assert mapping.stand_ins == {"summary": ["summarize(text)"]}
    assert mapping.read("summary", "Text", sample).text == sample["text"]


@pytest.mark.parametrize(
    ("call", "help"),
    [
        ("sumarize(text)", "did you mean `summarize`?"),
        ("detect(image)", "there are `summarize(TEXT)`, `template(WORDS)`,"),
        ("crops(image)", "write `crops(IMAGE,BOXES)`"),
        ("grid(image,text)", "write `grid(IMAGE)`"),
        ("summarize()", "write `summarize(TEXT)`"),
    ],
)
def test_a_wrong_stand_in_is_answered_by_what_there_is(call: str, help: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        calls_of({"summary": call})
    (fault,) = caught.value.diagnostics
    assert fault.code == "V0827"
    assert fault.help[0].startswith(help)


def test_a_lacking_field_is_answered_by_what_can_stand_in_for_it(pairs: Callable[..., Path]) -> None:
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train("pyramidclip", data=[str(pairs(16))], map={"summary": "summarize(text)"}, steps=1)
    helps = {fault.message: fault.help for fault in caught.value.diagnostics}
    lacks = "the data has no column for the field"
    assert set(helps) == {"the data has no column `text`", f"{lacks} `regions`", f"{lacks} `attributes`"}
    assert any("`--map regions=grid(image)`" in line for line in helps[f"{lacks} `regions`"])
    assert any("`--map attributes=template(WORDS)`" in line for line in helps[f"{lacks} `attributes`"])


def test_images_in_files_stand_in_too(pairs: Callable[..., Path]) -> None:
    (call,) = calls_of({"regions": "grid(image)"})["regions"]
    source = with_stand_ins(open_source(str(pairs(2))), [call])
    assert np.asarray(source[0]["grid(image)"]).shape == (9, 196)
    assert source.folder_of(0) is None
    assert len(source) == 2
