"""Similarities that are not made, or not from all pairs of tokens at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vlmdsl.backends.torch.ops.similarities import both
from vlmdsl.backends.torch.ops.tiled.tokenmax import largest_similarities, tokenmax
from vlmdsl.backends.torch.ops.token_selection import kept_tokens
from vlmdsl.backends.torch.values import Gathered, Products, Similarities, TokenFeatures

__all__ = ["similarity"]


def similarity(
    x: Tensor | TokenFeatures, y: Tensor | TokenFeatures | Gathered, by: str, **selection: Any
) -> Similarities | Products:
    """This process's x against everybody's y: by `tokenmax` both matrices, from blocks of pairs of tokens; by `dot` the
    features, from which readers compute the products."""
    own, everybody = both(y)
    if isinstance(x, Tensor):
        assert isinstance(everybody, Tensor), f"{by} compares pooled features with pooled ones"
        return Products.of(x, everybody)
    assert isinstance(own, TokenFeatures)
    assert isinstance(everybody, TokenFeatures)
    kept = kept_tokens(x, own, everybody, largest=largest_similarities, **selection) if selection else (None, None)
    return Similarities(*tokenmax(x, everybody, *kept))
