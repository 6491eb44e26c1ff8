"""What shows that samples are learned by heart, and what a stage begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vlmdsl
from vlmdsl.api.driver import build_flows
from vlmdsl.runtime.training.overfitting import Attempt, Progress, judged_by

TINY = {"model.image_size": 16, "schedule.warmup_steps": 2}
SCENES = ["shapes:samples=64,size=16,distinct=true"]


def overfitted(recipe: str, steps: int, **settings: Any) -> tuple[Attempt, ...]:
    how = {"data": SCENES, "samples": 8, "steps": steps, "settings": TINY | settings, "advise": False}
    return vlmdsl.overfit(recipe, expression="\n" in recipe, **how).stages


@pytest.mark.parametrize(
    ("recipe", "measures"),
    [
        ("mdetr", {"grounding": ("within a prompt", "accuracy")}),
        ("coca", {"captions": ("token accuracy",)}),
        ("simvlm", {"captions": ("token accuracy",)}),
        ("albef", {"matching": ("balanced",)}),
        ("flava", {"matching": ("balanced random",)}),
        ("mae", {}),
        ("clip", {}),
    ],
)
def test_recipes_are_judged_by_what_they_are_for(recipe: str, measures: dict[str, tuple[str, ...]]) -> None:
    every = [judged_by(built.planned) for built in build_flows(recipe)]
    assert [own for own in every if own] == ([measures] if measures else [])


@pytest.mark.parametrize(("accuracy", "learned"), [(0.91, True), (0.9, False)])
def test_falling_losses_are_not_enough_where_something_is_measured(accuracy: float, learned: bool) -> None:
    attempt = Attempt("", 10, 64, {"words": Progress(2.0, 0.1)}, {"grounding.accuracy": accuracy}, "")
    assert attempt.learned == learned
    assert attempt.low == ([] if learned else ["grounding.accuracy"])


def test_the_boxes_of_the_samples_are_named() -> None:
    settings = {"model.image_encoder": "vit:tiny_patch4", "model.text_encoder": "transformer:tiny_bidirectional"}
    (attempt,) = overfitted("detclip", 2, **settings)
    assert attempt.measures.keys() == {"grounding.accuracy"}
    assert attempt.measures["grounding.accuracy"] < 0.9


def test_the_weights_of_another_run_are_where_it_begins(tmp_path: Path) -> None:
    settings = TINY | {"train.batch": 8, "train.compile": False, "model.text_length": 24, "optimizer.learning_rate": 1e-9}
    data = ["shapes:samples=8,size=16,distinct=true"]
    fast = settings | {"optimizer.learning_rate": 5e-4}
    run = vlmdsl.train("clip", data=data, settings=fast, steps=30, out=tmp_path / "run")
    how = {"data": data, "samples": 8, "steps": 2, "advise": False}
    (attempt,) = vlmdsl.overfit("clip", **how, settings=settings | {"model.init": str(run.folder)}).stages
    assert attempt.terms["contrast"].accuracy == 1.0
    (fresh,) = vlmdsl.overfit("clip", **how, settings=settings).stages
    assert fresh.terms["contrast"].accuracy < 0.9


STAGES = """vlo 1
recipe staged(image: Image, text: Text)
stage first { minimize contrast(image, text, temperature=0.07) }
stage second BEGINS {
  encoder vision = frozen(vision)
  encoder language = frozen(language)
  minimize contrast(image, text, temperature=learned(0.07))
}
"""


@pytest.mark.parametrize("begins", ["from first", ""])
def test_a_stage_begins_with_what_the_one_that_it_starts_from_has_learned(begins: str) -> None:
    first, second = overfitted(STAGES.replace("BEGINS", begins), 30)
    assert first.learned
    assert second.learned == bool(begins)
