"""A term that has nothing to do is reported once, with what it had none of, and a term that waits for its weight is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl.runtime.training.idle import IdleTerms, counted_of, idle_term
from vlmdsl.testing import example_features, example_modules

RECIPE = """vlo 1
recipe idle(image: Image, text: Text, flag: Flag)

minimize {
  all:    contrast(image, text)
  noisy:  contrast(image, text, keep=flag)
  words:  mlm(mask(text, random(15%)))
  later:  ramp(0, 1, over=1) * mean(score(image, text), over=flag)
  margin: mean(hinge(similarity(image, text), along="rows", margin=0.2, negatives="mean"))
}
"""
WEIGHED = """
recipe weighed(text: Text, sure: Number)
minimize { words: mlm(mask(text, random(15%)), weight=max(sure, 0)) }
"""
MATCHING = """
recipe matching(image: Image, text: Text)
let wrong = mine(similarity(image, text), along="rows")
minimize { itm: matched(text | image, take(text, wrong) | image) }
"""
FOCAL = """
recipe named(image: Image, boxes: Boxes, phrases: Phrases)
let words = text_of(phrases)
minimize { words: focal(alignment(regions(image, boxes), words), word_map(words, boxes)) }
"""


def terms(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_a_term_is_named_after_that_many_steps_in_a_row_and_once() -> None:
    watch = IdleTerms(steps=3)
    named = [watch.after("", terms(a=0.0, b=value)) for value in (0.0, 0.5, 0.0, 0.0, 0.0, 0.0)]
    assert named == [[], [], ["a"], [], [], ["b"]]


def test_flows_are_counted_separately() -> None:
    watch = IdleTerms(steps=2)
    named = [watch.after(flow, terms(a=value)) for flow, value in (("x", 0.0), ("y", 0.0), ("x", 1.0), ("y", 0.0))]
    assert named == [[], [], [], ["a"]]


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        ("noisy", "no sample that its conditions select"),
        ("words", "no token to predict"),
        ("margin", "no candidate within the margin"),
    ],
)
def test_the_message_says_what_there_was_none_of(term: str, reason: str) -> None:
    diagnostic = idle_term(vlmdsl.compile(RECIPE, compiled=False).program, term)
    assert diagnostic is not None
    assert (diagnostic.code, diagnostic.severity) == ("V0855", "warning")
    assert f"`{term}` had nothing to do in 100 steps" in diagnostic.message
    assert reason in diagnostic.message
    assert "`text`" in diagnostic.notes[0]


def test_weights_of_0_are_a_reason_too() -> None:
    diagnostic = idle_term(vlmdsl.compile(WEIGHED, compiled=False).program, "words")
    assert diagnostic is not None
    assert "no token to predict and no weight of a sample above 0" in diagnostic.message


@pytest.mark.parametrize(
    ("recipe", "metric", "reason"),
    [
        (MATCHING, "itm.negatives", "no sample that has picked another one"),
        (FOCAL, "words.positives", "no region with a word"),
    ],
    ids=["matching", "focal"],
)
def test_what_is_not_0_without_negatives_or_positives_is_counted(recipe: str, metric: str, reason: str) -> None:
    objective = vlmdsl.compile(recipe, compiled=False).double()
    output = objective(modules=example_modules(objective), **example_features(objective))
    counted = counted_of(output.metrics)
    assert set(counted) == {metric}
    assert counted[metric] > 0
    diagnostic = idle_term(objective.program, metric)
    assert diagnostic is not None
    assert f"`{metric.partition('.')[0]}` had nothing to do" in diagnostic.message
    assert reason in diagnostic.message


def test_without_a_pick_there_are_no_negatives() -> None:
    objective = vlmdsl.compile(MATCHING, compiled=False).double()
    alone = {name: value[:1] for name, value in example_features(objective).items()}
    output = objective(modules=example_modules(objective), **alone)
    assert output.terms["itm"] > 0
    assert output.metrics["itm.negatives"] == 0


def test_a_term_whose_weight_is_0_at_an_end_of_its_schedule_is_not_reported() -> None:
    assert idle_term(vlmdsl.compile(RECIPE, compiled=False).program, "later") is None


def test_a_run_reports_it_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_tiny_towers(monkeypatch)
    monkeypatch.setattr("vlmdsl.runtime.training.loop.IdleTerms", lambda: IdleTerms(steps=4))
    data = "shapes:samples=60,size=16"  # no `flag` is true without noise
    vlmdsl.train(RECIPE, data=[data], settings=SETTINGS, steps=6, out=tmp_path / "run")
    written = capsys.readouterr().err
    assert written.count("warning[V0855]") == 1
    assert "the term `noisy`" in written
    assert "contrast(image, text, keep=flag)" in written
    assert written.index("step 3/6") < written.index("warning[V0855]") < written.index("step 5/6")
