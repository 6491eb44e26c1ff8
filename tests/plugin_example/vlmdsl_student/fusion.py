"""A fusion module: each token of a text with the mean of its image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vlmdsl

if TYPE_CHECKING:
    from torch import nn


@vlmdsl.primitive(kind="fusion", formula=r"\tanh(A t_{il} + B \bar x_i)", cost="two products per token")
def mean_fusion(states_width: int, context_width: int, *, width: int = 16) -> nn.Module:
    """Adds a linear map of the mean of the image's states to one of each token's."""
    import torch
    from torch import Tensor, nn

    from vlmdsl.runtime.modules import SequenceFeatures

    def without_padding(states: Tensor, mask: Tensor | None) -> Tensor:
        return states if mask is None else torch.where(mask[:, :, None], states, 0.0)

    class MeanFusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text, self.image = nn.Linear(states_width, width), nn.Linear(context_width, width)

        def forward(
            self, states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None = None
        ) -> SequenceFeatures:
            real = context.shape[1] if context_mask is None else context_mask.sum(dim=1, keepdim=True).clamp(min=1)
            around = self.image(without_padding(context, context_mask).sum(dim=1) / real)
            tokens = torch.tanh(self.text(without_padding(states, mask)) + around[:, None])
            return SequenceFeatures(tokens, mask, tokens[:, 0])

    return MeanFusion()
