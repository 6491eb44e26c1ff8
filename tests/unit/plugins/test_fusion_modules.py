"""Fusion modules of plug-ins: built with a recipe's arguments, called, planned, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import vlmdsl
from unit.plugins import kinds  # noqa: F401 - registers them
from vlmdsl.ir import draws as draws_of
from vlmdsl.primitives.plugins import IMPLEMENTATIONS
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import SequenceFeatures
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer
from vlmdsl.runtime.values import Batch, ImageBatch, TextBatch

FUSED = """
recipe fused(image: Image, text: Text)
encoder fusion = {name}({arguments})
minimize matched(text | image, take(text, mine(similarity(image, text), along="rows")) | image)
"""


def model_of(recipe: str) -> VisionLanguageModel:
    towers = {
        "vision": VisionTransformer(
            VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=1), 6, ("pooled", "states")
        ),
        "language": TextTransformer(TextConfig(12, 1, 2, 30, 6), 6, ("pooled", "states")),
    }
    return VisionLanguageModel(towers, vlmdsl.compile(recipe, compiled=False))


def test_a_fusion_module_is_called_with_its_arguments_and_learns() -> None:
    model = model_of(FUSED.format(name="added_context", arguments="times=2.0"))
    fused = model.fusions.parts["fusion"]
    assert (fused.times, fused.linear.in_features, fused.linear.out_features) == (2.0, 8, 12)
    texts = TextBatch(torch.randint(1, 30, (4, 6)), torch.arange(6) < torch.tensor([6, 4, 3, 6])[:, None])
    draws = {node.string("name"): torch.rand(4) for node in draws_of(model.objective.program)}
    images = ImageBatch(torch.rand(4, 3, 8, 8))
    model(Batch({"image": images, "text": texts}, torch.arange(4), list("abcd"), draws)).loss.backward()
    assert fused.linear.weight.grad.abs().sum() > 0
    plan = vlmdsl.plan(FUSED.format(name="added_context", arguments=""))
    assert "added_context, of a plug-in, whose costs are not known" in plan.to_text()
    misspelt = vlmdsl.check(FUSED.format(name="added_context", arguments="time=2.0"))
    assert "did you mean `times`" in misspelt[0].help[0]


def real(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else torch.where(mask[:, :, None], states, 0.0)


def mixed(states: Tensor) -> Tensor:
    """The mean of all samples, for each."""
    return states.mean(dim=(0, 1)).expand(len(states), -1)


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (lambda states, mask, context: states, "returns float32 of the shape [2, 3, 12]"),
        (lambda states, mask, context: SequenceFeatures(states, mask), "returns tokens of the shape [2, 3, 12] and pooled"),
        (
            lambda states, mask, context: SequenceFeatures(states.nan_to_num(), mask, states.nan_to_num().sum(1)),
            "features depend on what stands in padding",
        ),
        (
            lambda states, mask, context: SequenceFeatures(real(states, mask), mask, mixed(real(states, mask))),
            "features depend on other samples",
        ),
        (lambda states, mask, context: states @ context, "fails on random states: RuntimeError"),
    ],
    ids=["tensor", "no pooled", "padding", "other samples", "fails"],
)
def test_a_fusion_module_that_does_not_fit_is_a_diagnostic(
    monkeypatch: pytest.MonkeyPatch, result: Callable[..., object], problem: str
) -> None:
    class Unfit(torch.nn.Module):
        def forward(
            self, states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None = None
        ) -> object:
            return result(states, mask, context)

    monkeypatch.setitem(IMPLEMENTATIONS, "added_context", lambda states_width, context_width: Unfit())
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        model_of(FUSED.format(name="added_context", arguments=""))
    assert [fault.code for fault in caught.value.diagnostics] == ["V0216"]
    assert problem in caught.value.diagnostics[0].message
