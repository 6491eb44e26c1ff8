"""The scale of the loss in float16, in which gradients below 2^-24 would vanish.

Source: loss scaling (Micikevicius et al., 2018, arXiv:1710.03740), with the numbers of torch's `GradScaler`. Whether a step
is skipped is decided by the norm of the gradient, which the loop reads anyway and which is the same on all processes, of
sharded weights too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["LossScale"]

_FIRST, _HIGHEST, _LOWEST = 2.0**16, 2.0**24, 1.0
_RAISED_AFTER = 2000
"""Steps without overflow after which the scale is doubled."""


@dataclass
class LossScale:
    """What a loss is multiplied by before its backward pass, and its gradients divided by after it: a power of two, so that
    float32 gradients are exactly what they would be without it.

    >>> import torch
    >>> scale = LossScale.of("float16")
    >>> scale.goes_on(torch.tensor(1.0), finite=False)    # an overflow: the step is skipped, the scale halved
    True
    >>> scale
    LossScale(value=32768.0, steps=0, skipped=1)
    >>> LossScale.of("bfloat16").goes_on(torch.tensor(1.0), finite=False)
    False
    """

    value: float = 1.0
    steps: int = 0
    """Steps since the scale has changed."""
    skipped: int = 0
    """Steps of the stage that were skipped."""

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """The scale that a stage begins with: 1, which does nothing, unless its precision is `float16`."""
        return cls(_FIRST if precision == "float16" else 1.0)

    def up(self, loss: Tensor) -> Tensor:
        """The loss that gradients are computed of."""
        return loss if self.value == 1 else loss * self.value

    def down(self, weights: Iterable[Tensor]) -> None:
        """Divide the gradients of `weights` by the scale."""
        if self.value != 1:
            for weight in weights:
                if weight.grad is not None:
                    weight.grad.mul_(1 / self.value)

    def goes_on(self, loss: Tensor, *, finite: bool) -> bool:
        """Note a step whose loss and gradient are `finite`, or not. False if a lower scale cannot help: the run has to stop.

        The first gradients of a run overflow often; a loss that is not finite does so at any scale.
        """
        if finite:
            self.steps += 1
            if 1 < self.value < _HIGHEST and self.steps >= _RAISED_AFTER:
                self.value, self.steps = 2 * self.value, 0
            return True
        if self.value <= _LOWEST or not bool(loss.isfinite()):
            return False
        self.value, self.steps, self.skipped = self.value / 2, 0, self.skipped + 1
        return True
