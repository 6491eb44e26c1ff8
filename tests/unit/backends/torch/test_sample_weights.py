"""Losses of tokens, patches and pairs in which some samples do not count, or each as much as its weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import vlmdsl
from unit.plugins.kinds import focused_words
from vlmdsl.backends.torch import ops

B, L, V = 4, 3, 5
TARGETS = torch.tensor([[1, -100, 4], [-100, 2, -100], [0, 3, 3], [-100, -100, -100]])
"""Samples with different numbers of tokens, the last one without any."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def in_states(logits: Tensor, reduction: str, **options: Any) -> Tensor:
    identity = torch.eye(V, dtype=torch.float64)
    return ops.linear_cross_entropy(logits, identity, TARGETS, reduction=reduction, smoothing=0.1, **options)


LOSSES: dict[str, Callable[..., Tensor]] = {
    **{
        f"{name} by {reduction}": lambda x, _loss=loss, _by=reduction, **options: _loss(x, _by, **options)
        for reduction in ("token", "sample", "sum")
        for name, loss in (
            ("logits", lambda x, by, **options: ops.token_loss(x, TARGETS, reduction=by, smoothing=0.1, **options)),
            ("states", in_states),
        )
    },
    "a teacher": lambda x, **options: ops.distill(x, numbers(B, L, V, seed=1), TARGETS, **options),
    "pixels": lambda x, **options: ops.reconstruct(x, numbers(B, L, V, seed=2), TARGETS >= 0, **options),
    "pairs": lambda x, **options: ops.matching(x[:, 0, :2], torch.tensor([True, False, True, False]), **options),
    "mined pairs": lambda x, **options: ops.matched(
        x[:, 0, :2], x[:, 1, :2], torch.tensor([True, False, True, True]), **options
    ),
    "a plug-in": lambda x, **options: ops.plugin_token_criterion("focused_words", x, TARGETS, focus=1.0, **options),
}
"""Each loss of values [B, L, V]."""
assert focused_words  # registered where it is defined


@pytest.fixture
def values() -> Tensor:
    return numbers(B, L, V).requires_grad_()


def assert_same(loss: Tensor, other: Tensor, values: Tensor) -> None:
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=1e-14)
    gradients = (torch.autograd.grad(each, values, retain_graph=True)[0] for each in (loss, other))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_weights_change_nothing_and_a_common_factor_cancels_out(name: str, values: Tensor) -> None:
    loss, weight = LOSSES[name], torch.tensor([0.5, 2.0, 1.0, 0.25])
    assert_same(loss(values, sample_weight=torch.full((B,), 3.0)), loss(values), values)
    assert_same(loss(values, sample_weight=weight), loss(values, sample_weight=1e6 * weight), values)


@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_of_0_leaves_a_sample_out_as_a_condition_does(name: str, values: Tensor) -> None:
    loss, where, weight = LOSSES[name], torch.tensor([True, False, True, True]), torch.tensor([0.5, 2.0, 1.0, 0.25])
    assert_same(loss(values, where=where), loss(values, sample_weight=where.double()), values)
    assert_same(loss(values, where=where, sample_weight=weight), loss(values, sample_weight=where * weight), values)
    poisoned = torch.where(where[:, None, None], values, torch.nan)
    assert_same(loss(poisoned, where=where, sample_weight=weight), loss(values, where=where, sample_weight=weight), values)


