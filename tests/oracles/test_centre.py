"""DINO's centre: targets are made with the mean of the steps before, which the batch enters after it was used."""

from __future__ import annotations

import numpy as np
import torch

import vlmdsl
from oracles.cases import DATA

RECIPE = """
recipe centred(image: Image, text: Text, temperature = 0.04)
let centre = running_mean(stop(image), momentum=0.9, reads="previous")
let targets = distribution(stop(image.pooled) - centre, temperature=temperature)
minimize mean(entropy(targets, distribution(text, temperature=0.1)))
"""


def test_three_steps_of_the_centre_and_of_the_targets_made_with_it() -> None:
    with np.load(DATA / "dinov2-centering.npz") as arrays:
        tensors = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    assert not tensors["center_init"].any()
    state = {"state.centre_mean": tensors["center_init"]}
    for step in range(3):
        temperature = tensors[f"temperature_{step}"].item()
        objective = vlmdsl.compile(RECIPE, compiled=False, temperature=temperature).double()
        objective.load_state_dict(state)
        # Theirs stand in the order of the students that they are for: the second crops', then the first ones'.
        teacher, student = (
            tensors[f"teacher_cls_{step}"].roll(2, dims=0),
            tensors[f"student_cls_{step}"].clone().requires_grad_(),
        )
        loss = objective(image=teacher, text=student).loss
        expected = -(tensors[f"out_targets_cls_{step}"] * (student / 0.1).log_softmax(dim=-1)).sum(dim=-1).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        gradients = (torch.autograd.grad(value, student)[0] for value in (loss, expected))
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-14)
        state = objective.state_dict()
        torch.testing.assert_close(state["state.centre_mean"], tensors[f"out_center_{step}"], rtol=1e-12, atol=1e-14)
