"""Recipes of images alone, with heads and a teacher: they train, are measured without texts, and resume bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vlmdsl

SETTINGS = {
    "train.batch": 16,
    "train.compile": False,
    "tracking.report": False,
    "train.checkpoint_every": 3,
    "train.device": "cpu",
    "evaluation.limit": 40,
}
DATA = ["shapes:samples=64"]
HYPER_PARAMETERS: dict[str, dict[str, Any]] = {
    "simclr": {"hidden": 24, "out": 12},
    "moco": {"out": 12, "size": 40},
    "moco_v3": {"hidden": 24, "out": 12},
    "byol": {"hidden": 24, "out": 12},
    "simsiam": {"hidden": 24, "out": 12, "bottleneck": 6},
    "slip": {"hidden": 24, "out": 12},
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", HYPER_PARAMETERS)
def test_a_run_is_measured_and_goes_on_bit_for_bit(recipe: str, tmp_path: Path) -> None:
    run = vlmdsl.train(
        recipe, knobs=HYPER_PARAMETERS[recipe], data=DATA, steps=6, settings=SETTINGS, out=tmp_path / "run"
    ).folder
    results = json.loads((run / "evaluation.json").read_text())
    if recipe == "slip":
        assert results["retrieval"]["image_to_text"].keys() >= {"R@1", "chance", "untrained"}
        assert "linear_probe" not in results
    else:
        for measure in ("nearest_neighbours", "linear_probe"):
            assert results[measure].keys() >= {"classes", "top-1", "chance", "untrained"}
    last = run / "checkpoints" / "step-00000006" / "model.safetensors"
    whole = load_file(last)
    assert any(name.startswith("heads.") for name in whole)
    shutil.rmtree(last.parent)
    vlmdsl.train(resume=run)
    resumed = load_file(last)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    assert json.loads((run / "evaluation.json").read_text()) == results
    assert vlmdsl.evaluate(run).evaluation == results
