"""Towers that take images of another size than they were built for: with the same weights, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder, build_encoder
from vlmdsl.runtime.values import ImageFormat

SETTING = "stages.second.model.image_size"


@pytest.mark.parametrize("name", ["vit:tiny", "vit:tiny_patch4", "groupvit:tiny", "segclip:tiny"])
def test_images_are_read_as_views_of_that_size_are(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, "Image", 16).eval()
    pixels = {side: torch.randn(2, 3, side, side) for side in (16, 32, 64)}
    before = {side: encoder(images).pooled for side, images in pixels.items()}
    weights = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.take_images(name, 64, SETTING)
    assert encoder.image_format is not None
    assert (encoder.image_format.size, encoder.built_size) == (64, 32)
    assert all(torch.equal(encoder(images).pooled, before[side]) for side, images in pixels.items())
    assert all(torch.equal(value, weights[key]) for key, value in encoder.state_dict().items())
    encoder.take_images(name, 48, SETTING)
    assert (encoder.image_format.size, encoder.built_size) == (48, 32)


@pytest.mark.parametrize("name", ["groupvit:tiny", "segclip:tiny"])
def test_noise_is_for_as_many_patches(name: str) -> None:
    encoder = build_encoder(name, "Image", 16)
    before = encoder.noise_length
    encoder.take_images(name, 64, SETTING)
    assert before is not None
    assert encoder.noise_length is not None
    assert encoder.noise_length > before
    features: Any = encoder.train()
    noise = -torch.rand(2, encoder.noise_length).log().neg().log()
    assert features(torch.randn(2, 3, 64, 64), noise=noise).pooled.shape == (2, 16)


def test_a_form_keeps_its_margin_in_proportion() -> None:
    form = ImageFormat(224, shorter=256, patch=16).of_size(448)
    assert (form.size, form.shorter, form.patch, form.patches(1.0)) == (448, 512, 16, 784)


class Fixed(Encoder):
    """A tower of someone else that says nothing of the sizes that it takes."""

    def __init__(self, sides: range) -> None:
        super().__init__("Image", 4, ("pooled",))
        self.image_format, self.sides = ImageFormat(32), sides

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        if values.shape[-1] not in self.sides:
            raise RuntimeError("another size")
        return EncodedFeatures(values.mean(dim=(2, 3)))


def test_a_tower_that_says_nothing_is_tried() -> None:
    tower = Fixed(range(100)).train()
    tower.take_images("own", 64, SETTING)
    assert tower.image_format is not None
    assert (tower.image_format.size, tower.training) == (64, True)


def refusal(encoder: Encoder, name: str, size: int) -> list[str]:
    form = encoder.image_format
    with pytest.raises(DiagnosticError) as caught:
        encoder.take_images(name, size, SETTING)
    assert encoder.image_format is form
    (fault,) = caught.value.diagnostics
    assert fault.code == "V0831"
    return [fault.message, *fault.help]


def test_what_cannot_be_is_refused_with_a_reason() -> None:
    only = ["leave `stages.second.model.image_size` out, or choose a tower that takes other sizes, such as `vit:`"]
    shared = build_encoder("shared:tiny", "Image|Text", 16)
    assert refusal(shared, "shared:tiny", 64) == [
        "the encoder `shared:tiny` takes images of 32 pixels only, not 64",
        *only,
    ]
    assert refusal(Fixed(range(32, 33)), "own", 40) == ["the encoder `own` takes images of 32 pixels only, not 40", *only]
    assert refusal(build_encoder("vit:tiny", "Image", 16), "vit:tiny", 60) == [
        "the encoder `vit:tiny` cuts images into patches of 8 pixels, which do not fill 60",
        "set `stages.second.model.image_size=64`",
    ]
    shared.take_images("shared:tiny", 32, SETTING)  # its own size
