"""Ways to compare two streams: the matrix of all pairs, and the score of each sample's own pair.

An implementation takes this process's features x and everybody's features y (gathered already) and gives [b, B]: one matrix,
or a pair (rows, columns) where the two directions read different ones. Plug-ins add theirs with `@vlmdsl.primitive`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import all_gather, process_index, transposed
from vlmdsl.backends.torch.ops.product import product
from vlmdsl.backends.torch.ops.token_selection import kept_tokens, largest_similarities
from vlmdsl.backends.torch.values import Gathered, Memory, Similarities, TokenFeatures, precise
from vlmdsl.primitives.plugins.function import implementation

__all__ = ["both", "exclude", "gather", "reuse", "score", "similarity", "similarity_to", "transpose"]

Features: TypeAlias = Tensor | TokenFeatures
MatrixFunction: TypeAlias = Callable[..., Tensor | tuple[Tensor, Tensor]]
PairFunction: TypeAlias = Callable[..., Tensor]


class _Implementation(NamedTuple):
    """How to make the matrix, and, where it is cheaper, each sample's own pair: [b]; else that is the matrix's diagonal.

    What depends on the whole batch, if arguments say so, is made by `of_batch` of this process's x and y.
    """

    matrix: MatrixFunction
    pairs: PairFunction | None = None
    of_batch: MatrixFunction | None = None


def _implementation(by: str) -> _Implementation:
    """The built-in implementation, or that of a plug-in (`@vlmdsl.primitive`)."""
    return _BUILT_IN.get(by) or _Implementation(implementation(by))


def gather(features: Features) -> Gathered:
    """The features with those of all processes, for several readers."""
    if isinstance(features, Tensor):
        return Gathered(features, all_gather(features))
    mask = None if features.mask is None else all_gather(features.mask)
    return Gathered(features, TokenFeatures(all_gather(features.values), mask))


def both(features: Features | Gathered) -> Gathered:
    """Features with those of all processes, gathered here unless they already are."""
    return features if isinstance(features, Gathered) else gather(features)


def similarity(x: Features, y: Features | Gathered | Memory, by: str, **arguments: Any) -> Similarities:
    """This process's x against everybody's y, or against the entries of a memory."""
    if isinstance(y, Memory):
        assert isinstance(x, Tensor)
        entries = torch.where(y.filled[:, None], y.values, 0.0)
        matrix = _implementation(by).matrix(x, entries.to(x.dtype), **arguments)
        assert isinstance(matrix, Tensor), f"{by} has two matrices, which a memory of pooled features cannot have"
        return Similarities(matrix, matrix, filled=y.filled)
    y = both(y)
    if arguments and (of_batch := _implementation(by).of_batch) is not None:
        return Similarities(*of_batch(x, y, **arguments))
    return similarity_to(x, y.everybody, by, **arguments)


def similarity_to(x: Features, y: Features, by: str, **arguments: Any) -> Similarities:
    """Every x against every y, without other processes, for evaluation.

    What arguments choose by the whole batch, such as tokens, is not chosen here: all are compared.
    """
    implementation = _implementation(by)
    matrices = implementation.matrix(x, y, **(arguments if implementation.of_batch is None else {}))
    return Similarities(matrices, matrices) if isinstance(matrices, Tensor) else Similarities(*matrices)


def score(x: Features, y: Features, by: str, **arguments: Any) -> Tensor:
    """The similarity of each sample's own pair: [b]; of two matrices, the rows'."""
    implementation = _implementation(by)
    if arguments and implementation.of_batch is not None:
        return _pairs(implementation.of_batch(x, y, **arguments)[0])
    if implementation.pairs is not None:
        return implementation.pairs(x, y, **arguments)
    matrices = implementation.matrix(x, y, **arguments)
    return precise((matrices if isinstance(matrices, Tensor) else matrices[0]).diagonal())


def _pairs(matrix: Tensor) -> Tensor:
    """Each sample's entry with itself, of this process's rows against everybody's columns: [b]."""
    return precise(matrix.diagonal(process_index() * matrix.shape[0]))


def transpose(matrix: Similarities) -> Similarities:
    """Rows become columns: [b, B] again, so processes exchange the blocks that they hold of each other's columns."""
    rows = transposed(matrix.columns)
    allowed = None if matrix.allowed is None else transposed(matrix.allowed)
    return Similarities(rows, rows if matrix.symmetric else transposed(matrix.rows), matrix.candidates, allowed)


def reuse(similarities: Similarities, matrix: str) -> Similarities:
    """Both directions read the matrix of the direction `matrix`: `rows` or `columns`."""
    chosen = similarities.rows if matrix == "rows" else similarities.columns
    return similarities._replace(rows=chosen, columns=chosen)


