"""State: what a training step leaves behind, what an evaluation does not, and what a checkpoint brings back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import Objective
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.testing.laws import example_features

GATED = """
recipe gated(image: Image, text: Text)
let usual = running_mean(score(image, text), momentum=0.75, start=0.5)
minimize contrast(image, text, weight=exp(stop(score(image, text)) - usual))
"""


def compiled(recipe: str) -> Objective:
    return vlmdsl.compile(recipe, compiled=False).double()


def steps(objective: Objective, first: int, last: int) -> list[float]:
    return [objective(**example_features(objective, seed=step)).loss.item() for step in range(first, last)]


def test_a_running_mean_takes_the_batch_in_before_it_is_read() -> None:
    objective = compiled(GATED)
    features = example_features(objective)
    scores = torch.cosine_similarity(features["image"], features["text"])
    expected = 0.75 * 0.5 + 0.25 * scores.mean()
    out = objective(**features)
    assert out.metrics["usual_mean"].item() == pytest.approx(expected.item(), abs=1e-12)
    assert objective.get_buffer("usual_mean").item() == pytest.approx(expected.item(), abs=1e-12)
    objective(**features)
    again = 0.75 * expected + 0.25 * scores.mean()
    assert objective.get_buffer("usual_mean").item() == pytest.approx(again.item(), abs=1e-12)


def test_no_gradient_enters_through_the_mean() -> None:
    open_ended = (
        "recipe r(image: Image, text: Text)\nlet s = score(image, text)\nminimize mean(s - running_mean(s, momentum=0))"
    )
    objective = compiled(open_ended)
    features = {name: value.requires_grad_() for name, value in example_features(objective).items()}
    objective(**features).loss.backward()
    gradient = torch.autograd.grad(torch.cosine_similarity(features["image"], features["text"]).mean(), features["image"])[0]
    torch.testing.assert_close(features["image"].grad, gradient)


def test_evaluation_mode_gives_the_next_loss_and_changes_nothing() -> None:
    objective = compiled(GATED)
    steps(objective, 0, 2)
    before = copy.deepcopy(objective.state_dict())
    expected = steps(objective.eval(), 2, 3)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert steps(objective.train(), 2, 3) == expected


def test_a_loss_may_be_differentiated_after_further_steps() -> None:
    def gradients(*, late: bool) -> list[Tensor]:
        objective = compiled("alip")
        losses = []
        for step in range(2):
            losses.append(objective(**example_features(objective, seed=step)).loss)
            if not late:
                losses[-1].backward()
        if late:
            torch.stack(losses).sum().backward()
        return [parameter.grad for parameter in objective.parameters()]

    torch.testing.assert_close(gradients(late=True), gradients(late=False))


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = steps(compiled("alip"), 0, 4)
    first = compiled("alip")
    optimizer = torch.optim.AdamW(first.named_parameters())
    half = steps(first, 0, 2)
    folder = save_checkpoint(tmp_path, first, optimizer, Position(2, 0, 2, seed=0))
    resumed = compiled("alip")
    load_checkpoint(folder, resumed, torch.optim.AdamW(resumed.named_parameters()))
    assert half + steps(resumed, 2, 4) == whole


def test_state_that_nothing_reads_is_not_kept() -> None:
    silent = "let unused = running_mean(score(image, text))\nminimize contrast(image, text)"
    assert [name for name, _ in compiled(silent).named_buffers()] == []
    weightless = GATED.replace("minimize ", "minimize {\n  a: contrast(image, text)\n  b: 0 * ") + "}"
    assert [name for name, _ in compiled(weightless).named_buffers()] == []


def test_states_have_names_of_their_own() -> None:
    recipe = """
    recipe twice(image: Image, text: Text)
    def centred(s) = exp(s - running_mean(s))
    let a = centred(stop(score(image, text)))
    let b = centred(stop(score(image, text, by=dot)))
    minimize contrast(image, text, weight=a * b * centred(a), temperature=learned(0.07, name="a_mean"))
    """
    objective = compiled("\n".join(line.strip() for line in recipe.strip().splitlines()))
    names = [*objective.state_dict()]
    assert len(names) == len(set(names)) == 4
    assert {"a_mean", "a_mean_2", "b_mean"} < set(names)
