"""State is that of the global batch: after every step it is the same on every process, however many share the batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.testing.distributed import run_processes
from vlmdsl.testing.laws import example_features

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS, SAMPLES = 3, 8
QUEUED = """
recipe queued(image: Image, text: Text)
let words = queue((text, image), size=21)
minimize memory_contrast(image, text, words) + contrast(image, nearest(text, words), directions="rows")
"""
CENTRED = """
recipe centred(image: Image, text: Text)
let centre = running_mean(image, momentum=0.9, start=0.1, reads="previous")
minimize mean(score(image.pooled - centre, text.pooled + running_mean(text, momentum=0.5), by=euclidean))
"""
KEPT = """
recipe kept(image: Image, text: Text)
let s = score(image, text)
let u = running_mean(s, per="sample", momentum=0.75)
let clean = 1 - mixture(running_mean(1 - s, per="sample", momentum=0), name="noise")
minimize mean(clean * s * exp(u)) + contrast(image, text)
"""
RECIPES = {
    "numbers kept per sample": KEPT,
    "numbers kept per sample, some twice in a batch": KEPT,
    "alip": "alip",
    "moco": "moco",
    "declip": "declip",
    "queue": QUEUED,
    "centre": CENTRED,
    "queue of less than a batch": QUEUED.replace("size=21", "size=5"),
}


def run(recipe: str) -> list[dict[str, Tensor]]:
    """Each step's loss, gradients (over the number of processes, as DDP's mean would give them) and state after it."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    objective = vlmdsl.compile(RECIPES[recipe], compiled=False).double()
    records = []
    for step in range(STEPS):
        whole = example_features(objective, seed=step, batch=SAMPLES)
        if "twice" in recipe:
            whole["index"] = torch.tensor([3, 9, 3, 1, 9, 9, 2, 3]) + step
        own = {name: own_slice(value).clone() for name, value in whole.items()}
        own = {name: value.requires_grad_() if value.is_floating_point() else value for name, value in own.items()}
        objective.zero_grad()
        loss = objective(**own).loss
        loss.backward()
        objective.after_epoch()
        record = {"loss": loss.detach(), **{f"state {name}": value.clone() for name, value in objective.named_buffers()}}
        record |= {f"gradient {name}": value.grad / processes for name, value in own.items() if value.grad is not None}
        records.append(
            record | {f"parameter {name}": value.grad / processes for name, value in objective.named_parameters()}
        )
    return records


def run_all() -> dict[str, list[dict[str, Tensor]]]:
    return {recipe: run(recipe) for recipe in RECIPES}


def assert_same(records: list[dict[str, Tensor]], expected: dict[str, Tensor], what: str) -> None:
    for key, whole in expected.items():
        parts = [record[key] for record in records]
        if key.startswith("gradient"):
            parts = [torch.cat(parts)]
        elif key.startswith("parameter"):
            parts = [torch.stack(parts).sum(dim=0)]
        for part in parts:
            place = f"{what}, {key}: "
            torch.testing.assert_close(
                part, whole, rtol=1e-10, atol=1e-12, equal_nan=True, msg=lambda text, place=place: place + text
            )


@pytest.mark.parametrize("processes", [2, 4])
def test_every_step_is_that_of_one_process(processes: int) -> None:
    expected = run_all()
    records = run_processes(run_all, processes)
    for recipe in RECIPES:
        for step in range(STEPS):
            assert_same([each[recipe][step] for each in records], expected[recipe][step], f"{recipe}, step {step}")
