"""Reference sets: what a column may be, and what the program then asks of the data."""

from __future__ import annotations

import pytest

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.api.explain import explain
from vlmdsl.ir import columns, streams
from vlmdsl.ir.inputs import inputs
from vlmdsl.runtime.data import requirements

HEADER = 'vlo 1\nrecipe mine(image: Image, text: Text, key: Key)\nencoder eye = frozen(separate(vision, name="eye"))\n'


def retrieving(column: str) -> str:
    return (
        f"{HEADER}let found = retrieve(eye(image), reference(eye(image), values={column}), without=key, k=2)\n"
        "minimize contrast(attend(image, keys=found[0], values=found[0]), text)\n"
    )


def test_a_column_is_an_encoder_and_a_field_and_no_stream_of_the_batch() -> None:
    program = build("ra_clip").planned
    assert [(column.name, column.field, column.kind) for column in columns(program)] == [
        ("image_reference_image", "image", "Image"),
        ("image_retriever", "image", "Image"),
        ("text_reference_text", "text", "Text"),
    ]
    assert [stream.name for stream in streams(program)] == ["image", "image_retriever", "text"]
    assert [port.name for port in inputs(program)] == ["image", "image_retriever", "text", "key"]


def test_the_data_needs_no_column_for_a_key() -> None:
    assert {need.field for need in requirements(build("ra_clip").planned)} == {"image", "text"}


def test_the_page_says_what_the_set_holds() -> None:
    assert "Reference set\n-------------\n  reference_image of image" in explain("ra_clip").to_text()


@pytest.mark.parametrize(
    "column",
    [
        "image",
        'separate(vision, name="eye")(image)',
        "eye(augment(image))",
        "ema(eye)(image)",
        "project(eye)(image)",
    ],
)
def test_only_locked_towers_on_fields_make_columns(column: str) -> None:
    faults = {fault.code for fault in vlmdsl.check(retrieving(column)) if fault.severity == "error"}
    assert faults == {"V0318"}


def test_a_shared_tower_may_make_a_column_of_either_kind() -> None:
    recipe = retrieving("frozen(shared(vision, language))(text)")
    assert ("text_shared", "Text") in {(column.name, column.kind) for column in columns(build(recipe).planned)}


def test_what_is_not_a_set_is_not_searched() -> None:
    recipe = HEADER + "let found = retrieve(eye(image), (image, text), without=key)\nminimize contrast(found[0], text)\n"
    assert "V0318" in [fault.code for fault in vlmdsl.check(recipe)]
