"""Small modules with the interface of `timm` and `open_clip`, for environments where these cannot be imported.

Both need torchvision at import, whose published builds do not fit every build of torch.
"""

from __future__ import annotations

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

    def create_model(name: str, *, pretrained: bool, num_classes: int, **options: Any) -> nn.Module:
        if name == "convolutions":
            if options:
                raise TypeError("unexpected keyword argument 'dynamic_img_size'")
            return TimmConvolutions()
        if name != "transformer":
            raise RuntimeError(f"Unknown model ({name})")
        return TimmTransformer(options.get("img_size", 32), options.get("dynamic_img_size", False))

    settings = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3), "crop_pct": 0.8}
    module.create_model = create_model
    module.data = SimpleNamespace(resolve_model_data_config=lambda model: settings)
    return module


class Visual(Blocks):
    def __init__(self, side: int) -> None:
        super().__init__(side, interpolates=False)
        self.image_size, self.output_tokens = (side, side), False
        self.preprocess_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "shortest"}
        self.transformer = SimpleNamespace(resblocks=self.blocks)
        self.proj = nn.Linear(WIDTH, 16, bias=False)

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

    def create_model(name: str, **options: Any) -> nn.Module:
        if name != "small":
            raise RuntimeError(f"Model config for '{name}' not found")
        assert options["force_custom_text"]
        whole: Any = nn.Module()
        whole.visual, whole.text = Visual(options["force_image_size"] or 32), Words()
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
    module.get_tokenizer = lambda name: tokenizer
    return module
