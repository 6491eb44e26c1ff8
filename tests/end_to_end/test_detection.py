"""Average precision of the boxes that a recipe predicts, asked for by a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

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
