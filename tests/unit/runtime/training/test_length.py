"""What a run of another length would have done otherwise, and where epochs have no length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vlmdsl.api.driver import build
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.training.length import changes_of_length, in_steps
from vlmdsl.schema import RunConfig, ScheduleConfig, TrainConfig


def settings(steps: int, **schedule: float) -> RunConfig:
    return RunConfig(train=TrainConfig(steps=steps), schedule=ScheduleConfig(warmup_steps=2, **schedule))  # type: ignore[arg-type]


CLIP = build("clip").planned
RAMP = build("contrast(image, text, temperature=ramp(0.1, 0.2, over=50%))", expression=True).planned


@pytest.mark.parametrize(
    ("final", "now", "program", "word"),
    [
        (1.0, 20, CLIP, ""),
        (0.0, 20, CLIP, "the learning rate of step 4 was"),
        (1.0, 4, CLIP, "5 steps are done already"),
        (1.0, 20, RAMP, "50% of the run"),
    ],
)
def test_what_would_change(final: float, now: int, program: Any, word: str) -> None:
    changes = changes_of_length(settings(10, final=final), settings(now, final=final), 5, [program])
    assert bool(changes) == bool(word)
    assert word in "".join(changes)


def test_within_the_warm_up_nothing_depends_on_the_length() -> None:
    assert changes_of_length(settings(10), settings(20), 2, [CLIP]) == []


@pytest.mark.parametrize(("flows", "stream", "steps"), [(1, None, 8), (2, None, 0), (1, object(), 0)])
def test_epochs_in_steps(flows: int, stream: object, steps: int) -> None:
    config = RunConfig(train=TrainConfig(epochs=2.5, batch=8))
    data: Any = SimpleNamespace(train=open_source("shapes:samples=30"), mapping=None, stream=stream)
    flow = SimpleNamespace(objective=SimpleNamespace(program=CLIP))
    course: Any = [SimpleNamespace(name="", flows=[flow] * flows)]
    if steps:
        assert in_steps(config, course, {"": {"": data}}).train.steps == steps
        assert in_steps(RunConfig(), course, {"": {"": data}}) == RunConfig()
    else:
        with pytest.raises(DiagnosticError, match="V0847"):
            in_steps(config, course, {"": {"": data}})
