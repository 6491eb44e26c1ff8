"""Criteria of masked patches, codes and next tokens, against the authors' code: the value and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.runtime.values import KeptPatches, kept
from vlmdsl.testing.gradients import value_and_gradients
from vlmdsl.testing.oracle import Oracle, load_oracle

DATA = Path(__file__).parent / "data"


def assert_agrees(oracle: Oracle, function: Callable[..., Tensor]) -> None:
    """`function` of the inputs that the oracle has gradients for gives its total, and these gradients."""
    value, gradients = value_and_gradients(function, {name: oracle.inputs[name] for name in oracle.gradients})
    torch.testing.assert_close(value, oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    for name, expected in oracle.gradients.items():
        torch.testing.assert_close(gradients[name], expected, rtol=oracle.rtol, atol=oracle.rtol)


@pytest.mark.parametrize("name", ["beit-mim", "beit-mim-emptyrow"])
def test_codes_of_masked_patches(name: str) -> None:
    oracle = load_oracle(DATA, name)
    targets = torch.where(oracle.inputs["mask"] == 1, oracle.inputs["codes"], -1).flatten(1)

    def loss(features: Tensor, head_weight: Tensor, head_bias: Tensor) -> Tensor:
        return ops.linear_cross_entropy(features, head_weight, targets, head_bias)

    assert_agrees(oracle, loss)


def test_next_tokens_with_label_smoothing() -> None:
    oracle = load_oracle(DATA, "blip-lm")
    logits, ids = oracle.inputs["logits"], oracle.inputs["input_ids"]
    targets = torch.where(ids == oracle.hyperparameters["pad"], -100, ids)[:, 1:]
    assert torch.equal(targets, oracle.outputs["targets"][:, 1:])

    def loss(logits: Tensor) -> Tensor:
        return ops.linear_cross_entropy(
            logits[:, :-1], identity, targets, smoothing=oracle.hyperparameters["label_smoothing"]
        )

    identity = torch.eye(logits.shape[2], dtype=logits.dtype)
    assert_agrees(oracle, loss)


def test_the_recipe_of_tokens_with_label_smoothing() -> None:
    """The compiled objective, which is given logits and ids that are shifted against each other."""
    oracle = load_oracle(DATA, "blip-lm")
    smoothing, pad = oracle.hyperparameters["label_smoothing"], oracle.hyperparameters["pad"]
    objective = vlmdsl.compile(f"minimize token_loss(linear(text), text, smoothing={smoothing})", compiled=False)
    ids = torch.where(oracle.inputs["input_ids"] == pad, -100, oracle.inputs["input_ids"])[:, 1:]
    assert_agrees(oracle, lambda logits: objective(text_vocabulary=logits[:, :-1], text_ids=ids).loss)


@pytest.mark.parametrize("name", ["albef-mlm-alpha0"])
def test_masked_tokens_with_a_teacher(name: str) -> None:
    oracle = load_oracle(DATA, name)
    identity = torch.eye(oracle.inputs["logits"].shape[2], dtype=torch.float64)
    soft = ops.SoftTargets(oracle.inputs["alpha"], oracle.inputs["logits_m"], identity)

    def loss(logits: Tensor) -> Tensor:
        return ops.linear_cross_entropy(logits, identity, oracle.inputs["labels"], soft=soft)

    assert_agrees(oracle, loss)


def test_the_mean_over_samples_of_the_mean_over_weighted_tokens() -> None:
    oracle = load_oracle(DATA, "pali-weightedxent")
    identity = torch.eye(oracle.inputs["logits"].shape[2], dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        weights = oracle.inputs["weights"]
        return ops.linear_cross_entropy(logits, identity, oracle.inputs["labels"], weights=weights, reduction="sample")

    assert_agrees(oracle, loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["sample", "sum"])
def test_weighted_tokens_that_are_smoothed_or_not_normalised(reduction: str, smoothing: float) -> None:
    """The other settings of the same function, by its formula: 1 - s on the label, s / (V - 1) elsewhere."""
    oracle = load_oracle(DATA, "pali-weightedxent")
    logits, labels, weights = (oracle.inputs[name] for name in ("logits", "labels", "weights"))
    size = logits.shape[2]
    target = torch.full_like(logits, smoothing / (size - 1)).scatter(2, labels[:, :, None], 1 - smoothing)
    options = {"weights": weights, "smoothing": smoothing, "over": "others", "reduction": reduction}
    identity = torch.eye(size, dtype=logits.dtype)

    def expected(logits: Tensor) -> Tensor:
        sums = (weights * -(target * logits.log_softmax(dim=2)).sum(dim=2)).sum(dim=1)
        return (sums if reduction == "sum" else sums / weights.sum(dim=1).clamp(min=1e-30)).mean()

    own, theirs = (
        value_and_gradients(function, {"logits": logits})
        for function in (lambda logits: ops.linear_cross_entropy(logits, identity, labels, **options), expected)
    )
    torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["mae-recon", "mae-recon-normpix", "mae-recon-normpix-edge"])
def test_pixels_of_masked_patches(name: str) -> None:
    oracle = load_oracle(DATA, name)
    normalised = "patch" if oracle.hyperparameters["norm_pix_loss"] else "none"
    target = ops.pixels(oracle.inputs["imgs"], oracle.hyperparameters["patch"], normalised=normalised)
    if "target_patches" in oracle.outputs:  # those are the pixels, in both cases
        assert torch.equal(
            ops.pixels(oracle.inputs["imgs"], oracle.hyperparameters["patch"]), oracle.outputs["target_patches"]
        )
    assert_agrees(oracle, lambda pred: ops.reconstruct(pred, target, oracle.inputs["mask"] == 1))


@pytest.mark.parametrize("name", ["mae-recon", "mae-recon-normpix", "mae-recon-normpix-edge"])
def test_the_recipe_of_masked_autoencoders(name: str) -> None:
    """The compiled objective, whose decoder gives what the authors' gave."""
    oracle = load_oracle(DATA, name)
    normalised = "patch" if oracle.hyperparameters["norm_pix_loss"] else "none"
    objective = vlmdsl.compile("mae", compiled=False, target=normalised)
    view = "image_augment_mae_0_drop"

    def loss(pred: Tensor) -> Tensor:
        return objective(
            modules={"decoder": lambda states: pred + 0 * states.sum()},
            **{
                f"{view}_states": torch.zeros(len(pred), 4, 1, dtype=pred.dtype),
                f"{view}_pixels": oracle.inputs["imgs"],
                f"{view}_dropped": oracle.inputs["mask"] == 1,
            },
        ).loss

    assert_agrees(oracle, loss)


