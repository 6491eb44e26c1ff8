"""Towers of a recipe's own: what they encode, under which names, and what they refuse."""

from __future__ import annotations

import pytest

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.ir import Program, readings, source_names, streams
from vlmdsl.planning import schedule_of

HEADER = "vlo 1\nrecipe mine(image: Image, text: Text)\n"
ONE = HEADER + "encoder one = shared(vision, language)\n"


def planned(recipe: str) -> Program:
    return build(recipe).planned


def values_of_calls(program: Program) -> list[list[str]]:
    """The names of the sources that each call of a module takes."""
    names = source_names(stream.source for stream in streams(program))
    return [[names[output.source] for output in call.outputs] for call in schedule_of(program).calls]


def codes(recipe: str) -> list[str]:
    return [fault.code for fault in vlmdsl.check(recipe) if fault.severity == "error"]


def test_a_shared_tower_encodes_images_texts_and_both_joined_each_kind_in_one_call() -> None:
    program = planned(
        ONE + "let views = augment(image, n=2)\n"
        "minimize contrast(one(views), one(text)) + contrast(one(join(image, text)), one(text))\n"
    )
    encoded = streams(program)
    assert {stream.encoder.tower for stream in encoded} == {"shared"}
    assert values_of_calls(program) == [
        ["image_augment_crop_0", "image_augment_crop_1"], ["text"], ["image_text"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "calls"),
    [
        ("multi_crop(image, n=2, small=2, small_side=50%)", [(2, 1.0, ()), (2, 0.5, ())]),
        ("drop(image, share=50%)", [(1, 1.0, (0.5,))]),
        ("each((image, drop(image, share=50%), drop(augment(image), share=50%)))", [(1, 1.0, ()), (2, 1.0, (0.5,))]),
        ("augment(image, n=3)", [(3, 1.0, ())]),
    ],
)
def test_images_of_another_side_or_with_fewer_patches_are_calls_of_their_own(
    images: str, calls: list[tuple[int, float, tuple[float, ...]]]
) -> None:
    program = planned(HEADER + f"minimize contrast({images}, text)\n")
    vision = [call for call in schedule_of(program).calls if call.use.module.name == "vision"]
    assert [(len(call.values), call.mode.side, call.mode.dropped) for call in vision] == calls


def test_a_batch_holds_the_halves_of_a_joined_stream_once() -> None:
    values = readings(streams(planned("oner")))
    assert [reading.name for reading in values] == ["image", "text"]
    alone = readings(streams(planned(ONE + "minimize contrast(one(join(image, text)), one(text))\n")))
    assert {reading.name: reading.source.operation for reading in alone} == {"text": "field", "image": "field"}


def test_equal_calls_make_the_same_tower_and_names_tell_towers_apart() -> None:
    same = planned(HEADER + "minimize contrast(shared(vision, language)(image), shared(vision, language)(text))\n")
    assert len({stream.encoder for stream in streams(same)}) == 1
    two = planned(HEADER + 'minimize contrast(shared(vision, language)(image), shared(vision, language, name="b")(text))\n')
    assert {stream.encoder.tower for stream in streams(two)} == {"shared", "b"}


def test_a_shared_tower_may_take_the_place_of_both_defaults() -> None:
    recipe = HEADER + "encoder vision = shared(vision, language)\nminimize contrast(join(image, text), text)\n"
    assert {stream.encoder.tower for stream in streams(planned(recipe))} == {"shared"}


def test_a_blended_pair_is_a_call_of_its_own_on_the_halves_that_a_joined_one_reads() -> None:
    program = planned("oner")
    assert values_of_calls(program) == [["image"], ["text"], ["image_text"], ["image_text_blend"]]
    alone = planned(ONE + "let both = one(blend(image, text, by=0.3))\nminimize contrast(both, both)\n")
    assert [stream.name for stream in streams(alone)] == ["image_text_blend_shared"]


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        (HEADER + "minimize contrast(vision(blend(image, text, by=0.3)), text)\n", "V0310"),
        (HEADER + "minimize contrast(blend(image, text, by=0.3), text)\n", "V0312"),
        (ONE + "minimize contrast(one(blend(image, text, by=learned(0.3))), one(text))\n", "V0301"),
        (ONE + "minimize contrast(one(blend(text, image, by=0.3)), one(text))\n", "V0301"),
        (ONE + "minimize contrast(one(blend(image, text)), one(text))\n", "V0402"),
        (HEADER + "minimize contrast(vision(join(image, text)), text)\n", "V0310"),
        (HEADER + "minimize contrast(join(image, text), text)\n", "V0312"),
        (HEADER + "minimize contrast(shared(language, vision)(image), text)\n", "V0301"),
        (HEADER + "minimize contrast(shared(frozen(vision), language)(image), text)\n", "V0301"),
        (HEADER + "minimize contrast(vision(image), join(text, image))\n", "V0301"),
    ],
)
def test_what_does_not_fit_is_reported(recipe: str, code: str) -> None:
    assert code in codes(recipe)
