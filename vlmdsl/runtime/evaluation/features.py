"""Features of a whole data set: gathered batch by batch, compared block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from vlmdsl.backends.torch.values import Similarities
from vlmdsl.runtime.encoders import EncodedFeatures

__all__ = ["Score", "block_size", "blocks", "count", "gather", "select"]

Score = Callable[[EncodedFeatures, EncodedFeatures], Similarities]
"""Similarities `[n, m]` of n images and m texts; `rows` rank texts for an image, `columns` images for a text."""

_BLOCK_NUMBERS = 2**24
"""Most numbers in one block of token by token comparisons: 64 MiB in float32."""


def count(features: EncodedFeatures) -> int:
    """How many samples these features belong to."""
    first = next(part for part in features if part is not None)
    return len(first)


def select(features: EncodedFeatures, index: slice | Tensor) -> EncodedFeatures:
    """The features of some of the samples."""
    return EncodedFeatures(*(None if part is None else part[index] for part in features))


def gather(parts: Iterable[EncodedFeatures]) -> EncodedFeatures:
    """One set of features of several, without states; shorter texts are padded to the longest. ValueError if there are
    none."""
    outputs = [[part for part in group if part is not None] for group in zip(*parts, strict=True)]
    if not outputs:
        raise ValueError("there are no features to gather")
    pooled, tokens, masks, _ = outputs
    length = max((part.shape[1] for part in tokens), default=0)
    return EncodedFeatures(
        pooled=torch.cat(pooled) if pooled else None,
        tokens=torch.cat([_padded(part, length) for part in tokens]) if tokens else None,
        mask=torch.cat([_padded(part, length) for part in masks]) if masks and tokens else None,
    )


def _padded(values: Tensor, length: int) -> Tensor:
    """`values [b, L, ...]` with zeros (false) up to `length`."""
    missing = values.new_zeros(len(values), length - values.shape[1], *values.shape[2:])
    return torch.cat([values, missing], dim=1)


def block_size(images: EncodedFeatures, texts: EncodedFeatures) -> int:
    """Samples on each side of a block, so that the block fits in memory, comparisons of tokens included."""
    pairs = 1
    for features in (images, texts):
        if features.tokens is not None:
            pairs *= max(features.tokens.shape[1], 1)
    return max(1, min(2048, math.isqrt(_BLOCK_NUMBERS // pairs)))


def blocks(total: int, size: int) -> Iterator[slice]:
    """The ranges of at most `size` that make up `total`."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