def test_which_patches_are_dropped() -> None:
    oracle = load_oracle(DATA, "mae-masking")
    places = torch.stack([torch.from_numpy(kept(noise.numpy(), 0.75)) for noise in oracle.inputs["noise"]])
    assert torch.equal(KeptPatches(places).dropped(oracle.inputs["noise"].shape[1]), oracle.outputs["mask"] == 1)


def test_pixels_after_a_tanh() -> None:
    """KELIP's first stage: the decoder's own output is the oracle's, which is in [-1, 1] already."""
    oracle = load_oracle(DATA, "kelip-mae")
    assert_agrees(oracle, lambda pred: ops.reconstruct(pred, oracle.inputs["target"], oracle.inputs["mask"] == 1))
    objective = vlmdsl.compile("kelip", stage="pixels", compiled=False)
    target = (
        oracle.inputs["target"].unflatten(1, (3, 3)).unflatten(3, (2, 2, 3)).permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 6, 6)
    )

    def loss(pred: Tensor) -> Tensor:
        return objective(
            modules={"decoder": lambda states: pred + 0 * states.sum()},
            image_drop_states=torch.zeros(len(pred), 2, 1, dtype=pred.dtype),
            image_drop_pixels=target,
            image_drop_dropped=oracle.inputs["mask"] == 1,
        ).loss

    assert_agrees(oracle, loss)
