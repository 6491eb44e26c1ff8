"""The one matrix product of a similarity.

    Z = X Y^T,    dX = H Y,    dY = H^T X        for H = dL/dZ

The product runs in the dtype of the features. bfloat16 has the range of float32, so autograd's own rule serves. float16 has
not: inner products of long vectors overflow, and the entries of H, about 1/B^2, vanish. There the product is returned in
float32 and H is brought to the middle of the float16 range before it is rounded; the factor is taken out in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.functions import Function

__all__ = ["float16_tile", "float32_product", "product", "rounded", "wide_product"]

_MIDDLE_OF_FLOAT16 = 16.0
"""H is scaled so that its largest entry is this: sums of B such entries stay finite in float32 and 1/B of it is normal."""


def product(x: Tensor, y: Tensor) -> Tensor:
    """The inner products of all rows of `x` [b, D] with all rows of `y` [B, D]: [b, B], in float32 for float16 features."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = x.to(dtype), y.to(dtype)
    if dtype is not torch.float16:
        return x @ y.T
    similarity: Tensor = _Float16Product.apply(x, y.T)
    return similarity


class _Float16Product(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y_transposed: Tensor) -> Tensor:
        return float32_product(x, y_transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y_transposed = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives: nothing is rounded on the way
            return (gradient @ y_transposed.T.float()).to(x.dtype), (x.T.float() @ gradient).to(x.dtype)
        tile, factor = float16_tile(gradient)
        x_gradient = float32_product(tile, y_transposed.T) * factor
        return x_gradient.to(x.dtype), (float32_product(x.T, tile) * factor).to(x.dtype)


def float16_tile(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient in the middle of the float16 range, and the factor (0-d, float32) that brings its products back."""
    largest = gradient.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    return (gradient * (_MIDDLE_OF_FLOAT16 / largest)).to(torch.float16), largest / _MIDDLE_OF_FLOAT16


def rounded(gradient: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | float]:
    """A gradient in the dtype of the features, and the factor that brings its products back (1 but for float16)."""
    return float16_tile(gradient) if dtype is torch.float16 else (gradient.to(dtype), 1.0)


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """A product of two matrices of one dtype, in float32 at least."""
    return left @ right if left.dtype in (torch.float32, torch.float64) else float32_product(left, right)


def float32_product(left: Tensor, right: Tensor) -> Tensor:
    """A product with its float32 accumulators kept; only CUDA has the kernel, elsewhere the operands are widened."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
