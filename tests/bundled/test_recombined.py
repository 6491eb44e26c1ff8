"""Recipes that take parts of several methods: each trains, and micro-batches leave what whole batches leave.

`test_processes` runs them on several processes.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

import vlmdsl
from bundled.recombined import RECOMBINED
from bundled.runs import DATA, SETTINGS, columns_of, with_tiny_towers


@pytest.mark.parametrize("name", RECOMBINED)
def test_micro_batches_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    recipe = RECOMBINED[name]
    columns = columns_of(vlmdsl.compile(recipe, compiled=False).program)
    verification = vlmdsl.verify(recipe, world=1, micro=2, data=[DATA], map=columns, settings=SETTINGS)
    assert verification.equal, verification.to_text()
    assert all(math.isfinite(loss) for loss in verification.losses.values())


@pytest.mark.parametrize("name", RECOMBINED)
def test_a_run_measures_each_of_its_parts(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Evaluations take steps of their own, on batches without the draws of training."""
    with_tiny_towers(monkeypatch)
    columns = columns_of(vlmdsl.compile(RECOMBINED[name], compiled=False).program)
    settings = SETTINGS | {"train.steps": 1, "data.train": (DATA,), "data.map": columns}
    assert vlmdsl.explain(RECOMBINED[name])
    result = vlmdsl.train(RECOMBINED[name], settings=settings, out=tmp_path)
    assert result.evaluation is not None


@pytest.mark.parametrize(
    "name",
    [
        "captions of texts from a queue",  # the states of its images are read by a text decoder only
        "weights beside mined negatives",  # there is a class token in the states of its images, and not in their tokens
    ],
)
def test_a_compiled_run_takes_batches_of_several_sizes(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tiny_towers(monkeypatch)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    columns = columns_of(vlmdsl.compile(RECOMBINED[name], compiled=False).program)
    settings = SETTINGS | {"train.compile": True, "train.steps": 2, "data.train": (DATA,), "data.map": columns}
    vlmdsl.train(RECOMBINED[name], settings=settings | {"evaluation.captions": 0}, out=tmp_path)
    assert (counters["graph_break"], counters["recompiles"]) == ({}, {})
    assert counters["stats"]["unique_graphs"] >= 2