def exclude(matrix: Similarities, condition: Tensor) -> Similarities:
    """The same similarities; samples for which the condition holds are candidates in neither direction."""
    kept = ~condition
    return matrix._replace(candidates=kept if matrix.candidates is None else matrix.candidates & kept)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return product(x, y)


def _dot_pairs(x: Tensor, y: Tensor) -> Tensor:
    return (precise(x) * precise(y)).sum(dim=-1)


def _euclidean(x: Tensor, y: Tensor, reduction: str = "sum") -> Tensor:
    """Minus the squared distance, from one product; rounding cannot make it positive."""
    lengths = precise(x).square().sum(dim=-1)[:, None] + precise(y).square().sum(dim=-1)[None, :]
    distances = (2.0 * precise(product(x, y)) - lengths).clamp(max=0.0)
    return distances / x.shape[-1] if reduction == "mean" else distances


def _euclidean_pairs(x: Tensor, y: Tensor, reduction: str = "sum") -> Tensor:
    squares = (precise(x) - precise(y)).square()
    return -(squares.mean(dim=-1) if reduction == "mean" else squares.sum(dim=-1))


def _tokenmax(
    x: TokenFeatures, y: TokenFeatures, x_kept: Tensor | None = None, y_kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rows: the mean over real x tokens of their best real y token; columns: over real y tokens of their best real x token.

    The winner of each maximum is one token (ties go to one of them), one of those that are kept: [b, P] and [B, L], None for
    all that are real. Padding neither wins nor counts; a sample without any token scores 0.
    """
    x_kept, y_kept = x.mask if x_kept is None else x_kept, y.mask if y_kept is None else y_kept
    values = torch.einsum("ipd,jld->ijpl", x.values, y.values)
    best_y = _maximum(values, None if y_kept is None else y_kept[None, :, None, :], dim=3)
    best_x = _maximum(values, None if x_kept is None else x_kept[:, None, :, None], dim=2)
    rows = _mean(best_y, None if x.mask is None else x.mask[:, None, :])
    columns = _mean(best_x, None if y.mask is None else y.mask[None, :, :])
    return rows, columns


def _tokenmax_of_kept(x: TokenFeatures, y: Features | Gathered, **selection: Any) -> tuple[Tensor, Tensor]:
    """As `_tokenmax`, where only the most similar tokens of each sample may be a best partner."""
    own, everybody = both(y)
    assert isinstance(own, TokenFeatures)
    assert isinstance(everybody, TokenFeatures)
    return _tokenmax(x, everybody, *kept_tokens(x, own, everybody, largest=largest_similarities, **selection))


def _tokenmax_pairs(x: TokenFeatures, y: TokenFeatures) -> Tensor:
    values = torch.einsum("ipd,ild->ipl", x.values, y.values)
    return _mean(_maximum(values, None if y.mask is None else y.mask[:, None, :], dim=2), x.mask)


def _tokenmean(x: TokenFeatures, y: TokenFeatures) -> Tensor:
    return product(_mean_token(x), _mean_token(y))


def _tokenmean_pairs(x: TokenFeatures, y: TokenFeatures) -> Tensor:
    return (precise(_mean_token(x)) * precise(_mean_token(y))).sum(dim=-1)


def _mean_token(features: TokenFeatures) -> Tensor:
    """The mean of the real tokens, in the features' dtype: [b, D]; 0 where there is none."""
    values = precise(features.values).transpose(1, 2)
    return _mean(values, None if features.mask is None else features.mask[:, None, :]).to(features.values.dtype)


def _maximum(values: Tensor, real: Tensor | None, dim: int) -> Tensor:
    """The maximum over the real entries, without `dim`; 0 where none is real."""
    if real is None:
        return values.max(dim=dim).values
    best = values.masked_fill(~real, -torch.inf).max(dim=dim).values
    return torch.where(real.any(dim=dim), best, torch.zeros_like(best))


def _mean(values: Tensor, real: Tensor | None) -> Tensor:
    """The mean over the real entries of the last axis, in float32 at least; 0 where none is real."""
    values = precise(values)
    if real is None:
        return values.mean(dim=-1)
    count = real.sum(dim=-1).clamp(min=1)
    return values.masked_fill(~real, 0.0).sum(dim=-1) / count


_BUILT_IN: dict[str, _Implementation] = {
    "dot": _Implementation(_dot, _dot_pairs),
    "euclidean": _Implementation(_euclidean, _euclidean_pairs),
    "tokenmax": _Implementation(_tokenmax, _tokenmax_pairs, _tokenmax_of_kept),
    "tokenmean": _Implementation(_tokenmean, _tokenmean_pairs),
}
