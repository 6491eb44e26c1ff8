"""How similarity matrices are cut into blocks of rows, and the products of one block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from vlmdsl.backends.torch.ops.product import product, rounded, wide_product
from vlmdsl.backends.torch.values import precise
from vlmdsl.planning.chunked import BLOCK_NUMBERS

__all__ = ["FeatureGradients", "block_product", "blocks", "refuse_second_derivative", "rows_of"]


def blocks(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """The rows of a matrix `width` numbers wide, a block at a time."""
    size = max(BLOCK_NUMBERS.get(device.type, BLOCK_NUMBERS["cuda"]) // max(width, 1), 1)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def rows_of(values: Tensor, rows: slice) -> Tensor:
    """The part of [b, ...] that belongs to a block of rows; what is one for all rows, [1, ...], as it is."""
    return values if values.shape[0] == 1 else values[rows]


def block_product(x: Tensor, y: Tensor) -> Tensor:
    """The inner products of a block: rounded as those of the dense form, and given in float32 at least."""
    return precise(product(x, y))


class FeatureGradients:
    """The gradients of x [b, D] and y [B, D] from blocks of H = dL/dZ, summed in float32 at least.

    A side without a gradient costs no product and gets an empty tensor.
    """

    def __init__(self, x: Tensor, y: Tensor, for_x: bool, for_y: bool) -> None:
        self._x, self._y, self._for_x, self._for_y = x, y, for_x, for_y
        self._dtype = torch.promote_types(x.dtype, y.dtype)
        self._of_x = x.new_empty(x.shape if for_x else 0)
        self._of_y = precise(y.new_zeros(y.shape if for_y else 0))

    def add(self, block: Tensor, rows: slice) -> None:
        """Take a block of H: [rows, B]."""
        tile, factor = rounded(block, self._dtype)
        if self._for_x:
            self._of_x[rows] = wide_product(tile, self._y.to(self._dtype)) * factor
        if not self._for_y:
            return
        x = self._x[rows].to(self._dtype)
        if tile.dtype is self._of_y.dtype:
            self._of_y.addmm_(tile.T, x)
        else:
            self._of_y += wide_product(tile.T, x) * factor

    def result(self) -> tuple[Tensor, Tensor]:
        """Both gradients, in the dtypes of the features."""
        return self._of_x, self._of_y.to(self._y.dtype)


def refuse_second_derivative(gradient: CustomOpDef) -> None:
    """Raise an error that says what to do instead of differentiating the backward pass of blocks."""

    def backward(ctx: Any, *_: Any) -> NoReturn:
        raise RuntimeError(
            'the chunked lowering has no second derivative: take lowering="dense" to differentiate an objective twice'
        )

    gradient.register_autograd(backward)
