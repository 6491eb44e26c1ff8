"""Average precision of the boxes that a recipe predicts, asked for by a setting."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlmdsl

SETTINGS: dict[str, object] = {
    "train.batch": 8,
    "train.compile": False,
    "train.log_every": 1,
    "model.image_size": 16,
    "data.val": ("shapes:samples=12,size=16",),
}


@pytest.mark.parametrize("recipe", ["glip", "mdetr"])
def test_the_boxes_that_a_recipe_predicts_are_measured(recipe: str, tmp_path: Path) -> None:
    """Relative to anchors, and matched one to one."""
    pytest.importorskip("pycocotools", reason="the extra `detection` is not installed")
    settings = {**SETTINGS, "evaluation.average_precision": True}
    run = vlmdsl.train(recipe, data=["shapes:samples=16,size=16"], steps=1, settings=settings, out=tmp_path / "run")
    measured = run.evaluation["grounding"]
    for name in ("AP", "AP50", "AP75"):
        assert 0 <= measured[name] <= 1
        assert 0 <= measured["untrained"][name] <= 1
        assert measured["chance"][name] == 0
    without = vlmdsl.evaluate(run.folder, overrides=["evaluation.average_precision=false"]).evaluation["grounding"]
    assert "AP" not in without
    assert without["mAP"] == measured["mAP"]


def composed(folder: Path) -> Path:
    """A shard of scenes: drawings of one colour each on a white canvas, with boxes in pixels and a name for each."""
    random, colours = np.random.default_rng(0), {"an apple": (200, 30, 30), "a leaf": (30, 160, 40), "a sea": (30, 60, 200)}
    with tarfile.open(folder / "scenes.tar", "w") as shard:
        for number in range(16):
            canvas, names, boxes = np.full((40, 40, 3), 255, np.uint8), list(random.permutation(list(colours))[:2]), []
            for corner, name in zip((1, 21), names, strict=True):
                top = int(random.integers(0, 20))
                canvas[top : top + 18, corner : corner + 18] = colours[name]
                boxes.append([corner, top, corner + 18, top + 18])
            picture = io.BytesIO()
            Image.fromarray(canvas).save(picture, "PNG")
            facts = {"text": " and ".join(names), "phrases": names, "boxes_xyxy_px": boxes}
            for ending, content in (("png", picture.getvalue()), ("json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(f"{number:05d}.{ending}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    return folder / "scenes.tar"


def test_boxes_with_names_come_from_shards_of_composed_scenes(tmp_path: Path) -> None:
    shard = str(composed(tmp_path))
    settings = {**SETTINGS, "data.val": (shard,)}
    run = vlmdsl.train(
        "detclip", data=[shard], map={"boxes": "boxes_xyxy_px"}, steps=1, settings=settings, out=tmp_path / "run"
    )
    assert {name: run.evaluation["grounding"][name] for name in ("images", "boxes", "phrases")} == {
        "images": 16, "boxes": 32, "phrases": 3,
    }  # fmt: skip
    assert (run.folder / "grounding.png").is_file()
