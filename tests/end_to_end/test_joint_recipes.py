"""Recipes whose towers are more than one a modality, from the command's function to the evaluation of their features."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmdsl

SMALL = {"train.batch": 16, "train.compile": False, "train.log_every": 1, "train.device": "cpu", "evaluation.limit": 80}


@pytest.mark.parametrize("name", ["oner"])
def test_it_trains_and_its_features_are_evaluated(name: str, tmp_path: Path) -> None:
    trained = vlmdsl.train(name, data=["shapes:samples=64"], steps=5, settings=SMALL, out=tmp_path / name)
    found = trained.evaluation
    assert found["retrieval"]["image_to_text"].keys() >= {"R@1", "R@5", "R@10"}
    assert found["zero_shot"].keys() >= {"top-1", "chance", "untrained"}
