"""What encodes images, texts and texts given an image in every recipe, unless it declares an encoder of its own."""

from __future__ import annotations

from vlmdsl.ir import Encoder
from vlmdsl.primitives.values import FusionValue

__all__ = ["DEFAULT_ENCODERS", "FUSION", "usual_fusion"]

DEFAULT_ENCODERS: dict[str, Encoder] = {
    "vision": Encoder("vision", "Image"),
    "language": Encoder("language", "Text"),
}
"""The towers every recipe has; a field is encoded by the one of its type unless the recipe says otherwise."""

FUSION = "fusion"
"""The name of the encoder that a recipe declares for texts given an image."""


def usual_fusion() -> FusionValue:
    """What encodes a text given an image unless the recipe says otherwise: ALBEF's six layers."""
    from vlmdsl.ir.modules import FusionSettings  # few recipes apply modules, and classes take time to make

    return FusionValue(FUSION, FusionSettings("cross", depth=6))
