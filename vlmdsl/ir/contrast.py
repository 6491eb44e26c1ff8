"""The canonical form of a contrastive region (PERFORMANCE section 3.1), as attributes of one `contrast` node.

    L = sum over the directions of  coefficient * mean_i  u_i ( p_i r_i - sum_j P_ij A_ij ),    A_ij = a z_ij + b

with r_i the log-sum-exp of A over the columns (rows for the column direction) and P a distribution over the candidates:
shares of excluded ones go to the others in proportion; a sample whose target is entirely excluded has loss 0. A `contrast`
node has the inputs named by the integers below (positions in `node.inputs`); inputs 0 and 1 are the two feature nodes if
`fused` is true (the region owns the matrix product), else input 0 is the similarity node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Contrast", "Direction", "TargetPart"]


@dataclass(frozen=True, slots=True)
class TargetPart:
    """One summand of a target matrix.

    `paired`: 1 at (i, i). `same`: 1/n_i where the labels of i and j are equal (`input` is the label, `missing` the marker
    that equals nothing but itself). `uniform`: 1/N everywhere. `others`: 1/(N-1) everywhere but at (i, i).
    `dense`: a matrix given by `input`.
    """

    kind: Literal["paired", "same", "uniform", "others", "dense"]
    coefficient: float
    input: int | None = None
    missing: int = -1


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction: rows select among columns, or columns among rows."""

    coefficient: float
    """Multiplies the mean over samples: 1/2 each in CLIP, 1 each in ALIGN."""
    targets: tuple[TargetPart, ...]
    scale: int | None = None
    """Input that multiplies the similarity: a Scalar or a Score; None for 1."""
    bias: int | None = None
    """Input added to every logit: a Scalar; None for 0."""
    weight: int | None = None
    """Input that multiplies each sample's loss: a Score; None for 1."""
    over: int | None = None
    """Condition: the mean is over the samples where it holds (none: 0); None for all."""
    keep: int | None = None
    """Condition of the candidates: where it fails, a sample is not a candidate in this direction; None for all."""
    without_positive: bool = False
    """Whether the pair itself is left out of the log-sum-exp (the decoupled loss)."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The attribute `contrast` of a `contrast` node; a missing direction is None."""

    fused: bool
    rows: Direction | None
    columns: Direction | None
