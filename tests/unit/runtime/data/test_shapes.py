"""The built-in scenes: reproducible, and what they say is what they show."""

from __future__ import annotations

import numpy as np
import pytest

from vlmdsl.runtime.data.shapes import CLASSES, COLOURS, SHAPES, USUAL_COLOURS, ShapesSource
from vlmdsl.runtime.data.shapes.captions import WRITERS, describe
from vlmdsl.runtime.data.shapes.drawing import _PAINTS
from vlmdsl.runtime.data.shapes.scenes import PLACES, Variety, scenes_of_split

_SYNONYMS = {"purple": "violet", "circle": "disc", "square": "box", "cross": "plus sign"}


def columns(source: ShapesSource, index: int) -> dict[str, object]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in source[index].items()}


def test_a_sample_is_a_function_of_seed_and_split_alone() -> None:
    few, many = ShapesSource(samples=8), ShapesSource(samples=40)
    backwards = [columns(many, index) for index in reversed(range(8))][::-1]
    assert backwards == [columns(few, index) for index in range(8)]
    assert columns(ShapesSource(samples=8, seed=1), 0)["image"] != columns(few, 0)["image"]
    assert columns(ShapesSource("val", samples=8), 0)["text"] != columns(few, 0)["text"]


def test_an_image_that_is_read_again_is_the_same_whatever_was_done_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmdsl.runtime.data.shapes.source._KEPT_BYTES", 2 * 3 * 32**2)
    source = ShapesSource(samples=4)
    first = [source[index]["image"].copy() for index in range(4)]
    for index in range(4):
        source[index]["image"][:] = 0
    assert [np.array_equal(source[index]["image"], image) for index, image in enumerate(first)] == [True] * 4
    assert len(source._images) == 2  # as many as there is room for


def test_every_column_is_listed_and_lists_are_complete() -> None:
    source = ShapesSource(samples=1)
    assert sorted(source[0]) == sorted(source.columns)
    assert source.class_names is not None
    assert len(source.class_names) == USUAL_COLOURS * len(SHAPES)


def test_splits_share_no_scene_whatever_the_seed() -> None:
    held_out = set(scenes_of_split(0, "val", Variety(), 400))
    assert len(held_out) == 400
    for seed in (0, 1):
        train = scenes_of_split(seed, "train", Variety(), 3000)
        assert len(set(train)) == 3000
        assert held_out.isdisjoint(train)


def test_used_up_scenes_come_again() -> None:
    scenes = scenes_of_split(0, "val", Variety(1), 200)
    assert 10 < len(set(scenes)) < 200
    every = {*scenes_of_split(0, "val", Variety(1), 1000), *scenes_of_split(0, "train", Variety(1), 5000)}
    assert len(every) == USUAL_COLOURS * len(SHAPES) * 2 * len(PLACES)


def test_repeated_scenes_are_drawn_and_described_again() -> None:
    source = ShapesSource(samples=40, scenes=20)
    pairs = [(columns(source, index), columns(source, index + 20)) for index in range(20)]
    assert all(first["caption"] == second["caption"] for first, second in pairs)
    assert all(first["image"] != second["image"] for first, second in pairs)
    assert sum(first["text"] != second["text"] for first, second in pairs) > 15


@pytest.mark.parametrize("writer", range(WRITERS))
def test_a_caption_identifies_its_scene(writer: int) -> None:
    scenes = scenes_of_split(0, "train", Variety(), 2000)
    assert len({describe(scene, writer).text for scene in scenes}) == len(scenes)


def test_noise_changes_texts_of_its_share_and_nothing_else() -> None:
    noisy, clean = ShapesSource(samples=600, noise=0.3), ShapesSource(samples=600)
    flags = [noisy[index]["flag"] for index in range(600)]
    assert 0.25 < np.mean(flags) < 0.35
    for index, flag in enumerate(flags):
        wrong, right = noisy[index], clean[index]
        assert all(wrong[name] == right[name] for name in ("caption", "text_ko", "label", "phrases"))
        if not flag:
            assert (wrong["text"], wrong["text_rewrites"]) == (right["text"], right["text_rewrites"])
        assert (wrong["text"] == wrong["clean_text"]) == (not flag)
    assert not any(ShapesSource("val", samples=50, noise=0.9)[index]["flag"] for index in range(50))


def test_held_out_scenes_are_not_described_in_noisy_texts() -> None:
    noisy = ShapesSource(samples=1500, objects=1, scenes=100, noise=1.0, single_template=True)
    texts = {str(noisy[index]["text"]) for index in range(1500)}
    assert len(texts) > 150
    assert texts.isdisjoint(describe(scene, 0).text for scene in scenes_of_split(0, "val", Variety(1), 60))


