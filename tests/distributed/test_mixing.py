"""Pixels are mixed with those of the batch of all processes: towers learn the same on one process and on several."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from batches import batch_of
from vlmdsl.backends.torch.collectives import mirrored, own_slice
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.contract import Kind
from vlmdsl.runtime.training.processes import in_parallel
from vlmdsl.runtime.values import ImageBatch, TextBatch
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 12
RECIPE = """
recipe mixed(image: Image, text: Text, block = 0)
let lam = beta(1, 1)
let targets = lam * paired + (1 - lam) * flipped(block=block)
minimize contrast(mix(image, by=lam, block=block), text, targets=targets, temperature=0.3)
"""


class Tower(Encoder):
    """A layer that is not linear, so that mixing before it is not mixing after it."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind, 5, {"pooled"})
        self.layer = nn.Linear(4, 5)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(torch.tanh(self.layer(values)), None, None)


def steps() -> dict[str, Tensor]:
    """Of the whole batch read backwards, and of blocks that two processes share."""
    return {f"{name}, block {block}": value for block in (0, 5) for name, value in step(block).items()}


def step(block: int) -> dict[str, Tensor]:
    """The loss and the gradients of the weights, as DDP's mean over processes gives them."""
    torch.manual_seed(0)
    model = VisionLanguageModel(
        {"vision": Tower("Image"), "language": Tower("Text")}, vlmdsl.compile(RECIPE, compiled=False, block=block)
    )
    model.double()
    images, texts = (torch.randn(SAMPLES, 4, dtype=torch.float64) for _ in range(2))
    own_texts = own_slice(texts)
    values = {"image": ImageBatch(own_slice(images)), "text": TextBatch(own_texts, torch.ones_like(own_texts))}
    wrapped = in_parallel(model)
    loss = wrapped(batch_of(values, ["x"] * len(own_texts), {"lam": torch.tensor(0.3)})).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in model.named_parameters()}}


@pytest.mark.parametrize("processes", [2, 4])
def test_weights_learn_the_same_from_mixed_pixels(processes: int) -> None:
    expected = steps()
    for weights in run_processes(steps, processes):
        for name, value in expected.items():
            torch.testing.assert_close(
                weights[name], value, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
            )


BLOCKS = (0, 1, 2, 4, 5, 8, 30)
"""Of three processes with four samples each: the whole batch, their own, whole ones of a process, some that two share."""


def backwards() -> dict[str, Tensor]:
    """A batch read backwards in blocks, and the gradient of a weighted sum of it."""
    results: dict[str, Tensor] = {}
    for block in BLOCKS:
        own = own_slice(torch.arange(2.0 * SAMPLES).reshape(SAMPLES, 2)).requires_grad_()
        read = mirrored(own, block)
        (read * own_slice(torch.arange(1.0, SAMPLES + 1))[:, None]).sum().backward()
        results |= {f"values {block}": read.detach(), f"gradient {block}": own.grad}
    return results


def test_blocks_are_read_backwards_over_all_processes() -> None:
    alone, shares = backwards(), run_processes(backwards, 3)
    for block in BLOCKS:
        values = list(range(SAMPLES))
        size = block or SAMPLES
        partners = [sample for start in range(0, SAMPLES, size) for sample in reversed(values[start : start + size])]
        expected = torch.arange(2.0 * SAMPLES).reshape(SAMPLES, 2)[partners]
        gradient = torch.arange(1.0, SAMPLES + 1)[partners][:, None].expand(-1, 2)
        for parts in ([alone], shares):
            assert torch.equal(torch.cat([part[f"values {block}"] for part in parts]), expected), f"block {block}"
            assert torch.equal(torch.cat([part[f"gradient {block}"] for part in parts]), gradient), f"block {block}"
