"""Targets made of an affinity: transport plans as others compute them, and what happens where nobody is a candidate."""

from __future__ import annotations

import ot
import pytest
import torch
from torch import Tensor

from oracles.cases import DATA
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops.soft_targets import COLUMNS, ROWS, sinkhorn
from vlmdsl.backends.torch.ops.targets import dense_target
from vlmdsl.testing.oracle import load_oracle


def affinity(size: int = 6) -> Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def rows_and_columns(target: ops.Target, size: int) -> tuple[Tensor, Tensor]:
    dense = dense_target(target, torch.zeros(size, size, dtype=torch.float64))
    return dense.rows, dense.columns


def test_the_plan_is_that_of_an_optimal_transport_library() -> None:
    matrix, weights = affinity(), torch.full((6,), 1 / 6, dtype=torch.float64)
    expected = torch.from_numpy(ot.sinkhorn(weights.numpy(), weights.numpy(), -matrix.numpy(), reg=0.5, stopThr=1e-14))
    rows, columns = rows_and_columns(ops.transport(ops.Similarities(matrix, matrix), epsilon=0.5, iterations=100), 6)
    torch.testing.assert_close(rows, 6 * expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(columns, 6 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cost", "plan", "epsilon", "iterations"), [
    ("cost_square", "square_5", 0.15, 5),
    ("cost_square", "square_1", 0.15, 1),
    ("cost_square", "square_0", 0.15, 0),
    ("cost_square", "square_100", 0.5, 100),
    ("cost_rect", "rect_5", 0.2, 5),
])  # fmt: skip
def test_each_step_is_that_of_otter(cost: str, plan: str, epsilon: float, iterations: int) -> None:
    oracle = load_oracle(DATA, "otter-sinkhorn")
    logarithm = -oracle.inputs[cost] / epsilon
    everybody = torch.ones_like(logarithm, dtype=torch.bool)
    weights = oracle.outputs[plan]
    target = sinkhorn(logarithm, everybody, iterations, ROWS, COLUMNS)
    torch.testing.assert_close(target, weights / weights.sum(dim=1, keepdim=True), rtol=1e-10, atol=1e-14)


def test_columns_are_scaled_first_for_the_column_direction() -> None:
    matrix = affinity()
    rows, columns = rows_and_columns(ops.transport(ops.Similarities(matrix, matrix), epsilon=0.5, iterations=1), 6)
    turned, _ = rows_and_columns(ops.transport(ops.Similarities(matrix.T, matrix.T), epsilon=0.5, iterations=1), 6)
    torch.testing.assert_close(columns, turned.T)
    assert not torch.allclose(rows, columns)


def test_large_affinities_stay_finite() -> None:
    matrix = 1e4 * affinity()
    rows, columns = rows_and_columns(ops.transport(ops.Similarities(matrix, matrix), epsilon=0.05, iterations=5), 6)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(columns.sum(dim=0), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 2])
def test_a_sample_without_candidates_has_a_target_of_zeros(size: int) -> None:
    matrix = affinity(size)
    excluded = ops.exclude_pairs(ops.Similarities(matrix, matrix))
    for target in (ops.softmax(excluded), ops.transport(excluded, epsilon=0.1, iterations=3)):
        rows, columns = rows_and_columns(target, size)
        expected = torch.zeros(1, 1, dtype=torch.float64) if size == 1 else 1 - torch.eye(2, dtype=torch.float64)
        torch.testing.assert_close(rows, expected)
        torch.testing.assert_close(columns, expected)


def test_divergence_from_a_target_with_zeros_is_that_of_otter() -> None:
    oracle = load_oracle(DATA, "otter-kl")
    cosine = oracle.inputs["cosine"].clone().requires_grad_()
    log_scale = oracle.inputs["log_scale"].clone().requires_grad_()
    shares = oracle.inputs["target"]
    logits = ops.Similarities(cosine * log_scale.exp(), cosine * log_scale.exp())
    target = ops.Target((ops.TargetPart("dense", matrices=lambda like: ops.Similarities(shares, shares)),))
    scores = ops.cross_entropy(logits, target, along="rows", denominator="all")
    loss = (scores - ops.target_entropy(logits, target, along="rows")).mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    torch.testing.assert_close(cosine.grad, oracle.gradients["cosine"], rtol=oracle.rtol, atol=1e-12)
    torch.testing.assert_close(log_scale.grad, oracle.gradients["log_scale"], rtol=oracle.rtol, atol=0)
