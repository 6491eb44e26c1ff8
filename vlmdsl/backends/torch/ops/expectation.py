"""The terms of a loss that depend on the target: its mass p_i = sum_j P_ij and its mean similarity sum_j P_ij z_ij, both
over the candidates j of i.

Where the matrix came from features, the sums over samples commute with the product, and no matrix of targets is made:

    uniform   sum_j z_ij = <x_i, sum_j y_j>            same   sum_{j: l_j = l_i} z_ij = <x_i, sum_{j: l_j = l_i} y_j>

Shapes: b samples of this process, B of all, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, all_reduce_sum, mirrored, own_slice, process_index
from vlmdsl.backends.torch.ops.targets import shares_of
from vlmdsl.backends.torch.partners import partners
from vlmdsl.backends.torch.values import Number, Target, TargetPart, precise

__all__ = ["Expectation", "Shares", "View", "expectation", "shares_of_part"]


class Expectation(NamedTuple):
    """Of one part of a target, its coefficient apart: the mass on the candidates and the mean similarity to them, [b] each,
    and the mass on all samples."""

    mass: Tensor
    similarity: Tensor
    whole: Number = 1.0


class View(NamedTuple):
    """What one direction sees: the matrix [b, B], each sample's similarity to its pair [b], and, where the matrix came from
    features, this process's `own` samples that ask and the `other` ones that are candidates, [b, D].

    Where the matrix is not made (`ops/tiled`), `matrix` stands for its shape, device and dtype, and `expected` holds what
    those parts of the target ask that have no form by features, by their position.
    """

    direction: str
    matrix: Tensor
    pair: Tensor
    own: Tensor | None = None
    other: Tensor | None = None
    expected: Mapping[int, Expectation] | None = None


def expectation(part: TargetPart, view: View, keep: Tensor | None) -> Expectation:
    """The expectation of one part of a target; `keep` [b] are the candidates."""
    if part.kind == "flipped":
        return _of_partner(part.block, view, keep)
    if view.own is None or view.other is None or part.kind == "dense":
        return _of_matrix(part, view, keep)
    kept = torch.ones_like(view.pair) if keep is None else keep.to(view.pair.dtype)
    own, other = precise(view.own), precise(view.other)
    other = other if keep is None else torch.where(keep[:, None], other, 0.0)
    if part.kind == "same":
        return _of_class(part, view.pair, kept, own, other)
    number = view.matrix.shape[1]
    total, count = own @ all_reduce_sum(other.sum(dim=0)), all_reduce_sum(kept.sum())
    if part.kind == "uniform":
        return Expectation((count / number).expand_as(kept), total / number)
    others = max(number - 1, 1)
    pair = view.pair if keep is None else torch.where(keep, view.pair, 0.0)
    return Expectation((count - kept) / others, (total - pair) / others, (number - 1) / others)


def _of_class(part: TargetPart, pair: Tensor, kept: Tensor, own: Tensor, other: Tensor) -> Expectation:
    """Equal shares of all samples with the same label; a class is identified by its first position among the sorted
    labels."""
    assert part.label is not None
    labelled = part.label != part.missing
    everybody = all_gather(part.label)
    start = torch.searchsorted(everybody.sort().values, part.label)
    sums = all_reduce_sum(other.new_zeros(everybody.shape[0], other.shape[1]).index_add(0, start, other))
    counted = torch.stack([kept, torch.ones_like(kept)], dim=1)
    counts = all_reduce_sum(kept.new_zeros(everybody.shape[0], 2).index_add(0, start, counted))[start]
    mass = torch.where(labelled, counts[:, 0] / counts[:, 1], kept)
    expected = torch.where(labelled, (own * sums[start]).sum(dim=-1) / counts[:, 1], torch.where(kept > 0, pair, 0.0))
    return Expectation(mass, expected)


def _of_partner(block: int, view: View, keep: Tensor | None) -> Expectation:
    """The one entry with the sample at the same place of the block read backwards; its process holds it for the columns."""
    samples, batch = view.matrix.shape
    own = torch.arange(samples, device=view.matrix.device) + process_index() * samples
    partner = partners(own, batch, block)
    if view.expected is None:
        entries = precise(view.matrix.gather(1, partner[:, None]).squeeze(1))
        expected = entries if view.direction == "rows" else all_gather(entries)[partner]
    else:
        assert view.own is not None
        assert view.other is not None
        expected = (precise(view.own) * precise(mirrored(view.other, block))).sum(dim=-1)
    if keep is None:
        return Expectation(torch.ones_like(expected), expected)
    kept = all_gather(keep)[partner]
    return Expectation(kept.to(expected.dtype), torch.where(kept, expected, 0.0))


def _of_matrix(part: TargetPart, view: View, keep: Tensor | None) -> Expectation:
    matrix = precise(view.matrix)
    shares = shares_of_part(part, matrix, view.direction, keep)
    if keep is not None:
        matrix = torch.where(_candidates(keep, view.direction), matrix, 0.0)
    return shares.expectation((shares.matrix * matrix).sum(dim=1 if view.direction == "rows" else 0))


class Shares(NamedTuple):
    """A part of a target as a matrix over the candidates, [b, B], the mass of each row or column of it, and that on
    all samples; of columns, what this process's rows hold of them."""

    direction: str
    matrix: Tensor
    mass: Tensor
    whole: Tensor

    def expectation(self, similarity: Tensor) -> Expectation:
        """What is asked, given the sums of the shares times the similarities: [b], or [B] for columns."""
        sums = torch.stack([self.mass, similarity, self.whole], dim=1)
        return Expectation(*(sums if self.direction == "rows" else own_slice(all_reduce_sum(sums))).unbind(dim=1))


def shares_of_part(part: TargetPart, like: Tensor, direction: str, keep: Tensor | None) -> Shares:
    """The shares of one part, its coefficient apart, of a matrix of the shape, device and dtype of `like`."""
    shares = shares_of(Target((part._replace(coefficient=1.0),)), like, direction, None)
    dim = 1 if direction == "rows" else 0
    whole = mass = shares.sum(dim=dim)
    if keep is not None:
        shares = torch.where(_candidates(keep, direction), shares, 0.0)
        mass = shares.sum(dim=dim)
    return Shares(direction, shares, mass, whole)


def _candidates(keep: Tensor, direction: str) -> Tensor:
    """Which entries of a matrix have a candidate, as [1, B] or [b, 1]."""
    return all_gather(keep)[None, :] if direction == "rows" else keep[:, None]
