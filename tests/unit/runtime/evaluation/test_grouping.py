"""How well groups of patches are the objects of images: the overlap, its baselines, and a run that measures it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vlmdsl
from vlmdsl.runtime.evaluation import best_group_overlap, drawn_towers, group_overlap, grouping_tower
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import build_encoder
from vlmdsl.runtime.values import Batch, ImageBatch, PatchSegments


def test_no_group_is_that_of_two_objects() -> None:
    segments = np.array([[1, 1, 2, 2], [0, 0, 0, 0]])
    together, apart = np.array([[7, 7, 7, 7], [3, 3, 3, 3]]), np.array([[7, 7, 8, 8], [3, 3, 3, 3]])
    assert sorted(best_group_overlap(together, segments)) == [0.0, 0.5]
    assert best_group_overlap(apart, segments) == [1.0, 1.0]
    assert best_group_overlap(apart, np.zeros_like(segments)) == []


def coloured(samples: int) -> Batch:
    """Images of two squares of a colour each on a grey ground, which fill patches of 4 pixels."""
    pixels, numbers = torch.zeros(samples, 3, 16, 16), torch.zeros(samples, 16, 16, dtype=torch.int64)
    for sample in range(samples):
        for number, (row, column) in enumerate([(0, 4 * (sample % 3)), (8, 4)], start=1):
            numbers[sample, row : row + 4, column : column + 4] = number
            pixels[sample, number - 1, row : row + 4, column : column + 4] = 1.0
    values = {"image": ImageBatch(pixels), "image.segments": PatchSegments(numbers.flatten(1))}
    return Batch(values, torch.arange(samples), [str(sample) for sample in range(samples)])


def test_the_baselines_are_random_groups_and_colours() -> None:
    encoders = {
        "vision": build_encoder("segclip:tiny_patch4", "Image", 8, ["pooled"], image_size=16),
        "language": build_encoder("transformer:tiny", "Text", 8, ["pooled"]),
    }
    model = VisionLanguageModel(encoders, vlmdsl.compile("clip", compiled=False)).train()
    assert grouping_tower(model) == "vision"
    measures = group_overlap(model, [coloured(4), coloured(2)], "image", "vision")
    assert measures is not None
    assert measures.facts == {"images": 6, "objects": 12, "groups": 8}
    assert measures.baselines["colour k-means"]["IoU"] == pytest.approx(1.0)
    assert 0 < measures.chance["IoU"] < 0.6
    assert 0 <= measures.values["IoU"] <= 1
    assert measures.examples[0].pixels.shape == (16, 32, 3)
    assert model.training
    empty = coloured(1)
    empty.values["image.segments"] = PatchSegments(torch.zeros(1, 256, dtype=torch.int64))
    assert group_overlap(model, [empty], "image", "vision") is None


def test_an_untrained_tower_is_the_mean_of_five_draws() -> None:
    encoders = {
        "vision": build_encoder("segclip:tiny_patch4", "Image", 8, ["pooled"], image_size=16),
        "language": build_encoder("transformer:tiny", "Text", 8, ["pooled"]),
    }
    model = VisionLanguageModel(encoders, vlmdsl.compile("clip", compiled=False))
    state = torch.random.get_rng_state()
    others = drawn_towers(model, "vision")
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [tower.grouping.centres for tower in (encoders["vision"], *others)]
    assert len(weights) == 5
    assert all(not torch.equal(one, other) for number, one in enumerate(weights) for other in weights[:number])
    assert all(
        torch.equal(tower.grouping.centres, own)
        for tower, own in zip(drawn_towers(model, "vision"), weights[1:], strict=True)
    )
    alone = []
    for tower in (encoders["vision"], *others):
        one = VisionLanguageModel({**encoders, "vision": tower}, vlmdsl.compile("clip", compiled=False))
        measures = group_overlap(one, [coloured(4)], "image", "vision")
        assert measures is not None
        alone.append(measures.values["IoU"])
    together = group_overlap(model, [coloured(4)], "image", "vision", others)
    assert together is not None
    assert together.values["IoU"] == pytest.approx(sum(alone) / 5)
    assert len(set(alone)) > 1


def test_a_run_measures_it_where_the_data_has_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "train.batch": 8, "train.compile": False, "train.device": "cpu", "evaluation.limit": 12,
        "model.image_encoder": "segclip:tiny_patch4",
    }  # fmt: skip
    run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=1, settings=settings, out=tmp_path / "run")
    grouping = run.evaluation["grouping"]
    assert (grouping["images"], grouping["groups"]) == (12, 8)
    assert grouping.keys() >= {"IoU", "chance", "untrained", "baselines"}
    assert (run.folder / "grouping.png").is_file()
    assert vlmdsl.evaluate(run.folder).evaluation == run.evaluation
    monkeypatch.setattr("vlmdsl.runtime.evaluation.grouping._DRAWS", 1)
    other = vlmdsl.train("clip", data=["shapes:samples=32"], steps=1, settings=settings, out=tmp_path / "other")
    assert other.evaluation["grouping"]["IoU"] == grouping["IoU"]
    assert other.evaluation["grouping"]["untrained"] != grouping["untrained"]
