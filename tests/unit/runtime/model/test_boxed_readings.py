"""Boxes are places in one image, read by its size, in what the tower sees of it that they are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import FieldMapping, plain_fields, values_of_step
from vlmdsl.runtime.data.sample import SampleReader
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer
from vlmdsl.runtime.values import ImageFormat


class OneSample:
    """A source of one sample."""

    name, keys = "one", ("one",)

    def __init__(self, columns: Mapping[str, object]) -> None:
        self.columns: Sequence[str] = tuple(columns)
        self.sample = columns

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Mapping[str, object]:
        return self.sample

    def folder_of(self, index: int) -> str | None:
        return None


def vision(*yields: str) -> VisionTransformer:
    return VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, yields)


def language() -> TextTransformer:
    shape = TextConfig(width=16, depth=1, heads=2, vocabulary_size=30, text_length=9)
    return TextTransformer(shape, 8, ("pooled", "tokens"))


BOXED = """recipe named(image: Image, page: Image, text: Text, phrases: Phrases, boxes: Boxes)
encoder eye = separate(vision, name="eye")
let words = language(text_of(phrases))
let named = alignment(regions(PATCHES, boxes), words)
minimize focal(named, word_map(words, boxes)) + contrast(image, text)
"""


def test_boxes_are_in_the_image_that_they_are_compared_with() -> None:
    """Whatever else is read before it, and in what its tower sees of it."""
    towers = {"vision": vision("pooled"), "language": language(), "eye": vision("tokens")}
    towers["eye"].image_format = ImageFormat(8, patch=4, fitting="squash")
    objective = vlmdsl.compile(BOXED.replace("PATCHES", "eye(page)"), compiled=False)
    model = VisionLanguageModel(towers, objective)
    loaded = values_of_step(model.readings, plain_fields(objective.program), boxes=model.boxed_readings())
    assert (loaded["boxes"].image, loaded["boxes"].form) == ("page", towers["eye"].image_format)
    sizes = {"image": (8, 8), "page": (40, 20)}
    sample = {name: np.zeros((*size[::-1], 3), np.uint8) for name, size in sizes.items()}
    source = OneSample({**sample, "text": "a", "phrases": ["a"], "boxes": [[10.0, 0.0, 40.0, 20.0]]})
    columns = {name: (name,) for name in ("image", "page", "text", "phrases", "boxes")}
    values = {name: loaded[name] for name in ("boxes", "page")}
    value = SampleReader(source, FieldMapping(columns), values | {"image": loaded["image"]}).read(0, 0, Counter())
    assert value.values["boxes"].shares(loaded["boxes"].form).tolist() == [[0.25, 0, 1, 1]]


def test_towers_that_see_other_parts_of_an_image_have_no_boxes_in_common() -> None:
    towers = {"vision": vision("pooled", "tokens"), "language": language(), "eye": vision("tokens")}
    both = BOXED.replace("named, word", "named + alignment(regions(image, boxes), words), word").replace(
        "PATCHES", "eye(image)"
    )
    objective = vlmdsl.compile(both, compiled=False)
    assert VisionLanguageModel(towers, objective).boxed_readings() == {"boxes": "image"}
    towers["eye"].image_format = ImageFormat(8, patch=4, fitting="squash")
    with pytest.raises(DiagnosticError, match="sees another part of an image than"):
        VisionLanguageModel(towers, objective).boxed_readings()
