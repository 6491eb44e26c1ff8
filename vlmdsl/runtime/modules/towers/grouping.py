"""Grouping (GroupViT): each segment is assigned to one group, and each group becomes a segment of the next stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.values import precise
from vlmdsl.runtime.modules.towers.blocks import Attention, FeedForward

__all__ = ["GroupingBlock", "TokenMixing", "hard_assignment"]


def hard_assignment(logits: Tensor, noise: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Each segment's group: `[..., G, N]`, one 1 in every column, of `logits [..., G, N]` of N segments over G groups.

    The group is that of the largest logit. With standard Gumbel `noise` of the same shape it is a draw from the softmax over
    the groups. The gradient is that of the softmax (straight-through), of the logits with their noise, over the
    `temperature`. Source: Xu et al., CVPR 2022.

    >>> hard_assignment(torch.tensor([[2.0, 0.0], [1.0, 3.0]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    logits = precise(logits)
    drawn = logits if noise is None else logits + noise
    soft = (drawn if temperature == 1.0 else drawn / temperature).softmax(dim=-2)
    chosen = soft.argmax(dim=-2, keepdim=True)
    hard = torch.zeros_like(soft).scatter(-2, chosen, 1.0)
    # In this order the value is exactly that of `hard`.
    return hard + (soft - soft.detach())


class TokenMixing(nn.Module):
    """Two linear layers across tokens, with a GELU between them: `[b, from, W]` to `[b, to, W]`."""

    def __init__(self, entering: int, hidden: int, leaving: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(entering, hidden), nn.GELU(), nn.Linear(hidden, leaving))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens.transpose(1, 2)).transpose(1, 2)


class GroupingBlock(nn.Module):
    """Assigns segments `[b, N, W]` to the groups of group tokens `[b, G, W]`; the new segments are `[b, G, W]`.

    Group tokens are mixed, look at the segments (cross-attention) and become the groups' queries. A new segment is its query
    plus the sum of the values of the segments assigned to it, divided by their count + 1, then a feed-forward layer.
    """

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.LayerNorm(width)
        self.segment_norm = nn.LayerNorm(width)
        self.mixing = TokenMixing(groups, width // 2, groups)
        self.mixed_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, context_width=width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.asking_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.new_norm = nn.LayerNorm(width)
        self.new_feed_forward = FeedForward(width)

    def forward(self, groups: Tensor, segments: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The new segments, and the assignment `[b, G, N]` that made them; `noise` as in `hard_assignment`."""
        segments = self.segment_norm(segments)
        asking = self.mixed_norm(self.mixing(self.group_norm(groups)))
        asking = asking + self.attention(asking, segments)
        asking = self.asking_norm(asking + self.feed_forward(self.feed_forward_norm(asking)))
        query = self.query(asking)
        key, value = self.key_value(segments).chunk(2, dim=-1)
        assignment = hard_assignment(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, noise)
        shares = assignment / (assignment.sum(dim=-1, keepdim=True) + 1)
        grouped = asking + self.output(shares.to(value.dtype) @ value)
        return grouped + self.new_feed_forward(self.new_norm(grouped)), assignment
