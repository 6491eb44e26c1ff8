"""The adapters to timm and open_clip on small random models of these libraries, where they can be imported."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from vlmdsl.runtime.modules.towers import build_encoder
from vlmdsl.runtime.tokenizer import load_tokenizer


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
