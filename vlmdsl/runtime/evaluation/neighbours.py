"""Nearest neighbours: what features of images are worth where no text is compared with them; nothing is trained for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlmdsl.ir import Program, root_field, streams
from vlmdsl.runtime.evaluation.features import blocks
from vlmdsl.runtime.evaluation.retrieval import Measures

__all__ = ["first_image_tower", "neighbour_accuracy"]

_BLOCK = 2048


def neighbour_accuracy(features: Tensor, labels: Tensor, neighbours: int = 20, temperature: float = 0.07) -> Measures:
    """How often an image's class is the one that its nearest neighbours among all other images vote for.

    `features [n, D]` are compared by their cosine; each of the `neighbours` most similar votes with weight
    exp(cosine / `temperature`), and votes that are not larger than those of another class count against the model. Chance is
    the share of the most frequent class: what can be had without looking. Source: Wu et al., CVPR 2018.

    >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> neighbour_accuracy(features, torch.tensor([3, 3, 5, 5]), neighbours=1).values
    {'top-1': 1.0}
    """
    classes, own = labels.unique(return_inverse=True)
    unit = functional.normalize(features.double(), dim=-1)
    count, total = len(classes), len(unit)
    hits = 0
    for part in blocks(total, _BLOCK):
        similar = unit[part] @ unit.T
        similar[torch.arange(len(similar)), torch.arange(total)[part]] = -torch.inf
        found = similar.topk(min(neighbours, total - 1), dim=1)
        votes = torch.zeros(len(similar), count, dtype=torch.float64)
        votes.scatter_add_(1, own[found.indices], ((found.values - 1.0) / temperature).exp())
        right = votes.gather(1, own[part, None])
        others = torch.arange(count) != own[part, None]
        hits += int((~(~(votes < right) & others).any(dim=1)).sum())
    return Measures({"top-1": hits / total}, {"top-1": own.bincount().max().item() / total})


def first_image_tower(program: Program) -> tuple[str, str] | None:
    """The tower and the field of the first image that a program encodes to pooled features, or None."""
    for stream in streams(program):
        if stream.encoder.kind == "Image" and stream.pooled:
            return stream.encoder.tower, root_field(stream.source).string("name")
    return None
