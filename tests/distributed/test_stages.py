"""Stages and flows on two processes leave what they leave on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch.optim import AdamW

import vlmdsl
from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import course
from vlmdsl.runtime.training import session, stages
from vlmdsl.runtime.training.course import DataFacts, Model, StageOfRun, open_course, tokenizers_of_course
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.sharding import Sharded
from vlmdsl.runtime.training.verification import in_float64
from vlmdsl.runtime.values import Batch
from vlmdsl.schema import load_config
from vlmdsl.testing.distributed import run_processes

pytestmark = pytest.mark.distributed

RECIPES = Path(__file__).parents[1] / "end_to_end" / "recipes"
SETTINGS = {
    "train.batch": 8,
    "train.compile": False,
    "tracking.report": False,
    "train.log_every": 1,
    "data.train": ("shapes:samples=40",),
}


def mixed(micro: int | None = None, parallel: str = "replicated") -> dict[str, Any]:
    """What five steps of two flows log and leave, in float64."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    world = World(rank, size, torch.device("cpu"))
    settings = {"train.steps": 5, "train.seed": 6, "train.micro": micro, "train.parallel": parallel}
    config, faults = load_config(flags=SETTINGS | settings)
    assert config is not None, faults
    parts = course(build_flows(RECIPES / "two_flows.vlo"), config)
    opened = open_course(parts)
    (stage,), data = parts, opened.stages[""]
    model = stage.build(tokenizers_of_course(parts, opened), world, DataFacts.of(data)).double()
    batches = stage.batches(data, model, world)
    logged: list[dict[str, Any]] = []
    optimizer, gather = build_optimizer(model, config.optimizer), lambda step: None
    trained, its = model, optimizer
    if parallel == "sharded" and size > 1:
        sharded = Sharded(model, optimizer, config.optimizer, world)
        trained, its, gather = sharded.model, sharded.optimizer, lambda step: sharded.gather()
    train_steps(trained, its, in_float64(batches), config, world, callbacks=Callbacks(log=logged.append, save=gather))
    state = {name: value.clone() for name, value in model.state_dict().items()} if rank == 0 or its is optimizer else {}
    losses = [line["loss"] for line in logged]
    return {"flows": [line["flow"] for line in logged], "losses": losses, "state": state, "first": world.first}


@pytest.mark.parametrize("parallel", ["replicated", "sharded"])
@pytest.mark.parametrize("micro", [None, 3], ids=["plain", "micro"])
def test_a_mixture_on_two_processes_is_that_on_one(micro: int | None, parallel: str) -> None:
    alone = mixed()
    assert set(alone["flows"]) == {"pairs", "texts"}
    for own in run_processes(mixed, 2, micro, parallel):
        assert own["flows"] == alone["flows"]
        assert own["losses"] == pytest.approx(alone["losses"], abs=1e-9)
        if parallel == "replicated" or own["first"]:  # sharded weights are gathered on the first process
            assert own["state"].keys() == alone["state"].keys()
        for name, value in own["state"].items():
            torch.testing.assert_close(value, alone["state"][name], rtol=0, atol=1e-7, msg=name)


def staged(out: str) -> list[dict[str, Any]]:
    """The weights that this process has at the end of each of two stages, whose steps are taken in float64."""
    settings = {**SETTINGS, "train.steps": 2, "stages.main.train.steps": 3, "stages.main.model.image_size": 16}
    build, models = StageOfRun.build, list[Model]()

    def precise_model(*arguments: Any) -> Model:
        models.append(build(*arguments).double())
        return models[-1]

    def precise_steps(model: Model, optimizer: AdamW, batches: Iterator[Batch], *rest: Any, **more: Any) -> None:
        train_steps(model, optimizer, in_float64(batches), *rest, **more)

    with ExitStack() as patched:
        patched.enter_context(patch.object(StageOfRun, "build", precise_model))
        patched.enter_context(patch.object(stages, "train_steps", precise_steps))
        # Evaluation reads images in float32.
        patched.enter_context(patch.object(session, "held_out_of_stage", lambda *arguments: None))
        vlmdsl.train(RECIPES / "two_stages.vlo", settings=settings, out=out)
    return [model.state_dict() for model in models]


def test_stages_on_two_processes_leave_the_weights_of_one(tmp_path: Path) -> None:
    alone = staged(str(tmp_path / "alone"))
    assert len(alone) == 2
    assert not torch.equal(*(state["encoders.language.embedding.weight"] for state in alone))
    for own in run_processes(staged, 2, str(tmp_path / "run")):
        for expected, state in zip(alone, own, strict=True):
            assert state.keys() == expected.keys()
            assert state["objective.tau_log_scale"].dtype == torch.float64
            for name, value in state.items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-7, msg=name)


def written(out: str) -> tuple[list[dict[str, Any]], bytes]:
    """The weights of each of three stages, and what the decoder of the second one wrote for the last."""
    settings = SETTINGS | {"stages.pairs.train.steps": 1, "stages.captions.train.steps": 16, "evaluation.batch": 4}
    settings |= {"model.image_size": 16, "model.text_length": 12, "stages.captions.optimizer.learning_rate": 3e-2}
    models = list[Model]()
    build = StageOfRun.build

    def kept_model(*arguments: Any) -> Model:
        models.append(build(*arguments))
        return models[-1]

    data = {"data.train": ("shapes:samples=26,size=16",)}
    with patch.object(StageOfRun, "build", kept_model), patch.object(session, "held_out_of_stage", lambda *arguments: None):
        columns = {"hint": "template(source)", "text": "caption"}
        vlmdsl.train(RECIPES / "written.vlo", settings=settings | data, map=columns, steps=1, out=out)
    return [model.state_dict() for model in models], (Path(out) / "written" / "enriched-1.jsonl").read_bytes()


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    states, texts = written(str(tmp_path / "alone"))
    assert len(set(texts.splitlines())) > 1
    for own, own_texts in run_processes(written, 2, str(tmp_path / "run")):
        assert own_texts == texts
        for expected, state in zip(states, own, strict=True):
            for name, value in state.items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-3, msg=name)