def test_single_template_gives_texts_one_phrasing_but_not_rewrites() -> None:
    source = ShapesSource(samples=100, single_template=True)
    texts = [str(source[index]["text"]) for index in range(100)]
    assert all(text.startswith(("a ", "an ")) and "violet" not in text and "disc" not in text for text in texts)
    rewrites = [rewrite for index in range(100) for rewrite in source[index]["text_rewrites"]]  # type: ignore[attr-defined]
    assert len(rewrites) == 500
    assert sum(rewrite.startswith("here we see") for rewrite in rewrites) > 30


@pytest.mark.parametrize("colours", [USUAL_COLOURS, len(COLOURS)])
def test_words_boxes_segments_and_pixels_agree(colours: int) -> None:
    source = ShapesSource(samples=60, size=64, colours=colours)
    shown_colours = set()
    for index in range(60):
        sample = source[index]
        image, segments, boxes = (np.asarray(sample[name]) for name in ("image", "segments", "boxes"))
        phrases = sample["phrases"]
        assert isinstance(phrases, list)
        assert segments.max() == len(phrases) == len(boxes)
        assert (
            Variety(colours=colours).classes("object")[int(str(sample["label"]))]
            == " ".join(phrases[0].split()[1:])
            == sample["class_name"]
        )
        for number, phrase in enumerate(phrases, start=1):
            _, colour, shape = phrase.split()
            text = str(sample["text"])
            shown_colours.add(colour)
            assert colour in text or _SYNONYMS.get(colour, colour) in text
            assert shape in text or _SYNONYMS[shape] in text
            rows, across = np.nonzero(segments == number)
            left, top, right, bottom = boxes[number - 1]
            assert left - 1 <= across.min() <= across.max() <= right + 1
            assert top - 1 <= rows.min() <= rows.max() <= bottom + 1
            shown = image[rows, across].astype(float).mean(0)
            assert COLOURS[int(np.abs(_PAINTS - shown).sum(1).argmin())] == colour
    assert shown_colours == set(COLOURS[:colours])


def test_the_label_tells_what_it_is_asked_to() -> None:
    sources = {name: ShapesSource(samples=40, label=name) for name in CLASSES}
    for index in range(40):
        sample = {name: source[index] for name, source in sources.items()}
        phrases = sample["object"]["phrases"]
        assert isinstance(phrases, list)
        _, colour, shape = phrases[0].split()
        names = {name: Variety().classes(name)[int(str(one["label"]))] for name, one in sample.items()}
        assert names == {name: one["class_name"] for name, one in sample.items()}
        count = ("one object", "two objects", "three objects")[len(phrases) - 1]
        assert names == {"object": f"{colour} {shape}", "colour": colour, "shape": shape, "count": count}
        assert (sample["object"]["image"] == sample["count"]["image"]).all()  # type: ignore[attr-defined]
    assert {name: source.class_names for name, source in sources.items()} == {
        name: Variety().classes(name) for name in CLASSES
    }


def test_the_main_object_stands_where_the_caption_says() -> None:
    source = ShapesSource(samples=200)
    scenes = enumerate(scenes_of_split(0, "train", Variety(), 200))
    two = [(index, scene) for index, scene in scenes if len(scene.things) == 2]
    assert len(two) > 50
    for index, scene in two:
        main, other = np.asarray(source[index]["boxes"])
        (x, y), (u, v) = main[:2] + main[2:], other[:2] + other[2:]
        assert {"left": x < u, "right": x > u, "above": y < v, "below": y > v}[scene.arrangement]


def test_a_larger_size_shows_the_same_picture() -> None:
    small, large = ShapesSource(samples=5, size=32), ShapesSource(samples=5, size=96)
    for index in range(5):
        np.testing.assert_allclose(np.asarray(large[index]["boxes"]), 3 * np.asarray(small[index]["boxes"]), rtol=1e-5)
        reduced = np.asarray(large[index]["image"]).reshape(32, 3, 32, 3, 3).mean((1, 3))
        assert np.abs(reduced - np.asarray(small[index]["image"])).mean() < 8


def test_scenes_of_sixteen_colours_have_twice_as_many_names() -> None:
    source = ShapesSource(samples=400, equal_sizes=True, distinct=True, colours=16)
    phrases = {str(name) for index in range(400) for name in source[index]["phrases"]}  # type: ignore[attr-defined]
    assert len(phrases) == 64
    assert source.class_names is not None
    assert phrases == set(source.class_names)
    assert np.asarray(source[0]["regions"]).shape[1] == 25
    changed = {str(source[index]["wrong_caption"]) for index in range(200)}
    assert any(colour in text for text in changed for colour in COLOURS[8:])
