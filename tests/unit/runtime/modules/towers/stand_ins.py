"""Small modules with the interface of `timm` and `open_clip`, for environments where these cannot be imported.

Both need torchvision at import, whose published builds do not fit every build of torch.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, PATCH = 32, 8


class Blocks(nn.Module):
    """Patches, a class token and learned positions through two layers of torch's own."""

    def __init__(self, side: int, interpolates: bool) -> None:
        super().__init__()
        self.side, self.interpolates = side, interpolates
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, WIDTH, side // PATCH, side // PATCH))
        layers = [nn.TransformerEncoderLayer(WIDTH, 2, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
        self.blocks = nn.Sequential(*layers)

    def tokens(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        positions = self.pos_embed
        if self.interpolates and patches.shape[2:] != positions.shape[2:]:
            positions = nn.functional.interpolate(positions, patches.shape[2:], mode="bilinear")
        patches = (patches + positions).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)


class TimmTransformer(Blocks):
    num_prefix_tokens = 1

    def forward_features(self, images: Tensor) -> Tensor:
        states: Tensor = self.blocks(self.tokens(images))
        return states

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        assert pre_logits
        return features[:, 0]


HUB = "hf-hub:someone/small"
"""The name of the one model that each library has on a hub."""


class TimmConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.BatchNorm2d(16), nn.ReLU())

    def forward_features(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features.mean(dim=(2, 3))


def timm() -> ModuleType:
    module: Any = ModuleType("timm")
    settings = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3), "crop_pct": 0.8}
    module.of_hub = {**settings, "mean": (0.1, 0.2, 0.3), "hf_hub_id": "someone/small"}
    """The standardisation of the model of the hub; None where there is no hub."""

    def of_hub(place: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
        if module.of_hub is None:
            raise OSError(f"the hub was asked for {place}")
        return {**module.of_hub, "architecture": "transformer"}, "transformer", {}

    def create_model(name: str, *, pretrained: bool, num_classes: int, **options: Any) -> nn.Module:
        own = {**settings, "architecture": name}
        if name.startswith("hf-hub:"):
            own, name, _ = of_hub(name.removeprefix("hf-hub:"))
        elif name.startswith("local-dir:"):
            assert not pretrained
            config = json.loads((Path(name.removeprefix("local-dir:")) / "config.json").read_text())
            own, name = config["pretrained_cfg"], config["architecture"]
        model = of_architecture(name, **options)
        model.pretrained_cfg = own
        return model

    def of_architecture(name: str, **options: Any) -> Any:
        if name == "convolutions":
            if options:
                raise TypeError("unexpected keyword argument 'dynamic_img_size'")
            return TimmConvolutions()
        if name != "transformer":
            raise RuntimeError(f"Unknown model ({name})")
        return TimmTransformer(options.get("img_size", 32), options.get("dynamic_img_size", False))

    module.create_model = create_model
    module.data = SimpleNamespace(resolve_model_data_config=lambda model: model.pretrained_cfg)
    module.models = SimpleNamespace(load_model_config_from_hf=of_hub)
    return module


class Visual(Blocks):
    def __init__(self, side: int, standardised: dict[str, Any]) -> None:
        super().__init__(side, interpolates=False)
        del self.pos_embed
        self.positional_embedding = nn.Parameter(torch.randn((side // PATCH) ** 2 + 1, WIDTH))
        self.image_size, self.output_tokens = (side, side), False
        self.preprocess_cfg = standardised
        self.transformer = SimpleNamespace(resblocks=self.blocks)
        self.proj = nn.Linear(WIDTH, 16, bias=False)

    def tokens(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.positional_embedding

    def forward(self, images: Tensor) -> Any:
        states = self.blocks(self.tokens(images))
        pooled = self.proj(states[:, 0])
        return (pooled, states[:, 1:]) if self.output_tokens else pooled


class Words(nn.Module):
    vocab_size, context_length, cls_emb = 300, 12, None

    def __init__(self) -> None:
        super().__init__()
        self.output_tokens = False
        self.token_embedding = nn.Embedding(300, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 64, 0.0, batch_first=True)
        self.attn_mask = nn.Transformer.generate_square_subsequent_mask(12)
        self.proj = nn.Linear(WIDTH, 16, bias=False)

    def forward(self, ids: Tensor) -> Any:
        states = self.layer(self.token_embedding(ids), src_mask=self.attn_mask)
        pooled = self.proj(states[torch.arange(len(ids)), ids.argmax(dim=1)])
        return (pooled, states) if self.output_tokens else pooled


def open_clip() -> ModuleType:
    module: Any = ModuleType("open_clip")

    usual = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "shortest"}
    module.of_hub = {"model_cfg": {"architecture": "small"}, "preprocess_cfg": {**usual, "mean": (0.1, 0.2, 0.3)}}
    """What the hub has of its model; None where there is no hub."""

    def settings_of(name: str) -> dict[str, Any]:
        if name == "small":
            return {"model_cfg": {"architecture": "small"}, "preprocess_cfg": usual}
        own: dict[str, Any] | None = module.of_hub if name == HUB else None
        if name.startswith("local-dir:"):
            own = json.loads((Path(name.removeprefix("local-dir:")) / "open_clip_config.json").read_text())
        if own is not None:
            return own
        raise RuntimeError(f"Model config for '{name}' not found")

    def create_model(name: str, **options: Any) -> nn.Module:
        own = settings_of(name)
        assert own["model_cfg"]["architecture"] == "small"
        assert options["force_custom_text"]
        logging.warning(f"No pretrained weights loaded for model '{name}'. Model initialized randomly.")
        whole: Any = nn.Module()
        whole.visual, whole.text = Visual(options["force_image_size"] or 32, own["preprocess_cfg"]), Words()
        return whole  # type: ignore[no-any-return]

    alphabet = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), "do", "dog</w>", "<start_of_text>", "<end_of_text>"]
    encoder = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = SimpleNamespace(
        encoder=encoder,
        decoder={number: piece for piece, number in encoder.items()},
        bpe_ranks={("d", "o"): 0, ("do", "g</w>"): 1},
        sot_token_id=encoder["<start_of_text>"],
        eot_token_id=encoder["<end_of_text>"],
    )
    module.create_model = create_model
    module.get_tokenizer = lambda name: settings_of(name) and tokenizer
    module.get_model_config = lambda name: settings_of(name)["model_cfg"]
    return module
