"""Fusion of a text with its image: cross-attention from one to the other, or both in one sequence; or blocks for a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmdsl.ir.modules import FusionSettings, block_range
from vlmdsl.runtime.modules.sequences import (
    SequenceFeatures,
    attention_mask,
    attention_rule,
    learned_token,
    prepared_context,
    usual_heads,
    with_token,
    without_padding,
)
from vlmdsl.runtime.modules.towers.blocks import Transformer, initialise

__all__ = ["Fusion", "MergedFusion", "fusion"]


def fusion(settings: FusionSettings, states_width: int, context_width: int | None) -> Fusion | MergedFusion:
    """The module of these settings for text states and image tokens of these widths; None: for texts alone."""
    if settings.attention != "merged":
        return Fusion(settings, states_width, context_width)
    assert context_width is not None, "an image is in the sequence"
    return MergedFusion(settings, states_width, context_width)


class Fusion(nn.Module):
    """A transformer over text states `[b, L, W]` that attends to a context, such as image tokens, in every block.

    The context is optional in each call: without one the same weights encode the text alone (as in ALBEF and FIBER), and
    without a `context_width` there are no others. States
    of another width are projected. A `learned` pooled token follows the text, where causal attention sees all of it.

    One that shares the blocks of a text tower takes its embedded tokens, the first of which it replaces by a learned one;
    `share` makes the blocks those of the tower.
    """

    def __init__(self, settings: FusionSettings, states_width: int, context_width: int | None) -> None:
        super().__init__()
        width = settings.width or states_width
        self.settings, self.width = settings, width
        self.adapter = nn.Linear(states_width, width) if states_width != width else None
        self.pooled_token = learned_token(width) if settings.pooled == "learned" else None
        self.first_token = learned_token(width) if settings.shares else None
        self.register_parameter("positions", None)
        self.embedding_norm: nn.Module | None = None
        self.heads = usual_heads(settings.heads, width)
        self.transformer = Transformer(width, settings.depth, self.heads, context_width, gated=settings.gated)
        initialise(self)

    def share(self, blocks: Transformer, positions: nn.Parameter, embedding_norm: nn.Module | None) -> None:
        """Have the weights of the blocks of a text tower, all but those of cross-attention, and those that its embedded
        tokens have beside the words."""
        for own, shared in zip(self.transformer.blocks, blocks.blocks, strict=True):
            for name in ("attention_norm", "attention", "feed_forward_norm", "feed_forward"):
                setattr(own, name, getattr(shared, name))
        self.transformer.norm = blocks.norm
        self.positions, self.embedding_norm = positions, embedding_norm

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        *,
        causal: bool = False,
        prefix: Tensor | None = None,
        blocks: tuple[float, float] = (0.0, 1.0),
    ) -> SequenceFeatures:
        """Features of `states [b, L, W]` given `context [b, K, C]`, through a share of the blocks.

        `mask [b, L]` and `context_mask [b, K]` are true where there is a token; padding is at the end. `causal` and `prefix
        [b]` say which text tokens see which (`attention_mask`). Between two blocks states are not normalised, and may enter
        the rest of the blocks in another call.
        """
        x = without_padding(states, mask)
        if self.adapter is not None and x.shape[-1] != self.width:
            x = self.adapter(x)
        if self.first_token is not None:
            x = torch.cat([self._first().expand(len(x), 1, -1), x[:, 1:]], dim=1)
        length, seen, appended = x.shape[1], mask, self.pooled_token is not None
        if self.pooled_token is not None:
            x, seen = with_token(x, self.pooled_token, mask)
        if context is not None:
            context, context_mask = prepared_context(context, context_mask)
        attended, kernel = attention_rule(x.shape[1], seen, causal=causal, prefix=prefix, appended=appended, device=x.device)
        part = block_range(self.settings.depth, blocks)
        hidden = self.transformer(x, attended, kernel, context, context_mask, part.start, part.stop)
        pooled = hidden[:, 0 if self.pooled_token is None else length]
        return SequenceFeatures(hidden[:, :length], mask, pooled)

    def _first(self) -> Tensor:
        """The first token as the tower embeds its own, `[W]`."""
        assert self.first_token is not None
        first = self.first_token if self.positions is None else self.first_token + self.positions[0]
        return first if self.embedding_norm is None else self.embedding_norm(first)


class MergedFusion(nn.Module):
    """A transformer over one sequence of image tokens and text states, each after a separate linear map.

    A `learned` pooled token comes first (FLAVA).
    """

    def __init__(self, settings: FusionSettings, states_width: int, context_width: int) -> None:
        super().__init__()
        width = settings.width or states_width
        self.settings = settings
        self.text_adapter = nn.Linear(states_width, width)
        self.image_adapter = nn.Linear(context_width, width)
        self.pooled_token = learned_token(width) if settings.pooled == "learned" else None
        self.transformer = Transformer(width, settings.depth, usual_heads(settings.heads, width))
        initialise(self)

    def forward(
        self, states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None = None
    ) -> SequenceFeatures:
        """Features of `states [b, L, W]` and of `context [b, K, C]`, with masks as for `Fusion`."""
        parts = [
            self.image_adapter(without_padding(context, context_mask)),
            self.text_adapter(without_padding(states, mask)),
        ]
        masks = [context_mask, mask]
        if self.pooled_token is not None:
            parts.insert(0, self.pooled_token.expand(len(states), 1, -1))
            masks.insert(0, None)
        x, seen = torch.cat(parts, dim=1), None
        if any(each is not None for each in masks):
            seen = torch.cat([_seen(part, each) for part, each in zip(parts, masks, strict=True)], dim=1)
        hidden = self.transformer(x, attention_mask(x.shape[1], seen, causal=False))
        first = hidden[:, : x.shape[1] - states.shape[1] - context.shape[1]]
        of_context, of_states = hidden[:, first.shape[1] :].split([context.shape[1], states.shape[1]], dim=1)
        return SequenceFeatures(of_states, mask, first[:, 0] if first.shape[1] else of_states[:, 0], of_context)


def _seen(part: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(part.shape[:2], dtype=torch.bool, device=part.device) if mask is None else mask
