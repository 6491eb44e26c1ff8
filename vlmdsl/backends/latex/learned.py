"""Learned parameters as mathematics: their letters, initial values and bounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from vlmdsl.backends.latex.notation import Math, infix, number, symbol, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.scalars import CLAMP, EXP, NEGATE, PARAMETER

__all__ = ["LearnedNumbers"]

_PARAMETERS = {"temperature": (r"\tau", "τ"), "bias": ("b", "b"), "weight": (r"\lambda", "λ")}


class LearnedNumbers:
    """The learned parameters among some nodes; `state(group, statement)` adds a definition."""

    def __init__(
        self, nodes: Iterable[Node], readers: Mapping[Node, Sequence[Node]], state: Callable[[str, Math], None]
    ) -> None:
        self._readers = readers
        self._state = state
        self._symbols: dict[Node, Math] = {}
        self._used: Counter[str] = Counter()
        self._kinds = Counter(_kind(node) for node in nodes if node.operation is PARAMETER)

    def symbol(self, node: Node) -> Math:
        """The value of a learned parameter p: p itself, or exp(-p) if it is stored as the log of a scale."""
        if node not in self._symbols:
            kind = _kind(node)
            latex, text = _PARAMETERS.get(kind, (rf"\theta_{{{words(node.string('name')).latex}}}", node.string("name")))
            if kind in _PARAMETERS and self._kinds[kind] > 1:
                self._used[latex] += 1
                latex, text = f"{latex}_{{{self._used[latex]}}}", f"{text}{self._used[latex]}"
            self._symbols[node] = symbol(latex, text)
            self._state("parameters", self._learned(node, self._symbols[node]))
        return self._symbols[node]

    def is_log_scale(self, node: Node) -> bool:
        """Whether only exp of the parameter, of its negative or of a clamp of it is read: then its value is exp(-p)."""
        return node.operation is PARAMETER and self._only_exp(node)

    def _only_exp(self, node: Node) -> bool:
        readers = self._readers.get(node, [])
        return bool(readers) and all(
            reader.operation is EXP or (reader.operation in (NEGATE, CLAMP) and self._only_exp(reader)) for reader in readers
        )

    def _learned(self, node: Node, name: Math) -> Math:
        logarithmic = self.is_log_scale(node)
        start = math.exp(-node.number("initial")) if logarithmic else node.number("initial")
        value = number(float(f"{start:.6g}"))
        tex, plain = value.signed()
        line = [rf"{name.latex}\ \mathrm{{learned,\ initially}}\ {{{tex}}}"]
        text = [f"{name.text} learned, initially {plain}"]
        subject = Math(f"1/{name.latex}", f"1/{name.text}") if logarithmic else name
        bounds = _bounds(node, subject, logarithmic)
        if bounds is not None:
            line.append(bounds.latex)
            text.append(bounds.text)
        return Math(r",\ ".join(line), ", ".join(text))


def _bounds(node: Node, subject: Math, logarithmic: bool) -> Math | None:
    """`lower <= subject <= upper`, as far as there are bounds."""
    ends = [node.attribute("lower"), node.attribute("upper")]
    shown = [
        number(float(f"{math.exp(end) if logarithmic else end:.6g}")) if isinstance(end, int | float) else None
        for end in ends
    ]
    chain = [part for part in (shown[0], subject, shown[1]) if part is not None]
    return infix(r"\leq", "≤", *chain) if len(chain) > 1 else None


def _kind(node: Node) -> str:
    name = node.string("name").replace("tau", "temperature").replace("log_scale", "temperature")
    return next((kind for kind in _PARAMETERS if kind in name), name)
