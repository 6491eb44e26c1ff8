"""The default encoders of images, texts and texts given an image, unless a recipe declares others."""

from __future__ import annotations

from vlmdsl.ir import Encoder
from vlmdsl.primitives.values import FusionValue

__all__ = ["DEFAULT_ENCODERS", "FUSION", "usual_fusion"]

DEFAULT_ENCODERS: dict[str, Encoder] = {
    "vision": Encoder("vision", "Image"),
    "language": Encoder("language", "Text"),
}
"""The towers of every recipe; a field is encoded by the one of its type unless the recipe says otherwise."""

FUSION = "fusion"
"""The name of the encoder that a recipe declares for texts given an image."""


def usual_fusion() -> FusionValue:
    """The default fusion module for `text | image`: six layers, as in ALBEF."""
    from vlmdsl.ir.modules import FusionSettings  # few recipes apply modules, and classes take time to make

    return FusionValue(FUSION, FusionSettings("cross", depth=6))
