"""What is done to each vector: unit length, a factor of its sample's own, the end of the gradient."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.values import Similarities, TokenFeatures, precise

__all__ = ["gate", "normalize", "stop"]

Features = TypeVar("Features", Tensor, TokenFeatures)
Value = TypeVar("Value", Tensor, TokenFeatures, Similarities)


def normalize(features: Features, epsilon: float = 0.0, smallest: float = 1e-12) -> Features:
    """Each vector divided by its length plus `epsilon`, computed in float32 and given back in the features' dtype.

    A length counts as `smallest` at least, so that a vector of zeros stays one.
    """
    if isinstance(features, TokenFeatures):
        return TokenFeatures(normalize(features.values, epsilon, smallest), features.mask)
    if epsilon == 0.0:
        return F.normalize(precise(features), dim=-1, eps=smallest).to(features.dtype)
    length = torch.linalg.vector_norm(precise(features), dim=-1, keepdim=True).clamp_min(smallest)
    unit: Tensor = precise(features) / (length + epsilon)
    return unit.to(features.dtype)


def gate(features: Tensor, by: Tensor) -> Tensor:
    """Each sample's vector times its own number, `by` [b]: [b, D]."""
    return (precise(features) * precise(by)[:, None]).to(features.dtype)


def stop(value: Value) -> Value:
    """The same value without gradient."""
    if isinstance(value, TokenFeatures):
        return TokenFeatures(value.values.detach(), value.mask)
    if isinstance(value, Similarities):
        rows = value.rows.detach()
        return value._replace(rows=rows, columns=rows if value.symmetric else value.columns.detach())
    return value.detach()
