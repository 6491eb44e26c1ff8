"""Features of a whole data set: collected batch by batch, compared block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vlmdsl.backends.torch.values import Similarities
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import cat

__all__ = ["Score", "block_size", "blocks", "evaluation_mode", "gather"]

Score = Callable[[EncodedFeatures, EncodedFeatures], Similarities]
"""Similarities `[n, m]` of n images and m texts; `rows` rank texts for an image, `columns` images for a text."""

_BLOCK_NUMBERS = 2**24
"""Most numbers in one block of token by token comparisons: 64 MiB in float32."""


def gather(parts: Iterable[EncodedFeatures]) -> EncodedFeatures:
    """Concatenate sets of features, without states; shorter texts are padded to the longest. ValueError if there are
    none."""
    outputs = [part._replace(states=None) for part in parts]
    if not outputs:
        raise ValueError("there are no features to gather")
    return cat(outputs)


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


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards the mode as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
