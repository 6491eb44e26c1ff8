"""Image-text matching of ALBEF, BLIP and FIBER over pairs and mined negatives: loss and gradients from their two logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.cases import DATA
from vlmdsl.backends.torch import ops


@pytest.mark.parametrize("name", ["albef-itm-alpha0", "blip-itm", "blip-itm-alpha0", "fiber-itm"])
def test_loss_and_gradients_are_the_authors(name: str) -> None:
    with np.load(DATA / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    leaves = {key: tensors[key].clone().requires_grad_() for key in ("fused", "itm_weight", "itm_bias")}
    own = torch.arange(len(tensors["neg_text_for_image"]))

    def logits(image: Tensor, text: Tensor) -> Tensor:
        return leaves["fused"][image, text] @ leaves["itm_weight"].T + leaves["itm_bias"]

    others = logits(own, tensors["neg_text_for_image"]), logits(tensors["neg_image_for_text"], own)
    holds = torch.ones_like(own, dtype=torch.bool)
    loss = ops.matched(logits(own, own), others[0], holds, others[1], holds)
    loss.backward()
    torch.testing.assert_close(loss.detach(), tensors["out_total"], rtol=1e-10, atol=0)
    for key, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, tensors[f"grad_{key}"], rtol=1e-9, atol=1e-13)
