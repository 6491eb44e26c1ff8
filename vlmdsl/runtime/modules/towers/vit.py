"""The built-in image tower: a vision transformer, with a convolutional stem for small images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers.blocks import Transformer, keep_tokens
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.values import ImageFormat

__all__ = ["PRESETS", "VisionConfig", "VisionTransformer"]


@dataclass(frozen=True)
class VisionConfig:
    """The shape of an image tower; sizes in pixels.

    `stem`: `patch` is one linear map per patch; `convolution` halves the image in 3x3 steps, which learns small images
    within far fewer steps. `pool`: `class` adds a token that collects the image; `mean` averages the patches.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    stem: Literal["patch", "convolution"] = "patch"
    pool: Literal["class", "mean"] = "class"

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"images of {self.image_size} pixels do not divide into patches of {self.patch_size}")
        if self.stem == "convolution" and self.patch_size & (self.patch_size - 1):
            raise ValueError(
                f"a convolutional stem halves the image: its patch size is not a power of two: {self.patch_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


PRESETS: dict[str, VisionConfig] = {
    "tiny": VisionConfig(image_size=32, patch_size=8, width=64, depth=2, heads=2, stem="convolution"),
    "tiny_patch4": VisionConfig(image_size=32, patch_size=4, width=64, depth=2, heads=2),
    "tiny_patch8": VisionConfig(image_size=32, patch_size=8, width=64, depth=2, heads=2),
    "tiny_convolution4": VisionConfig(image_size=32, patch_size=4, width=64, depth=2, heads=2, stem="convolution"),
    "small": VisionConfig(image_size=224, patch_size=16, width=384, depth=12, heads=6),
    "base": VisionConfig(image_size=224, patch_size=16, width=768, depth=12, heads=12),
}


class VisionTransformer(Encoder):
    """Images `[b, 3, S, S]`, standardised to [-1, 1], to a pooled feature and one feature per patch.

    Patches come row by row, without the class token. Positions are fixed sines of the patch's row and column. Images of
    another side than the config's have their patches spread over the same range, as if shown larger or smaller. With a
    `region_length` F it can be entered part-way by regions `[b, R, F]`, which have no positions. With `replaced_patches` it
    has a learned token for them.
    """

    positions: Tensor

    def __init__(
        self,
        config: VisionConfig,
        dimension: int,
        yields: Iterable[str] = ("pooled", "tokens"),
        *,
        region_length: int | None = None,
        replaced_patches: bool = False,
    ) -> None:
        super().__init__("Image", dimension, yields)
        self.region_length = region_length
        self.config = config
        self.states_width = config.width
        self.image_format = ImageFormat(config.image_size, patch=config.patch_size)
        stem = convolution_stem if config.stem == "convolution" else patch_stem
        self.stem = stem(config.width, config.patch_size)
        self.overlapping_patches = config.stem == "convolution"
        self.region_stem = nn.Linear(region_length, config.width) if region_length is not None else None
        self.register_buffer("positions", sine_positions(config.grid, config.width), persistent=False)
        self.class_token = nn.Parameter(0.02 * torch.randn(config.width)) if config.pool == "class" else None
        self.transformer = Transformer(config.width, config.depth, config.heads)
        self.pooled_projection = nn.Linear(config.width, dimension, bias=False) if "pooled" in self.yields else None
        self.token_projection = nn.Linear(config.width, dimension, bias=False) if "tokens" in self.yields else None
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.width)) if replaced_patches else None

    def forward(
        self,
        values: Tensor,
        mask: Tensor | None = None,
        keep: Tensor | None = None,
        enters: float | None = None,
        replace: Tensor | None = None,
    ) -> EncodedFeatures:
        """Features of images whose side S is any multiple of the patch size.

        `keep [b, K]` are the patches to encode (all others are dropped), `mask` must be None. Where `replace [b, P]` holds,
        the learned token is in place of the embedded patch, at its position.
        With `enters`, of regions `[b, R, F]` with `mask [b, R]`, through the blocks after that share of all.
        """
        if enters is not None:
            return self._regions(values, mask, enters)
        if mask is not None:
            raise ValueError("images have no mask: every patch is real")
        side, size = values.shape[-1], self.config.patch_size
        if values.shape[1:] != (3, side, side) or side % size:
            raise ValueError(f"this encoder takes images [b, 3, S, S], S a multiple of {size}, not {list(values.shape)}")
        patches = self.stem(values).flatten(2).transpose(1, 2)
        if replace is not None:
            if self.mask_token is None:
                raise ValueError("this encoder was built without `replaced_patches`, but some of its images have such")
            patches = torch.where(replace[:, :, None], self.mask_token, patches)
        patches = patches + self.positions_of(side)
        if keep is not None:
            patches = keep_tokens(patches, keep)
        if self.class_token is not None:
            patches = torch.cat([self.class_token.expand(patches.shape[0], 1, -1), patches], dim=1)
        hidden = self.transformer(patches)
        pooled = hidden.mean(dim=1) if self.class_token is None else hidden[:, 0]
        features = self._projected(pooled, hidden if self.class_token is None else hidden[:, 1:])
        return features._replace(states=hidden) if "states" in self.yields else features

    def _regions(self, regions: Tensor, mask: Tensor | None, enters: float) -> EncodedFeatures:
        """At least one block is left to read them, however few the tower has."""
        if self.region_stem is None:
            raise ValueError("this encoder was built without a `region_length`, but is entered by regions")
        if mask is not None:  # attention gives padding the weight 0, and 0 times NaN is NaN
            regions = torch.where(mask[:, :, None], regions, 0.0)
        embedded = self.region_stem(regions)
        seen = torch.ones(embedded.shape[:2], dtype=torch.bool, device=regions.device) if mask is None else mask
        attended = seen
        if self.class_token is not None:
            embedded = torch.cat([self.class_token.expand(embedded.shape[0], 1, -1), embedded], dim=1)
            attended = torch.cat([torch.ones_like(seen[:, :1]), seen], dim=1)
        passed_by = min(round(enters * self.config.depth), self.config.depth - 1)
        hidden = self.transformer(embedded, mask=attended, first=passed_by)
        if self.class_token is not None:
            return self._projected(hidden[:, 0], hidden[:, 1:], seen)
        shares = seen / seen.sum(dim=1, keepdim=True).clamp(min=1)
        return self._projected((hidden * shares[:, :, None]).sum(dim=1), hidden, seen)

    def _projected(self, pooled: Tensor, tokens: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(pooled),
            tokens=None if self.token_projection is None else self.token_projection(tokens),
            mask=mask,
        )

    def positions_of(self, side: int) -> Tensor:
        """The positions `[P, W]` of the patches of images of this side."""
        grid = side // self.config.patch_size
        if grid == self.config.grid:
            return self.positions
        return sine_positions(grid, self.config.width, self.config.grid).to(self.positions)


