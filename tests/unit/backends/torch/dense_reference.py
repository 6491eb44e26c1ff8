"""A contrastive region by its definition, in float64 and with matrices everywhere: what the lowering is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """What the two directions of one region have in common; tensors are looked up by name in the arguments of a function."""

    target: str = "paired"
    smoothing: str = ""
    scale: str = "scalar"
    weighted: bool = False
    over: bool = False
    keep: bool = False
    without_positive: bool = False
    biased: bool = False
    directions: tuple[str, ...] = ("rows", "columns")


EPSILON = 0.2


def target_matrix(kind: str, size: int, label: Tensor, missing: int) -> Tensor:
    """One part of a target by its definition, for the row direction: [N, N]."""
    eye = torch.eye(size, dtype=torch.float64)
    if kind == "paired":
        return eye
    if kind == "uniform":
        return torch.full((size, size), 1 / size, dtype=torch.float64)
    if kind == "others":
        return (1 - eye) / max(size - 1, 1)
    equal = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            equal[i, j] = float(i == j or (label[i] == label[j] != missing))
    return equal / equal.sum(dim=1, keepdim=True)


def reference_loss(case: Case, matrices: tuple[Tensor, Tensor], arguments: Mapping[str, Tensor], missing: int) -> Tensor:
    """The loss of a region whose rows read the first matrix and whose columns read the transpose of the second."""
    total = torch.zeros((), dtype=torch.float64)
    for direction, matrix in (("rows", matrices[0]), ("columns", matrices[1].T)):
        if direction in case.directions:
            total = total + 0.5 * _one_direction(replace(case), matrix, arguments, direction, missing)
    return total


def _one_direction(case: Case, matrix: Tensor, arguments: Mapping[str, Tensor], direction: str, missing: int) -> Tensor:
    size = matrix.shape[0]
    target = target_matrix(case.target, size, arguments["label"], missing)
    if case.smoothing:
        spread = target_matrix(case.smoothing, size, arguments["label"], missing)
        target = (1 - EPSILON) * target + EPSILON * spread
    scale = arguments["scale"] if case.scale == "scalar" else arguments[f"{direction}_scales"][:, None]
    logits = matrix * scale + (arguments["bias"] if case.biased else 0.0)
    kept = arguments["keep"] if case.keep else torch.ones(size, dtype=torch.bool)
    losses = []
    for i in range(size):
        candidates = [j for j in range(size) if kept[j]]
        denominator = [j for j in candidates if j != i] if case.without_positive else candidates
        if not denominator:
            losses.append(logits.sum() * 0.0)
            continue
        normaliser = torch.logsumexp(logits[i, denominator], dim=0)
        rest = target[i, candidates].sum()
        among = target[i, candidates] * target[i].sum() / rest if rest > 0 else target[i, candidates] * 0.0
        losses.append((among * (normaliser - logits[i, candidates])).sum())
    values = torch.stack(losses)
    if case.weighted:
        values = values * arguments["weight"]
    if case.over:
        chosen = values[arguments["over"]]
        return chosen.mean() if len(chosen) else values.sum() * 0.0
    return values.mean()
