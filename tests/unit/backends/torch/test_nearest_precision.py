"""Which entry of a queue is nearest is decided in float32, whatever precision the features come in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vlmdsl

RECIPE = """
recipe neighbours(image: Image, text: Text)
let earlier = queue(text, size=200)
minimize mean(score(image, nearest(text, earlier{by}), by=dot))
"""


@pytest.mark.parametrize("by", ["", ", by=euclidean", ", by=0.5 * cosine + 0.5 * euclidean"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_every_neighbour_is_that_of_float64(by: str, dtype: torch.dtype, autocast: bool) -> None:
    """The gradient of the images is the neighbours. The entries differ by little, so that a rounded search finds others."""
    generator, spread = torch.Generator().manual_seed(1), {torch.bfloat16: 0.02, torch.float16: 0.012}[dtype]
    first = torch.randn(1, 16, generator=generator)
    entries, texts = ((first + spread * torch.randn(200, 16, generator=generator)).to(dtype) for _ in range(2))
    objective = vlmdsl.compile(RECIPE.format(by=by), compiled=False)
    images = torch.zeros(200, 16, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        objective(image=texts, text=entries)
        objective(image=images, text=texts).loss.backward()
    unit = F.normalize(entries.double(), dim=-1)
    expected = unit[(F.normalize(texts.double(), dim=-1) @ unit.T).argmax(dim=1)] / 200
    assert images.grad is not None
    torch.testing.assert_close(images.grad.double(), expected, rtol=0.004, atol=2e-7)
    rounded = F.normalize(entries, dim=-1)
    others = (F.normalize(texts, dim=-1) @ rounded.T).argmax(dim=1)
    assert (unit[others] / 200 - expected).abs().amax(dim=1).gt(1e-6).sum() > 5
