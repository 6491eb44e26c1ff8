"""What a comparison says of runs, with numbers set by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlmdsl.api.comparison import Comparison, Run, measures_of

HERE = Path(__file__).parent
FOLDER = Path("runs/compare")


def evaluation(recall: float | None, accuracy: float | None) -> dict[str, object]:
    results: dict[str, object] = {"samples": 400}
    if recall is not None:
        direction = {"R@1": recall, "R@5": 0.9, "chance": {"R@1": 0.0025, "R@5": 0.0125}, "untrained": {"R@1": 0.004}}
        results["retrieval"] = {"images": 400, "texts": 400, "image_to_text": direction}
    if accuracy is not None:
        results["neighbours"] = {"top-1": accuracy, "chance": {"top-1": 1 / 32}}
    return results


def comparison(values: dict[str, list[tuple[float | None, float | None]]]) -> Comparison:
    runs = tuple(
        Run(name, seed, FOLDER / name / f"seed-{seed}", evaluation(*pair), 1.0)
        for name, pairs in values.items()
        for seed, pair in enumerate(pairs)
    )
    seeds = tuple(range(len(next(iter(values.values())))))
    return Comparison(FOLDER, tuple(values), seeds, runs, {"recipes": {name: {"steps": 300} for name in values}})


THREE = comparison(
    {
        "clip": [(0.29, 0.5), (0.30, 0.52), (0.31, 0.51)],
        "laclip": [(0.40, 0.5), (0.42, 0.5), (0.41, 0.56)],
        "same": [(0.30, 0.5), (0.31, 0.52), (0.32, 0.51)],
        "simclr": [(None, 0.4), (None, 0.41), (None, 0.43)],
    }
)


def test_measures_are_the_groups_beside_a_chance() -> None:
    results = evaluation(0.5, 0.25)
    assert list(measures_of(results)) == [
        "retrieval.image_to_text.R@1", "retrieval.image_to_text.R@5", "neighbours.top-1",
    ]  # fmt: skip
    assert measures_of(results, "untrained") == {"retrieval.image_to_text.R@1": 0.004}
    assert measures_of(results, "chance")["neighbours.top-1"] == 1 / 32


def test_differences_are_to_the_first_recipe_paired_by_seed() -> None:
    """0.11, 0.12, 0.10: mean 0.11, deviation 0.01."""
    difference = THREE.difference("laclip", "retrieval.image_to_text.R@1")
    assert difference is not None
    assert difference.mean == pytest.approx(0.11)
    assert difference.low == pytest.approx(0.11 - 4.30265 * 0.01 / 3**0.5, abs=1e-6)
    assert difference.separable
    assert THREE.difference("clip", "retrieval.image_to_text.R@1") is None
    assert THREE.difference("simclr", "retrieval.image_to_text.R@1") is None


def test_the_table() -> None:
    path = HERE / "comparison.expected"
    if os.environ.get("VLMDSL_ACCEPT"):
        path.write_text(THREE.to_text() + "\n", encoding="utf-8")
    assert THREE.to_text() + "\n" == path.read_text(encoding="utf-8")


def test_one_seed_claims_nothing() -> None:
    text = comparison({"clip": [(0.1, None)], "laclip": [(0.9, None)]}).to_text()
    assert "one seed gives no spread" in text
    assert "not separable" in text
    assert "higher" not in text


def test_the_json_says_the_same() -> None:
    comparison = THREE.to_json()
    measure = comparison["measures"]["neighbours.top-1"]
    assert comparison["reference"] == "clip"
    assert measure["recipes"]["simclr"]["values"] == [0.4, 0.41, 0.43]
    assert measure["recipes"]["simclr"]["difference"]["separable"]
    assert measure["recipes"]["simclr"]["difference"]["high"] < 0
    assert comparison["measures"]["retrieval.image_to_text.R@1"]["recipes"]["simclr"] is None
    assert [run["folder"] for run in comparison["runs"][:2]] == ["clip/seed-0", "clip/seed-1"]
