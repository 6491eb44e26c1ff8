"""`vlmdsl verify`: the same on several processes and in micro-batches, and what is said where it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from cli.conftest import Run
from vlmdsl.api import verify as module
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerNotPerSample
from vlmdsl.runtime.training.verification import Traces, relative_difference
from vlmdsl.source import Span

DATA = ("--data", "shapes:samples=32,size=16", "--set", "model.image_size=16")


@pytest.mark.distributed
@pytest.mark.slow
def test_all_flows_of_a_recipe_are_the_same_on_two_processes_and_in_chunks(run: Run) -> None:
    result = run("verify", "flava", "--param", "entries=8", "--world", "2", "--micro", "3", *DATA, "--json")
    assert result.code == 0, result
    verification = json.loads(result.stdout)
    rows = {(own["row"], own["way"]) for own in verification["differences"]}
    terms = ("pairs.gc", "pairs.itm", "images.mim", "texts.mlm", "gradients", "weights", "state")
    assert rows >= {(term, way) for term in terms for way in ("2 processes", "3 micro-batches")}
    assert verification["batch"] == 18, "the smallest number from 16 on that can be split"
    assert 0 < max(own["largest"] for own in verification["differences"]) < 1e-9


UNTRAINED = """encoder fusion = fuse(depth=1, heads=4)
encoder p = project(vision, out=8)
encoder q = project(language, out=8)
encoder other = separate(vision, name="other")
let sure = exp(stop(score(other(image), text) / learned(2, name="doubt")))
let wrong = mine(similarity(p(image), q(text)) / 0.1, along="rows")
let sides = augment(image, n=2)
minimize contrast(sides[0], sides[1], weight=sure) + matched(text | image, take(text, wrong) | image)
"""


@pytest.mark.distributed
@pytest.mark.slow
def test_what_no_gradient_reaches_stops_no_process(run: Run) -> None:
    """DDP would wait for the gradients of a tower, heads, a learned number, and of what a tower has for pooled features."""
    result = run("verify", "-e", UNTRAINED, "--micro", "2", *DATA, "--json")
    assert result.code == 0, result
    verification = json.loads(result.stdout)
    assert {own["row"] for own in verification["differences"]} >= {"loss", "gradients", "weights"}
    assert max(own["largest"] for own in verification["differences"]) < 1e-9


def differing(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Makes micro-batches leave something else than the whole batch."""
    original = module._share

    def share(*job: Any) -> Traces:
        traces = original(*job)
        return change(traces) if job[-1] is not None else traces

    monkeypatch.setattr(module, "_share", share)


def test_a_wrong_gradient_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(traces: Traces) -> Traces:
        name = next(name for name in traces[""]["gradients"] if "vision" in name and name.endswith("(exp_avg)"))
        traces[""]["gradients"][name] *= 1.001
        return traces

    differing(monkeypatch, change)
    result = run("verify", "clip", "--world", "1", "--micro", "4", *DATA)
    assert result.code == 2
    [line] = [line for line in result.stdout.splitlines() if line.startswith("differs:")]
    assert "gradients with 4 micro-batches, most in encoders.vision" in line
    assert " DIFFERS" in next(line for line in result.stdout.splitlines() if " gradients " in line)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_is_not_equal(value: float) -> None:
    expected = torch.tensor([1.0, 2.0])
    assert relative_difference(torch.tensor([1.0, value]), expected) == float("inf")
    assert relative_difference(torch.tensor([1.0]), expected) == float("inf")
    assert relative_difference(None, expected) == float("inf")
    assert relative_difference(expected, expected) == 0


def test_what_cannot_run_in_chunks_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(traces: Traces) -> Traces:
        raise DiagnosticError((TowerNotPerSample.at(Span("encoders", 0, 0), tower="vision", module="BatchNorm2d"),))

    differing(monkeypatch, change)
    result = run("verify", "clip", "--world", "1", "--micro", "2", *DATA)
    assert result.code == 2
    assert "2 micro-batches stopped: V" in result.stdout


def test_a_mistake_is_reported_before_anything_runs(run: Run) -> None:
    result = run("verify", "clip", "--set", "model.image_encoder=nonsense")
    assert result.code == 2
    assert "error[V0830]" in result.stderr
