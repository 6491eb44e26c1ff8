"""OneR's contrast of mixtures against its formula: nobody released a number, so this is the composition, not the method."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmdsl

TEMPERATURE = 0.07


def info_nce(a: Tensor, b: Tensor) -> Tensor:
    """The mean of both directions of the in-batch softmax."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / TEMPERATURE
    pairs = torch.arange(len(a))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def features(names: tuple[str, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(8, 16, generator=generator, dtype=torch.float64).requires_grad_() for name in names}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_mixture_is_as_near_to_each_half_as_it_has_of_it(share: float) -> None:
    """Value and gradients of l NCE(mixed, image) + (1 - l) NCE(mixed, text), the tower's features given."""
    objective = vlmdsl.compile("oner", compiled=False, image_text_weight=0, context_weight=0, mixed_weight=0.5).double()
    names = ("image_text_blend_shared", "image_shared", "text_shared")
    ours, theirs = features(names), features(names)
    assert set(objective.inputs) == {*names, "lam"}
    loss = objective(**ours, lam=torch.tensor(share, dtype=torch.float64)).loss
    mixed, image, text = (theirs[name] for name in names)
    expected = 0.5 * (share * info_nce(mixed, image) + (1 - share) * info_nce(mixed, text))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-12)  # the temperature starts in float32
    gradients = torch.autograd.grad(expected, list(theirs.values()))
    for gradient, other in zip(torch.autograd.grad(loss, list(ours.values())), gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-9)
