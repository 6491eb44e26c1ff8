"""Blocks that compute their activations again: the same numbers, and less that is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmdsl.runtime.modules.recompute import recompute_activations
from vlmdsl.runtime.modules.towers.text import PRESETS, TextTransformer


def step(recompute: bool) -> tuple[dict[str, Tensor], int]:
    """Every gradient of a tower, and how many numbers are kept for the backward pass."""
    torch.manual_seed(0)
    tower = TextTransformer(PRESETS["tiny"], 12)
    if recompute:
        recompute_activations(tower)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(1, 50, (16, 20))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = tower(ids, torch.ones_like(ids, dtype=torch.bool))
    features.pooled.square().sum().backward()
    return {name: weight.grad for name, weight in tower.named_parameters() if weight.grad is not None}, sum(kept.values())


def test_gradients_are_the_same_and_less_is_kept() -> None:
    (expected, all_kept), (gradients, kept) = step(recompute=False), step(recompute=True)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)
    assert kept < 0.5 * all_kept
