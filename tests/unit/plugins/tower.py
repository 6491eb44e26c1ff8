"""The modules of the plug-ins `averages` and `added_context`; apart, so that declaring them loads no torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmdsl.runtime.modules import SequenceFeatures
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder, Request
from vlmdsl.runtime.values import ImageFormat


class Averages(Encoder):
    def __init__(self, request: Request) -> None:
        super().__init__("Image", request.dimension, request.yields)
        self.image_format = ImageFormat(request.image_size or 32)
        self.output = nn.Linear(3, request.dimension)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(pooled=self.output(values.mean(dim=(2, 3))))


class AddedContext(nn.Module):
    def __init__(self, states_width: int, context_width: int, times: float) -> None:
        super().__init__()
        self.linear, self.times = nn.Linear(context_width, states_width), times

    def forward(
        self, states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None = None
    ) -> SequenceFeatures:
        states, context = (
            values if real is None else torch.where(real[:, :, None], values, 0.0)
            for values, real in ((states, mask), (context, context_mask))
        )
        real = context.shape[1] if context_mask is None else context_mask.sum(dim=1, keepdim=True).clamp(min=1)
        tokens = states + self.times * self.linear(context.sum(dim=1) / real)[:, None]
        return SequenceFeatures(tokens, mask, tokens[:, 0])
