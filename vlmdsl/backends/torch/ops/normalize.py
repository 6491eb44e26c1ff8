"""Per-vector operations: zeros for excluded samples, unit length, a factor per sample, pooling, stopped gradients."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.values import Similarities, Table, TokenFeatures, precise

__all__ = ["gate", "normalize", "reduce_tokens", "retain", "stop", "tokens"]

Features = TypeVar("Features", Tensor, TokenFeatures)
Units = TypeVar("Units", Tensor, TokenFeatures, Table)
Value = TypeVar("Value", Tensor, TokenFeatures, Similarities)


def tokens(values: Tensor, mask: Tensor | None) -> TokenFeatures:
    """The tokens of a stream, [b, L, D], padding set to zero: 0 times what is not a number would not be 0."""
    return TokenFeatures(values if mask is None else torch.where(mask[:, :, None], values, 0.0), mask)


def retain(features: Features, condition: Tensor, value: float) -> Features:
    """The samples for which the condition [b] holds as they are, and `value` for the others, which get no gradient."""
    if isinstance(features, TokenFeatures):
        return TokenFeatures(retain(features.values, condition, value), features.mask)
    return torch.where(condition.view(-1, *[1] * (features.dim() - 1)), features, value)


def normalize(features: Units, epsilon: float = 0.0, smallest: float = 1e-12, *, wide: bool = False) -> Units:
    """Each vector divided by its length plus `epsilon`, computed in float32 and given back in the features' dtype, or, if
    `wide`, as it was computed.

    A length counts as `smallest` at least, so that a vector of zeros stays one.
    """
    if isinstance(features, TokenFeatures | Table):
        return features._replace(values=normalize(features.values, epsilon, smallest, wide=wide))
    if epsilon == 0.0:
        unit = F.normalize(precise(features), dim=-1, eps=smallest)
    else:
        length = torch.linalg.vector_norm(precise(features), dim=-1, keepdim=True).clamp_min(smallest)
        unit = precise(features) / (length + epsilon)
    return unit if wide else unit.to(features.dtype)


def gate(features: Tensor, by: Tensor) -> Tensor:
    """Each sample's vector times its own number, `by` [b]: [b, D]."""
    return (precise(features) * precise(by)[:, None]).to(features.dtype)


def reduce_tokens(features: TokenFeatures, by: str) -> Tensor:
    """One vector per sample, [b, D]: over its tokens the largest (`by` is `max`) or the mean entry of each feature; zero
    without tokens."""
    values, mask = features
    if mask is None:
        return values.amax(dim=1) if by == "max" else values.mean(dim=1)
    if by == "max":
        largest = values.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)
        return largest.masked_fill(~mask.any(dim=1)[:, None], 0.0)
    return values.sum(dim=1) / mask.sum(dim=1).clamp_min(1)[:, None].to(values.dtype)  # padding is zero


def stop(value: Value) -> Value:
    """The same value without gradient."""
    if isinstance(value, TokenFeatures):
        return TokenFeatures(value.values.detach(), value.mask)
    if isinstance(value, Similarities):
        rows = value.rows.detach()
        return value._replace(rows=rows, columns=rows if value.symmetric else value.columns.detach())
    return value.detach()
