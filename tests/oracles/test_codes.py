"""The recipes of codes of patches against the authors' code: values and every gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from vlmdsl.testing.gradients import value_and_gradients
from vlmdsl.testing.oracle import load_oracle

DATA = Path(__file__).parent / "data"


class Linear(nn.Module):
    """A linear map of given weights, as an objective calls the one of its recipe."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, states: Tensor, *, product: bool = True) -> Tensor:
        return nn.functional.linear(states, self.weight, self.bias) if product else states


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("lowering", ["dense", "chunked"])
@pytest.mark.parametrize("name", ["beit-mim", "beit-mim-emptyrow"])
def test_beit(name: str, lowering: str, compiled: bool) -> None:
    oracle = load_oracle(DATA, name)
    objective = vlmdsl.compile("beit", compiled=compiled, lowering=lowering, entries=oracle.hyperparameters["vocab"])
    view = "image_augment_beit_0"

    def loss(features: Tensor, head_weight: Tensor, head_bias: Tensor) -> Tensor:
        return objective(
            modules={"linear": Linear(head_weight, head_bias)},
            **{
                f"{view}_masked_states": features,
                f"{view}_masked_replaced": oracle.inputs["mask"].flatten(1) == 1,
                f"{view}_codebook_codes": oracle.inputs["codes"].flatten(1),
            },
        ).loss

    value, gradients = value_and_gradients(loss, {name: oracle.inputs[name] for name in oracle.gradients})
    torch.testing.assert_close(value, oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    for what, expected in oracle.gradients.items():
        torch.testing.assert_close(gradients[what], expected, rtol=oracle.rtol, atol=oracle.rtol)
