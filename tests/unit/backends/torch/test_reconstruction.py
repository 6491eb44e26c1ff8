"""Pixels as targets: what masks mean, and what gets no gradient. The numbers themselves are those of the oracles."""

from __future__ import annotations

import pytest
import torch

from vlmdsl.backends.torch import ops


def test_what_is_not_masked_may_be_anything() -> None:
    torch.manual_seed(0)
    decoded, target = torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    at = torch.tensor([[True, False, True, False], [False, False, False, True]])
    loss = ops.reconstruct(decoded, target, at)
    torch.testing.assert_close(loss, (decoded - target)[at].square().mean())
    poisoned = decoded.masked_fill(~at[:, :, None], torch.nan).requires_grad_()
    again = ops.reconstruct(poisoned, target.masked_fill(~at[:, :, None], torch.inf), at)
    again.backward()
    assert again == loss
    assert not poisoned.grad[~at].any()
    assert poisoned.grad[at].isfinite().all()


def test_nothing_masked_has_no_loss_and_no_gradient() -> None:
    decoded = torch.randn(2, 3, 4, requires_grad=True)
    loss = ops.reconstruct(decoded, torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert not decoded.grad.any()


def test_the_target_gets_no_gradient() -> None:
    image = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = ops.pixels(image, 2, normalised="patch")
    assert not target.requires_grad
    decoded = torch.randn(2, 4, 12)
    assert not ops.reconstruct(decoded, decoded.clone().requires_grad_(), torch.ones(2, 4, dtype=torch.bool)).requires_grad


def test_normalised_patches_have_mean_0_and_unbiased_variance_1_and_flat_ones_are_0() -> None:
    image = torch.randn(1, 3, 8, 4, dtype=torch.float64)
    image[:, :, :4] = 0.7
    target = ops.pixels(image, 4, normalised="patch")
    assert target.shape == (1, 2, 48)
    assert target[0, 0].abs().max() < 1e-9
    torch.testing.assert_close(target[0, 1].mean(), torch.tensor(0.0, dtype=torch.float64))
    torch.testing.assert_close(target[0, 1].var(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-5, atol=0)


def test_half_precision_is_compared_in_float32() -> None:
    decoded = torch.full((1, 2, 3), 300.0, dtype=torch.float16)
    assert ops.reconstruct(decoded, torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)).item() == 90_000.0


def test_images_that_do_not_divide_into_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="6 x 8 pixels do not divide into patches of 4"):
        ops.pixels(torch.zeros(1, 3, 6, 8), 4)
