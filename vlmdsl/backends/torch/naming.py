"""Names for the values of emitted source, by their meaning."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable

from vlmdsl.ir import CODES, Contrast, Node, Program, column_of, kept_inputs, module_outputs, source_names, streams
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import (
    DISTRIBUTION,
    GATE,
    MIX,
    NORMALIZE,
    PATCH_CODES,
    POOLED,
    REDUCE_TOKENS,
    TOKENS,
    VOCABULARY,
)
from vlmdsl.ir.operations.grounding import REGIONS, WORD_MAP
from vlmdsl.ir.operations.grouping import ASSIGNMENT, PATCH_SEGMENTS
from vlmdsl.ir.operations.matrices import SCORE, SIMILARITY
from vlmdsl.ir.operations.mining import FETCH, HARDEST, MINE, fetches_input
from vlmdsl.ir.operations.modules import (
    APPLY,
    CODES_AT,
    CONTEXT,
    DROPPED,
    EMBEDDED,
    OWN,
    PIXELS,
    REPLACED,
    STATES,
)
from vlmdsl.ir.operations.per_sample import INDEX, LOOKUP, MIXTURE, RUNNING_MEANS, WRITE
from vlmdsl.ir.operations.prediction import TOKEN_IDS
from vlmdsl.ir.operations.reductions import CROSS_ENTROPY, HINGE
from vlmdsl.ir.operations.reference import ATTEND, REFERENCE, RETRIEVE, TAKE
from vlmdsl.ir.operations.scalars import CONSTANT, DRAW, NEGATE, PARAMETER, RAMP, SCALAR, STOP
from vlmdsl.ir.operations.state import ENQUEUE, MEMORY, STATE
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.ir.schedule import Schedule
from vlmdsl.types import EncodedType, FieldType, plain_kinds

__all__ = ["FUNCTION", "Names", "has_line", "passed_names"]

FUNCTION = re.compile(r"objective|after_epoch|before_[1-9][0-9]{0,3}")
"""The names of emitted functions: the losses, what runs before the modules of a stage are called, and after an epoch."""
_TAKEN = ("inputs", "parameters", "state", "ops", "loss", "terms", "metrics", "__debug__")


def has_line(node: Node) -> bool:
    """Whether a node is a line of the source: not a number, which stands where it is used, nor what a batch brings to
    encoders (fields, their views, pairs of both), nor what encoders do."""
    encoded = isinstance(node.type, FieldType) and node.type.kind not in plain_kinds()
    computed = not encoded or node.operation is MIX or fetches_input(node)
    return computed and node.operation is not CONSTANT and not isinstance(node.type, EncodedType)


def passed_names(program: Program, schedule: Schedule) -> dict[Node, str]:
    """The input names of nodes that emitted functions take from a batch or from each other."""
    return Names(program).passed(schedule)


class Names:
    """A unique Python identifier per node: the name of its metric or term if it has one, else its use, else its meaning."""

    def __init__(self, program: Program) -> None:
        encoded = streams(program)
        self._streams = {stream.encode.index: stream.name for stream in encoded}
        self._streams |= {output.node.index: output.name for output in module_outputs(program)}
        self._sources = source_names(stream.source for stream in encoded)
        self._kept = kept_inputs(program)
        named = [(metric.node.index, metric.name) for metric in program.metrics]
        named += [(term.node.index, term.name) for term in program.terms]
        named += [use for node in program.nodes() if node.operation is CONTRAST for use in _uses(node)]
        self._wished: dict[int, str] = {}
        for index, name in named:
            self._wished.setdefault(index, name)
        self._used = set(_TAKEN)
        self._names: dict[int, str] = {}
        self._gathered: dict[int, str] = {}
        meanings = {node.index: self.meaning(node) for node in program.nodes() if has_line(node)}
        for index in sorted(meanings, key=lambda index: index not in self._wished):
            self._names[index] = self._unique(_identifier(meanings[index]))

    def of(self, node: Node) -> str:
        """The identifier of a node of the program."""
        return self._names[node.index]

    def passed(self, schedule: Schedule) -> dict[Node, str]:
        """The input names of nodes that emitted functions take from a batch or from each other."""
        loaded = {node: self._sources.get(node) or node.string("name") for node in schedule.load.values}
        encoded = set(self._streams.values())  # an image that is mixed may be encoded, too, by itself
        inputs = {node for node in loaded if node.type in (FieldType("Image"), FieldType("Text"))}
        loaded |= {node: f"{loaded[node]}_input" for node in inputs if loaded[node] in encoded}
        loaded |= self._kept
        taken = set(loaded.values())  # a term may be called like a field
        computed = {node: self.of(node) for compute in schedule.computes for node in compute.gives}
        return loaded | {node: f"{name}_computed" if name in taken else name for node, name in computed.items()}

    def gathered(self, node: Node) -> str:
        """The identifier of the features of a node with everybody's."""
        if node.index not in self._gathered:
            self._gathered[node.index] = self._unique(f"{self.of(node)}_gathered")
        return self._gathered[node.index]

    def meaning(self, node: Node) -> str:
        """The meaning of a value."""
        if node.index in self._wished:
            return self._wished[node.index]
        rule = _MEANINGS.get(node.operation)
        return node.operation if rule is None else rule(self, node)

    def stream(self, output: Node) -> str:
        """The name of the stream of which a node reads an output."""
        return self._streams[output.inputs[0].index]

    def module(self, node: Node) -> str:
        """The name of the features of a head."""
        return self._streams[node.index]

    def mixture(self, node: Node) -> str:
        """The name of mixed images or features."""
        return f"{self._sources[node]}_pixels" if node in self._sources else node.operation

    def fetched(self, node: Node) -> str:
        """The name of what picked samples have."""
        return self._sources[node] if fetches_input(node) else f"{self.meaning(node.inputs[0])}_fetched"

    def _unique(self, wish: str) -> str:
        name, copy = wish, 2
        while name in self._used or FUNCTION.fullmatch(name):
            name, copy = f"{wish}_{copy}", copy + 1
        self._used.add(name)
        return name


