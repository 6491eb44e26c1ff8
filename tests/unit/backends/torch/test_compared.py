"""Which features have one length: whatever is done to them before they meet."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.backends.torch.lengths import compared_streams, entering_streams


@pytest.mark.parametrize(
    "recipe",
    ["ra_clip", "contrast(gate(image, by=score(image, text)), text)", "contrast(mix(image.pooled, by=0.5), stop(text))"],
)
def test_what_is_made_of_features_has_their_length(recipe: str) -> None:
    assert compared_streams(build(recipe).planned) == [("image", "text")]


MODULES = """recipe modules(image: Image, text: Text)
encoder fusion = fuse(depth=1)
encoder joint = project(fusion, layers=1, out=4)
let seen = pool(image, queries=3)
let kept = queue(joint(text, image), size=8)
let centre = running_mean(max_pool(text), name="centre")
minimize {
  heads: contrast(joint(text, image), image)
  kept: memory_contrast(seen, text, kept)
  several: memory_contrast(image, text, queue((seen, (text | image).pooled), size=8, name="several"))
  moved: contrast(mean_pool(image) - centre, image)
}
"""


def test_features_of_modules_have_lengths_of_their_own() -> None:
    """Compared with each other, or with what a state holds of them."""
    program = build(MODULES).planned
    assert set(compared_streams(program)) == {
        ("text_fusion_project", "image"),
        ("image_pooler_3", "text"),
        ("image_pooler_3", "text_fusion_project"),
        ("image", "text"),
        ("image", "image_pooler_3"),
        ("image_pooler_3", "text_fusion"),
        ("image_tokens", "text_tokens"),
        ("image_tokens", "image"),
    }
    assert entering_streams(program) == {
        "kept": "text_fusion_project", "several": "image_pooler_3", "centre": "text_tokens",
    }  # fmt: skip


def test_features_that_attend_to_others_are_checked_before_they_are_compared() -> None:
    objective = vlmdsl.compile("ra_clip", compiled=False)
    features = {"image": torch.zeros(4, 8), "image_retriever": torch.zeros(4, 8), "text": torch.zeros(4, 6)}
    with pytest.raises(ValueError, match=r"axis D .features.: image has 8, text has 6"):
        objective(**features, key=torch.arange(4))
