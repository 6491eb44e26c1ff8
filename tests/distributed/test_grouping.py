"""A tower that draws groups learns the same on one process and on several: each sample brings its noise along."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import vlmdsl
from vlmdsl.backends.torch.collectives import process_count, process_index
from vlmdsl.runtime.training.assembly import build_model, open_data, read_tokenizers, training_batches
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.values import ImageBatch, port
from vlmdsl.schema import RunConfig
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CONFIG = RunConfig.model_validate(
    {
        "data": {"train": ("shapes:samples=32,size=16",), "val": ()},
        "model": {"image_encoder": "groupvit:tiny", "image_size": 16, "dimension": 8},
        "train": {"batch": 8, "device": "cpu"},
    }
)


def step() -> dict[str, Tensor]:
    """The loss of a batch and the gradients of all weights, as DDP's mean over processes gives them."""
    objective = vlmdsl.compile("groupvit", compiled=False, hidden=6, out=5)
    data = open_data(objective.program, CONFIG)
    tokenizers = read_tokenizers(objective, CONFIG.model, data)
    world = World(process_index(), process_count(), torch.device("cpu"))
    model = build_model(objective, CONFIG, tokenizers, world).double().train()
    batch = next(iter(training_batches(objective.program, CONFIG, data, model, world)))
    image = batch.values["image"]
    assert isinstance(image, ImageBatch)
    assert port("image", "noise") in batch.values
    # In double precision, where the order of sums does not hide a difference.
    batch = replace(batch, values={**batch.values, "image": ImageBatch(image.pixels.double())})
    wrapped = nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
    loss = wrapped(batch).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in model.named_parameters()}}


@pytest.mark.parametrize("processes", [2, 4])
def test_weights_learn_the_same_with_drawn_groups(processes: int) -> None:
    expected = step()
    for weights in run_processes(step, processes):
        for name, value in expected.items():
            torch.testing.assert_close(
                weights[name], value, rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
            )
