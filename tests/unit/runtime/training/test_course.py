"""What a stage takes over from another, and with which settings it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vlmdsl
from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import course
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.training.checkpoint import Position, save_checkpoint, take_over
from vlmdsl.runtime.training.course import (
    DataFacts,
    Model,
    StageOfRun,
    all_weights_follow,
    models_of,
    open_course,
    tokenizers_of_course,
)
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.schema import RunConfig, load_config

HERE = World(0, 1, torch.device("cpu"))
RECIPE = """
recipe mine(image: Image, text: Text)

encoder image_projector = project(vision, layers=2, hidden=16, out=16)
encoder text_projector = project(language, layers=2, hidden=16, out=16)

let tau = learned(0.07, max_scale=100)

stage first {
  minimize {
    pairs: contrast(image, text, temperature=tau)
    kept:  memory_contrast(image, text, queue(text, size=SIZE, name="texts"), temperature=tau)
  }
}

stage second from first {
  flow pairs(image, text) share 50% {
    minimize {
      pairs:  contrast(image, text, temperature=tau)
      kept:   memory_contrast(image, text, queue(text, size=16, name="texts"), temperature=tau)
      taught: contrast(ema(vision, momentum=0.9)(image), text)
      heads:  contrast(image_projector(image), text_projector(text), temperature=tau)
    }
  }
  flow texts(text) {
    minimize mlm(mask(text, random(15%)))
  }
}
"""


def configured(**settings: object) -> RunConfig:
    flags = {"data.train": ("shapes:samples=24",), "train.batch": 8, "train.compile": False, **settings}
    config, faults = load_config(flags=flags)
    assert config is not None, faults
    return config


def stages(size: int = 16, **settings: object) -> tuple[tuple[StageOfRun, ...], list[Model]]:
    text = RECIPE.replace("SIZE", str(size))
    parts = course(build_flows(text, expression=True), configured(**settings))
    opened = open_course(parts)
    tokenizers = tokenizers_of_course(parts, opened)
    return parts, [stage.build(tokenizers, HERE, DataFacts.of(opened.stages[stage.name])) for stage in parts]


def saved(model: Model, folder: Path) -> Path:
    """A checkpoint of the model, its weights changed so that they are not those of the seed."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
        for name, buffer in model.named_buffers():
            if "texts" in name and buffer.is_floating_point():
                buffer.fill_(0.5)
    return save_checkpoint(folder, model, build_optimizer(model, RunConfig().optimizer), Position(1, 0, 1, 0))


def test_weights_numbers_and_states_are_taken_over_by_name_and_the_rest_is_fresh(tmp_path: Path) -> None:
    _, (first, second) = stages()
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    take_over(saved(first, tmp_path), second)
    own = first.state_dict()
    shared = [name for name in own if name in before]
    assert {"encoders", "objective"} == {name.partition(".")[0] for name in shared}
    assert "objective.tau_log_scale" in shared
    assert any("texts" in name for name in shared)
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, own[name] if name in own else before[name]), name
    assert {name.partition(".")[0] for name in before if name not in own} >= {"heads", "teachers"}


def test_teachers_begin_as_copies_of_what_they_follow(tmp_path: Path) -> None:
    _, (first, second) = stages()
    take_over(saved(first, tmp_path), second)
    assert second.teachers is not None
    second.parts.begin_again()
    (copy,) = second.teachers.copies.values()
    for own, followed in zip(copy.parameters(), second.encoders["vision"].parameters(), strict=True):
        assert torch.equal(own, followed)


def test_a_state_of_another_size_begins_again(tmp_path: Path) -> None:
    _, (first, _) = stages(size=24)
    _, (_, second) = stages(size=16)
    before = {name: tensor.clone() for name, tensor in second.state_dict().items() if "texts" in name}
    assert before
    take_over(saved(first, tmp_path), second)
    assert all(torch.equal(second.state_dict()[name], tensor) for name, tensor in before.items() if tensor.dim())


