"""The annotations of built-in scenes: spans, objects, hard negatives, Korean rewrites; and plainer scenes."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data.shapes import COLOURS, SHAPES, WRONG_KINDS, Scene, ShapesSource, Thing
from vlmdsl.runtime.data.shapes.captions import WRITERS, coarse, describe
from vlmdsl.runtime.data.shapes.korean import KOREAN_FRAMES, korean
from vlmdsl.runtime.data.shapes.negatives import hard_negative
from vlmdsl.runtime.data.shapes.scenes import PLACES, Variety, scenes_of_split
from vlmdsl.runtime.data.specification import held_out, open_source
from vlmdsl.runtime.draws import generator

FIRST_COLUMNS = (
    "image", "text", "clean_text", "text_rewrites", "caption", "text_ko", "label", "class_name", "boxes", "phrases",
    "regions", "segments", "source", "flag",
)  # fmt: skip
TEXTS = ("text", "clean_text", "caption", "text_ko")


def sample(source: ShapesSource, index: int) -> Mapping[str, Any]:
    return source[index]


@pytest.mark.parametrize(
    ("split", "options", "digest"),
    [
        ("train", {}, "ff8f3047beb09a5e"),
        ("val", {}, "dccf82961ba06927"),
        (
            "train",
            {"noise": 0.5, "single_template": True, "label": "count", "seed": 3, "size": 48, "objects": 2},
            "3d688274159668c2",
        ),
        ("train", {"objects": 1, "noise": 0.3}, "d078b286a8f29d4d"),
    ],
    ids=["train", "val", "noisy", "lone"],
)
def test_what_samples_were_they_stay(split: Any, options: dict[str, Any], digest: str) -> None:
    state = hashlib.blake2b(digest_size=8)
    source = ShapesSource(split, samples=60, **options)
    for index in range(60):
        for value in (source[index][column] for column in FIRST_COLUMNS):
            state.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    assert state.hexdigest() == digest


def test_spans_are_where_a_text_names_each_object() -> None:
    source = ShapesSource(samples=150)
    for index in range(150):
        one = sample(source, index)
        for column in TEXTS:
            assert len(one[f"{column}_spans"]) == len(one["boxes"])
        named = [one["caption"][first:last] for first, last in one["caption_spans"]]
        assert named == [f"{words['colour']} {words['shape']}" for words in one["objects"]]
        named = [one["text_ko"][first:last] for first, last in one["text_ko_spans"]]
        assert named == [" ".join(words.values()) for words in one["objects_ko"]]
        for words, (first, last) in zip(one["objects"], one["text_spans"], strict=True):
            name = one["text"][first:last].replace("violet", "purple").replace("disc", "circle")
            name = name.replace("box", "square").replace("plus sign", "cross")
            assert name.endswith(f"{words['colour']} {words['shape']}")
            assert len(name.split()) <= 3


def test_a_text_that_does_not_fit_has_spans_for_the_objects_that_it_gets_right() -> None:
    source = ShapesSource(samples=200, noise=1.0, single_template=True)
    empty = Counter[bool]()
    for index in range(200):
        one = sample(source, index)
        for phrase, (first, last) in zip(one["phrases"], one["text_spans"], strict=True):
            empty[first == last] += 1
            assert first == last or one["text"][first:last] in phrase
        assert all(first < last for first, last in one["clean_text_spans"])
    assert min(empty[True], empty[False]) > 30


def test_knowledge_defines_the_shape_of_the_main_object() -> None:
    source = ShapesSource(samples=20, noise=0.5)
    for index in range(20):
        one = sample(source, index)
        text, _, definition = one["knowledge"].partition(" ; ")
        assert text == one["clean_text"]
        assert definition.startswith(f"{one['objects'][0]['shape']} , ")


def test_objects_are_the_words_of_phrases() -> None:
    for equal_sizes in (False, True):
        source = ShapesSource(samples=20, equal_sizes=equal_sizes)
        for index in range(20):
            one = sample(source, index)
            assert [" ".join(words.values()) for words in one["objects"]] == one["phrases"]
            assert all(("size" in words) == (not equal_sizes) for words in one["objects"] + one["objects_ko"])
            assert one["arrangement"] in (*PLACES, "above", "below", "horizontal", "vertical")


def test_a_hard_negative_changes_the_one_thing_that_it_names() -> None:
    source = ShapesSource(samples=300, single_template=True)
    kinds = Counter[str]()
    for index in range(300):
        one = sample(source, index)
        kinds[one["wrong_text_kind"]] += 1
        right, wrong = one["text"].split(), one["wrong_text"].split()
        assert right != wrong
        changed = [pair for pair in itertools.zip_longest(right, wrong) if pair[0] != pair[1] and pair != ("a", "an")]
        changed = [pair for pair in changed if pair != ("an", "a")]
        if one["wrong_text_kind"] in ("colour", "shape", "size"):
            words = {"colour": COLOURS, "shape": SHAPES, "size": ("large", "small")}[one["wrong_text_kind"]]
            assert len(changed) == 1
            assert all(word in words for word in changed[0])
        elif one["wrong_text_kind"] == "binding":
            assert [pair[::-1] for pair in changed] == changed[::-1]
            assert all(word in COLOURS for pair in changed for word in pair)
        else:
            assert [word for word in right if word in COLOURS + SHAPES] == [
                word for word in wrong if word in COLOURS + SHAPES
            ]
        named, misnamed = (sorted(re.split(", | and ", one[column])) for column in ("caption", "wrong_caption"))
        assert 0 < (Counter(misnamed) - Counter(named)).total() <= 2
        assert one["wrong_caption_kind"] in ("colour", "shape", "binding")
    assert set(kinds) == set(WRONG_KINDS)
    assert min(kinds.values()) > 5  # plain texts state a size only of a lone object


def test_a_hard_negative_never_fits_and_describes_no_held_out_scene() -> None:
    things = itertools.starmap(Thing, itertools.product(range(len(COLOURS)), range(len(SHAPES)), (False, True, None)))
    for scene in (Scene((thing,), place) for thing in things for place in PLACES[:2]):
        text, _ = hard_negative(scene, lambda other: coarse(other).text, generator(0), held_out=False)
        assert text != coarse(scene).text
    held = {describe(scene, 0).text for scene in scenes_of_split(0, "val", Variety(1), 60)}
    for scene in scenes_of_split(0, "train", Variety(1), 300):
        assert hard_negative(scene, lambda other: describe(other, 0).text, generator(1), held_out=False)[0] not in held
    twins = Scene((Thing(0, 0, None), Thing(0, 0, None)), "left")
    drawn = {
        hard_negative(twins, lambda other: describe(other, 0).text, generator(seed), held_out=True)[1] for seed in range(40)
    }
    assert drawn == {"colour", "shape"}


def test_korean_rewrites_say_the_same_in_five_other_ways() -> None:
    source = ShapesSource(samples=100)
    for index in range(100):
        one = sample(source, index)
        assert len({one["text_ko"], *one["text_ko_rewrites"]}) == 6
        places = [word for word in ("왼쪽", "오른쪽", "가운데", "아래") if word in one["text_ko"]]
        assert all(place in rewrite for place in places for rewrite in one["text_ko_rewrites"])
    assert korean(Scene((Thing(0, 0, True),), "middle"), 2).text == "가운데에 있는 큰 빨간색 원이 있는 그림"
    assert korean(Scene((Thing(0, 3, False),), "top"), 4).text == "여기에 위쪽에 있는 작은 빨간색 십자가가 보입니다"
    scenes = scenes_of_split(0, "train", Variety(), 500)
    for writer in range(len(KOREAN_FRAMES)):
        assert len({korean(scene, writer).text for scene in scenes}) == len(scenes)


def test_with_equal_sizes_nothing_tells_the_size() -> None:
    source = ShapesSource(samples=200, equal_sizes=True, size=64)
    areas: dict[tuple[int, str], list[float]] = {}
    for index in range(200):
        one = sample(source, index)
        for column in ("text", "text_ko", *one["phrases"]):
            words = str(one.get(column, column)).split()
            assert not {"large", "big", "huge", "small", "little", "tiny", "큰", "작은"} & set(words)
        for words, (left, top, right, bottom) in zip(one["objects"], one["boxes"], strict=True):
            areas.setdefault((len(one["boxes"]), words["shape"]), []).append((right - left) * (bottom - top))
        assert not np.asarray(one["regions"])[:, 12].any()
    assert all(max(sizes) < 2.2 * min(sizes) for sizes in areas.values())
    scenes = scenes_of_split(0, "train", Variety(equal_sizes=True), 1500)
    assert len({describe(scene, writer).text for scene in scenes for writer in range(2)}) == 2 * len(scenes)
    assert {scene.arrangement for scene in scenes if len(scene.things) == 2} == {"left", "above"}
    assert WRITERS > 2


def test_the_split_of_several_objects_does_not_depend_on_their_sizes() -> None:
    for scene in scenes_of_split(0, "val", Variety(equal_sizes=True), 100):
        if len(scene.things) == 2:
            turned = Scene(scene.things[::-1], {"left": "right", "above": "below"}[scene.arrangement])
            sized = Scene(
                tuple(Thing(one.colour, one.shape, not n) for n, one in enumerate(scene.things)), scene.arrangement
            )
            assert (turned.held_out, sized.held_out) == (True, True)


def test_distinct_scenes_name_no_two_objects_alike() -> None:
    for equal_sizes in (False, True):
        plain, distinct = (ShapesSource(samples=1500, equal_sizes=equal_sizes, distinct=one) for one in (False, True))
        repeated = [
            len(set(source[i]["phrases"])) < len(source[i]["phrases"]) for source in (plain, distinct) for i in range(1500)
        ]  # type: ignore[arg-type,call-overload]
        assert sum(repeated[:1500]) > 5
        assert not any(repeated[1500:])


def test_scenes_may_have_several_objects_at_least() -> None:
    counts = [
        {len(source[i]["objects"]) for i in range(60)}  # type: ignore[arg-type]
        for source in (
            ShapesSource(samples=60, fewest=2),
            ShapesSource(samples=60, objects=2, fewest=2),
            ShapesSource(samples=60, objects=2, fewest=3),
        )
    ]
    assert counts == [{2, 3}, {2}, {2}]


def test_a_plain_ground_has_one_colour_in_all_images() -> None:
    plain, grainy = ShapesSource(samples=10, plain_ground=True), ShapesSource(samples=10)
    grounds = set()
    for index in range(10):
        pixels = np.asarray(plain[index]["image"])
        near = np.asarray(plain[index]["segments"]) == 0
        colours, counts = np.unique(pixels[near], axis=0, return_counts=True)
        grounds.add(tuple(colours[counts.argmax()].tolist()))
        assert counts.max() > 0.8 * near.sum()
        assert np.array_equal(plain[index]["boxes"], grainy[index]["boxes"])  # type: ignore[arg-type]
        assert plain[index]["text"] == grainy[index]["text"]
    assert len(grounds) == 1


def test_options_are_read_and_kept_for_the_held_out_split() -> None:
    spec = "shapes:samples=9,fewest=2,equal_sizes=true,distinct=true,plain_ground=true"
    assert held_out(spec) == ["shapes:fewest=2,equal_sizes=true,distinct=true,plain_ground=true"]
    assert "size" not in open_source(spec)[0]["objects"][0]  # type: ignore[index]
    with pytest.raises(DiagnosticError) as failure:
        open_source("shapes:distinct=2")
    assert failure.value.diagnostics[0].code == "V0808"
