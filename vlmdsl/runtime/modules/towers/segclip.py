"""The built-in image tower with learned centres that gather patches into groups (SegCLIP)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers.blocks import Attention, Block, FeedForward, Transformer, initialise, keep_tokens
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.grouping import hard_assignment
from vlmdsl.runtime.modules.towers.vit import VisionConfig, convolution_stem, patch_stem, sine_positions
from vlmdsl.runtime.values import ImageFormat

__all__ = ["CentreConfig", "CentreTransformer"]

TEMPERATURE = 0.9
"""Of the draw of a group: that of the released code."""


@dataclass(frozen=True)
class CentreConfig:
    """The shape of a tower with learned centres: that of the plain tower `vision`, and how many `centres` gather patches.

    A sixth of the blocks, at least one, comes after the grouping, on the groups; `cross_blocks` refine the centres by the
    patches, and `restoring_blocks` make states of patches from groups.
    """

    vision: VisionConfig
    centres: int = 8
    cross_blocks: int = 2
    restoring_blocks: int = 2

    @property
    def after(self) -> int:
        """Blocks after the grouping: two of twelve."""
        return max(round(self.vision.depth / 6), 1)


class CentreTransformer(Encoder):
    """Images `[b, 3, S, S]`, standardised to [-1, 1], to a pooled feature, one per group, states of patches, an assignment.

    After most blocks, which see patches without a class token, learned centres attend to themselves and the patches, and
    each patch is assigned to the centre that it has the largest product with. A group is its centre plus the mean of the
    patches assigned to it. The rest of the blocks sees the groups; the pooled feature is the largest number of any group, in
    each dimension. In training the centre is drawn by Gumbel noise, which the batch brings, with the gradient of its softmax
    at a temperature of 0.9; in evaluation it is the most likely one. `states` are those of patches again: each patch takes
    the group that it was assigned to, as it is before the rest of the blocks, after a linear map across groups, through
    further blocks; before them stands their mean. The stem is frozen as it is drawn, or as `model.init` has it (the authors
    freeze CLIP's), positions are fixed sines (theirs CLIP's, frozen). Source: Luo et al., "SegCLIP", ICML 2023,
    arXiv:2211.14813.
    """

    positions: Tensor

    def __init__(self, config: CentreConfig, dimension: int, yields: Iterable[str] = ("pooled", "tokens")) -> None:
        super().__init__("Image", dimension, yields)
        vision = config.vision
        self.config, self.states_width = config, vision.width
        self.image_format = ImageFormat(vision.image_size, patch=vision.patch_size)
        self.overlapping_patches = vision.stem == "convolution"
        self.groups = config.centres
        self.noise_length = self._noise_length()
        stem = convolution_stem if vision.stem == "convolution" else patch_stem
        self.stem = stem(vision.width, vision.patch_size).requires_grad_(False)
        self.register_buffer("positions", sine_positions(vision.grid, vision.width), persistent=False)
        self.transformer = Transformer(vision.width, max(vision.depth - config.after, 1), vision.heads)
        self.grouping = _Centres(vision.width, vision.heads, config.centres, config.cross_blocks)
        refined = {"pooled", "tokens"} & self.yields
        self.group_transformer = Transformer(vision.width, config.after, vision.heads) if refined else None
        self.pooled_norm = nn.LayerNorm(vision.width) if "pooled" in self.yields else None
        self.pooled_projection = nn.Linear(vision.width, dimension, bias=False) if "pooled" in self.yields else None
        self.token_projection = nn.Linear(vision.width, dimension, bias=False) if "tokens" in self.yields else None
        self.restoring = _Restoring(vision.width, vision.heads, config) if "states" in self.yields else None

    def take_images(self, name: str, size: int, setting: str) -> None:
        """As for every encoder; the noise is for as many patches."""
        super().take_images(name, size, setting)
        self.noise_length = self._noise_length()

    def _noise_length(self) -> int:
        assert self.image_format is not None
        return self.config.centres * self.image_format.patches(1.0)

    def forward(
        self, values: Tensor, mask: Tensor | None = None, keep: Tensor | None = None, noise: Tensor | None = None
    ) -> EncodedFeatures:
        """Features of images whose side S is any multiple of the patch size, with noise at most that of `image_format`.

        `keep [b, K]` are the patches to encode (all others are dropped), `mask` must be None. `noise [b, noise_length]`,
        standard Gumbel, is used in training mode; without it every patch is assigned to its most likely centre.
        """
        if mask is not None:
            raise ValueError("images have no mask: every patch is real")
        groups, assignment = self._grouped(values, keep, noise if self.training else None)
        refined = groups if self.group_transformer is None else self.group_transformer(groups)
        return EncodedFeatures(
            pooled=self._pooled(refined),
            tokens=None if self.token_projection is None else self.token_projection(refined),
            states=None if self.restoring is None else self.restoring(groups, assignment),
            assignment=assignment.transpose(1, 2) if "assignment" in self.yields else None,
        )

    @torch.no_grad()
    def segment(self, images: Tensor, level: int = -1) -> Tensor:
        """The segmentation map of images `[b, 3, S, S]`: the group of each patch, `[b, S / patch, S / patch]` int64.

        `level` must be one of this tower's one grouping, 0 or -1.

        >>> from vlmdsl.runtime.modules.towers.vit import PRESETS
        >>> tower = CentreTransformer(CentreConfig(PRESETS["tiny_patch4"]), dimension=16)
        >>> groups = tower.segment(torch.zeros(2, 3, 32, 32))
        >>> groups.shape, bool((groups < 8).all())
        (torch.Size([2, 8, 8]), True)
        """
        if level not in (0, -1):
            raise IndexError(f"there is one grouping, 0, not {level}")
        grid = images.shape[-1] // self.config.vision.patch_size
        return self._grouped(images)[1].argmax(dim=1).unflatten(1, (grid, grid))

    def _grouped(self, images: Tensor, keep: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The groups `[b, G, W]`, and the assignment of patches to them, `[b, G, P]`."""
        side, size = images.shape[-1], self.config.vision.patch_size
        if images.shape[1:] != (3, side, side) or side % size:
            raise ValueError(f"this encoder takes images [b, 3, S, S], S a multiple of {size}, not {list(images.shape)}")
        patches = self.stem(images).flatten(2).transpose(1, 2) + self._positions(side // size)
        patches = self.transformer(patches if keep is None else keep_tokens(patches, keep))
        return self.grouping(patches, noise)

    def _pooled(self, groups: Tensor) -> Tensor | None:
        if self.pooled_projection is None or self.pooled_norm is None:
            return None
        return self.pooled_projection(self.pooled_norm(groups.amax(dim=1)))

    def _positions(self, grid: int) -> Tensor:
        vision = self.config.vision
        if grid == vision.grid:
            return self.positions
        return sine_positions(grid, vision.width, vision.grid).to(self.positions)


class _Centres(nn.Module):
    """Learned centres that gather patches `[b, P, W]`: groups `[b, G, W]` and the assignment `[b, G, P]`.

    Centres and keys are normalised, so that one that is long does not have all patches. They begin as follows, where the
    authors begin with CLIP's features and standard deviations of 0.02 and 1: centres are as far apart as patches, since
    otherwise they are alike after the first block, and products have a standard deviation of the fourth root of the width,
    somewhat above that of the noise, since with larger ones the first draws decide for good.
    """

    def __init__(self, width: int, heads: int, centres: int, blocks: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(centres, width))
        self.blocks = nn.ModuleList(_CentreBlock(width, heads) for _ in range(blocks))
        self.centre_norm = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Conv1d(width, width, 1, groups=heads, bias=False)
        self.key_norm = nn.LayerNorm(width)
        self.value = nn.Conv1d(width, width, 1, groups=heads, bias=False)
        self.output_norm = nn.LayerNorm(width)
        self.output = FeedForward(width)
        initialise(self.blocks)
        initialise(self.output)
        nn.init.constant_(self.key_norm.weight, width**-0.25)

    def forward(self, patches: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        centres = self.centres.expand(len(patches), -1, -1)
        for block in self.blocks:
            centres = block(centres, patches)
        centres = self.centre_norm(centres)
        states = self.norm(patches).transpose(1, 2)
        products = centres @ self.key_norm(self.key(states).transpose(1, 2)).transpose(1, 2)
        length = products.shape[1] * products.shape[2]
        drawn = None if noise is None else noise[:, :length].view_as(products)
        assignment = hard_assignment(products, drawn, TEMPERATURE if drawn is not None else 1.0)
        shares = assignment / assignment.sum(dim=-1, keepdim=True).clamp(min=1)
        gathered = shares.to(states.dtype) @ self.value(states).transpose(1, 2)
        return quick_gelu(self.output(self.output_norm(centres + gathered))), assignment


class _CentreBlock(nn.Module):
    """Centres attend to themselves and the patches, then a feed-forward layer, each added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, context_width=width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, centres: Tensor, patches: Tensor) -> Tensor:
        context = self.context_norm(torch.cat([centres, patches], dim=1))
        centres = centres + self.attention(self.norm(centres), context)
        return centres + self.feed_forward(self.feed_forward_norm(centres))


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of a GELU."""
    return x * torch.sigmoid(1.702 * x)


class _Restoring(nn.Module):
    """From groups `[b, G, W]` to states `[b, 1 + P, W]`: the mean of those of the patches, then one for each patch.

    The linear map across groups begins as the identity: each patch has the group that it is assigned to.
    """

    def __init__(self, width: int, heads: int, config: CentreConfig) -> None:
        super().__init__()
        self.across = nn.Linear(config.centres, config.centres)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(config.restoring_blocks))
        initialise(self.blocks)
        nn.init.eye_(self.across.weight)
        nn.init.zeros_(self.across.bias)

    def forward(self, groups: Tensor, assignment: Tensor) -> Tensor:
        shares = self.across(assignment.transpose(1, 2).to(groups.dtype))
        patches = quick_gelu(shares @ groups)
        for block in self.blocks:
            patches = block(patches)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
