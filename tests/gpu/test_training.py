"""Whole runs on a CUDA device: training, evaluation, resuming, and moving a run between devices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import DATA, SETTINGS, columns_of, hyper_parameters_of, program_of, with_tiny_towers

STEPS = 4


@pytest.fixture(autouse=True)
def tiny_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)


def train(recipe: str, out: Path, device: str, **settings: object) -> Path:
    """The folder of a run of a few steps of small towers."""
    chosen = SETTINGS | {"train.device": device, "train.checkpoint_every": 2, "data.map": columns_of(program_of(recipe))}
    return vlmdsl.train(
        recipe, data=[DATA], steps=STEPS, knobs=hyper_parameters_of(recipe), settings=chosen | settings, out=out
    ).folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_run_loses_what_it_loses_on_the_cpu(recipe: str, tmp_path: Path) -> None:
    expected, actual = (
        losses(train(recipe, tmp_path / "expected", "cpu")),
        losses(train(recipe, tmp_path / "actual", "cuda")),
    )
    assert actual == pytest.approx(expected, rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_compiled_run_trains(precision: str, tmp_path: Path) -> None:
    folder = train(
        "clip",
        tmp_path / "run",
        "cuda",
        **{"train.compile": True, "train.compile_encoders": True, "train.precision": precision},
    )
    assert len(losses(folder)) == STEPS
    report: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    assert report


@pytest.mark.parametrize(("first", "then"), [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_where_it_was_stopped(first: str, then: str, tmp_path: Path) -> None:
    whole = losses(train("declip", tmp_path / "whole", "cuda"))
    folder = train("declip", tmp_path / "part", first)
    shutil.rmtree(max((folder / "checkpoints").iterdir()))  # as if it had been stopped before the last checkpoint
    vlmdsl.train(resume=folder, settings={"train.device": then})
    assert losses(folder) == pytest.approx(whole, rel=1e-2, abs=1e-2)


def test_a_run_is_evaluated_on_the_device(tmp_path: Path) -> None:
    folder = train("clip", tmp_path / "run", "cuda")
    assert vlmdsl.evaluate(folder)
