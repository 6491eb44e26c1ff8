"""Both lowerings of a contrastive region: value and gradients against the definition, laws, and extremes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unit.backends.torch.dense_reference import EPSILON, Case, reference_loss
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops.contrast import ContrastResult
from vlmdsl.backends.torch.ops.product import product
from vlmdsl.backends.torch.ops.tiled import blocks
from vlmdsl.testing.gradients import assert_same_gradients, check_gradients

MISSING = -1

Lowering = Callable[..., ContrastResult]
LOWERINGS = {"dense": ops.contrast, "chunked": ops.tiled.contrast}
both_lowerings = pytest.mark.parametrize("contrast", LOWERINGS.values(), ids=LOWERINGS.keys())


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Three rows of seven samples are a block, so that there are several and the last one is smaller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks.BLOCK_NUMBERS, "cpu", 21)
        yield


def arguments_of(seed: int, size: int = 7, width: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": F.normalize(normal(size, width), dim=-1),
        "y": F.normalize(normal(size, width), dim=-1),
        "rows_matrix": normal(size, size),
        "columns_matrix": normal(size, size),
        "scale": normal(()).exp() * 3,
        "rows_scales": normal(size).exp(),
        "columns_scales": normal(size).exp(),
        "bias": normal(()),
        "weight": normal(size).exp(),
        "label": torch.randint(-1, 3, (size,), generator=generator),
        "over": torch.rand(size, generator=generator) > 0.4,
        "keep": torch.rand(size, generator=generator) > 0.4,
    }


def target_of(case: Case, label: Tensor) -> ops.Target:
    target = ops.same(label, MISSING) if case.target == "same" else ops.paired()
    return ops.smooth(target, EPSILON, {"uniform": "all"}.get(case.smoothing, "others")) if case.smoothing else target


def directions_of(case: Case, arguments: Mapping[str, Tensor]) -> dict[str, ops.Direction]:
    return {
        name: ops.Direction(
            0.5,
            target_of(case, arguments["label"]),
            scale=arguments["scale"] if case.scale == "scalar" else arguments[f"{name}_scales"],
            bias=arguments["bias"] if case.biased else None,
            weight=arguments["weight"] if case.weighted else None,
            over=arguments["over"] if case.over else None,
            keep=arguments["keep"] if case.keep else None,
            without_positive=case.without_positive,
        )
        for name in case.directions
    }


CASES = st.builds(
    Case,
    target=st.sampled_from(["paired", "same"]),
    smoothing=st.sampled_from(["", "uniform", "others"]),
    scale=st.sampled_from(["scalar", "scores"]),
    weighted=st.booleans(),
    over=st.booleans(),
    keep=st.booleans(),
    without_positive=st.booleans(),
    biased=st.booleans(),
    directions=st.sampled_from([("rows", "columns"), ("rows",), ("columns",)]),
)


@both_lowerings
@given(CASES, st.integers(0, 1000), st.sampled_from([1, 2, 7]))
def test_features_give_the_value_and_gradients_of_the_definition(
    contrast: Lowering, case: Case, seed: int, size: int
) -> None:
    def lowered(**a: Tensor) -> Tensor:
        return contrast(a["x"], a["y"], **directions_of(case, a)).loss

    def defined(**a: Tensor) -> Tensor:
        matrix = a["x"] @ a["y"].T
        return reference_loss(case, (matrix, matrix), a, MISSING)

    assert_same_gradients(lowered, defined, arguments_of(seed, size))


@given(CASES, st.integers(0, 1000))
def test_two_matrices_give_the_value_and_gradients_of_the_definition(case: Case, seed: int) -> None:
    def lowered(**a: Tensor) -> Tensor:
        similarities = ops.Similarities(a["rows_matrix"], a["columns_matrix"])
        return ops.contrast_of(similarities, **directions_of(case, a)).loss

    def defined(**a: Tensor) -> Tensor:
        return reference_loss(case, (a["rows_matrix"], a["columns_matrix"]), a, MISSING)

    assert_same_gradients(lowered, defined, arguments_of(seed))


@both_lowerings
@given(st.integers(0, 1000))
def test_a_target_given_as_a_matrix_counts_in_each_direction_as_itself(contrast: Lowering, seed: int) -> None:
    arguments = arguments_of(seed) | {"label": torch.tensor([0, 0, 1, 1, 1, 2, -1])}

    def lowered(**a: Tensor) -> Tensor:
        target = ops.maximum(ops.same(a["label"], MISSING), ops.paired())
        assert isinstance(target, ops.Target)
        direction = ops.Direction(1.0, target, scale=a["scale"])
        return contrast(a["x"], a["y"], rows=direction, columns=direction).loss

    def defined(**a: Tensor) -> Tensor:
        logits = a["x"] @ a["y"].T * a["scale"]
        equal = (a["label"][:, None] == a["label"][None, :]) & (a["label"] != MISSING)[:, None]
        eye = torch.eye(len(logits), dtype=torch.float64)
        target = torch.maximum(eye, equal.double() / equal.sum(dim=1, keepdim=True).clamp(min=1))
        rows = -(target * logits).sum(1) + target.sum(1) * torch.logsumexp(logits, 1)
        columns = -(target.T * logits).sum(0) + target.sum(1) * torch.logsumexp(logits, 0)
        return rows.mean() + columns.mean()

    assert_same_gradients(lowered, defined, arguments)


@both_lowerings
@given(CASES, st.integers(0, 1000))
def test_the_order_of_the_samples_and_the_names_of_the_towers_do_not_matter(
    contrast: Lowering, case: Case, seed: int
) -> None:
    arguments = arguments_of(seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    shuffled = {name: value[order] if value.dim() == 1 or name in "xy" else value for name, value in arguments.items()}
    swapped = shuffled | {"rows_scales": shuffled["columns_scales"], "columns_scales": shuffled["rows_scales"]}
    exchanged = {{"rows": "columns", "columns": "rows"}[name]: d for name, d in directions_of(case, swapped).items()}
    loss = contrast(arguments["x"], arguments["y"], **directions_of(case, arguments)).loss
    for name, direction in exchanged.items():
        scales = shuffled[f"{'rows' if name == 'columns' else 'columns'}_scales"]
        exchanged[name] = direction if case.scale == "scalar" else direction._replace(scale=scales)
    mirrored = contrast(shuffled["y"], shuffled["x"], **exchanged).loss
    torch.testing.assert_close(mirrored, loss, rtol=1e-12, atol=1e-12)


def clip(contrast: Lowering, x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
    direction = ops.Direction(0.5, ops.paired(), scale=scale)
    return contrast(x, y, rows=direction, columns=direction).loss


def handwritten(x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
    """The usual code: two products, two cross-entropies."""
    positions = torch.arange(len(x))
    return (F.cross_entropy(scale * x @ y.T, positions) + F.cross_entropy(scale * y @ x.T, positions)) / 2


@both_lowerings
def test_each_direction_may_have_a_number_of_its_own(contrast: Lowering) -> None:
    arguments = arguments_of(5) | {"other": torch.tensor(1.5, dtype=torch.float64)}

    def lowered(**a: Tensor) -> Tensor:
        rows, columns = (ops.Direction(0.5, ops.paired(), scale=a[name]) for name in ("scale", "other"))
        return contrast(a["x"], a["y"], rows=rows, columns=columns).loss

    def defined(**a: Tensor) -> Tensor:
        positions, matrix = torch.arange(len(a["x"])), a["x"] @ a["y"].T
        by_row = F.cross_entropy(a["scale"] * matrix, positions)
        return (by_row + F.cross_entropy(a["other"] * matrix.T, positions)) / 2

    assert_same_gradients(lowered, defined, arguments)


@both_lowerings
def test_gradients_agree_with_finite_differences(contrast: Lowering) -> None:
    arguments = arguments_of(3, size=4)
    check_gradients(lambda x, y, scale: clip(contrast, x, y, scale), {name: arguments[name] for name in ("x", "y", "scale")})


@both_lowerings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [100.0, 1e-3])
@pytest.mark.parametrize("alike", ["random", "equal", "opposite"])
def test_loss_and_gradients_stay_finite(contrast: Lowering, dtype: torch.dtype, scale: float, alike: str) -> None:
    x = F.normalize(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), dim=-1).to(dtype).requires_grad_()
    other = {"random": x.detach().flip(0), "equal": x.detach(), "opposite": -x.detach()}[alike]
    y = other.clone().requires_grad_()
    learned = torch.tensor(scale, requires_grad=True)
    loss = clip(contrast, x, y, learned)
    loss.backward()
    assert loss.dtype is torch.float32
    assert all(torch.isfinite(tensor).all() for tensor in (loss, x.grad, y.grad, learned.grad))


@both_lowerings
def test_long_float16_features_do_not_overflow_the_product(contrast: Lowering) -> None:
    x = torch.full((4, 64), 100.0, dtype=torch.float16, requires_grad=True)
    loss = clip(contrast, x, x.detach().clone(), 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


def test_float16_keeps_gradients_that_are_smaller_than_its_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (40 * torch.rand(512, 16, generator=generator)).half(), (40 * torch.rand(512, 16, generator=generator)).half()
    gradient = 1e-8 * torch.rand(512, 512, generator=generator)
    half, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    product(half, y).backward(gradient)
    product(wide, y.double()).backward(gradient.double())
    assert ((half.grad.double() - wide.grad).norm() / wide.grad.norm()).item() < 2e-3


@both_lowerings
@pytest.mark.parametrize(("scale", "noise"), [(14.3, 1.0), (100.0, 1.0), (50.0, 0.02)])
def test_bfloat16_errs_no_more_than_the_usual_code(contrast: Lowering, scale: float, noise: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 64, generator=generator)
    y = x + noise * 8 * torch.randn(256, 64, generator=generator)
    features = [F.normalize(value, dim=-1).bfloat16() for value in (x, y)]

    def gradient(function: str, dtype: torch.dtype) -> Tensor:
        leaves = [feature.to(dtype).requires_grad_() for feature in features]
        loss = clip(contrast, *leaves, scale) if function == "clip" else handwritten(*leaves, scale)
        return torch.cat(torch.autograd.grad(loss, leaves)).double()

    exact = gradient("usual", torch.float64)
    ours, usual = (((gradient(name, torch.bfloat16)) - exact).norm() / exact.norm() for name in ("clip", "usual"))
    assert ours <= usual * 1.05


@both_lowerings
def test_a_loss_near_zero_keeps_its_digits_in_float32(contrast: Lowering) -> None:
    x = torch.eye(8)
    exact = handwritten(x.double(), x.double(), 16.0).item()
    assert exact < 1e-6
    assert clip(contrast, x, x, 16.0).item() == pytest.approx(exact, rel=1e-5)


@both_lowerings
def test_accuracy_counts_the_samples_whose_pair_is_largest(contrast: Lowering) -> None:
    x = torch.eye(4, dtype=torch.float64)
    y = torch.eye(4, dtype=torch.float64)[[0, 1, 3, 2]]
    direction = ops.Direction(1.0, ops.paired(), scale=2.0)
    assert contrast(x, y, rows=direction, columns=direction).accuracy.item() == 0.5
    chosen = direction._replace(over=torch.tensor([True, True, True, False]))
    assert contrast(x, y, rows=chosen).accuracy.item() == pytest.approx(2 / 3)


@both_lowerings
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_pairs_that_only_rounding_tells_apart_are_not_hits(contrast: Lowering, dtype: torch.dtype) -> None:
    """Features that are all the same: sums in another order differ in the last digits, for the pair or against it."""
    generator = torch.Generator().manual_seed(0)
    for width in (3, 12, 64, 500):
        x, y = (F.normalize(torch.randn(width, generator=generator), dim=0).expand(8, -1).to(dtype) for _ in range(2))
        for first, second in ((x, x), (x, y)):
            direction = ops.Direction(1.0, ops.paired(), scale=100.0)
            assert contrast(first, second, rows=direction, columns=direction).accuracy.item() == 0.0


@both_lowerings
def test_a_masked_mean_over_nobody_is_zero_with_zero_gradient(contrast: Lowering) -> None:
    x = torch.eye(4, requires_grad=True)
    nobody = torch.zeros(4, dtype=torch.bool)
    loss = contrast(x, x.detach(), rows=ops.Direction(1.0, ops.paired(), scale=5.0, over=nobody)).loss
    loss.backward()
    assert loss.item() == 0.0
    assert not x.grad.any()
