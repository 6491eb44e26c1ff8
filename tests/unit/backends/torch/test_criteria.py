"""The plain criteria: against their definitions, and against the lowered region that stands for them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.testing.gradients import assert_same_gradients

LABEL = torch.tensor([0, 1, 0, -1, -1])


def logits(seed: int) -> ops.Similarities:
    rows, columns = torch.randn(2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return ops.Similarities(rows, columns)


@given(
    st.sampled_from(["rows", "columns"]),
    st.sampled_from(["all", "negatives"]),
    st.sampled_from(["paired", "same", "smooth all", "smooth others"]),
    st.booleans(),
    st.integers(0, 100),
)
def test_cross_entropy_is_what_the_region_computes(
    along: str, denominator: str, kind: str, excluding: bool, seed: int
) -> None:
    condition = torch.rand(5, generator=torch.Generator().manual_seed(seed)) < 0.5
    target = {
        "paired": ops.paired(),
        "same": ops.same(LABEL, -1),
        "smooth all": ops.smooth(ops.paired(), 0.1, "all"),
        "smooth others": ops.smooth(ops.same(LABEL, -1), 0.1, "others"),
    }[kind]

    def plain(rows: Tensor, columns: Tensor) -> Tensor:
        similarities = ops.Similarities(rows, columns)
        similarities = ops.exclude(similarities, condition) if excluding else similarities
        return ops.mean(ops.cross_entropy(similarities, target, along=along, denominator=denominator))

    def region(rows: Tensor, columns: Tensor) -> Tensor:
        keep = ~condition if excluding else None
        direction = ops.Direction(1.0, target, keep=keep, without_positive=denominator == "negatives")
        return ops.contrast_of(ops.Similarities(rows, columns), **{along: direction}).loss

    matrices = logits(seed)
    assert_same_gradients(plain, region, {"rows": matrices.rows, "columns": matrices.columns})


def test_cross_entropy_along_rows_is_torchs() -> None:
    similarities = logits(0)
    losses = ops.cross_entropy(similarities, ops.paired(), along="rows", denominator="all")
    torch.testing.assert_close(losses, F.cross_entropy(similarities.rows, torch.arange(5), reduction="none"))


def test_excluding_everybody_costs_nothing() -> None:
    rows = torch.ones(3, 3, requires_grad=True)
    nobody = ops.exclude(ops.Similarities(rows, rows), torch.ones(3, dtype=torch.bool))
    loss = ops.cross_entropy(nobody, ops.paired(), along="columns", denominator="all").sum()
    loss.backward()
    assert loss.item() == 0.0
    assert not rows.grad.any()


@pytest.mark.parametrize("along", ["rows", "columns"])
@pytest.mark.parametrize("negatives", ["mean", "hardest"])
def test_hinge_is_what_negatives_have_in_excess(along: str, negatives: str) -> None:
    matrices, excluded = logits(2), torch.tensor([False, True, False, False, False])
    matrix = matrices.rows if along == "rows" else matrices.columns.T
    excess = (0.5 + matrix - matrix.diagonal()[:, None]).clamp(min=0.0)
    for similarities, kept in ((matrices, torch.ones(5, dtype=torch.bool)), (ops.exclude(matrices, excluded), ~excluded)):
        losses = ops.hinge(similarities, along=along, margin=0.5, negatives=negatives)
        for i in range(5):
            others = excess[i, kept & (torch.arange(5) != i)]
            expected = (others.mean() if negatives == "mean" else others.max()) if kept[i] else torch.zeros(())
            torch.testing.assert_close(losses[i], expected.to(losses.dtype))


def test_hardest_negatives_that_are_equal_share_the_gradient() -> None:
    rows = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    ops.hinge(ops.Similarities(rows, rows), along="columns", margin=1.0, negatives="hardest").sum().backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, 1.5 * (torch.full((3, 3), 1 / 3, dtype=torch.float64) - torch.eye(3)))


def test_one_sample_has_no_negatives() -> None:
    alone = torch.ones(1, 1, requires_grad=True)
    for negatives in ("mean", "hardest"):
        loss = ops.hinge(ops.Similarities(alone, alone), along="rows", margin=1.0, negatives=negatives)
        assert loss.tolist() == [0.0]


def test_sigmoid_loss_adds_up_all_candidates_of_a_row() -> None:
    similarities = logits(1)
    positive = (LABEL[:, None] == LABEL[None, :]) & (LABEL != -1)[:, None] | torch.eye(5, dtype=torch.bool)
    expected = -F.logsigmoid(torch.where(positive, similarities.rows, -similarities.rows))
    torch.testing.assert_close(ops.sigmoid_loss(similarities, ops.same(LABEL, -1)), expected.sum(dim=1))
    excluded = torch.tensor([False, True, False, False, False])
    kept = ops.sigmoid_loss(ops.exclude(similarities, excluded), ops.same(LABEL, -1))
    torch.testing.assert_close(kept, expected[:, ~excluded].sum(dim=1))


def test_sigmoid_loss_keeps_its_digits_where_it_is_nearly_zero() -> None:
    certain = torch.full((2, 2), -50.0).fill_diagonal_(50.0)
    losses = ops.sigmoid_loss(ops.Similarities(certain, certain), ops.paired())
    assert losses.tolist() == pytest.approx([2 * 1.928749847963918e-22] * 2, rel=1e-5)


def test_a_mean_over_nobody_is_zero_with_zero_gradient() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = ops.mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0.0
    assert values.grad.tolist() == [0.0, 0.0, 0.0]


def test_a_masked_mean_ignores_what_it_does_not_cover() -> None:
    values = torch.tensor([1.0, float("inf"), 3.0], requires_grad=True)
    mean = ops.mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 2.0
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize(("form", "share"), [("distance", 1.0), ("mean_squared", 1 / 5)])
def test_a_regression_says_whether_it_sums_or_averages_over_features(form: str, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    objective = vlmdsl.compile(f'minimize regress(image, text, form="{form}")', compiled=False).double()
    units = [F.normalize(value, dim=-1) for value in (image, text)]
    expected = F.mse_loss(*units).item() * 5 * share
    assert objective(image=image, text=text).loss.item() == pytest.approx(expected, rel=1e-12)
    assert ("/D" in vlmdsl.explain(f'minimize regress(image, text, form="{form}")').to_text()) == (share < 1)


def test_a_mean_squared_distance_is_a_similarity_too() -> None:
    image = torch.eye(4, dtype=torch.float64)
    recipe = 'minimize mean(row_sum(similarity(image, text, by=euclidean(reduction="mean"))))'
    assert vlmdsl.compile(recipe, compiled=False)(image=image, text=image).loss.item() == pytest.approx(-3 * 2 / 4)