def _uses(region: Node) -> list[tuple[int, str]]:
    """What the inputs of a region are to it: a scale, a weight. Fields keep their own names."""
    contrast = region.attribute("contrast")
    assert isinstance(contrast, Contrast)
    uses: list[tuple[int, str]] = []
    for direction in (contrast.rows, contrast.columns):
        for use in ("scale", "bias", "weight"):
            position = getattr(direction, use, None)
            if position is not None and region.inputs[position].operation not in (FIELD, SCALAR, PARAMETER):
                uses.append((region.inputs[position].index, use))
    return uses


def _identifier(name: str) -> str:
    """The name with everything but ASCII letters, digits and underscores replaced by underscores."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    name = name if name.isidentifier() else f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _own_name(names: Names, node: Node) -> str:
    return node.string("name")


def _with(suffix: str) -> Callable[[Names, Node], str]:
    """The meaning of the first input, with what was done to it."""
    return lambda names, node: f"{names.meaning(node.inputs[0])}_{suffix}"


_MEANINGS: dict[str, Callable[[Names, Node], str]] = {
    FIELD: _own_name,
    SCALAR: _own_name,
    DRAW: _own_name,
    RAMP: _own_name,
    MEMORY: _own_name,
    PARAMETER: lambda names, node: f"learned_{node.string('name')}",
    STATE: lambda names, node: f"{node.string('name')}_before",
    INDEX: _own_name,
    LOOKUP: lambda names, node: f"{node.inputs[0].string('name')}_of_samples",
    RUNNING_MEANS: lambda names, node: f"{node.inputs[0].inputs[0].string('name')}_updated",
    WRITE: lambda names, node: f"{node.inputs[0].string('name')}_after",
    MIXTURE: lambda names, node: f"{node.inputs[1].string('name')}_after",
    ENQUEUE: lambda names, node: f"{node.inputs[0].string('name')}_after",
    REFERENCE: lambda names, node: f"{column_of(node).name}_table",
    RETRIEVE: lambda names, node: "nearest_samples",
    TAKE: lambda names, node: f"{column_of(node.inputs[0]).name}_found",
    MINE: lambda names, node: f"negatives_along_{node.string('along')}",
    HARDEST: lambda names, node: f"hardest_along_{node.string('along')}",
    FETCH: lambda names, node: names.fetched(node),
    ATTEND: _with("attended"),
    POOLED: lambda names, node: names.stream(node),
    TOKENS: lambda names, node: f"{names.stream(node)}_tokens",
    VOCABULARY: lambda names, node: f"{names.stream(node)}_vocabulary",
    TOKEN_IDS: lambda names, node: f"{names.stream(node)}_{CODES[node.string('which')]}",
    MIX: lambda names, node: names.mixture(node),
    STATES: lambda names, node: f"{names.stream(node)}_states",
    EMBEDDED: lambda names, node: f"{names.stream(node)}_embedded",
    APPLY: lambda names, node: names.module(node),
    PIXELS: lambda names, node: f"{names.stream(node)}_patches",
    DROPPED: lambda names, node: f"{names.stream(node)}_dropped",
    WORD_MAP: lambda names, node: f"{names.stream(node)}_word_map",
    REGIONS: _with("regions"),
    REPLACED: lambda names, node: f"{names.stream(node)}_replaced",
    PATCH_CODES: lambda names, node: f"{names.stream(node)}_codes",
    CODES_AT: _with("selected"),
    ASSIGNMENT: lambda names, node: f"{names.stream(node)}_assignment",
    PATCH_SEGMENTS: lambda names, node: f"{names.stream(node)}_segments",
    CONTEXT: lambda names, node: f"{names.stream(node)}_context",
    OWN: _own_name,
    GATE: _with("gated"),
    REDUCE_TOKENS: lambda names, node: f"{names.meaning(node.inputs[0]).removesuffix('_tokens')}_{node.string('by')}",
    HINGE: lambda names, node: f"hinge_along_{node.string('along')}",
    NORMALIZE: _with("unit"),
    DISTRIBUTION: _with("distribution"),
    NEGATE: lambda names, node: f"minus_{names.meaning(node.inputs[0])}",
    STOP: _with("stopped"),
    SIMILARITY: lambda names, node: f"{node.string('by')}_similarity",
    SCORE: lambda names, node: f"{node.string('by')}_score",
    CROSS_ENTROPY: lambda names, node: f"loss_along_{node.string('along')}",
}
"""Names of values, for operations with more than their name."""
