"""Cross-entropy over a vocabulary straight from states and the output weight: the logits are never whole in memory.

    Z = S W^T + bias,   l_i = r_i - sum_v T_iv Z_iv,   r_i = log sum_v e^{Z_iv},   L = sum_i a_i l_i
    T_iv = (1 - soft) (off + on [v = t_i]) + soft Q_iv,   on + V off = 1,   sum_v Q_iv = 1
    H_iv = dL/dZ_iv = a_i (e^{Z_iv - r_i} - T_iv),   dS = H W,   dW = H^T S,   d bias = sum_i H_i

Without label smoothing `on` and `off` are 1 and 0; without a teacher, whose softmax Q is, `soft` is 0. Tokens that have no
target are left out of all products.

The shares a_i are known before the logits are, so a chunk's gradients are made in the forward pass while its logits are
there: three products, as autograd's own. Making the logits again in the backward pass would take four, and hold dW and dS
for a shorter time; `benchmarks/linear_cross_entropy.py` compares both (ADR 0014). Chunks are of tokens only, each with the
whole vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_reduce_sum
from vlmdsl.backends.torch.ops.product import float16_tile, float32_product
from vlmdsl.backends.torch.ops.sample_weights import among, shares_of_tokens
from vlmdsl.backends.torch.values import Number, precise
from vlmdsl.planning import linear
from vlmdsl.planning.linear import CHUNK_ENTRIES

__all__ = ["SoftTargets", "linear_cross_entropy", "tokens_at_once"]


class SoftTargets(NamedTuple):
    """A teacher's part in the targets: the `share` (0-d, or a number) of each is softmax(states @ weight.T + bias).

    `states` [b, L, W'] or [n, W'], `weight` [V, W'] and `bias` [V] are the teacher's; nothing here gets a gradient.
    """

    share: Number
    states: Tensor
    weight: Tensor
    bias: Tensor | None = None


def tokens_at_once(weight: Tensor) -> int:
    """The tokens of a chunk for a weight [V, W]: at least W, so that its logits are as many as the gradient of the weight,
    which is read and written once for each chunk."""
    size, width = weight.shape
    return linear.tokens_at_once(size, width, CHUNK_ENTRIES)


def linear_cross_entropy(
    states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    smoothing: float = 0.0,
    over: str = "all",
    weights: Tensor | None = None,
    reduction: str = "token",
    soft: SoftTargets | None = None,
    where: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """The mean cross-entropy of `softmax(states @ weight.T + bias)` with the targets, over the tokens of all processes: 0-d.

    `states` [b, L, W] or [n, W]; `weight` [V, W]; `bias` [V]; `targets` [b, L] or [n] are vocabulary entries, negative where
    a token does not count (its states may be anything, NaN included). `smoothing` moves that share of each target to `all`
    entries alike, as torch does, or to the `others`. `weights`, shaped as the targets, are not negative, and say how much
    each token counts. With `soft` a share of each target is a teacher's softmax (ALBEF's momentum distillation), of the
    tokens that count too.

    `reduction`: with `token` every token of the global batch counts alike, or by its weight; with `sample` the mean of each
    sample's tokens is taken first, with `sum` their sum, and a sample without any counts as 0. No token at all: 0. `where`
    [b] and `sample_weight` [b] say which samples count, and how much (`ops.sample_weights`). Products are in the dtype of
    the states, statistics and sums in float32 at least. There are first derivatives only: a second one is a RuntimeError.
    ValueError for shapes that do not belong together.

    >>> states, weight = torch.tensor([[1.0, 0.0], [7.0, 7.0]]), torch.eye(2)
    >>> round(linear_cross_entropy(states, weight, torch.tensor([0, -1])).item(), 4)
    0.3133
    """
    by_sample = reduction != "token" or where is not None or sample_weight is not None
    if targets.shape != states.shape[:-1] or (by_sample and targets.dim() != 2):
        raise ValueError(f"states {list(states.shape)} do not go with targets {list(targets.shape)} by {reduction}")
    size = weight.shape[0]
    off = smoothing / (size if over == "all" else size - 1)
    on = 1.0 - smoothing - (off if over == "others" else 0.0)
    counted, dtype = among(targets >= 0, where), precise(states).dtype
    targets = torch.where(counted, targets, -1)
    tokens = counted.to(dtype) if weights is None else torch.where(counted, weights.to(dtype), 0.0)
    shares = shares_of_tokens(tokens, reduction, where, sample_weight)
    learns = torch.is_grad_enabled()
    loss, *_ = weighted_cross_entropy(
        states.flatten(0, -2), weight, bias, targets.flatten(), shares.flatten(), on, off, *_teacher(soft, shares),
        learns and states.requires_grad, learns and weight.requires_grad,
        learns and bias is not None and bias.requires_grad,
    )  # fmt: skip
    return all_reduce_sum(loss)


def _teacher(soft: SoftTargets | None, like: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The share as a tensor, states [n, W'], weight and bias of the teacher, without gradient."""
    if soft is None:
        return None, None, None, None
    share = soft.share.detach().to(like.dtype) if isinstance(soft.share, Tensor) else like.new_full((), soft.share)
    bias = None if soft.bias is None else soft.bias.detach()
    return share, soft.states.detach().flatten(0, -2), soft.weight.detach(), bias


