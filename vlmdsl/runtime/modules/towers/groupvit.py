"""The built-in image tower that groups: patches become segments, segments objects (GroupViT)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers.blocks import Block, initialise, keep_tokens
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.grouping import GroupingBlock, TokenMixing
from vlmdsl.runtime.modules.towers.vit import convolution_stem, patch_stem, sine_positions
from vlmdsl.runtime.values import ImageFormat

__all__ = ["PRESETS", "GroupingConfig", "GroupingTransformer"]


@dataclass(frozen=True)
class GroupingConfig:
    """The shape of a grouping image tower; sizes in pixels.

    `depths` are the blocks of each stage, `groups` the group tokens of each but the last, which has none; a stage ends with
    as many segments as it has group tokens. `stem` as in `VisionConfig`.
    """

    image_size: int
    patch_size: int
    width: int
    heads: int
    depths: tuple[int, ...]
    groups: tuple[int, ...]
    stem: Literal["patch", "convolution"] = "patch"

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"images of {self.image_size} pixels do not divide into patches of {self.patch_size}")
        if not self.groups or len(self.depths) != len(self.groups) + 1:
            raise ValueError(f"{len(self.depths)} stages need {len(self.depths) - 1} numbers of groups, not {self.groups}")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


PRESETS: dict[str, GroupingConfig] = {
    "tiny": GroupingConfig(32, 4, width=64, heads=2, depths=(2, 1), groups=(8,), stem="convolution"),
    "small": GroupingConfig(224, 16, width=384, heads=6, depths=(6, 3, 3), groups=(64, 8)),
}
"""`small` is the authors' shape, for images as theirs; `tiny` is for small ones, whose few patches form groups once."""


_WEAK = 0.25
"""How strong positions are at first, by which patches are not to be grouped: sines are nearly as strong as a patch."""


