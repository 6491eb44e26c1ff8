"""Criteria over regions and the words that name them: the authors' losses and gradients, from their logits and features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from oracles.cases import DATA
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.values import Table


def tensors_of(name: str) -> dict[str, Tensor]:
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def check(loss: Tensor, expected: Tensor, leaves: dict[str, tuple[Tensor, Tensor]], rtol: float = 1e-9) -> None:
    """The loss, and the gradient of each leaf."""
    torch.testing.assert_close(loss.detach(), expected, rtol=rtol, atol=1e-13)
    loss.backward()
    for leaf, gradient in leaves.values():
        torch.testing.assert_close(leaf.grad, gradient, rtol=rtol, atol=1e-12 if rtol < 1e-7 else 1e-7)


def run(function: Callable[..., Any], compiled: bool, *arguments: Tensor, **options: Any) -> Any:
    """The result of a function of tensors, as written or as one compiled graph."""
    return (torch.compile(function, fullgraph=True) if compiled else function)(*arguments, **options)


@pytest.mark.slow
def test_compiled_focal_losses_are_the_authors() -> None:
    check_focal("glip-tokenfocal_binary", {}, compiled=True)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("glip-tokenfocal_binary", {}),
        ("glip-tokenfocal_plainbce", {"alpha": -1.0, "gamma": 0.0}),
        ("glip-tokenfocal_softmax", {"by": "softmax"}),
        ("fiber-wordregion-focal", {}),
        ("fiber-wordregion-focal-allpad", {}),
        ("fiber-wordregion-focal-gamma0", {"gamma": 0.0}),
        ("fiber-wordregion-focal-noalpha", {"alpha": -1.0}),
    ],
)
def test_focal_losses_are_the_authors(name: str, arguments: dict[str, object]) -> None:
    check_focal(name, arguments, compiled=False)


def check_focal(name: str, arguments: dict[str, object], *, compiled: bool) -> None:
    tensors = tensors_of(name)
    mask = tensors.get("text_mask", tensors.get("text_masks"))
    if arguments.get("by") == "softmax":
        assert mask is not None
        mask[:, -1] = 1  # as the authors' code does, in place
    logits = tensors["logits"].requires_grad_()
    target = ops.WordMap(tensors["targets"] > 0, None if mask is None else mask > 0)
    loss = run(ops.focal, compiled, logits, target, reduction="sum", **arguments)
    # The authors' softmax form makes its targets in float32.
    check(loss, tensors["out_total"], {"logits": (logits, tensors["grad_logits"])}, 1e-6 if "softmax" in name else 1e-9)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_focal_of_grounding_dino_is_a_mean_over_queries(compiled: bool) -> None:
    tensors = tensors_of("groundingdino-detrfocal")
    logits = tensors["logits"].requires_grad_()
    boxes, queries = 3, logits.shape[1]
    loss = run(ops.focal, compiled, logits, ops.WordMap(tensors["targets"] > 0), reduction="sum") / (boxes * queries)
    check(loss, tensors["out_total"], {"logits": (logits, tensors["grad_logits"])})


def terms_of_regionclip(
    regions: Tensor, concepts: Tensor, teacher_regions: Tensor, teacher_concepts: Tensor, *, above: float
) -> tuple[Tensor, Tensor]:
    """The distillation and the contrast of regions."""

    def logits(features: Tensor, entries: Tensor) -> Tensor:
        table = ops.normalize(Table(entries, torch.arange(len(entries))))
        return ops.alignment(ops.normalize(ops.tokens(features[None], None)), table) / 0.01

    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).expand(1, len(regions), 4)
    taught = logits(teacher_regions, teacher_concepts)
    distillation = ops.region_distillation(logits(regions, concepts), taught, boxes, above=above)
    # The concepts that regions are compared with have no gradient in the authors' code.
    return distillation, ops.region_contrast(logits(regions, concepts.detach()), taught, boxes, above=above)


@pytest.mark.parametrize(
    ("name", "above", "compiled"),
    [
        ("regionclip-region", 0.5, False),
        ("regionclip-region_nokeep", 0.9, False),
        pytest.param("regionclip-region", 0.5, True, marks=pytest.mark.slow),
    ],
    ids=["regionclip-region", "regionclip-region_nokeep", "compiled"],
)
def test_terms_of_regionclip_are_the_authors(name: str, above: float, compiled: bool) -> None:
    tensors = tensors_of(name)
    regions, concepts = tensors["student_regions"].requires_grad_(), tensors["concept_emb"].requires_grad_()
    taught = tensors["teacher_regions"], tensors["teacher_concept_emb"]
    distillation, contrast = run(terms_of_regionclip, compiled, regions, concepts, *taught, above=above)
    shares = (100 * F.normalize(taught[0], dim=1) @ F.normalize(taught[1], dim=1).T).softmax(dim=1)
    sure = shares.amax(dim=1) > above
    assert torch.equal(sure, tensors["out_keep"] > 0) or not sure.any()
    kept = sure if sure.any() else torch.ones_like(sure)
    assert torch.equal(shares[kept].argmax(dim=1), tensors["out_concept_of_kept"])
    torch.testing.assert_close(distillation.detach(), tensors["out_distill"], rtol=1e-9, atol=0)
    torch.testing.assert_close(contrast.detach(), tensors["out_contrastive"], rtol=1e-9, atol=0)
    leaves = {
        "regions": (regions, tensors["grad_student_regions"]),
        "concepts": (concepts, tensors["grad_concept_emb"]),
    }
    check(distillation + contrast, tensors["out_total"], leaves)


def alignment_of_detclip(regions: Tensor, concepts: Tensor, words: Tensor, valid: Tensor) -> Tensor:
    """The focal loss of the products of regions and concepts."""
    logits = ops.alignment(ops.tokens(regions, None), ops.tokens(concepts, valid))
    return ops.focal(logits, ops.WordMap(words, valid))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_alignment_of_detclip_is_the_papers(compiled: bool) -> None:
    tensors = tensors_of("detclip-total")
    regions, concepts = (tensors[f"{name}_features"].requires_grad_() for name in ("region", "concept"))
    valid = tensors["concept_valid"] > 0
    loss = run(alignment_of_detclip, compiled, regions, concepts, tensors["targets"] > 0, valid)
    torch.testing.assert_close(loss.detach(), tensors["out_align"], rtol=1e-9, atol=0)
    loss.backward()
    # No other term of the total reads these features.
    torch.testing.assert_close(regions.grad, tensors["grad_region_features"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(concepts.grad, tensors["grad_concept_features"], rtol=1e-9, atol=1e-12)


def test_logits_of_glip_are_the_authors() -> None:
    tensors = tensors_of("glip-alignlogits")
    names = ("embedding", "visual", "proj.weight", "proj.bias", "bias_lang", "bias0", "log_scale")
    leaves = {name: tensors[name].requires_grad_() for name in names}
    words = F.normalize(leaves["embedding"], dim=-1)
    projected = F.linear(words / 2, leaves["proj.weight"], leaves["proj.bias"])
    shifts = words @ leaves["bias_lang"][:, None]
    regions = leaves["visual"].flatten(2).transpose(1, 2)
    scale = torch.exp(-leaves["log_scale"])
    products = ops.alignment(ops.tokens(regions, None), ops.tokens(projected, None)) * scale
    biased = ops.word_bias(products, ops.tokens(shifts, None))
    logits = ops.clamp(biased + leaves["bias0"], -50000.0, 50000.0, "zero")
    torch.testing.assert_close(logits.detach(), tensors["out_logits"], rtol=1e-9, atol=1e-12)
    gradients = {name: (leaf, tensors[f"grad_{name}"]) for name, leaf in leaves.items()}
    check(logits.square().mean(), tensors["out_total"], gradients)
