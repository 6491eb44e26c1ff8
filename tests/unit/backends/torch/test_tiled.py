"""The chunked lowering beside the dense one: what each operation gives, its gradients, its operators, what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops.tiled import blocks
from vlmdsl.backends.torch.ops.tiled.sigmoid import block_sigmoid
from vlmdsl.backends.torch.ops.tiled.statistics import block_statistics
from vlmdsl.backends.torch.ops.tiled.tokenmax import block_tokenmax, largest_similarities
from vlmdsl.backends.torch.ops.token_selection import largest_similarities as dense_largest_similarities
from vlmdsl.testing.gradients import assert_same_gradients

LABEL = torch.tensor([0, 1, 0, -1, -1, 1, 2])
ASYMMETRIC = torch.tensor([True, False, False, True, False, False, False])


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Three rows of seven samples are a block; of tokens it is one sample."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks.BLOCK_NUMBERS, "cpu", 21)
        yield


def features(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (F.normalize(torch.randn(7, 5, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2))
    return {"x": x.to(dtype), "y": y.to(dtype), "scale": torch.tensor(3.0).double(), "bias": torch.tensor(-1.5).double()}


TARGETS: dict[str, Callable[[], ops.Target]] = {
    "paired": ops.paired,
    "same": lambda: ops.same(LABEL, -1),
    "same and paired": lambda: ops.add_targets(ops.scale_target(ops.same(LABEL, -1), 0.5), ops.paired()),
    "smooth": lambda: ops.smooth(ops.paired(), 0.1, "all"),
    "others": ops.others,
    "flipped": ops.flipped,
    "less paired": lambda: ops.add_targets(ops.same(LABEL, -1), ops.scale_target(ops.paired(), -1.0)),
}


@given(st.sampled_from(sorted(TARGETS)), st.booleans(), st.integers(0, 100))
def test_sigmoid_losses_of_both_lowerings_agree(target: str, excluding: bool, seed: int) -> None:
    weight = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def loss(lowering: Any, x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        logits = ops.subtract(ops.add(ops.multiply(lowering.similarity(x, y, by="dot"), scale), bias), 0.25)
        logits = ops.exclude(logits, ASYMMETRIC) if excluding else logits
        return (lowering.sigmoid_loss(ops.negate(logits), TARGETS[target]()) * weight).sum()

    assert_same_gradients(lambda **a: loss(ops.tiled, **a), lambda **a: loss(ops, **a), features(seed), tolerance=1e-11)


def test_sigmoid_losses_of_extreme_logits_keep_their_digits() -> None:
    x = torch.eye(7)
    for scale in (1e-3, 30.0, 1e4):
        tiled = ops.tiled.sigmoid_loss(ops.multiply(ops.tiled.similarity(x, x, by="dot"), scale), ops.paired())
        dense = ops.sigmoid_loss(ops.multiply(ops.similarity(x, x, by="dot"), scale), ops.paired())
        torch.testing.assert_close(tiled, dense, rtol=1e-6, atol=0.0)


def tokens(seed: int, count: int, lengths: list[int] | None) -> ops.TokenFeatures:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(7, count, 5, generator=generator, dtype=torch.float64), dim=-1)
    return ops.TokenFeatures(values, None if lengths is None else torch.arange(count)[None] < torch.tensor(lengths)[:, None])


LENGTHS = {"x": [None, [3, 1, 0, 3, 2, 2, 3]], "y": [None, [4, 1, 4, 0, 2, 3, 4]]}


@pytest.mark.parametrize("x_lengths", LENGTHS["x"], ids=["full", "ragged"])
@pytest.mark.parametrize("y_lengths", LENGTHS["y"], ids=["full", "ragged"])
@pytest.mark.parametrize("selection", [{}, {"share": 0.5}, {"count": 2, "rank": "partner"}], ids=["all", "best", "partner"])
def test_tokenmax_of_both_lowerings_agrees(
    x_lengths: list[int] | None, y_lengths: list[int] | None, selection: dict[str, Any]
) -> None:
    x, y = tokens(0, 3, x_lengths), tokens(1, 4, y_lengths)
    weights = torch.randn(2, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(similarity: Callable[..., Any], **a: Tensor) -> Tensor:
        matrices = similarity(x._replace(values=a["x"]), y._replace(values=a["y"]), by="tokenmax", **selection)
        return (matrices.rows * weights[0] + matrices.columns * weights[1]).sum()

    arguments = {"x": x.values, "y": y.values}
    assert_same_gradients(
        lambda **a: loss(ops.tiled.similarity, **a), lambda **a: loss(ops.similarity, **a), arguments, tolerance=1e-12
    )


def test_the_largest_similarities_of_both_lowerings_are_the_same() -> None:
    x, y = tokens(0, 3, LENGTHS["x"][1]), tokens(1, 4, LENGTHS["y"][1])
    operands = x.values, y.values, x.mask, y.mask
    for tiled, dense in zip(largest_similarities(*operands), dense_largest_similarities(*operands), strict=True):
        torch.testing.assert_close(tiled, dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frozen", ["", "x", "y"])
def test_features_of_half_precision_get_gradients_of_their_dtype(dtype: torch.dtype, frozen: str) -> None:
    """Within the rounding of the dense form, also where one side does not learn."""
    wide = features(0)

    def gradients(lowering: Any, dtype: torch.dtype) -> list[Tensor]:
        leaves = {name: wide[name].to(dtype).requires_grad_(name != frozen) for name in "xy"}
        logits = ops.multiply(lowering.similarity(leaves["x"], leaves["y"], by="dot"), wide["scale"].float())
        lowering.sigmoid_loss(logits, ops.paired()).sum().backward()
        assert all(leaf.grad is None or leaf.grad.dtype is dtype for leaf in leaves.values())
        return [leaf.grad.double() for leaf in leaves.values() if leaf.grad is not None]

    rounded, exact = gradients(ops.tiled, dtype), gradients(ops, torch.float64)
    assert len(rounded) == (1 if frozen else 2)
    for own, right in zip(rounded, exact, strict=True):
        assert ((own - right).norm() / right.norm()).item() < 1e-2


def test_tokenmax_of_bfloat16_agrees_with_the_dense_form() -> None:
    x, y = (part._replace(values=part.values.bfloat16()) for part in (tokens(0, 3, None), tokens(1, 4, LENGTHS["y"][1])))
    tiled, dense = ops.tiled.similarity(x, y, by="tokenmax"), ops.similarity(x, y, by="tokenmax")
    torch.testing.assert_close(tiled.rows, dense.rows)
    torch.testing.assert_close(tiled.columns, dense.columns)


OPERANDS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "statistics": lambda: (block_statistics, _statistics_operands()),
    "sigmoid": lambda: (block_sigmoid, _sigmoid_operands()),
    "tokenmax": lambda: (block_tokenmax, _tokenmax_operands()),
}


def _statistics_operands() -> tuple[Any, ...]:
    arguments, keep = features(0), torch.tensor([True, True, False, True, True, True, True])
    x, y, scale = (
        arguments["x"].requires_grad_(),
        arguments["y"].requires_grad_(),
        arguments["scale"].view(1, 1).requires_grad_(),
    )
    shares = torch.rand(7, 7, dtype=torch.float64)
    return x, y, scale.detach().expand(7, 1).clone().requires_grad_(), keep[None], scale, None, [shares], [shares.T], 0


def _sigmoid_operands() -> tuple[Any, ...]:
    x, y, scale, bias = (value.requires_grad_() for value in features(0).values())
    return x, y, scale, bias, None, LABEL, LABEL.clone(), -1, None, 0


def _tokenmax_operands() -> tuple[Any, ...]:
    x, y = tokens(0, 3, None), tokens(1, 4, LENGTHS["y"][1])
    return x.values.requires_grad_(), y.values.requires_grad_(), x.mask, y.mask, x.mask, y.mask.clone()


@pytest.mark.parametrize("name", sorted(OPERANDS))
def test_operators_keep_the_rules_of_custom_operators(name: str) -> None:
    """Schema, shapes on the fake device, autograd, and all of it through AOT autograd with symbolic sizes."""
    operator, operands = OPERANDS[name]()
    torch.library.opcheck(operator, operands)


@pytest.mark.parametrize("name", sorted(OPERANDS))
def test_a_second_derivative_is_refused_with_the_way_out(name: str) -> None:
    operator, operands = OPERANDS[name]()
    outputs = operator(*operands)
    value = outputs if isinstance(outputs, Tensor) else outputs[0]
    gradient = torch.autograd.grad(value.square().sum(), operands[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match='no second derivative: take lowering="dense"'):
        gradient.sum().backward()
