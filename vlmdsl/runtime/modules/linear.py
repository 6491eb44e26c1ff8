"""A linear head: logits over a vocabulary, or over the entries of a codebook."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdsl.ir.modules import LinearSettings
from vlmdsl.runtime.modules.sequences import initialise_normal

__all__ = ["LinearHead"]


class LinearHead(nn.Module):
    """States `[..., W]` to logits `[..., V]`: states W^T + bias.

    Where only a cross-entropy reads the logits, `ops.linear_cross_entropy` takes `weight [V, W]`, `bias [V]` and the states
    that `forward` gives without the product, and logits are never whole in memory. A tied head has the weight of an
    `embedding`, the same parameter.
    """

    def __init__(
        self, settings: LinearSettings, states_width: int, size: int, embedding: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        if settings.tied and (embedding is None or embedding.shape != (size, states_width)):
            shape = None if embedding is None else list(embedding.shape)
            raise ValueError(f"a tied head of {size} entries for states of {states_width} numbers has no weight in {shape}")
        self.transform: nn.Module | None = None
        if settings.transform:
            self.transform = nn.Sequential(nn.Linear(states_width, states_width), nn.GELU(), nn.LayerNorm(states_width))
            initialise_normal(self.transform)
        if settings.tied and embedding is not None:
            self.weight = embedding
        else:
            self.weight = nn.Parameter(nn.init.normal_(torch.empty(size, states_width), std=0.02))
        self.bias = nn.Parameter(torch.zeros(size)) if settings.bias else None

    def forward(self, states: Tensor, product: bool = True) -> Tensor:
        """The logits of `states [..., W]`, or, without the `product`, what the weight is to multiply: `[..., W]`."""
        if self.transform is not None:
            states = self.transform(states)
        return functional.linear(states, self.weight, self.bias) if product else states
