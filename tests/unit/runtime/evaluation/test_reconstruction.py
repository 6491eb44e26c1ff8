"""The error of dropped patches on held-out images, over that of the mean image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from vlmdsl.ir import Use
from vlmdsl.runtime.evaluation import (
    Evaluation,
    Measures,
    masked_error,
    reconstruction_of,
    results_json,
    results_table,
    stored_untrained,
)  # fmt: skip
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
from vlmdsl.runtime.values import Batch, ImageBatch, KeptPatches, PatchSegments

RECIPE = """recipe masked(image: Image)
let hidden = random(50%)
minimize reconstruct(decode(drop(image, hidden), depth=1, width=8, heads=2), pixels(image), at=hidden)"""


class Answer(nn.Module):
    """A decoder that gives the same pixels for every image."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, states: Tensor, keep: Tensor) -> Tensor:
        return self.pixels.expand(len(states), -1, -1)


def batches() -> list[Batch]:
    torch.manual_seed(0)
    keep = torch.stack([torch.randperm(4)[:2] for _ in range(5)])
    images = torch.rand(5, 3, 8, 8)
    parts = (slice(0, 3), slice(3, 5))
    return [
        Batch({"image": ImageBatch(images[p]), "image.keep": KeptPatches(keep[p])}, torch.arange(5)[p], list("01234"[p]))
        for p in parts
    ]


def patches(image: Tensor) -> Tensor:
    return image.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(len(image), 4, 48)


def test_the_error_is_over_that_of_the_mean_image() -> None:
    vision = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2), 4, ("states",))
    objective = vlmdsl.compile(RECIPE, compiled=False)
    model = VisionLanguageModel({"vision": vision}, objective).train()
    reconstruction = reconstruction_of(objective.program)
    assert reconstruction is not None
    targets = torch.cat([patches(batch.values["image"][0]) for batch in batches()])
    dropped = torch.cat([batch.values["image.keep"].dropped(4) for batch in batches()])
    mean, constant = targets.mean(dim=0), torch.full((4, 48), 0.3)
    errors = {}
    for name, answer in (("mean", mean), ("constant", constant)):
        model.decoders.parts["decoder"] = Answer(answer)
        measures = masked_error(model, batches(), "image", reconstruction)
        assert measures is not None
        errors[name] = measures.values["error"]
        assert (measures.chance, measures.facts) == ({"error": 1.0}, {"images": 5})
    squares = [((targets - answer) ** 2).mean(dim=2)[dropped].mean().item() for answer in (constant, mean)]
    assert errors["mean"] == pytest.approx(1.0, rel=1e-5)
    assert errors["constant"] == pytest.approx(squares[0] / squares[1], rel=1e-5)
    assert model.training
    assert masked_error(model, [], "image", reconstruction) is None


def test_the_share_of_the_error_in_objects_without_a_visible_pixel() -> None:
    """Object 1 has a visible patch, object 2 has none: of an answer that is wrong by 1, its share of the pixels."""
    vision = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2), 4, ("states",))
    objective = vlmdsl.compile(RECIPE, compiled=False)
    model = VisionLanguageModel({"vision": vision}, objective)
    reconstruction = reconstruction_of(objective.program)
    assert reconstruction is not None
    numbers = torch.zeros(1, 8, 8, dtype=torch.int64)
    numbers[0, :2] = 1  # in patches 0 and 1
    numbers[0, 6:, 6:] = 2  # in patch 3
    image = torch.rand(1, 3, 8, 8)
    values = {
        "image": ImageBatch(image),
        "image.keep": KeptPatches(torch.tensor([[0, 2]])),
        "image_objects.segments": PatchSegments(numbers.flatten(1)),
    }
    model.part(Use(reconstruction.decoder)).forward = lambda states, keep: patches(image) + 1  # type: ignore[method-assign]
    other = Batch({**values, "image": ImageBatch(image + 1)}, torch.tensor([1]), ["1"])
    model_batches = [Batch(values, torch.tensor([0]), ["0"]), other]
    measures = masked_error(model, model_batches, "image", reconstruction, "image_objects")
    assert measures is not None
    assert measures.chance["unseen"] == pytest.approx(4 / 32)
    # The second image is predicted without error.
    assert measures.values["unseen"] == pytest.approx(4 / 32)


def test_a_run_measures_it_beside_the_untrained_model_and_again(tmp_path: Path) -> None:
    small = {"depth": 1, "width": 16, "heads": 2}
    settings = {"train.batch": 8, "train.compile": False, "train.device": "cpu", "evaluation.limit": 20}
    run = vlmdsl.train("mae", knobs=small, data=["shapes:samples=64"], steps=2, settings=settings, out=tmp_path / "run")
    measured = run.evaluation["reconstruction"]
    assert measured.keys() == {"images", "error", "unseen", "chance", "untrained"}
    assert 0 < measured["chance"]["unseen"] < 0.2
    assert 0 < measured["unseen"] < 1
    assert (measured["images"], run.evaluation["samples"]) == (20, 20)
    assert measured["error"] != measured["untrained"]["error"]
    assert vlmdsl.evaluate(tmp_path / "run").evaluation == run.evaluation


def test_baselines_of_a_part_are_reported_and_read_back() -> None:
    """A part may have answers that need no learning beside a random guess."""
    copying = {"copying the nearest patch": {"error": 0.7}}
    trained, untrained = (
        Evaluation(9, parts={"reconstruction": Measures({"error": error}, {"error": 1.0}, {"images": 9}, copying)})
        for error in (0.4, 9.0)
    )
    trained, untrained = (replace(each, flows={"other": each}) for each in (trained, untrained))
    results = results_json(trained, untrained)
    assert results["reconstruction"]["baselines"] == copying
    assert stored_untrained(results) == untrained
    columns = [list(column.cells) for column in results_table(results).columns]
    rows = list(zip(*columns, strict=True))
    assert ("flow other: dropped patches error", "40.0", "900.0", "100.0") in rows
    assert ("dropped patches error", "40.0", "900.0", "100.0") in rows
    assert ("dropped patches error, copying the nearest patch", "", "", "70.0") in rows
