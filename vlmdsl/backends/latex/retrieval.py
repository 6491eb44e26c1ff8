"""Retrieval from a reference set as mathematics: the retrieved samples, and attention to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from vlmdsl.backends.latex.draws import State
from vlmdsl.backends.latex.notation import PRODUCT, Math, call, total, words
from vlmdsl.ir import Column, Node, column_of
from vlmdsl.ir.operations.reference import TAKE

__all__ = ["attended"]

Made: TypeAlias = Callable[[Node, str], Math]
"""What a feature vector of the sample of an index is made of."""


Lettered: TypeAlias = Callable[[str, object], Math]
"""The letter for one thing of a kind, always the same for it."""


def attended(written_out: Made, state: State, lettered: Lettered, node: Node, index: str) -> Math:
    """A vector plus the weighted mean of what it attends to, for each of the values."""
    query = written_out(node.inputs[0], index)
    key, *values = (_of_many(written_out, state, lettered, parent, index) for parent in node.inputs[1:])
    letter = lettered("attention", node.inputs[:2])
    weight = Math(rf"{letter.latex}_{{{index} k}}", f"{letter.text}_{index}k")
    latex = rf"{weight.latex} = \mathrm{{softmax}}_{{k}} \left( {query.latex}^{{\top}} {key.latex} / \sqrt{{D}} \right)"
    state("features", Math(latex, f"{weight.text} = softmax_k({query.text}·{key.text}/√D)"))
    added = total(*values)
    brackets = len(values) > 1
    latex = rf"\sum_{{k}} {weight.latex} " + (rf"\left( {added.latex} \right)" if brackets else added.latex)
    text = f"Σ_k {weight.text} " + (f"({added.text})" if brackets else added.text)
    return total(query, Math(latex, text, PRODUCT))


def _of_many(written_out: Made, state: State, lettered: Lettered, tokens: Node, index: str) -> Math:
    """The k-th of the vectors that are attended to: of a found sample, or a token."""
    if tokens.operation is not TAKE:
        return written_out(tokens, index)
    column, picks = column_of(tokens.inputs[0]), tokens.inputs[1]
    letter = lettered("found", picks)
    sample = Math(rf"{letter.latex}_{{{index} k}}", f"{letter.text}_{index}k")
    searched = _column(column_of(picks.inputs[1]), Math("r", "r"))
    query = written_out(picks.inputs[0], index)
    size = f"{int(picks.number('k'))}"
    said = words(f"the k-th of the {size} other reference samples r with the largest").latex
    latex = rf"{sample.latex}\ {said}\ \cos\left( {query.latex}, {searched.latex} \right)"
    cosine = f"cos({query.text}, {searched.text})"
    text = f"{sample.text}: the k-th of the {size} other reference samples r with the largest {cosine}"
    state("features", Math(latex, text))
    state("parameters", words(f"{column.encoder.tower} frozen"))
    return _column(column, sample)


def _column(column: Column, sample: Math) -> Math:
    """What a column holds of a reference sample."""
    tower, field = words(column.encoder.tower), words(column.field)
    value = Math(rf"{field.latex}_{{{sample.latex}}}", f"{field.text}_{sample.text}")
    return call(tower.text, value, latex=tower.latex)
