"""Nearest neighbours: the quality of image features without texts and without training a classifier."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlmdsl.ir import Program, root_field, streams
from vlmdsl.runtime.evaluation.features import blocks
from vlmdsl.runtime.evaluation.retrieval import Measures
from vlmdsl.types import FieldType

__all__ = ["first_image_tower", "neighbour_accuracy"]

_BLOCK = 2048


def neighbour_accuracy(features: Tensor, labels: Tensor, neighbours: int = 20, temperature: float = 0.07) -> Measures | None:
    """How often the nearest neighbours of an image among all others vote for its class.

    `features [n, D]` are compared by their cosine; each of the `neighbours` most similar votes with weight
    exp(cosine / `temperature`), and votes that are not larger than those of another class count against the model. Chance is
    the share of the most frequent class. Source: Wu et al., CVPR 2018.

    No more vote than the largest class has beside the image itself: among more, every image would be outvoted however good
    the features are. Images that are alone in their class are not asked, but vote. None if all are alone. The result's
    `facts` say how many vote (`k`), were asked (`images`) and were not (`alone`).

    >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> accuracy = neighbour_accuracy(features, torch.tensor([3, 3, 5, 5]), neighbours=20)
    >>> accuracy.values, accuracy.facts
    ({'top-1': 1.0}, {'classes': 2, 'k': 1, 'images': 4, 'alone': 0})
    """
    _, own, sizes = labels.unique(return_inverse=True, return_counts=True)
    queries = (sizes[own] > 1).nonzero().flatten()
    if not len(queries):
        return None
    k = min(neighbours, int(sizes.max()) - 1)
    unit = functional.normalize(features.double(), dim=-1)
    hits = 0
    for part in blocks(len(queries), _BLOCK):
        rows = queries[part]
        similar = unit[rows] @ unit.T
        similar[torch.arange(len(rows)), rows] = -torch.inf
        nearest = similar.topk(k, dim=1)
        votes = torch.zeros(len(rows), len(sizes), dtype=torch.float64)
        votes.scatter_add_(1, own[nearest.indices], ((nearest.values - 1.0) / temperature).exp())
        right = votes.gather(1, own[rows, None])
        others = torch.arange(len(sizes)) != own[rows, None]
        hits += int((~(~(votes < right) & others).any(dim=1)).sum())
    chance = int(sizes.max()) / len(queries)
    facts = {"classes": int((sizes > 1).sum()), "k": k, "images": len(queries), "alone": len(labels) - len(queries)}
    return Measures({"top-1": hits / len(queries)}, {"top-1": chance}, facts)


def first_image_tower(program: Program) -> tuple[str, str] | None:
    """The tower and the field of the first image that a program encodes to pooled features, or None."""
    for stream in streams(program):
        field = root_field(stream.source)
        if stream.encoder.kind == "Image" and stream.pooled and field.type == FieldType("Image"):  # no text that is rendered
            return stream.encoder.tower, field.string("name")
    return None
