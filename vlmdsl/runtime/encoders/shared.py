"""The built-in shared tower: one transformer for images, for texts, and for both in one sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdsl.runtime.data.images import ImageFormat
from vlmdsl.runtime.encoders.blocks import Transformer
from vlmdsl.runtime.encoders.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.encoders.vit import PRESETS as VISION_PRESETS
from vlmdsl.runtime.encoders.vit import VisionConfig, convolution_stem, patch_stem, sine_positions

__all__ = ["PRESETS", "SharedConfig", "SharedTransformer"]


@dataclass(frozen=True)
class SharedConfig:
    """The shape of a shared tower: the trunk and the patches of `image`, and the words that it reads besides.

    `text_length` is the longest text, in tokens.
    """

    image: VisionConfig
    vocabulary_size: int = 49_408
    text_length: int = 77


PRESETS: dict[str, SharedConfig] = {
    "tiny": SharedConfig(VISION_PRESETS["tiny"], vocabulary_size=1024, text_length=32),
    "small": SharedConfig(VISION_PRESETS["small"]),
    "base": SharedConfig(VISION_PRESETS["base"]),
}


class SharedTransformer(Encoder):
    """Images, token ids, or pairs of both to a pooled feature and one feature a patch and a word.

    Patches and words have embeddings of their own; everything behind them, the projections included, is the same for all. A
    class token before the sequence collects it. All tokens see one another, so a pair's words are read in the light of
    its image; padding is seen by none.
    """

    def __init__(self, config: SharedConfig, dimension: int, yields: Iterable[str] = ("pooled", "tokens")) -> None:
        super().__init__("Image|Text", dimension, yields)
        image = config.image
        self.config = config
        self.image_format = ImageFormat(image.image_size)
        self.vocabulary_size = config.vocabulary_size
        self.text_length = config.text_length
        stem = convolution_stem if image.stem == "convolution" else patch_stem
        self.stem = stem(image.width, image.patch_size)
        self.register_buffer("patch_positions", sine_positions(image.grid, image.width), persistent=False)
        self.embedding = nn.Embedding(config.vocabulary_size, image.width)
        self.word_positions = nn.Parameter(torch.empty(config.text_length, image.width))
        self.class_token = nn.Parameter(0.02 * torch.randn(image.width))
        self.transformer = Transformer(image.width, image.depth, image.heads)
        self.pooled_projection = nn.Linear(image.width, dimension, bias=False) if "pooled" in self.yields else None
        self.token_projection = nn.Linear(image.width, dimension, bias=False) if "tokens" in self.yields else None
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.word_positions, std=0.01)
        # Last, so that it changes no draw of the weights before it.
        if "vocabulary" in self.yields:
            self.vocabulary_head = nn.Linear(image.width, config.vocabulary_size)

    def forward(self, values: Tensor, mask: Tensor | None = None, words: Tensor | None = None) -> EncodedFeatures:
        """Features of images `[b, 3, S, S]`, of texts `[b, L]` with a mask, or of pairs: images, mask and `words [b, L]`.

        The tokens of a pair are its patches, then its words. ValueError for images of another size and longer texts.
        """
        parts: list[Tensor] = []
        real: list[Tensor] = []
        if values.dim() == 4:
            parts.append(self._patches(values))
            real.append(torch.ones(parts[0].shape[:2], dtype=torch.bool, device=values.device))
        ids = words if values.dim() == 4 else values
        if ids is not None:
            parts.append(self._words(ids))
            real.append(torch.ones_like(ids, dtype=torch.bool) if mask is None else mask)
        class_token = self.class_token.expand(len(values), 1, -1)
        seen = None if ids is None else torch.cat([torch.ones_like(real[0][:, :1]), *real], dim=1)
        hidden = self.transformer(torch.cat([class_token, *parts], dim=1), mask=seen)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(hidden[:, 0]),
            tokens=None if self.token_projection is None else self.token_projection(hidden[:, 1:]),
            mask=None if ids is None else torch.cat(real, dim=1),
            states=None if self.vocabulary_head is None else hidden[:, 1:],
        )

    def _patches(self, images: Tensor) -> Tensor:
        """`[b, P, W]`: the embedded patches of images, row by row."""
        size = self.config.image.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"this encoder takes images [b, 3, {size}, {size}], not {list(images.shape)}")
        return self.stem(images).flatten(2).transpose(1, 2) + self.patch_positions

    def _words(self, ids: Tensor) -> Tensor:
        """`[b, L, W]`: the embedded words of texts."""
        length = ids.shape[1]
        if length > self.config.text_length:
            raise ValueError(f"texts of {length} tokens; this encoder takes at most {self.config.text_length}")
        return self.embedding(ids) + self.word_positions[:length]
