"""The fusion modules of a model: what does not fit together is refused by name."""

from __future__ import annotations

import pytest

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer

RECIPE = """recipe matching(image: Image, text: Text)
encoder fusion = fuse(depth=1, heads={heads}, width={width})
minimize mlm(mask(text, random(30%)) | image)
"""
SHARED = """recipe shared(image: Image, text: Text)
encoder other = separate(vision, name="other")
encoder fusion = fuse(depth=1)
let masked = mask(text, random(30%))
minimize mlm(masked | image) + mlm(masked | other(image))
"""


def image_tower(width: int = 8) -> VisionTransformer:
    return VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=width, depth=1, heads=2), 4, ("states",))


def text_tower(width: int = 12) -> TextTransformer:
    shape = TextConfig(width=width, depth=1, heads=2, vocabulary_size=20, text_length=6)
    return TextTransformer(shape, 4, ("states",))


@pytest.mark.parametrize(("heads", "width"), [(5, 0), (3, 16)])
def test_heads_that_do_not_divide_the_width_are_refused(heads: int, width: int) -> None:
    objective = vlmdsl.compile(RECIPE.format(heads=heads, width=width), compiled=False)
    with pytest.raises(DiagnosticError, match="V0832") as caught:
        VisionLanguageModel({"vision": image_tower(), "language": text_tower()}, objective)
    assert f"{width or 12} numbers, which {heads} heads of `fusion` do not divide" in caught.value.diagnostics[0].message


def test_images_of_other_widths_do_not_share_a_module() -> None:
    objective = vlmdsl.compile(SHARED, compiled=False)
    VisionLanguageModel({"vision": image_tower(), "other": image_tower(), "language": text_tower()}, objective)
    with pytest.raises(DiagnosticError, match="V0832") as caught:
        VisionLanguageModel({"vision": image_tower(), "other": image_tower(16), "language": text_tower()}, objective)
    assert "shares the module `fusion` with a use of other sizes" in caught.value.diagnostics[0].message