def test_a_weight_of_another_form_is_named(tmp_path: Path) -> None:
    _, (first, _) = stages()
    _, (_, second) = stages(**{"model.dimension": 32})
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        take_over(saved(first, tmp_path), second)
    assert [fault.code for fault in caught.value.diagnostics] == ["V0853"]


def test_flows_have_one_set_of_modules_and_numbers() -> None:
    parts, (_, second) = stages()
    assert isinstance(second, FlowModels)
    pairs, texts = models_of(second, parts[1]).values()
    assert pairs.encoders["language"] is texts.encoders["language"]
    assert pairs.objective.state is texts.objective.state
    names = [name for name, _ in second.named_parameters()]
    assert len(names) == len(set(names))
    assert "objective.tau_log_scale" in names
    assert second.objective.get_parameter("tau_log_scale") is pairs.objective.get_parameter("tau_log_scale")
    second.eval()
    assert not any(module.training for module in (pairs, texts, pairs.objective))
    second.double()
    assert {parameter.dtype for parameter in texts.parameters()} == {torch.float64}


def test_each_stage_and_flow_has_its_settings() -> None:
    parts, models = stages(
        **{
            "train.steps": 5,
            "stages.second.train.steps": 3,
            "stages.second.optimizer.learning_rate": 1e-4,
            "flows.texts.data.train": ("shapes:samples=16",),
        }
    )
    first, second = parts
    assert [(stage.before, stage.end) for stage in parts] == [(0, 5), (5, 8)]
    assert (first.config.optimizer.learning_rate, second.config.optimizer.learning_rate) == (2e-3, 1e-4)
    assert [flow.config.data.train for flow in second.flows] == [("shapes:samples=24",), ("shapes:samples=16",)]
    assert isinstance(models[0], VisionLanguageModel)
    assert second.measured.name == "pairs"


def test_settings_state_shares_of_flows_and_the_others_divide_the_rest() -> None:
    text = RECIPE.replace("SIZE", "16")
    _, second = course(build_flows(text, expression=True), configured(flows={"texts": {"share": 0.2}}))
    assert second.mixture.shares == pytest.approx({"pairs": 0.8, "texts": 0.2})
    assert {flow.name: flow.share for flow in second.flows} == {"pairs": 0.5, "texts": 0.5}


@pytest.mark.parametrize(
    ("shares", "problem"),
    [({"texts": 0.7, "pairs": 0.2}, "sums to 90 % with the others"), ({"texts": 0.7, "pairs": 0.5}, "sums to 120 %")],
)
def test_shares_that_are_not_all_steps_are_refused(shares: dict[str, float], problem: str) -> None:
    settings = configured(flows={name: {"share": share} for name, share in shares.items()})
    with pytest.raises(DiagnosticError, match=problem):
        course(build_flows(RECIPE.replace("SIZE", "16"), expression=True), settings)


THREE = """
recipe three(image: Image, text: Text)

stage first {
  minimize contrast(image, text)
}

stage second from first {
  minimize sigmoid_contrast(image, text)
}

stage third FROM {
  minimize TERM
}
"""


@pytest.mark.parametrize(
    ("start", "term", "follow"),
    [
        ("from first", "contrast(image, text)", True),
        ("from second", "nt_xent(augment(image), augment(image))", True),
        ("", "contrast(image, text)", False),
        ("from second", 'contrast(image, separate(language, name="other")(text))', False),
    ],
    ids=["first", "one tower", "from nothing", "another tower"],
)
def test_weights_follow_where_a_stage_begins_with_all_its_towers(start: str, term: str, follow: bool) -> None:
    text = THREE.replace("FROM", start).replace("TERM", term)
    stages = course(build_flows(text, expression=True), RunConfig(), compiled=False)
    assert all_weights_follow(stages, "first") is follow
    assert all_weights_follow(stages, "third")
