"""The codebook as a tower: it takes images in a form of its own, and gives codes instead of features."""

from __future__ import annotations

from torch import Tensor

from vlmdsl.ir.modules import CodebookSettings
from vlmdsl.runtime.modules.codebook import Codebook
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.values import ImageFormat

__all__ = ["CodebookTower"]


class CodebookTower(Encoder):
    """Images `[b, 3, S, S]` to `codes [b, P]`, row by row; nothing of it learns.

    `settings.patch` is the side of a patch in pixels, `image_size` S a multiple of it.
    """

    def __init__(self, settings: CodebookSettings, image_size: int) -> None:
        super().__init__("Image", 0, ("codes",))
        self.codebook = Codebook(settings)
        self.image_format = ImageFormat(image_size, patch=settings.patch, resampling="lanczos")

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        """The codes of images; RuntimeError before the codebook has entries."""
        return EncodedFeatures(codes=self.codebook(values))
