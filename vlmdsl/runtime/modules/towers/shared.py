"""The built-in shared tower: one transformer for images, for texts, and for both in one sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdsl.runtime.modules.towers.blocks import Transformer, keep_tokens
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.vit import PRESETS as VISION_PRESETS
from vlmdsl.runtime.modules.towers.vit import VisionConfig, convolution_stem, patch_stem, sine_positions
from vlmdsl.runtime.values import ImageFormat

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
    """Images, token ids, or pairs of both to a pooled feature and one feature per patch and per token.

    Patches and tokens have separate embeddings; everything after them, including the projections, is shared. A
    class token before the sequence collects it. All tokens see one another, so a pair's words are read in the light of
    its image; padding is seen by none. With `replaced_patches` it has a learned token for replaced patches of images.
    """

    def __init__(
        self,
        config: SharedConfig,
        dimension: int,
        yields: Iterable[str] = ("pooled", "tokens"),
        *,
        replaced_patches: bool = False,
    ) -> None:
        super().__init__("Image|Text", dimension, yields)
        image = config.image
        self.config = config
        self.image_format = ImageFormat(image.image_size, patch=image.patch_size, resizable=False)
        self.overlapping_patches = image.stem == "convolution"
        self.vocabulary_size = config.vocabulary_size
        self.states_width = image.width
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
        self.mask_token = nn.Parameter(0.02 * torch.randn(image.width)) if replaced_patches else None

    def forward(
        self,
        values: Tensor,
        mask: Tensor | None = None,
        words: Tensor | None = None,
        share: Tensor | None = None,
        keep: Tensor | None = None,
        replace: Tensor | None = None,
    ) -> EncodedFeatures:
        """Features of images `[b, 3, S, S]`, of texts `[b, L]` with a mask, or of pairs: images, mask and `words [b, L]`.

        The tokens of a pair are its patches, then its words; with the image's `share [b]` they are laid over each other
        (`_overlaid`). `keep [b, K]` are the patches to encode (all others are dropped, and count nothing where they are laid
        over words); where `replace [b, P]` holds, the learned token is in place of the embedded patch. ValueError for images
        of another size and longer texts.
        """
        patches = self._patches(values, replace) if values.dim() == 4 else None
        if keep is not None and share is None:
            assert patches is not None
            patches = keep_tokens(patches, keep)
        ids = words if values.dim() == 4 else values
        if ids is None:
            assert patches is not None
            return self._encoded(patches, None)
        embedded = self._words(ids)
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        if patches is None:
            return self._encoded(embedded, real)
        if share is not None:
            return self._encoded(*_overlaid(patches, embedded, real, share, keep))
        seen = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        return self._encoded(torch.cat([patches, embedded], dim=1), torch.cat([seen, real], dim=1))

    def _encoded(self, tokens: Tensor, weight: Tensor | None) -> EncodedFeatures:
        """A class token and `tokens [b, J, W]` through the trunk; `weight [b, J]` says which are real, or how much each
        counts in attention (None: all are)."""
        class_token = self.class_token.expand(tokens.shape[0], 1, -1)
        seen = None if weight is None else _attention_mask(weight, tokens.dtype)
        hidden = self.transformer(torch.cat([class_token, tokens], dim=1), mask=seen)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(hidden[:, 0]),
            tokens=None if self.token_projection is None else self.token_projection(hidden[:, 1:]),
            mask=None if weight is None else weight > 0,
            states=hidden[:, 1:] if self.yields & {"vocabulary", "states"} else None,
        )

    def _patches(self, images: Tensor, replace: Tensor | None) -> Tensor:
        """`[b, P, W]`: the embedded patches of images, row by row, the learned token where `replace` holds."""
        size = self.config.image.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"this encoder takes images [b, 3, {size}, {size}], not {list(images.shape)}")
        patches = self.stem(images).flatten(2).transpose(1, 2)
        if replace is not None:
            if self.mask_token is None:
                raise ValueError("this encoder was built without `replaced_patches`, but some of its images have such")
            patches = torch.where(replace[:, :, None], self.mask_token, patches)
        return patches + self.patch_positions

    def _words(self, ids: Tensor) -> Tensor:
        """`[b, L, W]`: the embedded words of texts."""
        length = ids.shape[1]
        if length > self.config.text_length:
            raise ValueError(f"texts of {length} tokens; this encoder takes at most {self.config.text_length}")
        return self.embedding(ids) + self.word_positions[:length]


def _overlaid(
    patches: Tensor, words: Tensor, real: Tensor, share: Tensor, keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Patch k on word k of a text, `real [b, L]` where it has one: tokens `[b, J, W]` with J = max(P, L), and how much each
    counts, `[b, J]`.

    A position that both have is their mixture, the patch with the image's `share [b]`, and counts fully. One that only one
    of them has is that one, and counts as much as its share. So a share of 1 is the image alone, and one of 0 the text. An
    image has only the patches `keep [b, K]`, if there are such.
    """
    length = max(patches.shape[1], words.shape[1])
    kept = torch.ones_like(patches[:, :, 0])
    if keep is not None:
        kept = torch.zeros_like(kept).scatter(1, keep, 1.0)
    of_image = share[:, None] * _longer(kept, length)
    of_text = (1 - share)[:, None] * _longer(real.to(patches.dtype), length)
    weight = of_image + of_text
    total = of_image[:, :, None] * _longer(patches, length) + of_text[:, :, None] * _longer(words, length)
    return total / torch.where(weight > 0, weight, 1.0)[:, :, None], weight


def _longer(tokens: Tensor, length: int) -> Tensor:
    """`[b, length, ...]` of `[b, L, ...]`, with zeros behind."""
    return functional.pad(tokens, (0, 0) * (tokens.dim() - 2) + (0, length - tokens.shape[1]))


def _attention_mask(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """What `Transformer` takes for a class token and tokens that are real or not, or count with a weight: attention to them
    is multiplied by it, so its logarithm is added to their logits."""
    first = torch.ones_like(weight[:, :1])
    seen = torch.cat([first, weight], dim=1)
    return seen if weight.dtype is torch.bool else seen.log().to(dtype)
