"""Settings of the modules on top of towers: fusion, decoders, poolers, linear heads and codebooks.

A settings value holds what a recipe states; the width of the inputs and the size of the vocabulary are passed when the
module is built. A `width` of 0 is that of the inputs, `heads` of 0 are one per 64 features, at least four of 16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "CodebookSettings",
    "FusionSettings",
    "LinearSettings",
    "PluginFusionSettings",
    "PixelDecoderSettings",
    "PoolerSettings",
    "TextDecoderSettings",
    "TokenHeadSettings",
    "block_range",
]


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """A transformer over the states of a text and those of its image.

    `attention`: with `cross` the states are a sequence of text tokens that attends to the image tokens in every block
    (ALBEF, BLIP, FIBER); with `merged` both are one sequence, each after a separate linear map (FLAVA); with `none` there is
    no image, and the text tokens see each other only. `pooled` is the
    state of the `first` text token, or of a `learned` token of the module. `gated` multiplies the output of cross-attention
    by a learned gate that starts at 0, one per block (FIBER). One that `shares` the blocks of the text tower of this name is
    that tower, with cross-attention in each block and a first token of its own (BLIP); its `depth` is 0, that of the tower.
    """

    attention: Literal["cross", "merged", "none"]
    depth: int
    width: int = 0
    heads: int = 0
    pooled: Literal["first", "learned"] = "first"
    gated: bool = False
    shares: str = field(default="", metadata={"added_later": True})


@dataclass(frozen=True, slots=True)
class PluginFusionSettings:
    """A fusion module of a plug-in: the name of the function that builds it, `by`, with its arguments, sorted by name."""

    by: str
    arguments: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class PixelDecoderSettings:
    """A transformer from the states of the patches that were kept to the pixels of all patches of `patch` x `patch`, 0:
    those of the tower (MAE). `output` is what its last map gives: pixels, with a `tanh` those in [-1, 1] (KELIP), or
    `states` as the tower has them of all patches (MaskCLIP)."""

    patch: int = 0
    depth: int = 8
    width: int = 512
    heads: int = 16
    output: Literal["linear", "tanh", "states"] = "linear"


@dataclass(frozen=True, slots=True)
class TextDecoderSettings:
    """A causal transformer over token ids whose blocks attend to image tokens, except the first ones, a share of
    `cross_from`.

    With a `class_token` those first blocks end in one vector per text (CoCa: `cross_from` 0.5). A `cross_from` of 0 is the
    decoder of BLIP, SimVLM and CapPa. One that `shares` the weights of the fusion module of this name has those of its
    blocks, but for self-attention, and the words and positions of the text tower whose states enter that module (BLIP).
    """

    depth: int
    width: int = 0
    heads: int = 0
    cross_from: float = 0.0
    class_token: bool = False
    shares: str = field(default="", metadata={"added_later": True})


@dataclass(frozen=True, slots=True)
class PoolerSettings:
    """Attention of `queries` learned vectors to a sequence (CoCa)."""

    queries: int
    width: int = 0
    heads: int = 0


@dataclass(frozen=True, slots=True)
class LinearSettings:
    """Logits over a vocabulary or over a codebook of `size` entries (0: passed when the module is built).

    `tied` takes the embedding of the vocabulary as the weight. A `transform` goes before the product: a linear map, a GELU
    and a norm (BERT).
    """

    bias: bool = True
    tied: bool = False
    transform: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class TokenHeadSettings:
    """`layers` linear maps of each token by itself, GELU between them, to `out` numbers; 0 is the input dimension.

    With a `bias` the last one adds it, and the others do in any case. Its weight starts at `start` times the usual size."""

    layers: int = 1
    hidden: int = 0
    out: int = 0
    bias: bool = True
    start: float = 1.0


@dataclass(frozen=True, slots=True)
class CodebookSettings:
    """`size` centres of patches of `patch` x `patch` pixels; `normalised` as for `pixels`.

    Images have the `side`, a share of that of the towers, and a `patch` of 0 gives as many patches as a tower of images has.
    The centres are those of a `file`, or without one are fitted on the data.
    """

    size: int
    patch: int = 0
    normalised: Literal["none", "patch"] = "none"
    side: float = 1.0
    file: str = ""


def block_range(depth: int, blocks: tuple[float, float]) -> range:
    """The blocks of a stack of `depth` from one share of them to another; at least one.

    >>> block_range(12, (0.5, 1.0)), block_range(12, (1.0, 1.0))
    (range(6, 12), range(11, 12))
    """
    first = min(round(blocks[0] * depth), depth - 1)
    return range(first, max(round(blocks[1] * depth), first + 1))
