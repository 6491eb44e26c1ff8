"""Pixels are mixed with those of the batch of all processes: towers learn the same on one process and on several."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from vlmdsl.backends.torch.collectives import mirrored, own_slice
from vlmdsl.runtime.data.batch import Batch, StreamValues
from vlmdsl.runtime.encoders import EncodedFeatures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.processes import in_parallel
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 12
RECIPE = """
recipe mixed(image: Image, text: Text)
let lam = beta(1, 1)
minimize contrast(mix(image, by=lam), text, targets=lam * paired + (1 - lam) * flipped, temperature=0.3)
"""


class Tower(nn.Module):
    """A layer that is not linear, so that mixing before it is not mixing after it."""

    yields = frozenset({"pooled"})
    image_format = None
    dimension = 5

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(4, 5)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(torch.tanh(self.layer(values)), None, None)


def step() -> dict[str, Tensor]:
    """The loss and the gradients of the weights, as DDP's mean over processes gives them."""
    torch.manual_seed(0)
    model = VisionLanguageModel(
        {"vision": Tower("Image"), "language": Tower("Text")}, vlmdsl.compile(RECIPE, compiled=False)
    )
    model.double()
    images, texts = (torch.randn(SAMPLES, 4, dtype=torch.float64) for _ in range(2))
    streams = {"image": StreamValues(own_slice(images)), "text": StreamValues(own_slice(texts))}
    wrapped = in_parallel(model)
    loss = wrapped(Batch(streams, {}, ["x"] * len(streams["text"].values), {"lam": torch.tensor(0.3)})).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in model.named_parameters()}}


@pytest.mark.parametrize("processes", [2, 4])
def test_weights_learn_the_same_from_mixed_pixels(processes: int) -> None:
    expected = step()
    for found in run_processes(step, processes):
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
            )


def backwards() -> dict[str, Tensor]:
    """A batch read backwards, and the gradient of a weighted sum of it."""
    own = own_slice(torch.arange(2.0 * SAMPLES).reshape(SAMPLES, 2)).requires_grad_()
    read = mirrored(own)
    (read * own_slice(torch.arange(1.0, SAMPLES + 1))[:, None]).sum().backward()
    return {"values": read.detach(), "gradient": own.grad}


def test_the_batch_is_read_backwards_over_all_processes() -> None:
    found = run_processes(backwards, 3)
    values = torch.arange(2.0 * SAMPLES).reshape(SAMPLES, 2).flip(0)
    assert torch.equal(torch.cat([part["values"] for part in found]), values)
    gradient = torch.arange(1.0, SAMPLES + 1).flip(0)[:, None].expand(-1, 2)
    assert torch.equal(torch.cat([part["gradient"] for part in found]), gradient)
