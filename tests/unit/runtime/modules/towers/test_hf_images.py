"""Images reach an `hf:` tower as its own image processor makes them."""

import json

import numpy as np
import pytest
import torch

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data.context import ViewContext
from vlmdsl.runtime.data.views import View
from vlmdsl.runtime.modules.towers import build_encoder

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SIDE = {"height": 32, "width": 32}
SETTINGS = {
    "whole images, squashed": ("ViT", {"size": SIDE}),
    "the middle": ("CLIP", {"size": {"shortest_edge": 32}, "crop_size": SIDE}),
    "the middle of the middle": ("Bit", {"size": {"shortest_edge": 37}, "crop_size": SIDE, "resample": 3}),
    "a margin by a share": ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
    "the nearest pixel": ("Siglip", {"size": SIDE, "resample": 0}),
    "no standardisation": ("ViT", {"size": SIDE, "do_normalize": False}),
    "levels up to 255": ("ViT", {"size": SIDE, "do_rescale": False}),
    "levels from -1 to 1": (
        "ViT",
        {"size": SIDE, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    ),
    "standardised twice": ("EfficientNet", {"size": SIDE, "include_top": True}),
    "other colours": ("Beit", {"size": SIDE, "do_center_crop": False, "image_mean": [0.1, 0.2, 0.3]}),
}


def saved(folder, family="Dinov2", settings=None, image_size=32):
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Config")(**SMALL, image_size=image_size, patch_size=8)
    transformers.AutoModel.from_config(model).save_pretrained(folder)
    if settings is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


def as_the_loader_makes_them(pixels, form):
    image = View("image", "Image").apply(pixels, ViewContext(0, 0, "key", form))
    return form.tensor([image])[0]


@pytest.mark.parametrize("case", SETTINGS)
def test_pixels_are_those_of_the_image_processor(case, tmp_path):
    family, settings = SETTINGS[case]
    name = saved(tmp_path)
    processor = getattr(transformers, f"{family}ImageProcessorPil")(**settings)
    processor.save_pretrained(tmp_path)
    form = build_encoder(name, "Image", 32).image_format
    for shape in ((60, 91, 3), (91, 60, 3), (32, 32, 3), (20, 30, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        theirs = processor(images=pixels, input_data_format="channels_last", return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(as_the_loader_makes_them(pixels, form), theirs, rtol=1e-4, atol=1e-4)


def test_what_the_settings_leave_out_is_the_models_own(tmp_path):
    settings = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    form = build_encoder(saved(tmp_path, settings=settings), "Image", 32).image_format
    assert (form.size, form.shorter, form.mean, form.deviation) == (32, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_model_of_any_size_is_brought_to_the_wanted_one_with_its_margin(tmp_path):
    settings = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "crop_size": SIDE}
    name = saved(tmp_path, settings=settings)
    form = build_encoder(name, "Image", 32, image_size=64).image_format
    assert (form.size, form.shorter) == (64, 80)
    assert build_encoder(name, "Image", 32).image_format.size == 32


def test_a_model_without_an_image_processor_says_so(tmp_path):
    encoder = build_encoder(saved(tmp_path), "Image", 32)
    assert encoder.image_format.mean == (0.5, 0.5, 0.5)
    assert "without an image processor" in encoder.notes[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 32}, "crop_size": SIDE},  # BGR
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 16}},
        {"image_processor_type": "ViTImageProcessor", "size": SIDE, "image_mean": [0.5], "image_std": [0.5]},
        {"image_processor_type": "ViTImageProcessor", "size": SIDE, "do_resize": False},
        {"image_processor_type": "Unheard", "size": SIDE},
        {"image_processor_type": "ViTImageProcessor", "size": "large"},
        [],
    ],
)
def test_an_image_processor_that_cannot_be_followed_is_refused(settings, tmp_path):
    with pytest.raises(DiagnosticError, match="V0831"):
        build_encoder(saved(tmp_path, settings=settings), "Image", 32)
