"""Runs on several sources with weights, and on data of which a share is held out: trained, resumed and measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl import DiagnosticError
from vlmdsl.api.data import convert_data
from vlmdsl.runtime.training import stages
from vlmdsl.runtime.training.loop import train_steps
from vlmdsl.runtime.values import Batch

FIRST, SECOND = "shapes:samples=48,size=16,seed=1", "shapes:samples=40,size=16,seed=2,objects=1"
WEIGHTED = SETTINGS | {
    "data.weights": (3, 1),
    "evaluation.neighbours": 0,
    "evaluation.zero_shot": False,
    "schedule.final": 1.0,
}
ONE_SOURCE = "batch one_source\nminimize contrast(image, text)"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the samples of every batch that is trained on."""
    indices: list[int] = []

    def recorded(model: Any, optimizer: Any, batches: Iterator[Batch], *rest: Any, **more: Any) -> None:
        def listed() -> Iterator[Batch]:
            for batch in batches:
                indices.extend(batch.index.tolist())
                yield batch

        train_steps(model, optimizer, listed(), *rest, **more)

    with_tiny_towers(monkeypatch)
    monkeypatch.setattr(stages, "train_steps", recorded)
    return indices


def test_a_weighted_run_draws_measures_and_resumes(tmp_path: Path, drawn: list[int]) -> None:
    """48 samples with weight 3 and 40 with weight 1: an epoch of 48 and 16, 8 batches of 8."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    result = vlmdsl.train("clip", data=[FIRST, SECOND], settings=WEIGHTED, steps=16, out=whole)
    assert f"weighted: 16 of the 40 samples of {SECOND} in each epoch" in result.to_text()
    for epoch in (drawn[:64], drawn[64:]):
        assert Counter(index < 48 for index in epoch) == {True: 48, False: 16}
        assert len(set(epoch)) == 64
    assert set(drawn[:64]) != set(drawn[64:])

    before = list(drawn)
    drawn.clear()
    vlmdsl.train("clip", data=[FIRST, SECOND], settings=WEIGHTED, steps=5, out=run)
    vlmdsl.train(resume=run, steps=16)
    assert drawn == before
    measured = json.loads((whole / "evaluation.json").read_text())
    assert vlmdsl.evaluate(whole).evaluation["retrieval"] == measured["retrieval"]


def test_a_share_of_weighted_sources_is_held_out_and_measured(tmp_path: Path, drawn: list[int]) -> None:
    run = tmp_path / "run"
    vlmdsl.train("clip", data=[FIRST, SECOND], val=["25%"], settings=WEIGHTED, steps=2, out=run)
    data = json.loads((run / "run.json").read_text())["data"]
    train, held_out = data["train"]["samples"], data["held_out"]["samples"]
    assert train + held_out == 88
    assert 12 <= held_out <= 32
    trained = json.loads((run / "evaluation.json").read_text())
    evaluated = vlmdsl.evaluate(run)
    assert evaluated.evaluation["retrieval"] == trained["retrieval"]
    assert trained["retrieval"]["images"] == held_out
    other = vlmdsl.evaluate(run, data=["shapes:samples=12,size=16"])
    assert other.evaluation["retrieval"]["images"] == 12


@pytest.mark.parametrize(
    ("recipe", "data", "settings", "reason"),
    [
        ("", [FIRST, SECOND], {"data.weights": (1,)}, "1 weights, and 2 training sources"),
        ("", [FIRST, SECOND], {"data.weights": (1, 0.001)}, "less than one sample of"),
        (ONE_SOURCE, [FIRST, SECOND], {}, "batches of one source each"),
        ("", ["a", "b"], {"data.stream": True}, "is read as a stream"),
    ],
    ids=["number", "share", "one source", "stream"],
)
def test_weights_that_do_not_fit_are_refused(
    recipe: str,
    data: list[str],
    settings: dict[str, object],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_tiny_towers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in data if "data.stream" in settings else ():
        convert_data("shapes:samples=12,size=16", name)
    with pytest.raises(DiagnosticError, match="V0844") as caught:
        vlmdsl.train(
            recipe or "clip", expression=bool(recipe), data=data, settings=WEIGHTED | settings, steps=1, out=tmp_path / "run"
        )
    assert reason in caught.value.diagnostics[0].message