class GroupingTransformer(Encoder):
    """Images `[b, 3, S, S]`, standardised to [-1, 1], to a pooled feature and one feature per final segment.

    Patches and learned group tokens go through transformer blocks together; then each patch is assigned to one group, the
    groups are the segments of the next stage, and so on. The pooled feature is the mean of the last stage's segments. In
    training a group is drawn by Gumbel noise, which the batch brings, so that it depends on seed, epoch and sample only; in
    evaluation it is the most likely one. Positions are learned, and interpolated for images of another size, as the
    authors' are; they begin as weak sines, theirs as weak noise. There is no stochastic depth, which they have at 0.1.
    Source: Xu et al., "GroupViT", CVPR 2022, arXiv:2202.11094.
    """

    def __init__(self, config: GroupingConfig, dimension: int, yields: Iterable[str] = ("pooled", "tokens")) -> None:
        super().__init__("Image", dimension, yields)
        self.config = config
        self.image_format = ImageFormat(config.image_size, patch=config.patch_size)
        self.groups = config.groups[-1]
        self.noise_length = self._noise_length()
        stem = convolution_stem if config.stem == "convolution" else patch_stem
        self.stem = stem(config.width, config.patch_size)
        self.positions = nn.Parameter(_WEAK * sine_positions(config.grid, config.width))
        before = (0, *config.groups)
        self.stages = nn.ModuleList(
            _Stage(config.width, config.heads, depth, before[number], groups)
            for number, (depth, groups) in enumerate(zip(config.depths, (*config.groups, 0), strict=True))
        )
        self.norm = nn.LayerNorm(config.width)
        initialise(self.stages)
        self.pooled_projection = nn.Linear(config.width, dimension, bias=False) if "pooled" in self.yields else None
        self.token_projection = nn.Linear(config.width, dimension, bias=False) if "tokens" in self.yields else None

    def take_images(self, name: str, size: int, setting: str) -> None:
        """As for every encoder; the noise is for as many patches."""
        super().take_images(name, size, setting)
        self.noise_length = self._noise_length()

    def _noise_length(self) -> int:
        assert self.image_format is not None
        return sum(own * entering for entering, own in pairwise((self.image_format.patches(1.0), *self.config.groups)))

    def forward(
        self, values: Tensor, mask: Tensor | None = None, keep: Tensor | None = None, noise: Tensor | None = None
    ) -> EncodedFeatures:
        """Features of images whose side S is any multiple of the patch size, with noise at most that of `image_format`.

        `keep [b, K]` are the patches to encode (all others are dropped), `mask` must be None. `noise [b, noise_length]`,
        standard Gumbel, is used in training mode; without it every segment is assigned to its most likely group.
        """
        if mask is not None:
            raise ValueError("images have no mask: every patch is real")
        segments, assignments = self._grouped(values, keep, noise if self.training else None)
        segments = self.norm(segments)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(segments.mean(dim=1)),
            tokens=None if self.token_projection is None else self.token_projection(segments),
            assignment=self._of_patches(assignments) if "assignment" in self.yields else None,
        )

    @staticmethod
    def _of_patches(assignments: list[Tensor]) -> Tensor:
        """The assignment of patches to the last groups, `[b, P, G]`, by way of those between."""
        assignment, *further = (each.transpose(1, 2) for each in assignments)
        for each in further:
            assignment = assignment @ each
        return assignment

    @torch.no_grad()
    def segment(self, images: Tensor, level: int = -1) -> Tensor:
        """The segmentation map of images `[b, 3, S, S]`: the group of each patch, `[b, S / patch, S / patch]` int64.

        `level` counts the groupings: 0 is the first, into most groups, -1 the last. It is what evaluation sees, whatever the
        mode.

        >>> tower = GroupingTransformer(PRESETS["tiny"], dimension=16)
        >>> groups = tower.segment(torch.zeros(2, 3, 32, 32))
        >>> groups.shape, bool((groups < 8).all())
        (torch.Size([2, 8, 8]), True)
        """
        _, assignments = self._grouped(images)
        place, *further = (assignment.argmax(dim=1) for assignment in assignments[: range(len(assignments))[level] + 1])
        for group in further:
            place = group.gather(1, place)
        grid = images.shape[-1] // self.config.patch_size
        return place.unflatten(1, (grid, grid))

    def _grouped(
        self, images: Tensor, keep: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The last segments, and every stage's assignment, `[b, G, N]` of N segments to G groups."""
        side, size = images.shape[-1], self.config.patch_size
        if images.shape[1:] != (3, side, side) or side % size:
            raise ValueError(f"this encoder takes images [b, 3, S, S], S a multiple of {size}, not {list(images.shape)}")
        segments = self.stem(images).flatten(2).transpose(1, 2) + self._positions(side // size)
        if keep is not None:
            segments = keep_tokens(segments, keep)
        tokens = segments[:, :0]
        assignments, used = [], 0
        for stage, groups in zip(self.stages, (*self.config.groups, 0), strict=True):
            length = groups * segments.shape[1]
            drawn = None if noise is None or not groups else _part(noise, used, length).unflatten(1, (groups, -1))
            segments, tokens, assignment = stage(segments, tokens, drawn)
            if assignment is not None:
                assignments.append(assignment)
            used += length
        return segments, assignments

    def _positions(self, grid: int) -> Tensor:
        if grid == self.config.grid:
            return self.positions
        table = self.positions.T.unflatten(1, (self.config.grid, self.config.grid))[None]
        resized = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
        return resized[0].flatten(1).T


class _Stage(nn.Module):
    """Blocks that segments go through together with group tokens, and a grouping at their end; both only with `groups`.

    A stage's tokens are learned, plus what is made of the `entering` ones of the stage before. They begin as far apart as
    segments are, where the authors' have a standard deviation of 0.02: in a short run what blocks add buries that.
    """

    def __init__(self, width: int, heads: int, depth: int, entering: int, groups: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(groups, width)) if groups else None
        self.entering = None
        if entering and groups:
            self.entering = nn.Sequential(nn.LayerNorm(width), TokenMixing(entering, width // 2, groups))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.grouping = GroupingBlock(width, heads, groups) if groups else None

    def forward(self, segments: Tensor, before: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Segments `[b, N, W]` and the group tokens before, to new segments, group tokens and the assignment of the old."""
        count = segments.shape[1]
        if self.tokens is not None:
            tokens = self.tokens.expand(segments.shape[0], -1, -1)
            segments = torch.cat([segments, tokens if self.entering is None else tokens + self.entering(before)], dim=1)
        for block in self.blocks:
            segments = block(segments)
        segments, tokens = segments[:, :count], segments[:, count:]
        if self.grouping is None:
            return segments, tokens, None
        segments, assignment = self.grouping(tokens, segments, noise)
        return segments, tokens, assignment


def _part(noise: Tensor, start: int, length: int) -> Tensor:
    if noise.shape[1] < start + length:
        raise ValueError(f"{noise.shape[1]} numbers of noise for an image, of which more than {start + length - 1} are used")
    return noise[:, start : start + length]
