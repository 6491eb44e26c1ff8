"""Which features have one length: whatever is done to them before they meet."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.backends.torch.validation import compared_streams


@pytest.mark.parametrize(
    "recipe",
    ["ra_clip", "contrast(gate(image, by=score(image, text)), text)", "contrast(mix(image.pooled, by=0.5), stop(text))"],
)
def test_what_is_made_of_features_has_their_length(recipe: str) -> None:
    assert compared_streams(build(recipe).planned) == [("image", "text")]


def test_features_that_attend_to_others_are_checked_before_they_are_compared() -> None:
    objective = vlmdsl.compile("ra_clip", compiled=False)
    features = {"image": torch.zeros(4, 8), "image_retriever": torch.zeros(4, 8), "text": torch.zeros(4, 6)}
    with pytest.raises(ValueError, match=r"axis D .features.: image has 8, text has 6"):
        objective(**features, key=torch.arange(4))
