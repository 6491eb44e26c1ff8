"""Segments of images: what a column may hold, and that patches have those of the part of the image that a view shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import readings, streams
from vlmdsl.runtime.data import BatchLoader, View, map_fields, open_source, requirements
from vlmdsl.runtime.data.context import ViewContext
from vlmdsl.runtime.data.stand_ins import STAND_INS, Call, with_stand_ins
from vlmdsl.runtime.values import BadSample, FieldColumns, ImageFormat, SampleColumns, patch_segments
from vlmdsl.runtime.values.segments import SegmentFamily

FIELD = FieldColumns("segments", ("segments",))
FORM = ImageFormat(32, patch=4)


@pytest.mark.parametrize(
    "value", [None, 3, "words", [1, 2], [[1, 2], [3]], [[0.5, 1.0]], [[-1, 0]], [[2**31, 0]], np.zeros((0, 4), dtype=int)]
)
def test_other_columns_are_bad_samples(value: object) -> None:
    with pytest.raises(BadSample):
        SegmentFamily().read(SampleColumns({"segments": value}), FIELD)


def test_lists_and_arrays_are_read() -> None:
    for value in ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]], dtype=np.uint8)):
        assert SegmentFamily().read(SampleColumns({"segments": value}), FIELD).tolist() == [[1, 2], [3, 4]]


def quarters(side: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of four grey levels, one for each quarter, and the number of the quarter of each pixel."""
    half = np.arange(side) >= side // 2
    numbers = 2 * half[:, None] + half[None, :]
    return np.repeat((60 * numbers[:, :, None]).astype(np.uint8), 3, axis=2), numbers.astype(np.int64)


CROP: tuple[Any, ...] = ("crop", (("draw", 1), ("largest", 0.6), ("smallest", 0.3)))
MIRRORED: tuple[Any, ...] = ("augment", (("draw", 2), ("pipeline", "mae"), ("view", 0)))


@pytest.mark.parametrize("resolution", [1, 2])
@pytest.mark.parametrize("steps", [(), (CROP,), (MIRRORED,), (MIRRORED, CROP)])
def test_patches_have_the_segments_that_the_view_shows(steps: tuple[Any, ...], resolution: int) -> None:
    """A patch of one grey level is in the segment of that level; the map may be finer than the image."""
    image, _ = quarters(48)
    _, numbers = quarters(48 * resolution)
    view, seen = View("image", "Image", steps), 0
    for sample in range(20):
        context = ViewContext(0, 0, str(sample), FORM, Counter())
        shown = view.apply(image, context)
        segments = view.segments(image, numbers, ViewContext(0, 0, str(sample), FORM, Counter()))
        assert segments.shape == (64,)
        patches = shown[:, :, 0].reshape(8, 4, 8, 4).transpose(0, 2, 1, 3).reshape(64, 16)
        plain = np.ptp(patches, axis=1) == 0
        assert (segments[plain] == patches[plain, 0] // 60).all()
        seen += int(plain.sum())
    assert seen > 500


def test_the_part_of_a_wide_image_that_is_shown_without_a_view() -> None:
    """The middle, as `fit` crops it."""
    columns = np.repeat(np.arange(96)[None, :], 32, axis=0)
    image = np.zeros((32, 96, 3), dtype=np.uint8)
    segments = View("image", "Image").segments(image, columns, ViewContext(0, 0, "", FORM))
    assert segments.reshape(8, 8)[0].tolist() == [int(np.mean(range(32 + 4 * patch, 36 + 4 * patch))) for patch in range(8)]


def test_a_patch_of_several_segments_has_the_truncated_mean() -> None:
    assert patch_segments(np.array([[1, 1, 7, 7], [1, 2, 7, 7], [0, 0, 9, 0], [0, 0, 9, 1]]), 2).tolist() == [1, 7, 0, 4]


def batches_with_segments(column: str, **options: Any) -> BatchLoader:
    source = with_stand_ins(open_source("shapes:samples=8"), [Call("superpixels", ("image",))])
    recipe = "recipe one(image: Image, segments: Segments, text: Text)\nlet groups = assignment(crop(image))\n"
    recipe += "minimize contrast(image, text) + assignment_divergence(groups, segment_mean(groups, segments))"
    program = vlmdsl.compile(recipe, compiled=False).program
    mapping = map_fields(source, requirements(program), {"segments": column})
    taken = [reading for reading in readings(streams(program), lambda encoder, node: FORM) if "crop" in reading.name]
    return BatchLoader(source, mapping, taken, batch=4, segments={"image_crop": "segments"}, **options)


def test_a_batch_holds_them_beside_the_image_and_superpixels_stand_in_for_them() -> None:
    pytest.importorskip("skimage")
    held: dict[str, Any] = {}
    for column in ("segments", "superpixels(image)"):
        batch = next(iter(batches_with_segments(column)))
        held[column] = batch.values["image_crop.segments"].numbers
        assert held[column].shape == (4, 64)
    assert held["segments"].max() <= 3
    assert not np.array_equal(*held.values())


def test_superpixels_of_a_sample_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def halves(image: np.ndarray) -> np.ndarray:
        calls.append(1)
        return np.repeat(70_000 * (np.arange(32)[None, :] >= 16), 32, axis=0)

    monkeypatch.setitem(STAND_INS, "superpixels", replace(STAND_INS["superpixels"], make=halves))
    for options, times in (({}, 8), ({"cache_bytes": 0}, 16)):
        calls.clear()
        numbers = [
            batch.values["image_crop.segments"].numbers
            for batch in islice(batches_with_segments("superpixels(image)", **options), 4)
        ]
        assert len(calls) == times
        assert all(own.dtype == torch.int64 and own.max() == 70_000 for own in numbers)


def test_without_scikit_image_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage.segmentation", None)
    source = with_stand_ins(open_source("shapes:samples=1"), [Call("superpixels", ("image",))])
    with pytest.raises(DiagnosticError) as caught:
        source[0]["superpixels(image)"]
    assert caught.value.diagnostics[0].code == "V0901"
    assert "vlmdsl[superpixels]" in str(caught.value.diagnostics[0].help)
