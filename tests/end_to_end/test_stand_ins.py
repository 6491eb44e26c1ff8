"""Recipes whose fields no data set has train on real ones, with the data's own columns and stand-ins that are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vlmdsl

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "openmoji"
SETTINGS = {"train.batch": 16, "train.compile": False, "tracking.report": False, "evaluation.limit": 40}
PYRAMID = {"regions": "crops(image,boxes)", "summary": "summarize(text)", "attributes": "template(phrases)"}

REAL: dict[str, tuple[str, dict[str, str]]] = {
    "laclip": ("openmoji", {"text_rewrites": "tags,cldr_en,keywords_en"}),
    "unicl": ("openmoji", {"label": "group"}),
    "florence": ("openmoji", {"label": "hash(text)"}),
    "alip": ("openmoji", {"caption": "template(tags)"}),
    "clippo": ("openmoji", {}),
    "pyramidclip": (
        "scenes", {"regions": "crops(image,boxes_xyxy_px)", "summary": "summarize(text)", "attributes": "template(phrases)"},
    ),
}  # fmt: skip
"""Recipe -> which of the real data it trains on, and how the fields are mapped."""


def test_what_stood_in_is_kept_and_reported(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = vlmdsl.train("pyramidclip", data=["shapes:samples=16"], map=PYRAMID, settings=SETTINGS, steps=1, out=out)
    assert "stand-in: `regions` is crops(image,boxes)" in result.summary
    facts = json.loads((out / "run.json").read_text())
    assert facts["data"]["train"]["stand_ins"] == {field: [call] for field, call in PYRAMID.items()}
    assert vlmdsl.evaluate(out).evaluation["retrieval"] == result.evaluation["retrieval"]


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the OpenMoji shards are not beside the repository")
@pytest.mark.parametrize("recipe", REAL)
def test_a_recipe_trains_on_real_data(recipe: str, tmp_path: Path) -> None:
    kind, columns = REAL[recipe]
    result = vlmdsl.train(
        recipe,
        data=[str(FOLDER / f"{kind}-train-000.tar")],
        val=[str(FOLDER / f"{kind}-val-000.tar")],
        map=columns,
        settings=SETTINGS,
        steps=2,
        out=tmp_path / "run",
    )
    assert result.evaluation["retrieval"]["image_to_text"]["R@10"] <= 1
    stand_ins = [line for line in result.summary.splitlines() if "stand-in:" in line]
    assert len(stand_ins) == sum("(" in column for column in columns.values())
    skipped = json.loads((tmp_path / "run" / "run.json").read_text())["skipped"]
    assert {reason for report in skipped.values() for reason in report["skipped"]} <= {"nothing to put into a template"}
