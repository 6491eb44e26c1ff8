"""Names for the values of emitted source: what a value is, not where it stands."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable

from vlmdsl.ir import Contrast, Node, Program, column_of, streams
from vlmdsl.types import FieldType, plain_kinds

__all__ = ["Names", "has_line"]

_TAKEN = ("inputs", "parameters", "state", "ops", "objective", "mixtures", "blends", "loss", "terms", "metrics", "__debug__")


def has_line(node: Node) -> bool:
    """Whether a node is a line of the source: not a number, which stands where it is used, nor what is done before features
    reach the objective (fields that are encoded, their views and joins, encoders)."""
    encoded = isinstance(node.type, FieldType) and node.type.kind not in plain_kinds()
    return not encoded and node.operation not in ("constant", "encode")


class Names:
    """One unique Python identifier a node: its metric's or term's name where it has one, else its use, else what it is."""

    def __init__(self, program: Program) -> None:
        self._streams = {stream.encode.index: stream.name for stream in streams(program)}
        named = [(metric.node.index, metric.name) for metric in program.metrics]
        named += [(term.node.index, term.name) for term in program.terms]
        named += [use for node in program.nodes() if node.operation == "contrast" for use in _uses(node)]
        self._wished: dict[int, str] = {}
        for index, name in named:
            self._wished.setdefault(index, name)
        self._used = set(_TAKEN)
        self._names: dict[int, str] = {}
        wanted = {node.index: self._meaning(node) for node in program.nodes() if has_line(node)}
        for index in sorted(wanted, key=lambda index: index not in self._wished):
            self._names[index] = self._unique(_identifier(wanted[index]))

    def of(self, node: Node) -> str:
        """The identifier of a node of the program."""
        return self._names[node.index]

    def _meaning(self, node: Node) -> str:
        if node.index in self._wished:
            return self._wished[node.index]
        rule: Callable[[], str] | None = {
            "field": lambda: node.string("name"),
            "scalar": lambda: node.string("name"),
            "parameter": lambda: f"learned_{node.string('name')}",
            "memory": lambda: node.string("name"),
            "enqueue": lambda: f"{node.inputs[0].string('name')}_after",
            "reference": lambda: f"{column_of(node).name}_table",
            "retrieve": lambda: "nearest_samples",
            "take": lambda: f"{column_of(node.inputs[0]).name}_found",
            "attend": lambda: self._meaning(node.inputs[0]) + "_attended",
            "state": lambda: f"{node.string('name')}_before",
            "pooled": lambda: self._streams[node.inputs[0].index],
            "tokens": lambda: self._streams[node.inputs[0].index] + "_tokens",
            "vocabulary": lambda: self._streams[node.inputs[0].index] + "_vocabulary",
            "gate": lambda: self._meaning(node.inputs[0]) + "_gated",
            "hinge": lambda: f"hinge_along_{node.string('along')}",
            "normalize": lambda: self._meaning(node.inputs[0]) + "_unit",
            "distribution": lambda: self._meaning(node.inputs[0]) + "_distribution",
            "negate": lambda: "minus_" + self._meaning(node.inputs[0]),
            "stop": lambda: self._meaning(node.inputs[0]) + "_stopped",
            "similarity": lambda: f"{node.string('by')}_similarity",
            "score": lambda: f"{node.string('by')}_score",
            "cross_entropy": lambda: f"loss_along_{node.string('along')}",
        }.get(node.operation)
        return node.operation if rule is None else rule()

    def _unique(self, wish: str) -> str:
        name, copy = wish, 2
        while name in self._used:
            name, copy = f"{wish}_{copy}", copy + 1
        self._used.add(name)
        return name


def _uses(region: Node) -> list[tuple[int, str]]:
    """What the inputs of a region are to it: a scale, a weight. Fields keep their own names."""
    contrast = region.attribute("contrast")
    assert isinstance(contrast, Contrast)
    found: list[tuple[int, str]] = []
    for direction in (contrast.rows, contrast.columns):
        for use in ("scale", "bias", "weight"):
            position = getattr(direction, use, None)
            if position is not None and region.inputs[position].operation not in ("field", "scalar", "parameter"):
                found.append((region.inputs[position].index, use))
    return found


def _identifier(name: str) -> str:
    """The name with everything but ASCII letters, digits and underscores replaced by underscores."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    name = name if name.isidentifier() else f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name
