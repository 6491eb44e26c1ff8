"""The digest of a program's meaning: equal for recipes that differ only in layout, names of `let`s or order of a sum.

It includes what is observable: the names of fields, towers and terms. Parameters and states count by their start
value, bounds and order of use, not by name. Programs that are equal in a less obvious way may have different digests; those
of optimised programs are equal more often.
"""

from __future__ import annotations

import hashlib
from dataclasses import Field, fields, is_dataclass

from vlmdsl.ir.node import Node, walk
from vlmdsl.ir.program import MIXED, Program, Update

__all__ = ["digest"]


def digest(*programs: Program) -> str:
    """SHA-256, in hexadecimal, of the meaning of a program, or of those of all flows of a recipe, in their order."""
    return _digest(programs[0]) if len(programs) == 1 else _sha("programs", *map(_digest, programs))


def _digest(program: Program) -> str:
    roots = _roots(program)
    anonymous = _hashes(program, {})
    numbers = _numbers(roots, anonymous)
    final = _hashes(program, numbers)
    terms = (f"{term.name}={final[term.node.index]}" for term in program.terms)
    updates = sorted(_update(update, final) for update in program.updates)
    policy = [] if program.batch_policy == MIXED else [f"batch {program.batch_policy}"]
    return _sha("program", *terms, *updates, *policy)


def _update(update: Update, hashes: dict[int, str]) -> str:
    """The meaning of an update, and of its moment if that is not every step."""
    later = "" if update.when == "step" else f" after every {update.when}"
    return f"{hashes[update.state.index]} becomes {hashes[update.node.index]}{later}"


def _roots(program: Program) -> list[Node]:
    return [term.node for term in program.terms] + [update.node for update in program.updates]


def _hashes(program: Program, numbers: dict[int, int]) -> dict[int, str]:
    """The hash of the meaning of every node; `numbers` distinguish parameters and states."""
    hashes: dict[int, str] = {}
    for node in walk(_roots(program)):
        inputs = [hashes[parent.index] for parent in node.inputs]
        if node.operation.commutative:
            inputs.sort()
        attributes = [
            f"{name}={_canonical(value)}" for name, value in node.attributes if not (node.operation.named and name == "name")
        ]
        number = [f"number={numbers[node.index]}"] if node.index in numbers else []
        hashes[node.index] = _sha(node.operation, str(node.type), *attributes, *number, "inputs", *inputs)
    return hashes


def _numbers(roots: list[Node], hashes: dict[int, str]) -> dict[int, int]:
    """Parameters and states numbered in order of first use; the operands of a sum are met in the order of their hashes."""
    numbers: dict[int, int] = {}
    seen: set[int] = set()
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node.index in seen:
            continue
        seen.add(node.index)
        if node.operation.named:
            numbers[node.index] = len(numbers)
        inputs = list(node.inputs)
        if node.operation.commutative:
            inputs.sort(key=lambda parent: hashes[parent.index])
        stack.extend(reversed(inputs))
    return numbers


def _canonical(value: object) -> str:
    """A text of an attribute that is independent of how Python prints it; 1 and 1.0 are equal."""
    if is_dataclass(value) and not isinstance(value, type):
        values = [(field, getattr(value, field.name)) for field in fields(value)]
        parts = [f"{field.name}={_canonical(own)}" for field, own in values if not _is_left_out(field, own)]
        return f"{type(value).__name__}({','.join(parts)})"
    if isinstance(value, tuple):
        return "(" + ",".join(map(_canonical, value)) + ")"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value).hex()
    return repr(value)


def _is_left_out(field: Field[object], value: object) -> bool:
    """Whether a field has its default and is younger than digests that runs hold, which must stay as they are."""
    return bool(field.metadata.get("added_later")) and value == field.default


def _sha(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()
