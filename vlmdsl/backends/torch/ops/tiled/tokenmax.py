"""`tokenmax` without the similarities of all pairs of tokens: they are made a block of samples at a time, and the winner of
each maximum is kept, so that the backward pass repeats no product.

    rows_ij = mean_p max_l <x_ip, y_jl>      columns_ij = mean_l max_p <x_ip, y_jl>

H = dL/d<x_ip, y_jl> is zero but where a token won. It is written a block at a time and multiplied as the gradient of any
product: three products of all pairs of tokens, as many as the dense form has.

Shapes: b samples of P tokens of this process, B samples of L tokens of all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.product import product
from vlmdsl.backends.torch.ops.tiled.blocks import FeatureGradients, block_product, blocks, refuse_second_derivative
from vlmdsl.backends.torch.values import TokenFeatures, precise

__all__ = ["largest_similarities", "tokenmax"]

_INDEX = torch.int16
"""Holds the position of a token in its sample."""
_OF_X, _OF_Y = 1, 3
"""The axes of the tokens in a block of similarities [c, P, B, L]."""


def tokenmax(
    x: TokenFeatures, y: TokenFeatures, x_kept: Tensor | None = None, y_kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Both matrices [b, B] of this process's x and everybody's y, as the dense form gives them."""
    x_kept, y_kept = x.mask if x_kept is None else x_kept, y.mask if y_kept is None else y_kept
    rows, columns, _, _ = block_tokenmax(x.values, y.values, x.mask, y.mask, x_kept, y_kept)
    return rows, columns