def patch_stem(width: int, patch_size: int) -> nn.Module:
    """One linear map per patch."""
    return _convolution(3, width, patch_size, stride=patch_size, before="linear")


def convolution_stem(width: int, patch_size: int) -> nn.Module:
    """3x3 convolutions, each halving the image and ending in `width` channels, until one position per patch is left.

    No batch statistics: an image's features depend on nothing but the image.
    """
    steps = patch_size.bit_length() - 1
    channels = [3] + [max(width >> (steps - 1 - step), 16) for step in range(steps)]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [_convolution(inputs, outputs, 3, stride=2, padding=1, before="relu"), nn.GELU()]
    return nn.Sequential(*layers, _convolution(channels[-1], width, 1, before="linear"))


def _convolution(
    inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, before: Literal["linear", "relu"]
) -> nn.Conv2d:
    """A convolution that keeps the variance of the image, given what follows it (`before`).

    With torch's own weights patches start out far weaker than their positions: all images have similar features, and the
    first steps learn nothing.
    """
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity=before)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


def sine_positions(grid: int, width: int, span: int | None = None) -> Tensor:
    """`[grid * grid, width]`: sines and cosines of the row in one half of the features, of the column in the other.

    Rows and columns are counted 0, 1, 2, ...; with a `span` they have the places of the grid's centres on one of `span`.
    """
    if width % 4:
        raise ValueError(f"two-dimensional sine positions need a width divisible by 4, not {width}")
    frequencies = 10_000 ** -(torch.arange(width // 4) / (width // 4))
    places = torch.arange(grid) if span is None else (torch.arange(grid) + 0.5) * (span / grid) - 0.5
    angles = places[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(grid, grid, -1)
    columns = waves[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
