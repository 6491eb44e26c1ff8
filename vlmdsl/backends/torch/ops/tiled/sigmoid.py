"""A sigmoid loss whose similarity matrix is never made: each row's sum of -log sigmoid(z), from blocks of rows.

    l_i = sum_j softplus(t_ij),  t_ij = -A_ij where the target is positive, else A_ij,  A_ij = scale * <x_i, y_j> + bias
    dL/dA_ij = g_i sigmoid(t_ij), negative where the target is positive

Four matrix products in all: one forward; the same again, and the gradients of both features, backward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, process_index
from vlmdsl.backends.torch.ops.targets import dense_target
from vlmdsl.backends.torch.ops.tiled.blocks import FeatureGradients, block_product, blocks, refuse_second_derivative
from vlmdsl.backends.torch.values import Products, Target, precise

__all__ = ["sigmoid_loss"]

_SOFTPLUS_THRESHOLD = 40.0


class _Positives(NamedTuple):
    """Where a target is positive: at each sample's pair, and where labels [b] and [B] are equal and not `missing`; or, of
    any other target, where a matrix [b, B] says so."""

    label: Tensor | None = None
    everybody: Tensor | None = None
    missing: int = -1
    matrix: Tensor | None = None


def sigmoid_loss(logits: Products, target: Target) -> Tensor:
    """Each row's sum over candidates: [b]; as `ops.sigmoid_loss` of the matrix, but without a second derivative."""
    kept = None if logits.candidates is None else all_gather(logits.candidates)
    first = process_index() * logits.x.shape[0]
    positives = _positives(target, logits)
    losses: Tensor = block_sigmoid(logits.x, logits.y, logits.scale, logits.bias, kept, *positives, first)
    return losses


def _positives(target: Target, logits: Products) -> _Positives:
    kinds = sorted(part.kind for part in target.parts)
    if all(isinstance(part.coefficient, float) and part.coefficient > 0.0 for part in target.parts):
        if kinds == ["paired"]:
            return _Positives()
        if kinds in (["same"], ["paired", "same"]):
            [part] = (part for part in target.parts if part.kind == "same")
            if part.label is not None and part.earlier is None:
                return _Positives(part.label, all_gather(part.label), part.missing)
    return _Positives(matrix=dense_target(target, logits.like).rows > 0)


@torch.library.custom_op("vlmdsl::block_sigmoid", mutates_args=())
def block_sigmoid(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    kept: Tensor | None,
    label: Tensor | None,
    everybody: Tensor | None,
    missing: int,
    positive: Tensor | None,
    first: int,
) -> Tensor:
    """The losses [b] of x [b, D] against y [B, D]; `first` is the column of the pair of row 0, `kept` [B] are candidates."""
    losses = precise(x.new_empty(0)).new_empty(x.shape[0])
    positives = _Positives(label, everybody, missing, positive)
    for rows in blocks(x.shape[0], y.shape[0], x.device):
        logits = torch.add(bias, block_product(x[rows], y).mul_(scale))
        _flip(logits, positives, rows, first)
        summands = F.softplus(logits, threshold=_SOFTPLUS_THRESHOLD)
        losses[rows] = (summands if kept is None else summands.masked_fill_(~kept, 0.0)).sum(dim=1)
    return losses


@block_sigmoid.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return precise(x.new_empty(0)).new_empty(x.shape[0])


@torch.library.custom_op("vlmdsl::block_sigmoid_gradient", mutates_args=())
def block_sigmoid_gradient(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    kept: Tensor | None,
    label: Tensor | None,
    everybody: Tensor | None,
    missing: int,
    positive: Tensor | None,
    first: int,
    for_losses: Tensor,
    for_x: bool,
    for_y: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x and y, empty where none is asked for, of the scale and of the bias."""
    features = FeatureGradients(x, y, for_x, for_y)
    positives, of_scale, of_bias = _Positives(label, everybody, missing, positive), torch.zeros_like(scale), bias * 0.0
    for rows in blocks(x.shape[0], y.shape[0], x.device):
        z = block_product(x[rows], y)
        logits = torch.addcmul(bias, z, scale)
        _flip(logits, positives, rows, first)
        h = logits.sigmoid_().mul_(for_losses[rows, None])
        _flip(h, positives, rows, first)
        if kept is not None:
            h.masked_fill_(~kept, 0.0)
        of_bias += h.sum()
        of_scale += torch.linalg.vecdot(h, z).sum()
        features.add(h.mul_(scale), rows)
    return *features.result(), of_scale, of_bias


@block_sigmoid_gradient.register_fake
def _(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for_x, for_y = rest[-2:]
    of_x, of_y = x.new_empty(x.shape if for_x else 0), y.new_empty(y.shape if for_y else 0)
    return of_x, of_y, torch.empty_like(scale), torch.empty_like(bias)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, scale, bias, kept, label, everybody, ctx.missing, positive, ctx.first = inputs
    ctx.save_for_backward(x, y, scale, bias, kept, label, everybody, positive)


def _backward(ctx: Any, for_losses: Tensor) -> tuple[Tensor | None, ...]:
    *operands, positive = ctx.saved_tensors
    needed = ctx.needs_input_grad[:4]
    gradients = block_sigmoid_gradient(*operands, ctx.missing, positive, ctx.first, for_losses, *needed[:2])
    returned = tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))
    return *returned, None, None, None, None, None, None


block_sigmoid.register_autograd(_backward, setup_context=_setup_context)
refuse_second_derivative(block_sigmoid_gradient)


def _flip(block: Tensor, positives: _Positives, rows: slice, first: int) -> None:
    """Change the signs of the entries of a block where the target is positive, in place."""
    if positives.matrix is not None:
        block.mul_(torch.where(positives.matrix[rows], -1.0, 1.0))
        return
    own = block.diagonal(first + rows.start)
    if positives.label is None or positives.everybody is None:
        own.neg_()
        return
    label = positives.label[rows, None]
    positive = (label == positives.everybody) & (label != positives.missing)
    positive.diagonal(first + rows.start).fill_(True)
    block.mul_(torch.where(positive, -1.0, 1.0))