@pytest.mark.parametrize("name", [name for name in LOSSES if name.startswith(("logits", "states", "a plug-in"))])
def test_a_condition_leaves_the_loss_of_the_samples_for_which_it_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all processes are the batch then: a mean over samples is not divided by those that are left out."""
    values, twice = numbers(B, L, V), [0, 0, 2, 2]
    chosen = LOSSES[name](values, where=torch.tensor([True, False, True, False]))
    monkeypatch.setitem(globals(), "TARGETS", TARGETS[twice])  # the batch of these samples alone, each of them twice
    torch.testing.assert_close(chosen, LOSSES[name](values[twice]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_0_give_0_and_no_gradient_to_anything(name: str, values: Tensor) -> None:
    weight = torch.zeros(B, dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name](values, sample_weight=weight)
    gradients = torch.autograd.grad(loss, [values, weight])
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients)
    assert LOSSES[name](values, where=torch.zeros(B, dtype=torch.bool), sample_weight=weight).item() == 0.0


@pytest.mark.parametrize("name", LOSSES)
def test_a_negative_weight_is_not_a_number_unless_its_sample_does_not_count(name: str, values: Tensor) -> None:
    weight = torch.tensor([0.5, -0.1, 1.0, 1.0])
    assert LOSSES[name](values, sample_weight=weight).isnan()
    assert LOSSES[name](values, sample_weight=weight, where=weight > 0).isfinite()


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_reaches_the_weights(name: str) -> None:
    values, weight = numbers(B, L, V), numbers(B, seed=3).abs().add(0.1).requires_grad_()
    where = torch.tensor([True, True, True, False])
    assert torch.autograd.gradcheck(
        lambda weight: LOSSES[name](values, sample_weight=weight, where=where), (weight,), fast_mode=True
    )
    (gradient,) = torch.autograd.grad(LOSSES[name](values, sample_weight=weight, where=where), weight)
    assert gradient[:3].any()
    assert gradient[3] == 0


@pytest.mark.parametrize("reduction", ["token", "sample", "sum"])
def test_the_loss_is_the_weighted_mean(reduction: str) -> None:
    """As it is defined, token by token."""
    values, weight = numbers(B, L, V), [0.5, 2.0, 1.0, 0.25]
    above = below = 0.0
    for i in range(B):
        tokens = [(k, int(TARGETS[i, k])) for k in range(L) if TARGETS[i, k] >= 0]
        losses = [-values[i, k].log_softmax(0)[token].item() for k, token in tokens]
        by = {"token": sum(losses), "sum": sum(losses), "sample": sum(losses) / max(len(losses), 1)}
        above += weight[i] * by[reduction]
        below += weight[i] * (len(losses) if reduction == "token" else 1)
    loss = ops.token_loss(values, TARGETS, reduction=reduction, sample_weight=torch.tensor(weight))
    assert loss.item() == pytest.approx(above / below, rel=1e-12)


def test_half_precision_weights_are_as_good_as_others(values: Tensor) -> None:
    weight = torch.tensor([0.5, 2.0, 1.0, 0.25])
    for name, loss in LOSSES.items():
        halves = loss(values.float(), sample_weight=weight.bfloat16())
        torch.testing.assert_close(halves.double(), loss(values, sample_weight=weight), rtol=1e-5, atol=0, msg=name)


RECIPE = """vlo 1
recipe r(image: Image, text: Text, sure: Number, good: Flag)
encoder captioner = text_decoder(depth=1)
minimize next_token(linear(captioner(text, image)), text, where=good, weight=exp(sure), reduction="sample")
"""


@pytest.mark.slow
def test_compiled_is_eager_and_in_chunks_is_dense() -> None:
    results = []
    for compiled, lowering in ((False, "dense"), (False, "chunked"), (True, "dense"), (True, "chunked")):
        objective = vlmdsl.compile(RECIPE, compiled=compiled, lowering=lowering)
        states, sure = numbers(B, L, V).float().requires_grad_(), numbers(B, seed=3).float().requires_grad_()
        weight, good = numbers(7, V, seed=4).float(), torch.tensor([True, False, True, True])
        predicted = (
            {"text_captioner_predicted": states, "captioner_vocabulary_weight": weight}
            if lowering == "chunked"
            else {"text_captioner_vocabulary": states @ weight.T}
        )
        loss = objective(**predicted, text_captioner_next=TARGETS, good=good, sure=sure).loss
        results.append((loss.detach(), *torch.autograd.grad(loss, [states, sure])))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-4, atol=1e-6)
