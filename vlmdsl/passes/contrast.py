"""Recognises contrastive regions, however they are written, and replaces each by one `contrast` node (`ir/contrast.py`).

A loss is read as a linear form over cross-entropies; those over one similarity matrix, with one common learned factor, are
the rows and columns of one region. Everything else is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest

from vlmdsl.ir import Contrast, Direction, Graph, Node, Program, TargetPart
from vlmdsl.ir.operations.reductions import CROSS_ENTROPY
from vlmdsl.passes.fold import RULES
from vlmdsl.passes.linear import Factors, loss_form, reaching
from vlmdsl.passes.logits import Logits, TargetKey, has_canonical_form, logits_of, target_form
from vlmdsl.passes.rewriting import Maker
from vlmdsl.types import LossType, ScoreType

__all__ = ["contrast"]


def contrast(program: Program) -> Program:
    """The program with every contrastive region of every loss as `contrast` nodes; needs `fold` and `share` first."""
    nodes = program.nodes()
    linear = reaching(nodes, has_canonical_form)
    roots = _region_roots(program, nodes, linear)
    recogniser = _Recogniser(Maker(Graph(), RULES), linear)
    for node in nodes:
        recogniser.maker.spans = program.graph.spans_of(node)
        recogniser.take(node, is_root=node in roots)
    return program.mapped(recogniser.maker.graph, recogniser.moved)


def _region_roots(program: Program, nodes: list[Node], linear: set[Node]) -> set[Node]:
    """The losses that are not themselves a summand of a larger linear form."""
    roots = {node for node in program.roots() if node in linear}
    for node in nodes:
        if node not in linear:
            roots.update(parent for parent in node.inputs if parent in linear)
    return {root for root in roots if isinstance(root.type, LossType)}


@dataclass(frozen=True, slots=True)
class _DirectionKey:
    """A direction without its targets: directions with equal keys are merged, by linearity.

    With excluded candidates each target is renormalised separately, which is not linear, so there it is part of the key.
    """

    logits: Logits
    weights: tuple[Node, ...]
    over: Node | None
    without_positive: bool
    target: Node | None


_Targets = dict[TargetKey, Fraction]
_Region = dict[_DirectionKey, _Targets]


class _Recogniser:
    """Copies nodes into a new graph, with the regions of linear roots replaced."""

    def __init__(self, maker: Maker, linear: set[Node]) -> None:
        self.maker = maker
        self.moved: dict[int, Node] = {}
        self._linear = linear

    def take(self, node: Node, *, is_root: bool) -> None:
        region = self._region(node) if is_root else None
        if region is None:
            inputs = [self.moved[parent.index] for parent in node.inputs]
            region = self.maker.copy(node, *inputs)
        self.moved[node.index] = region

    def _region(self, root: Node) -> Node | None:
        form = loss_form(root, self._linear)
        if form is None:
            return None
        regions: dict[tuple[tuple[Node, ...], Node], _Region] = {}
        rest: list[Node] = []
        for atom, factors, coefficient in form:
            if atom.operation is not CROSS_ENTROPY or not has_canonical_form(atom):
                rest.append(self._summand(atom, factors, coefficient))
                continue
            logits, target = logits_of(atom), atom.inputs[1]
            without_positive, alone = atom.string("denominator") == "negatives", target if logits.excluded else None
            key = _DirectionKey(logits, factors.weights, factors.over, without_positive, alone)
            region = regions.setdefault((factors.scalars, logits.base), {})
            targets = region.setdefault(key, {})
            for part, share in target_form(target).items():
                targets[part] = targets.get(part, Fraction(0)) + coefficient * share
        losses = [loss for (scalars, base), region in regions.items() for loss in self._losses(scalars, base, region)]
        return self._sum(losses + rest)

    def _losses(self, scalars: tuple[Node, ...], base: Node, region: _Region) -> list[Node]:
        """The `contrast` nodes of one region: one row and one column direction each."""
        sides: dict[str, list[tuple[_DirectionKey, _Targets]]] = {"rows": [], "columns": []}
        for key, targets in region.items():
            kept = {part: share for part, share in targets.items() if share != 0}
            if kept:
                sides[key.logits.along].append((key, kept))
        losses = []
        for rows, columns in zip_longest(sides["rows"], sides["columns"]):
            inputs = _Inputs(self.maker, self.moved, base)
            attribute = Contrast(
                fused=False,
                rows=None if rows is None else inputs.direction(*rows),
                columns=None if columns is None else inputs.direction(*columns),
            )
            node = self.maker.add("contrast", *inputs.nodes, contrast=attribute)
            losses.append(self._scaled(node, scalars, Fraction(1)))
        return losses

    def _summand(self, atom: Node, factors: Factors, coefficient: Fraction) -> Node:
        """A summand other than a cross-entropy."""
        term = self.moved[atom.index]
        if isinstance(atom.type, ScoreType):
            for weight in factors.weights:
                term = self.maker.add("multiply", term, self.moved[weight.index])
            over = () if factors.over is None else (self.moved[factors.over.index],)
            term = self.maker.add("mean", term, *over)
        return self._scaled(term, factors.scalars, coefficient)

    def _scaled(self, node: Node, scalars: tuple[Node, ...], coefficient: Fraction) -> Node:
        for scalar in scalars:
            node = self.maker.add("multiply", node, self.moved[scalar.index])
        return self.maker.add("multiply", node, self.maker.constant(float(coefficient)))

    def _sum(self, summands: list[Node]) -> Node:
        total = summands[0] if summands else self.maker.constant(0.0)
        for summand in summands[1:]:
            total = self.maker.add("add", total, summand)
        return total


class _Inputs:
    """The inputs of one `contrast` node under construction; equal ones take one position."""

    def __init__(self, maker: Maker, moved: dict[int, Node], base: Node) -> None:
        self.nodes: list[Node] = [moved[base.index]]
        self._maker = maker
        self._moved = moved

    def direction(self, key: _DirectionKey, targets: _Targets) -> Direction:
        total = sum(targets.values()) or Fraction(1)
        return Direction(
            coefficient=float(total),
            targets=tuple(self._target(part, share / total) for part, share in sorted(targets.items(), key=_part_order)),
            scale=self._position(key.logits.scale_node(self._maker, self._moved)),
            bias=self._position(key.logits.bias_node(self._maker, self._moved)),
            weight=self._position(self._product(key.weights)),
            over=self._position(None if key.over is None else self._moved[key.over.index]),
            keep=self._position(key.logits.keep_node(self._maker, self._moved)),
            without_positive=key.without_positive,
        )

    def _target(self, part: TargetKey, share: Fraction) -> TargetPart:
        position = None if part.node is None else self._position(self._moved[part.node.index])
        return TargetPart(part.kind, float(share), position, part.missing)

    def _product(self, weights: tuple[Node, ...]) -> Node | None:
        product: Node | None = None
        for weight in weights:
            copied = self._moved[weight.index]
            product = copied if product is None else self._maker.add("multiply", product, copied)
        return product

    def _position(self, node: Node | None) -> int | None:
        if node is None:
            return None
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node)


def _part_order(item: tuple[TargetKey, Fraction]) -> tuple[int, int]:
    kinds = ("paired", "same", "uniform", "others", "dense")
    return kinds.index(item[0].kind), -1 if item[0].node is None else item[0].node.index
