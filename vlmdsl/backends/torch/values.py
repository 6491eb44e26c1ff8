"""The run-time values of types that need more than one tensor.

Shape letters, here and in `ops`: B samples of the global batch, b samples of this process, D features, L and P tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

__all__ = [
    "Gathered",
    "Memory",
    "Number",
    "Picks",
    "PredictedTokens",
    "Products",
    "Similarities",
    "Table",
    "Target",
    "TargetPart",
    "TokenFeatures",
    "WordMap",
    "of_one_precision",
    "precise",
    "times",
    "total",
]

Number: TypeAlias = float | Tensor
"""A Scalar: a 0-d tensor, or a Python number if the recipe has a constant."""
N = TypeVar("N", bound=Number)


class TokenFeatures(NamedTuple):
    """Several vectors per sample, `values` [b, L, D]; `mask` [b, L] is true where there is a token, None where all are."""

    values: Tensor
    mask: Tensor | None = None


class WordMap(NamedTuple):
    """Which words name each region, `words` [b, R, L], bool; `tokens` [b, L] is true where there is a word, `regions` [b, R]
    where there is a region, None where all are. Of points that boxes are assigned to, `boxed` [b, R] is true where there is
    one, named or not."""

    words: Tensor
    tokens: Tensor | None = None
    regions: Tensor | None = None
    boxed: Tensor | None = None


class PredictedTokens(NamedTuple):
    """What is predicted of tokens, `values`: their logits [b, L, V], or the states [b, L, W] that these are a product of;
    and what the tokens are, negative where one does not count: the `targets` [b, L] that a mask selected, all `ids` [b, L],
    the `next` token of each; of these what is read.

    No criterion of selected tokens depends on the row of a token, so all may hold those only, in any order.
    """

    values: Tensor
    targets: Tensor | None
    ids: Tensor | None = None
    next: Tensor | None = None


class Gathered(NamedTuple):
    """Features of this process's samples, `own`, and those of `everybody`, gathered once for all readers."""

    own: Tensor | TokenFeatures
    everybody: Tensor | TokenFeatures


class Memory(NamedTuple):
    """Unit vectors of earlier steps, `values` [Q, D], or their labels [Q], or images [Q, 3, H, W] or ids of texts [Q, L]
    with their `mask`, the same on every process; `written` (0-d) have entered so far.

    The next takes slot `written` modulo Q, so a slot is filled if its number is less than `written`.
    """

    values: Tensor
    written: Tensor
    mask: Tensor | None = None

    @property
    def filled(self) -> Tensor:
        """Which slots have been written: [Q]."""
        return torch.arange(self.values.shape[0], device=self.values.device) < self.written


class Table(NamedTuple):
    """A column of the reference set, `values` [R, D], and the `keys` [R] of its samples; the same on every process.

    `handle` (0-d, on the CPU) is that of the faiss index that finds its entries; None: they are compared in torch.
    """

    values: Tensor
    keys: Tensor
    handle: Tensor | None = None


class Picks(NamedTuple):
    """Entries of the reference set, or samples of the global batch, `indices` [b, K], best or first drawn first; `real`
    [b, K] is false where there were fewer."""

    indices: Tensor
    real: Tensor


class Similarities(NamedTuple):
    """This process's rows against everybody's columns.

    `rows` [b, B] is what the row direction reads, `columns` [b, B] what the column direction reads; `columns is rows` for
    a similarity with one matrix. `candidates` [b] is false for samples of this process that are candidates in neither
    direction (None: all are); they stay out of every log-sum-exp, while the matrices keep finite numbers. `allowed` [b, B]
    is false for single entries that are not candidates (None: all are). Where columns stand side by side, N = 2B, 3B, ...
    takes the place of B and there is no column direction.

    Where the columns are the Q entries of a memory, both matrices are one, [b, Q], and `filled` [Q] is true for the entries
    that have been written.
    """

    rows: Tensor
    columns: Tensor
    candidates: Tensor | None = None
    allowed: Tensor | None = None
    filled: Tensor | None = None

    @property
    def symmetric(self) -> bool:
        """Whether both directions read the same matrix."""
        return self.columns is self.rows

    @property
    def complete(self) -> bool:
        """Whether every entry is certainly a candidate, independent of the data."""
        return self.candidates is None and self.allowed is None and self.filled is None


class Products(NamedTuple):
    """Similarities `scale * <x_i, y_j> + bias` of which no matrix is made (`ops/tiled`), of this process's x [b, D] and
    everybody's y [B, D]; scale and bias are 0-d, `candidates` as of `Similarities`."""

    x: Tensor
    y: Tensor
    scale: Tensor
    bias: Tensor
    candidates: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Products:
        """The products themselves."""
        zero = precise(x.new_zeros(()))
        return cls(x, y, zero + 1.0, zero)

    @property
    def like(self) -> Tensor:
        """Stands for the matrix [b, B], in float32 at least: its shape and device, with one number in memory."""
        return torch.zeros_like(self.scale).expand(self.x.shape[0], self.y.shape[0])

    def times(self, factor: Number) -> Products:
        """All of them times a number."""
        return self._replace(scale=self.scale * factor, bias=self.bias * factor)

    def plus(self, summand: Number) -> Products:
        """A number added to all of them."""
        return self._replace(bias=self.bias + summand)


class TargetPart(NamedTuple):
    """One summand `coefficient * P` of a target; the kinds are those of `ir.TargetPart`, and `flipped`. A coefficient [b]
    multiplies each sample's own distribution, in both directions.

    `label` [b] belongs to `same`, as `earlier` does, a memory of labels, and `block` to `flipped`. `matrices` belongs to
    `dense`: given a similarity matrix, [b, B] or wider, for its rows and dtype it makes P for each direction, of its own
    width, so that nothing of that size is made before it is needed.
    """

    kind: str
    coefficient: Number = 1.0
    label: Tensor | None = None
    missing: int = -1
    earlier: Memory | None = None
    matrices: Callable[[Tensor], Similarities] | None = None
    block: int = 0


class Target(NamedTuple):
    """A target: the sum of its parts."""

    parts: tuple[TargetPart, ...]


def precise(values: Tensor) -> Tensor:
    """The same numbers in the precision of every statistic: float64 stays, everything else becomes float32."""
    return values if values.dtype is torch.float64 else values.float()


def of_one_precision(*values: Tensor) -> list[Tensor]:
    """The same numbers, all in float64 if any of them are, otherwise in float32."""
    widest = torch.float64 if any(value.dtype is torch.float64 for value in values) else torch.float32
    return [value.to(widest) for value in values]


def times(values: Tensor, factor: Number) -> Tensor:
    """Their product; the factor 1.0 of a recipe costs no operation."""
    return values if isinstance(factor, float) and factor == 1.0 else values * factor


def total(values: Sequence[N]) -> N:
    """The sum of one number or tensor, or more."""
    return reduce(add, values)
