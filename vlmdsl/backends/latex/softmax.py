"""The logarithm of a softmax at its targets: over one matrix, or over the columns of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmdsl.backends.latex.entries import has_two_sides, positives
from vlmdsl.backends.latex.interface import Part, Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, call, fraction, log, negated, number, product, sum_over, total
from vlmdsl.ir import Node
from vlmdsl.passes.logits import target_form

__all__ = ["Block", "softmax_loss", "part", "parts_of"]


@dataclass(frozen=True, slots=True)
class Block:
    """The candidates of one matrix: `logit(candidate)` of sample i, the sets they belong to, the target's parts on them."""

    logit: Callable[[str], Math]
    members: Sequence[Math]
    without_pairs: bool
    parts: tuple[Part, ...]

    def exponentials(self, candidate: str, without_pairs: bool) -> Math:
        """The sum of the exponentials of all logits."""
        conditions = [rf"{candidate} \in {members.latex}" for members in self.members]
        conditions += [rf"{candidate} \neq i"] if without_pairs or self.without_pairs else []
        return sum_over(candidate, _exp(self.logit(candidate)), ", ".join(conditions))


def part(kind: str, coefficient: float, node: Node | None, missing: int, side: str) -> Part:
    """A part of a target as `side` reads it."""
    two = kind == "dense" and node is not None and has_two_sides(node)
    return Part(kind, coefficient, node, missing, side if two else "rows")


def parts_of(target: Node, side: str) -> tuple[Part, ...]:
    """A target as a sum of the kinds that have a name of their own."""
    return tuple(part(key.kind, float(share), key.node, key.missing, side) for key, share in target_form(target).items())


def softmax_loss(writer: Writer, blocks: Sequence[Block], without_positive: bool) -> Math:
    """Minus the logarithm of the softmax over all blocks, at the targets of each; `without_positive` leaves out the pair."""

    def softmax(block: Block, positive: str, candidate: str) -> Math:
        sums = [other.exponentials(candidate, without_positive and position == 0) for position, other in enumerate(blocks)]
        return log(fraction(_exp(block.logit(positive)), total(*sums)))

    losses = [_at_targets(writer, block, softmax) for block in blocks if block.parts]
    return negated(total(*losses))


def _at_targets(writer: Writer, block: Block, softmax: Callable[[Block, str, str], Math]) -> Math:
    """The logarithms of one block, each with its share of the target."""
    first = block.parts[0]
    if len(block.parts) == 1 and first.kind == "paired":
        share = number(first.coefficient)
        return softmax(block, "i", "j") if first.coefficient == 1.0 else product(share, softmax(block, "i", "j"))
    if len(block.parts) == 1 and first.kind == "same" and first.coefficient == 1.0 and first.node is not None:
        members = positives(writer, first.node, first.missing)
        share = fraction(number(1.0), Math(f"|{members.latex}|", f"|{members.text}|"))
        summed = sum_over("j", softmax(block, "j", "k"), rf"j \in {members.latex}")
        found = product(share, summed)
        return Math(found.latex, found.text, PRODUCT, found.negative)
    return sum_over("j", product(writer.target(block.parts), softmax(block, "j", "k")))


def _exp(inner: Math) -> Math:
    return call("exp", inner, latex=r"\exp")
