"""The adapters to timm and open_clip on small random models of these libraries, where they can be imported."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmdsl.runtime.modules.towers import Encoder, build_encoder
from vlmdsl.runtime.modules.towers.tokenizers import load_tokenizer


def of_library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as fault:
        pytest.skip(f"{name} cannot be imported ({fault}): it needs a torchvision that fits torch")


def test_models_of_timm() -> None:
    of_library("timm")
    encoder = build_encoder("timm:test_vit", "Image", 16, ("pooled", "tokens"), pretrained=False).eval()
    model: Any = encoder.model
    pixels = torch.randn(2, 3, 160, 160)
    states = model.forward_features(pixels)
    features: Any = encoder
    assert torch.allclose(encoder(pixels).tokens, features.token_projection(states[:, 1:]))
    assert features(pixels, keep=torch.tensor([[5, 7, 1]] * 2)).tokens.shape == (2, 3, 16)
    assert encoder.image_format is not None
    assert encoder.image_format.resizable


def test_models_of_open_clip() -> None:
    open_clip = of_library("open_clip")
    ours, theirs = load_tokenizer("open_clip:ViT-B-32"), open_clip.get_tokenizer("ViT-B-32")
    texts = ["A photo of a dog, it's 12 years old!", "Ünïcode 日本語 text… 123abc", "  blanks\n\n here "]
    assert torch.equal(ours.encode(texts, 77)[0], theirs(texts))


def again(encoder: Encoder, family: str, folder: Path) -> Encoder:
    """The same tower, built from its settings and given its weights."""
    folder.mkdir()
    for file, content in encoder.settings_files().items():
        (folder / file).write_bytes(content)
    built = build_encoder(f"{family}:{folder}", encoder.kind, encoder.dimension, encoder.yields, pretrained=False)
    built.load_state_dict(encoder.state_dict())
    return built.eval()


def test_a_model_of_timm_is_built_again_from_its_settings(tmp_path: Path) -> None:
    of_library("timm")
    encoder = build_encoder("timm:test_vit", "Image", 16, ("pooled",), pretrained=False).eval()
    built, pixels = again(encoder, "timm", tmp_path / "settings"), torch.randn(1, 3, 160, 160)
    assert built.image_format == encoder.image_format
    assert torch.equal(built(pixels).pooled, encoder(pixels).pooled)


def test_a_model_of_open_clip_is_built_again_and_takes_smaller_views(tmp_path: Path) -> None:
    open_clip = of_library("open_clip")
    small = {"width": 64, "layers": 1}
    tower = {**small, "image_size": 32, "patch_size": 8, "head_width": 32}
    words = {**small, "context_length": 16, "vocab_size": 300, "heads": 2}
    (tmp_path / "tiny.json").write_text(json.dumps({"embed_dim": 32, "vision_cfg": tower, "text_cfg": words}))
    open_clip.add_model_config(tmp_path)
    for kind, values in (("Image", torch.randn(2, 3, 32, 32)), ("Text", torch.randint(1, 300, (2, 16)))):
        encoder = build_encoder("open_clip:tiny", kind, 32, ("pooled",), pretrained=False).eval()
        built = again(encoder, "open_clip", tmp_path / kind)
        assert built.image_format == encoder.image_format
        assert torch.equal(built(values).pooled, encoder(values).pooled)
    whole = open_clip.create_model("tiny", force_custom_text=True)
    smaller = open_clip.create_model("tiny", force_custom_text=True, force_image_size=16).eval()
    weights = whole.state_dict()
    open_clip.factory.resize_pos_embed(weights, smaller)
    smaller.load_state_dict(weights)
    encoder = build_encoder("open_clip:tiny", "Image", 32, ("pooled",), pretrained=False).eval()
    model: Any = encoder.model
    model.load_state_dict(whole.visual.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder(pixels).pooled, smaller.encode_image(pixels))
