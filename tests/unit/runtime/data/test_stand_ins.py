"""Stand-ins for fields that the data lacks: what each makes, that it is chosen and told, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import BadSample, Requirement, calls_of, map_fields, open_source, with_stand_ins
from vlmdsl.runtime.data.stand_ins import STAND_INS, columns_of


def made(name: str, *values: object) -> object:
    return STAND_INS[name].make(*values)


def test_texts_that_stand_in() -> None:
    assert made("summarize", "A dog. It runs.") == "A dog."
    assert made("template", ["red dog", "cat", "cat", None], "sun") == "a picture of red dog, cat and sun"
    assert made("template", "sun") == "a picture of sun"
    for name, value in (("summarize", " "), ("template", []), ("hash", None)):
        with pytest.raises(BadSample):
            made(name, value)


def test_equal_texts_share_a_class_that_every_process_agrees_on() -> None:
    assert made("hash", "a dog ") == made("hash", "a dog") != made("hash", "a cat")
    assert made("hash", "a dog") == 169595832081577


def test_a_grid_shows_the_corners_of_an_image() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:20, :20], image[20:, 20:] = 100, 200
    grid = made("grid", image)
    assert isinstance(grid, np.ndarray)
    assert grid.shape == (40, 40, 3)
    assert [int(grid[row, column, 0]) for row in (2, 37) for column in (2, 37)] == [100, 0, 0, 200]
    # A corner takes 60 % of each side, so the middle is seen four times.
    assert int(grid[18, 18, 0]) == 0 or int(grid[18, 18, 0]) == 200


def test_boxes_are_cut_out_and_put_side_by_side() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:10, :10], image[30:, 30:] = 100, 200
    one = made("crops", image, [[0, 0, 10, 10]])
    assert isinstance(one, np.ndarray)
    assert (one == 100).all()
    two = made("crops", image, [[0, 0, 10, 10], [30, 30, 60, 60], [5, 5, 5, 9]])
    assert isinstance(two, np.ndarray)
    assert [int(two[row, column, 0]) for row in (5, 30) for column in (5, 30)] == [100, 200, 255, 255]
    for boxes in ([], None, [[1, 2, 3]], "boxes"):
        with pytest.raises(BadSample):
            made("crops", image, boxes)


def test_a_stand_in_is_a_column_named_as_it_is_written() -> None:
    calls = calls_of({"summary": "summarize( text )", "text_rewrites": "tags, template(phrases,text)"})
    assert columns_of("tags, template(phrases,text)") == ("tags", "template(phrases,text)")
    source = with_stand_ins(open_source("shapes:samples=4"), [call for found in calls.values() for call in found])
    sample = source[1]
    assert source.columns[-2:] == ("summarize(text)", "template(phrases,text)")
    assert sample["summarize(text)"] == sample["text"]
    assert str(sample["template(phrases,text)"]).startswith("a picture of ")
    mapping = map_fields(
        source, [Requirement("summary", "Text"), Requirement("text", "Text")], {"summary": "summarize(text)"}
    )
    assert mapping.stand_ins == {"summary": ["summarize(text)"]}
    assert mapping.text("summary", sample).text == sample["text"]


@pytest.mark.parametrize(
    ("given", "help"),
    [
        ("sumarize(text)", "did you mean `summarize`?"),
        ("detect(image)", "there are `summarize(TEXT)`, `template(WORDS)`,"),
        ("crops(image)", "write `crops(IMAGE,BOXES)`"),
        ("grid(image,text)", "write `grid(IMAGE)`"),
        ("summarize()", "write `summarize(TEXT)`"),
    ],
)
def test_a_wrong_stand_in_is_told_what_there_is(given: str, help: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        calls_of({"summary": given})
    (fault,) = caught.value.diagnostics
    assert fault.code == "V0827"
    assert fault.help[0].startswith(help)


def test_a_lacking_field_is_told_what_can_stand_in_for_it() -> None:
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train(
            "pyramidclip", data=["shapes:samples=16"], map={"summary": "summarize(txt)"}, steps=1
        )
    faults = {fault.message: fault.help for fault in caught.value.diagnostics}
    assert set(faults) == {
        "the data has no column `txt`",
        "the data has no column for the field `regions`",
        "the data has no column for the field `attributes`",
    }
    regions = faults["the data has no column for the field `regions`"]
    assert any("`--map regions=grid(IMAGE)`" in line for line in regions)
    assert any(
        "`--map attributes=template(WORDS)`" in line for line in faults["the data has no column for the field `attributes`"]
    )


def test_images_in_files_stand_in_too(pairs: Callable[..., Path]) -> None:
    (call,) = calls_of({"regions": "grid(image)"})["regions"]
    source = with_stand_ins(open_source(str(pairs(2))), [call])
    assert np.asarray(source[0]["grid(image)"]).shape == (8, 8, 3)
    assert source.folder_of(0) is None
    assert len(source) == 2
