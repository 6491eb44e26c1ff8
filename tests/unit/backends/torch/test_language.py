"""Cross-entropies of tokens over logits: which tokens count, and how much."""

from __future__ import annotations

import itertools

import pytest
import torch

from vlmdsl.backends.torch import ops


def test_nothing_selected_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(3, 4, 5, requires_grad=True)
    loss = ops.token_loss(logits, torch.full((3, 4), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(3, 4, 5))


def test_each_selected_token_counts_alike_and_the_rest_not_at_all() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, -100, 4], [-100, 2, -100]])
    loss = ops.token_loss(logits, targets)
    picked = logits[[0, 0, 1], [0, 2, 1]].log_softmax(-1)[[0, 1, 2], [1, 4, 2]]
    torch.testing.assert_close(loss, -picked.mean())
    loss.backward()
    assert not logits.grad[targets < 0].any()


@pytest.mark.parametrize(
    ("smoothing", "over", "reduction"), list(itertools.product((0.0, 0.2), ("all", "others"), ("token", "sample")))
)
def test_logits_give_what_states_and_a_weight_give(smoothing: float, over: str, reduction: str) -> None:
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, -100, 4, 0], [-100, 2, -100, -1], [-100] * 4])
    identity, options = torch.eye(5, dtype=torch.float64), {"smoothing": smoothing, "over": over, "reduction": reduction}
    losses = ops.token_loss(logits, targets, **options), ops.linear_cross_entropy(logits, identity, targets, **options)
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits) for loss in losses), rtol=1e-10, atol=1e-14)
    poisoned = torch.where((targets < 0)[:, :, None], torch.nan, logits)
    torch.testing.assert_close(ops.token_loss(poisoned, targets, **options), losses[0], rtol=0, atol=0)


def test_half_precision_and_large_logits_stay_finite() -> None:
    logits = (torch.randn(2, 3, 5) * 1e4).bfloat16().requires_grad_()
    loss = ops.token_loss(logits, torch.zeros(2, 3, dtype=torch.int64))
    loss.backward()
    assert loss.dtype is torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_teachers_targets_are_those_of_the_chunked_form_and_of_torch() -> None:
    logits, teacher = (torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    targets = torch.tensor([[1, -100, 4, 0], [-100, 2, -100, -1], [-100] * 4])
    at, identity = targets >= 0, torch.eye(5, dtype=torch.float64)
    loss = ops.distill(logits, teacher, targets)
    soft = ops.SoftTargets(torch.tensor(1.0, dtype=torch.float64), teacher.detach(), identity)
    others = (
        ops.linear_cross_entropy(logits, identity, targets, soft=soft),
        torch.nn.functional.cross_entropy(logits[at], teacher[at].softmax(dim=-1).detach()),
    )
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    for other in others:
        torch.testing.assert_close(loss, other, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, torch.autograd.grad(other, logits)[0], rtol=1e-10, atol=1e-14)
    assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None,)


def test_a_teacher_of_the_patches_that_a_mask_selects_and_temperatures() -> None:
    logits, teacher = (torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    at = torch.tensor([[True, False, False, True], [False] * 4, [True] * 4])
    loss = ops.distill(logits, teacher, at, temperature=0.5, teacher_temperature=0.1)
    expected = torch.nn.functional.cross_entropy(2 * logits[at], (10 * teacher[at]).softmax(dim=-1).detach())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    assert ops.distill(logits, teacher, torch.zeros_like(at)).item() == 0.0


def test_without_a_token_a_teacher_teaches_nothing() -> None:
    logits = torch.full((2, 3, 5), torch.nan, requires_grad=True)
    loss = ops.distill(logits, logits, torch.full((2, 3), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(2, 3, 5))
