"""The logarithm of a softmax at its targets: over one matrix, or over the columns of several side by side.

Where columns are not candidates, a target is a distribution over the others: what is left of it, N_i, divides its shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vlmdsl.backends.latex.columns import Columns
from vlmdsl.backends.latex.entries import has_two_sides, positives
from vlmdsl.backends.latex.interface import Part, Writer
from vlmdsl.backends.latex.notation import (
    PRODUCT,
    Math,
    bracketed,
    call,
    fraction,
    log,
    negated,
    number,
    product,
    readable,
    sum_over,
    total,
)
from vlmdsl.ir import Node
from vlmdsl.ir.operations.matrices import UNITE
from vlmdsl.passes.logits import target_form
from vlmdsl.primitives.criteria import target_total
from vlmdsl.types import TargetType

__all__ = ["Block", "indicator", "part", "parts_of", "renormaliser", "softmax_loss"]

Softmax = Callable[["Block", str, str], Math]
"""The logarithm of the softmax of a block at one candidate, the sums running over another index."""


@dataclass(frozen=True, slots=True)
class Block:
    """The columns of one kind, and the target's parts on them."""

    columns: Columns
    parts: tuple[Part, ...]


def part(kind: str, coefficient: float, node: Node | None, missing: int, side: str) -> Part:
    """A part of a target as `side` reads it."""
    two = kind == "dense" and node is not None and has_two_sides(node)
    return Part(kind, coefficient, node, missing, side if two else "rows")


def parts_of(target: Node, side: str) -> list[tuple[Part, ...]]:
    """For each kind of columns that a target speaks of, what it says as a sum of the kinds that have a name of their own."""
    assert isinstance(target.type, TargetType)
    by_block: list[list[Part]] = [[] for _ in target.type.columns.split("+")]
    for key, share in target_form(target).items():
        own = part(key.kind, float(share), key.node, key.missing, side)
        if key.node is not None and key.node.operation is UNITE:
            halves = [parts for half in key.node.inputs for parts in parts_of(half, side)]
            for block, parts in enumerate(halves):
                by_block[block] += [replace(of, coefficient=of.coefficient * float(share)) for of in parts]
            continue
        for block, parts_of_block in enumerate(by_block):
            parts_of_block.append(replace(own, block=block))
    return [tuple(parts) for parts in by_block]


def softmax_loss(writer: Writer, blocks: Sequence[Block], without_positive: bool, *, asking: Sequence[Math] = ()) -> Math:
    """Minus the logarithm of the softmax over all blocks, at the targets of each; `without_positive` leaves out the pair.

    Sample i is known to be in the sets `asking`.
    """

    def softmax(block: Block, positive: str, candidate: str) -> Math:
        sums = [
            other.columns.exponentials(candidate, but_pair=without_positive and position == 0)
            for position, other in enumerate(blocks)
        ]
        return log(fraction(_exp(block.columns.entry(positive)), total(*sums)))

    targeted = [block for block in blocks if block.parts]
    if any(block.columns.restricted for block in targeted):
        return negated(_among_candidates(writer, targeted, softmax, asking))
    return negated(total(*(_at_targets(writer, block, softmax) for block in targeted)))


def _at_targets(writer: Writer, block: Block, softmax: Softmax) -> Math:
    """The logarithms of one block, each with its share of the target."""
    first = block.parts[0]
    if _is_pair(block):
        return _times(first.coefficient, softmax(block, "i", "j"))
    members = _class_of(writer, block)
    if members is not None:
        share = fraction(number(1.0), Math(f"|{members.latex}|", f"|{members.text}|"))
        summand = product(share, sum_over("j", softmax(block, "j", "k"), rf"j \in {members.latex}"))
        return Math(summand.latex, summand.text, PRODUCT, summand.negative)
    return sum_over("j", product(writer.target(block.parts), softmax(block, "j", "k")), block.columns.among("j"))


def _among_candidates(writer: Writer, blocks: Sequence[Block], softmax: Softmax, asking: Sequence[Math]) -> Math:
    """The logarithms at the targets, as a distribution over the candidates."""
    first = blocks[0]
    if len(blocks) == 1 and _is_pair(first):
        if first.columns.without_pairs:
            return number(0.0)
        where = indicator([members for members in first.columns.sets if members not in asking])
        body = _times(first.parts[0].coefficient, softmax(first, "i", "j"))
        return body if where is None else product(where, body)
    members = _class_of(writer, first) if len(blocks) == 1 else None
    if members is not None:
        left = sum_over("k", number(1.0), first.columns.among("k", besides=(members,)))
        summed = sum_over("j", softmax(first, "j", "k"), first.columns.among("j", besides=(members,)))
        return product(fraction(number(1.0), writer.mass(left)), summed)
    sums = [
        sum_over("j", product(writer.target(block.parts), softmax(block, "j", "k")), block.columns.among("j"))
        for block in blocks
    ]
    summed = sums[0] if len(sums) == 1 else bracketed(total(*sums), "[]", "[]")
    return product(renormaliser(writer, blocks), summed)


def renormaliser(writer: Writer, blocks: Sequence[Block]) -> Math:
    """What shares of a target are multiplied with to make a distribution over the candidates of it."""
    entries = [_at(writer.target(block.parts), "k") for block in blocks]
    left = [sum_over("k", entry, block.columns.among("k")) for entry, block in zip(entries, blocks, strict=True)]
    wholes = [_whole(of) for block in blocks for of in block.parts]
    computed = [whole for whole in wholes if whole is not None]
    if len(computed) == len(wholes):
        whole = number(round(sum(computed), 9))
    else:
        memory = [block.columns.memory for block in blocks]
        whole = total(*(sum_over("k", entry, "k" if of else "") for entry, of in zip(entries, memory, strict=True)))
    return fraction(whole, writer.mass(total(*left)))


def indicator(members: Sequence[Math]) -> Math | None:
    """1 where sample i is in all of these sets, else 0; None for no set."""
    if not members:
        return None
    conditions = ", ".join(rf"i \in {one.latex}" for one in members)
    return Math(f"[{conditions}]", f"[{readable(conditions)}]")


def _whole(of: Part) -> float | None:
    """What a part sums to, over all kinds of columns at the first."""
    if of.block:
        return 0.0
    inner = 1.0 if of.kind != "dense" or of.node is None else target_total(of.node)
    return None if inner is None else of.coefficient * inner


def _is_pair(block: Block) -> bool:
    return len(block.parts) == 1 and block.parts[0].kind == "paired"


def _class_of(writer: Writer, block: Block) -> Math | None:
    """The samples of the class of sample i, where they are all that a block asks for."""
    first = block.parts[0]
    if len(block.parts) > 1 or first.kind != "same" or first.coefficient != 1.0 or first.node is None:
        return None
    return positives(writer, first.node, first.missing)


def _times(coefficient: float, inner: Math) -> Math:
    return inner if coefficient == 1.0 else product(number(coefficient), inner)


def _at(entry: Math, index: str) -> Math:
    """Entry (i, j) at another column."""
    return Math(entry.latex.replace("{ij}", f"{{i{index}}}"), entry.text.removesuffix("ij") + f"i{index}", entry.level)


def _exp(inner: Math) -> Math:
    return call("exp", inner, latex=r"\exp")
