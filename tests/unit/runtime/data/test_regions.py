"""Regions of an image: what a column may hold, how many numbers describe one, and how a batch pads them."""

from __future__ import annotations

import numpy as np
import pytest

from vlmdsl.runtime.data import BadSample, Requirement, map_fields
from vlmdsl.runtime.data.shapes import ShapesSource
from vlmdsl.runtime.data.shapes.scenes import COLOURS, USUAL_COLOURS
from vlmdsl.runtime.values import family_of
from vlmdsl.runtime.values.regions import regions_value


class Listed:
    """A source of regions."""

    def __init__(self, *regions: object) -> None:
        self.name, self.columns, self.class_names = "listed", ("regions",), None
        self.keys = [str(index) for index in range(len(regions))]
        self._regions = regions

    def __len__(self) -> int:
        return len(self._regions)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"regions": self._regions[index]}

    def folder_of(self, index: int) -> str | None:
        return None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing regions"),
        ([], "regions are not equally long lists of numbers"),
        ([1.0, 2.0], "regions are not equally long lists of numbers"),
        ([[1.0], [1.0, 2.0]], "regions are not equally long lists of numbers"),
        ([["a"]], "regions are not equally long lists of numbers"),
        ([[float("nan"), 1.0]], "regions are not equally long lists of numbers"),
        ([[1.0, 2.0, 3.0]], "regions of 3 numbers, not 2"),
    ],
)
def test_bad_regions_are_named(value: object, reason: str) -> None:
    with pytest.raises(BadSample, match=f"^{reason}$"):
        regions_value("regions", value, length=2)


def test_most_samples_say_how_many_numbers_describe_a_region() -> None:
    source = Listed([[1, 2]], None, [[1, 2, 3], [4, 5, 6]], [[7, 8, 9]])
    mapping = map_fields(source, [Requirement("regions", "Regions")])
    assert mapping.facts == {"regions": 3}
    assert mapping.read("regions", "Regions", source[2]).tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(BadSample, match="of 2 numbers, not 3"):
        mapping.read("regions", "Regions", source[0])


def test_a_batch_is_padded_behind_each_samples_own_regions() -> None:
    samples = [np.ones((1, 2), np.float32), np.full((3, 2), 2, np.float32)]
    values, mask = family_of("Regions").collate(samples, None)
    assert values[:, :, 0].tolist() == [[1, 0, 0], [2, 2, 2]]
    assert mask.tolist() == [[True, False, False], [True, True, True]]


def test_scenes_have_a_region_for_each_box() -> None:
    source = ShapesSource(samples=20, size=64)
    for index in range(20):
        sample = source[index]
        regions, boxes, phrases = sample["regions"], sample["boxes"], sample["phrases"]
        assert isinstance(regions, np.ndarray)
        np.testing.assert_allclose(regions[:, -4:] * 64, boxes, rtol=1e-6)
        for region, phrase in zip(regions, phrases, strict=True):
            assert COLOURS[int(region[:USUAL_COLOURS].argmax())] in phrase
            assert ("large" in phrase) == bool(region[12])
