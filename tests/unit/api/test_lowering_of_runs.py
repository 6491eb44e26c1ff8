"""A run trains with what `schedule.lowering` says, as a setting and as an option of the call."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.api.runs import course
from vlmdsl.runtime.training.identity import settings_of


def objective_of(trainer: vlmdsl.Trainer) -> vlmdsl.Objective:
    (stage,) = course(trainer._built, trainer.config)
    return stage.flows[0].objective


@pytest.mark.parametrize(
    ("overrides", "lowering", "setting", "chunked"),
    [
        ((), {}, "auto", False),
        (("schedule.lowering=chunked",), {}, "chunked", True),
        (("schedule.lowering.contrast=chunked",), {}, {"contrast": "chunked"}, True),
        (("schedule.lowering_budget=1",), {}, "auto", True),
        ((), "chunked", "chunked", True),
        (("schedule.lowering=chunked",), {"contrast": "dense"}, {"*": "chunked", "contrast": "dense"}, False),
    ],
)
def test_a_setting_decides_what_the_source_calls(
    overrides: tuple[str, ...], lowering: str | dict[str, str], setting: object, chunked: bool, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    trainer = vlmdsl.Trainer("clip", overrides=("train.compile=false", *overrides), lowering=lowering, out=out)
    assert trainer.config.schedule.lowering == setting
    assert ("ops.tiled.contrast(" in objective_of(trainer).source) == chunked


def test_a_term_that_is_not_there_is_a_diagnostic(tmp_path: Path) -> None:
    trainer = vlmdsl.Trainer("clip", lowering={"pairs": "chunked"}, out=str(tmp_path / "run"))
    with pytest.raises(vlmdsl.DiagnosticError, match="the recipe has no such term"):
        objective_of(trainer)


def test_how_it_runs_does_not_shape_the_numbers_of_a_run(tmp_path: Path) -> None:
    shaping = settings_of(vlmdsl.Trainer("clip", out=str(tmp_path / "run")).config, shaping=True)
    assert "schedule.final" in shaping
    assert not any("lowering" in name for name in shaping)


def test_an_objective_plans_itself_with_the_options_of_plan() -> None:
    objective = vlmdsl.compile("clip", compiled=False, lowering="chunked")
    options = {"batch": 64, "dim": 32, "micro": 8, "image_size": 64, "vocabulary": 100}
    assert objective.plan(**options) == vlmdsl.plan("clip", lowering="chunked", **options)
    assert objective.plan(batch=64, lowering="dense").regions[0].lowering == "dense"
