"""The digest of a program's meaning: equal for recipes that differ only in layout, names of `let`s or order of a sum.

What another reader can observe takes part: the names of fields, towers and terms. Parameters count by their start value,
bounds and order of use, not by name. Two programs that mean the same in a less obvious way may have different digests;
digests of optimised programs are equal more often.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass

from vlmdsl.ir.graph import Node, walk
from vlmdsl.ir.program import Program

__all__ = ["digest"]

_COMMUTATIVE = frozenset({"add", "multiply", "minimum", "maximum", "equal", "not_equal"})


def digest(program: Program) -> str:
    """SHA-256, in hexadecimal, of the program's meaning."""
    roots = [term.node for term in program.terms]
    anonymous = _hashes(program, {})
    numbers = _parameter_numbers(roots, anonymous)
    final = _hashes(program, numbers)
    return _sha("program", *(f"{term.name}={final[term.node.index]}" for term in program.terms))


def _hashes(program: Program, numbers: dict[int, int]) -> dict[int, str]:
    """The hash of what every node means; parameters are told apart by `numbers`."""
    found: dict[int, str] = {}
    for node in walk(term.node for term in program.terms):
        inputs = [found[parent.index] for parent in node.inputs]
        if node.operation in _COMMUTATIVE:
            inputs.sort()
        attributes = [
            f"{name}={_canonical(value)}"
            for name, value in node.attributes
            if (node.operation, name) != ("parameter", "name")
        ]
        number = [f"number={numbers[node.index]}"] if node.index in numbers else []
        found[node.index] = _sha(node.operation, str(node.type), *attributes, *number, "inputs", *inputs)
    return found


def _parameter_numbers(roots: list[Node], hashes: dict[int, str]) -> dict[int, int]:
    """Parameters numbered in the order of first use, where the operands of a sum are met in the order of their hashes."""
    numbers: dict[int, int] = {}
    seen: set[int] = set()
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node.index in seen:
            continue
        seen.add(node.index)
        if node.operation == "parameter":
            numbers[node.index] = len(numbers)
        inputs = list(node.inputs)
        if node.operation in _COMMUTATIVE:
            inputs.sort(key=lambda parent: hashes[parent.index])
        stack.extend(reversed(inputs))
    return numbers


def _canonical(value: object) -> str:
    """A text of an attribute that does not depend on how Python prints it; 1 and 1.0 are the same number."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = [f"{field.name}={_canonical(getattr(value, field.name))}" for field in fields(value)]
        return f"{type(value).__name__}({','.join(parts)})"
    if isinstance(value, tuple):
        return "(" + ",".join(map(_canonical, value)) + ")"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value).hex()
    return repr(value)


def _sha(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()
