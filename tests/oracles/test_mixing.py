"""The gradients of ZeroVL's whole model: pixels or features are mixed, and the weights of the towers learn from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from batches import batch_of
from oracles.cases import DATA
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.contract import Kind
from vlmdsl.runtime.values import Batch, ImageBatch, TextBatch


class Tower(Encoder):
    """A projection of pixels [b, D], encoded where there are weights for it, or of the first state of a text [b, L, D]."""

    def __init__(self, kind: Kind, **weights: Tensor) -> None:
        super().__init__(kind, 6, {"pooled"})
        self.weights = nn.ParameterDict({name: nn.Parameter(value) for name, value in weights.items()})

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        features = values[:, 0] if values.dim() == 3 else values
        if "encoder" in self.weights:
            features = torch.tanh(features @ self.weights["encoder"])
        features = features @ self.weights["projection"]
        return EncodedFeatures(features, None, None)


def load(oracle: str) -> dict[str, Tensor]:
    with np.load(DATA / f"{oracle}.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


LOGGED = """
recipe logged(image: Image, text: Text, block = 0)
let lam = beta(0.1, 0.1)
let tau = learned(0.02, form="direct", name="temperature")
minimize contrast(mix(image, by=lam, block=block), text, sim=cosine(epsilon=1e-8), temperature=tau)
"""


def model(
    temperature: float, image: dict[str, Tensor], text: dict[str, Tensor], block: int = 0, recipe: str = "zerovl"
) -> VisionLanguageModel:
    knobs = {"learns": "yes"} if recipe == "zerovl" else {}
    objective = vlmdsl.compile(recipe, compiled=False, block=block, **knobs).double()
    objective.get_parameter("temperature").data.copy_(torch.tensor(temperature, dtype=torch.float64))
    return VisionLanguageModel({"vision": Tower("Image", **image), "language": Tower("Text", **text)}, objective)


def batch(images: Tensor, texts: Tensor, **draws: float) -> Batch:
    drawn = {name: torch.tensor(value, dtype=torch.float64) for name, value in draws.items()}
    keys = [str(number) for number in range(len(images))]
    return batch_of({"image": ImageBatch(images), "text": TextBatch(texts, torch.ones_like(texts))}, keys, drawn)


def agrees(value: Any, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected.reshape(value.shape), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("oracle", "coin"), [("zerovl-model_mix_image", 0.9), ("zerovl-model_mix_text", 0.1)])
def test_pixels_or_features_are_mixed(oracle: str, coin: float) -> None:
    arrays = load(oracle)
    towers = {
        "image": {"encoder": arrays["image_encoder_weight"], "projection": arrays["image_projection"].T},
        "text": {"projection": arrays["text_projection"].T},
    }
    whole = model(0.05, **towers)
    images, texts = arrays["images"].requires_grad_(), arrays["text_states"].requires_grad_()
    loss = whole(batch(images, texts, lam=0.65, coin=coin)).loss
    loss.backward()
    agrees(loss.detach(), arrays["out_total"])
    agrees(images.grad, arrays["grad_images"])
    agrees(texts.grad, arrays["grad_text_states"])
    vision, language = whole.encoders["vision"].weights, whole.encoders["language"].weights
    agrees(vision["encoder"].grad, arrays["grad_image_encoder_weight"])
    agrees(vision["projection"].grad.T, arrays["grad_image_projection"])
    agrees(language["projection"].grad.T, arrays["grad_text_projection"])
    agrees(whole.objective.get_parameter("temperature").grad, arrays["grad_temperature"])


def test_the_decoupled_accumulation_of_the_authors_is_the_gradient_of_the_whole_batch() -> None:
    """Theirs comes in two micro-batches of four, without mixing; ours is one batch of eight."""
    arrays = load("zerovl-dga")
    whole = model(0.05, {"projection": arrays["image_weight"].T}, {"projection": arrays["text_weight"].T})
    whole(batch(arrays["images"], arrays["texts"], lam=1.0, coin=0.9)).loss.backward()
    agrees(whole.encoders["vision"].weights["projection"].grad.T, arrays["grad_image_weight"])
    agrees(whole.encoders["language"].weights["projection"].grad.T, arrays["grad_text_weight"])


def test_micro_batches_of_the_authors_are_blocks_of_the_whole_batch() -> None:
    """Theirs are of four samples, each with its pixels read backwards; the loss that they log is that of the pairs alone."""
    arrays = load("zerovl-dga_mixup")
    towers = {"projection": arrays["image_weight"].T}, {"projection": arrays["text_weight"].T}
    whole, mixed = model(0.05, *towers, block=4), batch(arrays["images"], arrays["texts"], lam=0.65, coin=0.9)
    whole(mixed).loss.backward()
    agrees(whole.encoders["vision"].weights["projection"].grad.T, arrays["grad_image_weight"])
    agrees(whole.encoders["language"].weights["projection"].grad.T, arrays["grad_text_weight"])
    agrees(model(0.05, *towers, block=4, recipe=LOGGED)(mixed).loss.detach(), arrays["out_logged_loss"])
