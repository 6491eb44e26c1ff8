"""Arithmetic on every kind of value."""

from __future__ import annotations

import pytest
import torch

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops.targets import dense_target

ROWS, COLUMNS = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
LABEL = torch.tensor([4, 4])


@pytest.mark.parametrize(("gradient", "expected"), [("zero", [0.0, 1.0, 0.0]), ("pass", [1.0, 1.0, 1.0])])
def test_a_clamp_stops_or_passes_the_gradient_beyond_its_bounds(gradient: str, expected: list[float]) -> None:
    values = torch.tensor([-2.0, 0.3, 2.0], requires_grad=True)
    bounded = ops.clamp(values, lower=-1.0, upper=1.0, gradient=gradient)
    bounded.sum().backward()
    assert torch.equal(bounded.detach(), values.detach().clamp(-1.0, 1.0))
    assert values.grad.tolist() == expected


def test_similarities_keep_two_directions_and_one_matrix_stays_one() -> None:
    scaled = ops.multiply(ops.Similarities(ROWS, COLUMNS), 2.0)
    assert torch.equal(scaled.rows, 2 * ROWS)
    assert torch.equal(scaled.columns, 2 * COLUMNS)
    one = ops.Similarities(ROWS, ROWS)
    assert ops.exp(one).symmetric
    mixed = ops.add(one, ops.Similarities(ROWS, COLUMNS))
    assert torch.equal(mixed.columns, ROWS + COLUMNS)


def test_an_excluded_candidate_stays_excluded_through_arithmetic() -> None:
    left = ops.exclude(ops.Similarities(ROWS, ROWS), torch.tensor([True, False]))
    right = ops.exclude(ops.Similarities(ROWS, ROWS), torch.tensor([False, False]))
    assert ops.add(ops.multiply(left, 3.0), right).candidates.tolist() == [False, True]


def test_bfloat16_similarities_are_scaled_in_float32() -> None:
    half = ROWS.bfloat16()
    assert ops.multiply(ops.Similarities(half, half), torch.tensor(100.0)).rows.dtype is torch.float32


def test_sums_and_multiples_of_targets_stay_sums_of_parts() -> None:
    mixture = ops.add(ops.multiply(0.25, ops.paired()), ops.divide(ops.same(LABEL, -1), 4.0))
    mixture = ops.subtract(mixture, ops.negate(ops.smooth(ops.paired(), 0.5, "all")))
    assert all(part.kind != "dense" for part in mixture.parts)
    eye, half = torch.eye(2), torch.full((2, 2), 0.5)
    torch.testing.assert_close(dense_target(mixture, ROWS).rows, 0.25 * eye + 0.25 * half + 0.5 * eye + 0.5 * half)


def test_each_sample_has_a_share_of_its_own_in_its_row_and_in_its_column() -> None:
    dense = dense_target(ops.smooth(ops.paired(), torch.tensor([0.2, 1.0]), "others"), ROWS)
    torch.testing.assert_close(dense.rows, torch.tensor([[0.8, 0.2], [1.0, 0.0]]))
    torch.testing.assert_close(dense.columns, torch.tensor([[0.8, 1.0], [0.2, 0.0]]))
    assert not dense.symmetric


def test_other_functions_of_targets_are_taken_of_their_matrices() -> None:
    larger = ops.maximum(ops.paired(), ops.same(LABEL, -1))
    torch.testing.assert_close(dense_target(larger, ROWS).rows, torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


def test_numbers_combine_with_scores_in_their_precision() -> None:
    score = torch.tensor([0.1, 2.0], dtype=torch.float64)
    assert torch.equal(ops.minimum(score, 1.0), torch.tensor([0.1, 1.0], dtype=torch.float64))
    chosen = ops.where(ops.less(score, 1.0), score, 0.3)
    assert torch.equal(chosen, torch.tensor([0.1, 0.3], dtype=torch.float64))
    assert ops.logical_not(ops.greater(score, 1.0)).tolist() == [True, False]


def test_what_is_not_chosen_gets_no_gradient() -> None:
    score = torch.tensor([1.0, 4.0], requires_grad=True)
    ops.where(ops.equal(score, 1.0), 1.0, ops.log(score)).sum().backward()
    assert score.grad.tolist() == [0.0, 0.25]
