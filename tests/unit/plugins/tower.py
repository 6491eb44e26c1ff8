"""The module of the plug-in `averages`; apart, so that declaring it loads no torch."""

from __future__ import annotations

from torch import Tensor, nn

from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder, Request
from vlmdsl.runtime.values import ImageFormat


class Averages(Encoder):
    def __init__(self, request: Request) -> None:
        super().__init__("Image", request.dimension, request.yields)
        self.image_format = ImageFormat(request.image_size or 32)
        self.output = nn.Linear(3, request.dimension)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(pooled=self.output(values.mean(dim=(2, 3))))
