"""Masked language modelling over a batch, in which texts may have nothing to ask for."""

from __future__ import annotations

import torch

from vlmdsl.backends.torch import ops


def test_nothing_chosen_is_no_loss_and_no_gradient() -> None:
    logits = torch.randn(3, 4, 5, requires_grad=True)
    loss = ops.token_loss(logits, torch.full((3, 4), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(3, 4, 5))


def test_each_chosen_token_counts_alike_and_the_rest_not_at_all() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, -100, 4], [-100, 2, -100]])
    loss = ops.token_loss(logits, targets)
    picked = logits[[0, 0, 1], [0, 2, 1]].log_softmax(-1)[[0, 1, 2], [1, 4, 2]]
    torch.testing.assert_close(loss, -picked.mean())
    loss.backward()
    assert not logits.grad[targets < 0].any()


def test_half_precision_and_large_logits_stay_finite() -> None:
    logits = (torch.randn(2, 3, 5) * 1e4).bfloat16().requires_grad_()
    loss = ops.token_loss(logits, torch.zeros(2, 3, dtype=torch.int64))
    loss.backward()
    assert loss.dtype is torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
