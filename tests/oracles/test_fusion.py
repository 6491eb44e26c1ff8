"""Image-text matching with mined negatives, end to end: ALBEF's numbers from a recipe that applies modules to features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops import Similarities

DATA = Path(__file__).parent / "data"
RECIPE = """
recipe matching(image: Image, text: Text)
let logits = similarity(image, text) / 0.07
let wrong_text = mine(logits, along="rows")
let wrong_image = mine(logits, along="columns")
minimize matched(text | image, text | take(image, wrong_image), take(text, wrong_text) | image)
"""


@pytest.fixture
def oracle() -> dict[str, Tensor]:
    with np.load(DATA / "albef-itm-alpha0.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def uniform_for(logits: Tensor, picks: Tensor) -> Tensor:
    """Numbers by which each row of the logits draws the wanted pick: the middle of its share."""
    weights = logits.softmax(dim=1).fill_diagonal_(0.0)
    shares = weights / weights.sum(dim=1, keepdim=True)
    before = shares.cumsum(dim=1) - shares / 2
    return before.gather(1, picks[:, None]).squeeze(1)


def modules(oracle: dict[str, Tensor], parts: list[Tensor]) -> dict[str, Callable[..., Any]]:
    """A fusion that looks its features up by the indices that the states hold, and the oracle's linear map."""
    fused, weight, bias = parts

    def fusion(states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None) -> SimpleNamespace:
        return SimpleNamespace(pooled=fused[context[:, 0, 0].long(), states[:, 0, 0].long()], tokens=None, mask=mask)

    return {"fusion": fusion, "matched": lambda pooled: pooled @ weight.T + bias}


def test_matching_has_the_values_and_gradients_of_the_authors(oracle: dict[str, Tensor]) -> None:
    image, text = (torch.nn.functional.normalize(oracle[f"{name}_raw"], dim=1) for name in ("image", "text"))
    logits = image @ text.T / 0.07
    parts = [oracle[name].clone().requires_grad_() for name in ("fused", "itm_weight", "itm_bias")]
    numbers = torch.arange(len(image), dtype=torch.float64)[:, None, None]
    objective = vlmdsl.compile(RECIPE, compiled=False).double()
    output = objective(
        modules=modules(oracle, parts),
        image=oracle["image_raw"],
        text=oracle["text_raw"],
        image_states=numbers,
        text_states=numbers,
        text_mask=torch.ones(len(text), 1, dtype=torch.bool),
        wrong_text_uniform=uniform_for(logits, oracle["neg_text_for_image"]),
        wrong_image_uniform=uniform_for(logits.T, oracle["neg_image_for_text"]),
    )
    output.loss.backward()
    torch.testing.assert_close(output.loss, oracle["out_total"], rtol=1e-10, atol=0.0)
    for part, name in zip(parts, ("fused", "itm_weight", "itm_bias"), strict=True):
        torch.testing.assert_close(part.grad, oracle[f"grad_{name}"], rtol=1e-9, atol=1e-14)


def test_the_modules_are_asked_for_by_name(oracle: dict[str, Tensor]) -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    features = {name: torch.rand(3, 4) for name in ("image", "text")}
    features |= {f"{name}_states": torch.rand(3, 2, 5) for name in ("image", "text")}
    features |= {f"wrong_{name}_uniform": torch.rand(3) for name in ("image", "text")}
    with pytest.raises(TypeError, match="`modules` with fusion, matched"):
        objective(text_mask=torch.ones(3, 2, dtype=torch.bool), **features)


def test_a_sample_that_has_picked_no_other_does_not_count() -> None:
    pairs, others = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    holds = torch.tensor([True, False, True, False])
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    expected = torch.nn.functional.cross_entropy(torch.cat([pairs, others[holds]]), labels)
    torch.testing.assert_close(ops.matched(pairs, others, holds), expected)
    others[~holds] = torch.nan
    torch.testing.assert_close(ops.matched(pairs, others, holds), expected)


def test_the_weights_of_drawing_are_those_of_the_authors(oracle: dict[str, Tensor]) -> None:
    """Along rows of similarities to momentum keys, the first of which are those of the batch."""
    query, key = (torch.nn.functional.normalize(oracle[name], dim=1) for name in ("text_raw", "image_raw_m"))
    matrix = query @ key.T / oracle["temp"]
    shares = oracle["out_w_t2i"] / oracle["out_w_t2i"].sum(dim=1, keepdim=True)
    levels = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    for level in levels:
        picks = ops.mine(Similarities(matrix, matrix), level.expand(len(matrix)), "rows")
        cumulative = shares.cumsum(dim=1)
        assert torch.equal(picks.indices[:, 0], (cumulative > level).int().argmax(dim=1))
