"""Masked autoencoders over two processes: the mean over all dropped patches, whoever holds them, as on one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch.collectives import own_slice, process_count
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
from vlmdsl.runtime.values import Batch, ImageBatch, KeptPatches
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 6
RECIPE = """recipe mae(image: Image)
let hidden = random(50%)
let decoded = decode(drop(image, hidden), depth=1, width=8, heads=2)
minimize reconstruct(decoded, pixels(image, normalised="patch"), at=hidden)"""


def loss_and_gradients() -> list[Tensor]:
    """The loss, and the gradient of every parameter, the mean over processes as DDP takes it; by micro-batches too."""
    torch.manual_seed(0)
    tower = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2), 4, ("states",))
    model = VisionLanguageModel({"vision": tower}, vlmdsl.compile(RECIPE, compiled=False)).double()
    random = torch.Generator().manual_seed(1)
    pixels = own_slice(torch.rand(SAMPLES, 3, 8, 8, generator=random, dtype=torch.float64))
    places = own_slice(torch.rand(SAMPLES, 4, generator=random).argsort(dim=1)[:, :2])
    values = {"image_drop": ImageBatch(pixels), "image_drop.keep": KeptPatches(places)}
    batch = Batch(values, torch.arange(len(pixels)), [str(place) for place in range(len(pixels))])
    output = model(batch)
    output.loss.backward()
    plain = [parameter.grad / process_count() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    step = vlmdsl.CachedStep(model, micro=2)
    step.backward(step(batch).loss)
    return [output.loss.detach(), *plain, *(weight.grad for weight in model.parameters() if weight.grad is not None)]


def test_two_processes_are_one() -> None:
    expected = loss_and_gradients()
    shares = run_processes(loss_and_gradients, 2)
    plain = 1 + (len(expected) - 1) // 2
    for place, whole in enumerate(expected):
        parts = [share[place] for share in shares]
        if 0 < place < plain:  # a share each of the mean over processes
            parts = [parts[0] + parts[1]]
        for part in parts:
            torch.testing.assert_close(part, whole, rtol=1e-10, atol=1e-13)
