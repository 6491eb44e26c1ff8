"""Training of a recipe that matches images with texts: what `evaluation.json` says of negatives with one thing wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.runtime.data.shapes import WRONG_KINDS

RECIPE = """recipe matched_pairs(image: Image, text: Text)
encoder fusion = fuse(depth=1)
minimize matched(text | image, take(text, mine(similarity(image, text) / 0.07, along="rows")) | image)
"""
SETTINGS = {"train.batch": 8, "train.compile": False, "evaluation.limit": 48, "evaluation.batch": 16}


@pytest.mark.parametrize("column", ["caption", "knowledge"])
def test_wrong_texts_are_recognised_by_kind_where_the_data_has_them(column: str, tmp_path: Path) -> None:
    result = vlmdsl.train(
        RECIPE,
        expression=True,
        data=["shapes:samples=16"],
        map={"text": column},
        steps=1,
        settings=SETTINGS,
        out=tmp_path / "run",
    )
    matching = result.evaluation["matching"]
    assert matching.keys() >= {"pairs", "mined", "random", "balanced", "balanced random", "untrained"}
    kinds = {name.removeprefix("wrong ") for name in matching if name.startswith("wrong ")}
    # A short caption names neither sizes nor places.
    assert kinds == (set(WRONG_KINDS) - {"size", "relation"} if column == "caption" else set())
    assert ("balanced wrong" in matching["chance"]) == bool(kinds)
