"""Which tokens of each sample may be chosen as a best partner (`tokenmax(share=25%)`): the most similar ones.

They are kept for all samples alike, so that a process need not know which pair is asked for. Choosing has no gradient. It
is done in float32 at least: rounding to bfloat16 would decide between tokens that are nearly as similar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_max
from vlmdsl.backends.torch.values import TokenFeatures, precise

__all__ = ["kept_tokens", "largest_similarities"]

_ROUNDING = 1e-6
"""What a share of some tokens may exceed a whole number by and still be it: 7 % of 100 is 7.000000000000001."""


Largest: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""How `largest_similarities` are made."""


def kept_tokens(
    x: TokenFeatures,
    y: TokenFeatures,
    everybody: TokenFeatures,
    *,
    share: float = 1.0,
    count: int = 0,
    rank: str = "best",
    largest: Largest,
) -> tuple[Tensor, Tensor]:
    """The tokens of this process's x [b, P] and of everybody's y [B, L] that are kept: a `share` of the real ones, at least
    one, and at most `count` (0: any number).

    Those with the highest rank stay, of equals the earlier: by the largest similarity to any real token of the other stream
    in the batch of all processes (`best`), or by the sum of the similarities to those of the own pair (`partner`).
    `everybody` is y gathered; `largest` makes the `largest_similarities`.
    """
    with torch.no_grad():
        x_ranks, y_ranks = _by_partner(x, y) if rank == "partner" else _by_best(x, everybody, largest)
        x_kept = _highest(x_ranks, x.mask, share, count)
        if rank == "partner":
            return x_kept, all_gather(_highest(y_ranks, y.mask, share, count))
        return x_kept, _highest(y_ranks, everybody.mask, share, count)


def largest_similarities(x: Tensor, y: Tensor, x_real: Tensor, y_real: Tensor) -> tuple[Tensor, Tensor]:
    """The largest similarity of each token of x [b, P, D] and y [B, L, D] to a real one of the other stream, in any sample;
    -inf for one that is not real."""
    values = torch.einsum("ipd,jld->ijpl", precise(x), precise(y))
    values = values.masked_fill(~x_real[:, None, :, None] | ~y_real[None, :, None, :], -torch.inf)
    return values.amax(dim=(1, 3)), values.amax(dim=(0, 2))


def _by_best(x: TokenFeatures, y: TokenFeatures, largest: Largest) -> tuple[Tensor, Tensor]:
    """The largest similarity of each token: [b, P], and [B, L] over the samples of all processes."""
    of_x, of_y = largest(x.values, y.values, _directed(x), _directed(y))
    return of_x, all_reduce_max(of_y)


def _directed(features: TokenFeatures) -> Tensor:
    """The real tokens [n, K] that have a direction: those of samples that a recipe leaves out are zeros by now."""
    directed = (features.values != 0).any(dim=2)
    return directed if features.mask is None else directed & features.mask


def _by_partner(x: TokenFeatures, y: TokenFeatures) -> tuple[Tensor, Tensor]:
    """The sum of each token's similarities to the tokens of its pair: [b, P], and [b, L] of this process's y."""
    values = torch.einsum("ipd,ild->ipl", precise(x.values), precise(y.values))
    to_y = values if y.mask is None else values.masked_fill(~y.mask[:, None, :], 0.0)
    to_x = values if x.mask is None else values.masked_fill(~x.mask[:, :, None], 0.0)
    return to_y.sum(dim=2), to_x.sum(dim=1)


def _highest(ranks: Tensor, real: Tensor | None, share: float, count: int) -> Tensor:
    """Which of the real tokens of each sample are among the highest: [n, K]."""
    real = torch.ones_like(ranks, dtype=torch.bool) if real is None else real
    limit = (share * real.sum(dim=1) - _ROUNDING).ceil()
    limit = limit.clamp(max=count) if count else limit
    order = ranks.masked_fill(~real, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < limit[:, None]) & real