@torch.library.custom_op("vlmdsl::weighted_cross_entropy", mutates_args=())
def weighted_cross_entropy(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    shares: Tensor,
    on: float,
    off: float,
    soft: Tensor | None,
    teacher_states: Tensor | None,
    teacher_weight: Tensor | None,
    teacher_bias: Tensor | None,
    states_learn: bool,
    weight_learns: bool,
    bias_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The sum of shares [n] times losses, 0-d; the losses [n]; its gradients for states, weight and bias, empty where
    nothing learns. All in the dtype of the shares.

    A custom operator, so that a compiled graph holds one node, and no shape that depends on how many tokens count.
    """
    losses = torch.zeros_like(shares)
    by_states, by_weight, by_bias = _gradients(states, weight, shares, states_learn, weight_learns, bias_learns)
    weight = weight.to(states.dtype)
    counted = (targets >= 0).nonzero().squeeze(1)
    at_once = tokens_at_once(weight)
    for start in range(0, counted.shape[0], at_once):
        rows = counted[start : start + at_once]
        entering = states[rows]
        logits = _logits(entering, weight, bias, shares.dtype)
        teacher = None
        if teacher_states is not None and teacher_weight is not None:
            states_of_teacher = teacher_states[rows]
            teacher = _logits(
                states_of_teacher, teacher_weight.to(states_of_teacher.dtype), teacher_bias, shares.dtype
            ).softmax(dim=1)
        losses[rows], gradient = _losses(logits, targets[rows], shares[rows], on, off, soft, teacher)
        if states_learn or weight_learns:
            _accumulate(gradient, rows, entering, weight, by_states, by_weight)
        if bias_learns:
            by_bias += gradient.sum(dim=0)
        del logits, gradient, teacher  # else the next chunk would be made while this one is held
    return (shares * losses).sum(), losses, by_states, by_weight, by_bias


@weighted_cross_entropy.register_fake
def _(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    shares: Tensor,
    on: float,
    off: float,
    soft: Tensor | None,
    teacher_states: Tensor | None,
    teacher_weight: Tensor | None,
    teacher_bias: Tensor | None,
    states_learn: bool,
    weight_learns: bool,
    bias_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradients = _gradients(states, weight, shares, states_learn, weight_learns, bias_learns)
    return shares.new_empty(()), torch.empty_like(shares), *gradients


def _gradients(
    states: Tensor, weight: Tensor, shares: Tensor, states_learn: bool, weight_learns: bool, bias_learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros in the shape of states, weight and bias, empty where nothing learns."""
    size, width = weight.shape
    return (
        shares.new_zeros((states.shape[0], width) if states_learn else (0,)),
        shares.new_zeros((size, width) if weight_learns else (0,)),
        shares.new_zeros((size,) if bias_learns else (0,)),
    )


def _losses(
    logits: Tensor, targets: Tensor, shares: Tensor, on: float, off: float, soft: Tensor | None, teacher: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The losses [c] of logits [c, V], and the gradient of their sum by `shares` [c], which takes the place of the logits.

    What the targets are multiplied by is compared with the largest logit, so that large ones lose no digits.
    """
    targets, shares = targets[:, None], shares[:, None]
    hard = 1.0 if soft is None else 1.0 - soft
    logits -= logits.amax(dim=1, keepdim=True)
    expected = on * logits.gather(1, targets)
    if off:
        expected += off * logits.sum(dim=1, keepdim=True)
    expected *= hard
    if soft is not None and teacher is not None:
        expected += soft * torch.linalg.vecdot(teacher, logits)[:, None]
    gradient = logits.exp_()
    total = gradient.sum(dim=1, keepdim=True)
    gradient *= shares / total
    if off:
        gradient -= off * hard * shares
    gradient.scatter_add_(1, targets, -on * hard * shares)
    if soft is not None and teacher is not None:
        gradient -= teacher.mul_(soft * shares)
    return (total.log() - expected).squeeze(1), gradient


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    logits = _product(states, weight.T, dtype)
    return logits if bias is None else logits.add_(bias)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right, [.., ..] of `dtype`; one of float16 does not leave float32 on the way."""
    product = float32_product(left, right) if left.dtype is torch.float16 else left @ right
    return product.to(dtype)


def _accumulate(
    gradient: Tensor, rows: Tensor, entering: Tensor, weight: Tensor, by_states: Tensor, by_weight: Tensor
) -> None:
    """The products of a chunk's `gradient` [c, V], put or added to where they belong; what is empty gets none."""
    if entering.dtype is gradient.dtype:
        if by_states.numel():
            by_states[rows] = gradient @ weight
        if by_weight.numel():
            by_weight.addmm_(gradient.T, entering)
        return
    factor: Tensor | float = 1.0
    if entering.dtype is torch.float16:
        tile, factor = float16_tile(gradient)
    else:
        tile = gradient.to(entering.dtype)
    if by_states.numel():
        by_states[rows] = _product(tile, weight, gradient.dtype) * factor
    if by_weight.numel():
        by_weight.add_(_product(tile.T, entering, gradient.dtype) * factor)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    states, weight, bias = inputs[:3]
    ctx.dtypes = states.dtype, weight.dtype, None if bias is None else bias.dtype
    ctx.learn = inputs[-3:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # else there would be zeros in the size of each gradient
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 14
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("linear_cross_entropy has first derivatives only")
    losses, *gradients = ctx.saved_tensors
    by_states, by_weight, by_bias = (
        (part * gradient).to(dtype) if learns else None
        for part, dtype, learns in zip(gradients, ctx.dtypes, ctx.learn, strict=True)
    )
    by_shares = losses * gradient if ctx.needs_input_grad[4] else None
    return by_states, by_weight, by_bias, None, by_shares, *[None] * 9


weighted_cross_entropy.register_autograd(_backward, setup_context=_setup_context)
