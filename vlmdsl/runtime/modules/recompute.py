"""Activation checkpointing: blocks compute their activations again in the backward pass instead of keeping them."""

from __future__ import annotations

from typing import Any

from torch import nn

from vlmdsl.runtime.modules.towers.blocks import Block

__all__ = ["recompute_activations"]


def recompute_activations(model: nn.Module) -> None:
    """Make every transformer block in `model` recompute, those of pretrained towers too where their library can.

    Values and gradients stay the same. Of a block only its input is kept from the forward to the backward pass.

    >>> block = Block(width=8, heads=2)
    >>> recompute_activations(block)
    >>> block.recompute
    True
    """
    for module in model.modules():
        if isinstance(module, Block):
            module.recompute = True
        elif getattr(module, "supports_gradient_checkpointing", False):
            of_library: Any = module
            of_library.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
