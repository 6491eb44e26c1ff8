"""Shared by modules: attention masks, outputs, and initial weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers.blocks import Attention
from vlmdsl.runtime.modules.towers.key_value_cache import KeyValueCache
from vlmdsl.runtime.modules.towers.text import never_empty

__all__ = [
    "SequenceFeatures",
    "attention_mask",
    "attention_rule",
    "initialise_normal",
    "initialise_uniform",
    "learned_token",
    "prepared_context",
    "usual_heads",
    "with_token",
    "without_padding",
]

STANDARD_DEVIATION = 0.02
"""Of the weights of BERT, and of the learned tokens of MAE, BEiT and FLAVA."""
FEATURES_OF_A_HEAD = 64
FEWEST_FEATURES = 16
FEWEST_HEADS = 4
"""The attention of a module whose settings do not say otherwise; the transformers of the survey have heads of 64."""


class SequenceFeatures(NamedTuple):
    """The output of a module for a sequence; missing members are None.

    `tokens [b, L, W]` with their `mask [b, L]` (true where there is a token; None: everywhere), `pooled [b, W]`, and the
    states of the `context [b, K, W]` where the module changes these too. Padded positions hold finite numbers that mean
    nothing.
    """

    tokens: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None
    context: Tensor | None = None

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis L."""
        return ("tokens", "mask")


def without_padding(states: Tensor, mask: Tensor | None) -> Tensor:
    """`states [b, L, W]` with zeros where `mask [b, L]` is false: attention multiplies padding by 0, and 0 times NaN is
    NaN."""
    return states if mask is None else torch.where(mask[:, :, None], states, 0.0)


def attention_mask(
    length: int, mask: Tensor | None, *, causal: bool, prefix: Tensor | None = None, device: torch.device | None = None
) -> Tensor | None:
    """Which positions of a sequence of `length` each of them attends to: `[b, L]` where all attend to the same ones,
    `[b or 1, L, L]` (query, key) where not, None where all attend to all.

    To those of `mask [b, L]`; `causal`, to itself and those before it, and to the first `prefix [b]` positions (a prefix
    language model: both directions within the prefix). None is left without a position, so no state is undefined.

    >>> attention_mask(3, None, causal=True, prefix=torch.tensor([2]))[0].int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    if not causal:
        return None if mask is None else never_empty(mask)
    order = torch.arange(length, device=device)
    seen = (order <= order[:, None])[None]
    if prefix is not None:
        seen = seen | (order < prefix[:, None])[:, None]
    if mask is not None:
        seen = seen & mask[:, None]
    return seen | (order == order[:, None])


def with_token(x: Tensor, token: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A sequence `[b, L, W]` with `token [W]` behind it, and its `mask [b, L]` with one more place."""
    longer = torch.cat([x, token.expand(x.shape[0], 1, -1)], dim=1)
    return longer, None if mask is None else torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def prepared_context(context: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A context `[b, K, C]` and its mask as cross-attention takes them: padding is 0, and an empty one is read as its first
    position, so that no state is undefined."""
    return without_padding(context, mask), None if mask is None else never_empty(mask)


def attention_rule(
    length: int,
    mask: Tensor | None,
    *,
    causal: bool,
    prefix: Tensor | None = None,
    appended: bool = False,
    cache: KeyValueCache | None = None,
    device: torch.device,
) -> tuple[Tensor | None, bool]:
    """What `Transformer` takes for `attention_mask`: a mask, or that its kernel is to be causal.

    Padding comes last, so a causal token sees none; but one that is `appended` behind it would. Those that a `cache` has of
    earlier calls are seen by all tokens of this one.
    """
    if cache is not None and cache.earlier is not None:
        own = attention_mask(length, mask, causal=True, device=device)
        assert own is not None
        earlier = cache.earlier[:, None].expand(-1, length, -1)
        return torch.cat([earlier, own.expand(len(earlier), -1, -1)], dim=2), False
    if causal and prefix is None and (mask is None or not appended):
        return None, True
    return attention_mask(length, mask, causal=causal, prefix=prefix, device=device), False


def usual_heads(heads: int, width: int) -> int:
    """The attention heads of a module: those of its settings, or for 0 heads of 64 features, as those of the authors, but
    four where these are fewer and none gets fewer than 16 features.

    A single head attends to one place at a time: ALBEF's fusion of width 64 does not learn which colour goes with which
    shape with one head of 64 features, and does with four of 16.

    Parameters
    ----------
    heads
        Number of attention heads, or 0.
    width
        Number of features of a token; a multiple of the number that is returned, unless `heads` says otherwise.

    Examples
    --------
    >>> usual_heads(0, 768), usual_heads(0, 64), usual_heads(0, 32), usual_heads(0, 8), usual_heads(0, 1000)
    (12, 4, 2, 1, 10)
    """
    if heads:
        return heads
    most = max(width // FEATURES_OF_A_HEAD, min(FEWEST_HEADS, width // FEWEST_FEATURES), 1)
    return next(count for count in range(most, 0, -1) if width % count == 0)


def learned_token(width: int) -> nn.Parameter:
    """A learned token `[W]`, from a normal distribution of standard deviation 0.02."""
    return nn.Parameter(STANDARD_DEVIATION * torch.randn(width))


def initialise_normal(module: nn.Module) -> None:
    """Linear maps, embeddings and learned tokens from a normal distribution of standard deviation 0.02, no bias: BERT's,
    which ALBEF, BLIP and FLAVA start from.

    Norms and gates keep what they are made with.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=STANDARD_DEVIATION)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        for name, parameter in part.named_parameters(recurse=False):
            if name.endswith(("token", "positions")):
                nn.init.normal_(parameter, std=STANDARD_DEVIATION)


def initialise_uniform(module: nn.Module) -> None:
    """Linear maps uniform by fan-in and fan-out (Glorot and Bengio, 2010), no bias: MAE's.

    Query, key and value count as the one map that they are in the authors' code.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Attention):
            bound = math.sqrt(6 / (part.query.in_features + 3 * part.query.out_features))
            for linear in (part.query, part.key_value):
                nn.init.uniform_(linear.weight, -bound, bound)
