"""Attentional pooling: learned queries attend to a sequence, with one output feature per query."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmdsl.ir.modules import PoolerSettings
from vlmdsl.runtime.modules.sequences import initialise_uniform, prepared_context, usual_heads
from vlmdsl.runtime.modules.towers.blocks import Attention

__all__ = ["AttentionalPooler"]


class AttentionalPooler(nn.Module):
    """Tokens `[b, K, C]` to features `[b, Q, W]`, one for each of Q learned queries.

    One attention whose queries and tokens are normed before it and whose features after it. CoCa (Yu et al., 2022) reads
    captions from 256 of them, and its contrastive vector from one query of a second pooler on those.
    """

    def __init__(self, settings: PoolerSettings, context_width: int) -> None:
        super().__init__()
        width = settings.width or context_width
        self.queries = nn.Parameter(torch.empty(settings.queries, width))
        self.query_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(context_width)
        self.attention = Attention(width, usual_heads(settings.heads, width), context_width)
        self.norm = nn.LayerNorm(width)
        initialise_uniform(self)
        nn.init.normal_(self.queries)

    def forward(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of `context [b, K, C]`; `mask [b, K]` is true where there is a token."""
        context, mask = prepared_context(context, mask)
        queries = self.query_norm(self.queries).expand(len(context), -1, -1)
        return self.norm(self.attention(queries, self.context_norm(context), mask))