@torch.library.custom_op("vlmdsl::block_tokenmax", mutates_args=())
def block_tokenmax(
    x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None, x_kept: Tensor | None, y_kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both matrices [b, B] of x [b, P, D] and y [B, L, D], and for each pair of samples the best y of each x [b, P, B] and
    the best x of each y [b, B, L], -1 without a candidate. Tokens where a mask is false count in no mean, those that are
    not kept win no maximum."""
    (samples, patches, _), (batch, words, _) = x.shape, y.shape
    by_row, by_column = (precise(x.new_empty(0)).new_empty(samples, batch) for _ in range(2))
    best_y = x.new_empty(samples, patches, batch, dtype=_INDEX)
    best_x = x.new_empty(samples, batch, words, dtype=_INDEX)
    x_weights, y_weights = _weights(x, x_mask), _weights(y, y_mask)
    for rows in blocks(samples, patches * batch * words, x.device):
        values = product(x[rows].flatten(0, 1), y.flatten(0, 1)).view(-1, patches, batch, words)
        candidates = values if x_kept is None else values.masked_fill(~x_kept[rows, :, None, None], -torch.inf)
        largest, best_x[rows] = _winners(candidates, _OF_X)
        by_column[rows] = (largest * y_weights).sum(dim=2)
        if y_kept is not None:
            values.masked_fill_(~y_kept, -torch.inf)
        largest, best_y[rows] = _winners(values, _OF_Y)
        by_row[rows] = (largest * x_weights[rows, :, None]).sum(dim=1)
    return by_row, by_column, best_y, best_x


@block_tokenmax.register_fake
def _(x: Tensor, y: Tensor, *masks: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (samples, patches, _), (batch, words, _) = x.shape, y.shape
    by_row, by_column = (x.new_empty(samples, batch, dtype=precise(x.new_empty(0)).dtype) for _ in range(2))
    best_y = x.new_empty(samples, patches, batch, dtype=_INDEX)
    return by_row, by_column, best_y, x.new_empty(samples, batch, words, dtype=_INDEX)


@torch.library.custom_op("vlmdsl::block_tokenmax_gradient", mutates_args=())
def block_tokenmax_gradient(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor | None,
    y_mask: Tensor | None,
    best_y: Tensor,
    best_x: Tensor,
    for_rows: Tensor,
    for_columns: Tensor,
    for_x: bool,
    for_y: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of x and y, empty where none is asked for, from those of both matrices."""
    (samples, patches, _), (batch, words, _) = x.shape, y.shape
    features = FeatureGradients(x.flatten(0, 1), y.flatten(0, 1), for_x, for_y)
    x_weights, y_weights = _weights(x, x_mask), _weights(y, y_mask)
    for rows in blocks(samples, patches * batch * words, x.device):
        of_best_y = (x_weights[rows, :, None] * for_rows[rows, None, :]).masked_fill_(best_y[rows] < 0, 0.0)
        of_best_x = (y_weights * for_columns[rows, :, None]).masked_fill_(best_x[rows] < 0, 0.0)
        h = of_best_y.new_zeros(of_best_y.shape[0], patches, batch, words)
        h.scatter_(_OF_Y, _positions(best_y[rows], _OF_Y), of_best_y.unsqueeze(_OF_Y))
        h.scatter_add_(_OF_X, _positions(best_x[rows], _OF_X), of_best_x.unsqueeze(_OF_X))
        features.add(h.view(-1, batch * words), slice(rows.start * patches, rows.stop * patches))
    of_x, of_y = features.result()
    return of_x.view(x.shape) if for_x else of_x, of_y.view(y.shape) if for_y else of_y


@block_tokenmax_gradient.register_fake
def _(x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    for_x, for_y = rest[-2:]
    return x.new_empty(x.shape if for_x else 0), y.new_empty(y.shape if for_y else 0)


def _setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
    x, y, x_mask, y_mask, _, _ = inputs
    ctx.save_for_backward(x, y, x_mask, y_mask, *output[2:])


def _backward(ctx: Any, for_rows: Tensor, for_columns: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:2]
    gradients = block_tokenmax_gradient(*ctx.saved_tensors, for_rows, for_columns, *needed)
    return *(gradient if need else None for gradient, need in zip(gradients, needed, strict=True)), None, None, None, None


block_tokenmax.register_autograd(_backward, setup_context=_setup_context)
refuse_second_derivative(block_tokenmax_gradient)


def _weights(features: Tensor, mask: Tensor | None) -> Tensor:
    """The share of each token in the mean over those of its sample that are real: [n, K]; 0 for padding."""
    shares = precise(features.new_ones(features.shape[:2]))
    shares = shares if mask is None else shares * mask
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1.0)


def _winners(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The largest values along an axis, in float32 at least, and their positions; 0 and -1 where all are -inf."""
    largest, positions = values.max(dim=axis)
    none = largest == -torch.inf
    return precise(largest).masked_fill(none, 0.0), positions.to(_INDEX).masked_fill_(none, -1)


def _positions(winners: Tensor, axis: int) -> Tensor:
    """Kept positions as indices, the first where no token won."""
    return winners.long().clamp_(min=0).unsqueeze(axis)


@torch.library.custom_op("vlmdsl::block_largest", mutates_args=())
def largest_similarities(x: Tensor, y: Tensor, x_real: Tensor, y_real: Tensor) -> tuple[Tensor, Tensor]:
    """The largest similarity of each token of x [b, P, D] and y [B, L, D] to a real one of the other stream, in any sample;
    -inf for one that is not real. Without gradient."""
    (samples, patches, _), (batch, words, _) = x.shape, y.shape
    of_x, of_y = precise(x.new_empty(0)).new_empty(samples, patches), precise(y.new_full((batch, words), -torch.inf))
    for rows in blocks(samples, patches * batch * words, x.device):
        values = block_product(precise(x[rows]).flatten(0, 1), precise(y).flatten(0, 1)).view(-1, patches, batch, words)
        values.masked_fill_(~y_real, -torch.inf).masked_fill_(~x_real[rows, :, None, None], -torch.inf)
        of_x[rows] = values.amax(dim=(2, 3))
        torch.maximum(of_y, values.amax(dim=(0, 1)), out=of_y)
    return of_x, of_y


@largest_similarities.register_fake
def _(x: Tensor, y: Tensor, x_real: Tensor, y_real: Tensor) -> tuple[Tensor, Tensor]:
    dtype = precise(x.new_empty(0)).dtype
    return x.new_empty(x.shape[:2], dtype=dtype), y.new_empty(y.shape[:2], dtype=dtype)
