"""Pooling of tokens: padding is in no maximum and no mean, and a sample without tokens is zero without gradient."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.runtime.evaluation.comparison import comparison_of

VALUES = torch.tensor([[[-1.0, -5.0], [-3.0, -2.0], [0.0, 0.0]], [[4.0, 1.0], [2.0, 3.0], [6.0, -7.0]], [[0.0, 0.0]] * 3])
MASK = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])


@pytest.mark.parametrize(("by", "expected"), [("max", [[-1, -2], [6, 3], [0, 0]]), ("mean", [[-2, -3.5], [4, -1], [0, 0]])])
def test_padding_is_not_pooled(by: str, expected: list[list[float]]) -> None:
    values = VALUES.clone().requires_grad_()
    pooled = ops.reduce_tokens(ops.tokens(values, MASK), by)
    assert pooled.tolist() == expected
    pooled.sum().backward()
    assert values.grad is not None
    assert not values.grad[~MASK].any()
    assert values.grad[:2].sum((1, 2)).tolist() == [2, 2]
    whole = ops.reduce_tokens(ops.tokens(VALUES[1:2], None), by)
    assert whole.tolist() == expected[1:2]


def test_evaluation_compares_pooled_patches() -> None:
    pooled = comparison_of(vlmdsl.compile("clippy", compiled=False).program)
    assert pooled is not None
    assert pooled.image_features is not None
    assert (pooled.pooled, pooled.normalized, pooled.image_features.operation) == (True, True, "reduce_tokens")
    assert comparison_of(vlmdsl.compile("contrast(image, mean_pool(text))", compiled=False).program) is None


@pytest.mark.parametrize(
    "compared",
    ["mean_pool(regions(image, boxes)), text", "regions(image, boxes), text, sim=tokenmax", "image, pool(render(text))"],
)
def test_what_a_whole_image_or_text_does_not_have_is_not_compared(compared: str) -> None:
    """Boxes are not among what evaluation encodes, and a rendered text that a pooler reads is not an image of the data."""
    recipe = f"recipe r(image: Image, text: Text, boxes: Boxes)\nminimize contrast({compared})"
    assert comparison_of(vlmdsl.compile(recipe, compiled=False).program) is None
