"""Criteria of tokens and patches over two processes that hold unequally many of them: as on one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.collectives import own_slice, process_count
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def values_and_gradients() -> list[Tensor]:
    """Each loss with its gradients, those of a process divided by the number of processes, as DDP's mean would."""
    random = torch.Generator().manual_seed(0)
    states, weights, decoded, target = (
        own_slice(torch.randn(shape, generator=random, dtype=torch.float64))
        for shape in [(4, 5, 6), (4, 5), (4, 3, 8), (4, 3, 8)]
    )
    weight, bias = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in [(7, 6), (7,)])
    targets = torch.randint(7, (4, 5), generator=random)
    targets[2:, 1:] = -1
    targets[3] = -1
    at = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    targets, at = own_slice(targets), own_slice(at)
    leaves = [states, weight, bias, weights.abs()]
    results = []
    for reduction in ("token", "sample"):
        learned = [leaf.clone().requires_grad_() for leaf in leaves]
        loss = ops.linear_cross_entropy(
            learned[0], learned[1], targets, learned[2], weights=learned[3], smoothing=0.1, reduction=reduction
        )
        gradients = torch.autograd.grad(loss, learned)
        results += [loss.detach(), *(gradient / process_count() for gradient in gradients)]
    decoded.requires_grad_()
    states.requires_grad_()
    loss = ops.reconstruct(decoded, target, at)
    results += [loss.detach(), torch.autograd.grad(loss, decoded)[0] / process_count()]
    return results + of_some_samples(states, targets, decoded, target, at)


def of_some_samples(states: Tensor, targets: Tensor, decoded: Tensor, target: Tensor, at: Tensor) -> list[Tensor]:
    """Losses with a weight of each sample, which two processes hold unequal sums of, and with a condition."""
    weight = own_slice(torch.tensor([3.0, 0.5, 0.25, 1.0], dtype=torch.float64)).requires_grad_()
    where = own_slice(torch.tensor([True, True, True, False]))
    options = {"sample_weight": weight, "where": where}
    losses = [ops.token_loss(states, targets % 6, reduction=by, **options) for by in ("token", "sample", "sum")]
    losses += [ops.token_loss(states, targets % 6, reduction=by, where=where) for by in ("token", "sample", "sum")]
    losses.append(ops.reconstruct(decoded, target, at, **options))
    losses.append(ops.matching(decoded[:, 0, :2], at[:, 1], **options))
    losses.append(ops.matched(decoded[:, 0, :2], decoded[:, 1, :2], at[:, 1], **options))
    results = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, [decoded, weight, states], allow_unused=True)
        results += [loss.detach(), *(gradient / process_count() for gradient in gradients if gradient is not None)]
    return results


def test_two_processes_are_one() -> None:
    expected = values_and_gradients()
    shares = run_processes(values_and_gradients, 2)
    for place, whole in enumerate(expected):
        parts = [share[place] for share in shares]
        if not whole.dim():
            for part in parts:
                torch.testing.assert_close(part, whole, rtol=1e-12, atol=0)
        elif len(parts[0]) < len(whole):  # of the process's own samples
            torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-10, atol=1e-13)
        else:  # of what all processes share: the mean over processes, as DDP takes it
            torch.testing.assert_close(parts[0] + parts[1], whole, rtol=1e-10, atol=1e-13)
