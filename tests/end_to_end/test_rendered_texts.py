"""CLIPPO from end to end: one tower, texts as images, and an evaluation that renders texts and prompts too."""

from __future__ import annotations

from pathlib import Path

import vlmdsl
from vlmdsl.runtime.evaluation import comparison_of

SETTINGS = {
    "train.batch": 16,
    "train.compile": False,
    "tracking.report": False,
    "evaluation.limit": 60,
    "model.image_size": 48,
}


def test_clippo_trains_and_is_measured_with_one_tower(tmp_path: Path) -> None:
    trainer = vlmdsl.Trainer("clippo", data=["shapes:samples=64"], steps=5, settings=SETTINGS, out=tmp_path / "run")
    result = trainer.fit()
    assert list(trainer.model.encoders) == ["vision"]
    assert set(result.evaluation) >= {"retrieval", "zero_shot"}
    assert result.evaluation["retrieval"]["texts"] > 40
    again = vlmdsl.evaluate(tmp_path / "run")
    assert again.evaluation["retrieval"] == result.evaluation["retrieval"]


def test_the_evaluation_compares_what_the_recipe_compares() -> None:
    comparison = comparison_of(vlmdsl.compile("clippo", compiled=False).program)
    assert comparison is not None
    assert (comparison.image_tower, comparison.text_tower) == ("vision", "vision")
    assert (comparison.image_field, comparison.text_field) == ("image", "text")
    assert comparison.text_source is not None
    assert comparison.text_source.operation == "render"
