"""A target: pairs whose numbers are near each other belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vlmdsl

if TYPE_CHECKING:
    from torch import Tensor


@vlmdsl.primitive(
    kind="target",
    takes=("Score",),
    laws=("permutation", "swap"),
    formula=r"e^{-|a_i - a_j| / w}",
    example=(
        "recipe near(image: Image, text: Text, age: Number)\n"
        "minimize contrast(image, text, targets=near_numbers(age, width=2.0), temperature=0.5)"
    ),
)
def near_numbers(x: Tensor, y: Tensor, *, width: float = 1.0) -> Tensor:
    """Shares that fall with the distance of two numbers, to 37 % at the distance `width`."""
    return (-(x[:, None] - y[None, :]).abs() / width).exp()
