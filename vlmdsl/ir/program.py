"""A program: the graph of an objective with its named terms, and the questions that every later stage asks of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vlmdsl.ir.encoders import Encoder, encoder_of
from vlmdsl.ir.graph import Graph, Node, walk
from vlmdsl.types import TOKEN_AXIS, EncodedType, FieldType

__all__ = [
    "BATCH_POLICIES", "MIXED", "NAMED", "ONE_SOURCE", "OUTPUTS", "STATES", "Column", "Input", "Metric", "Program", "Reading",
    "Stream", "Term", "Update", "block_of", "column_of", "columns", "draws", "inputs", "mixtures", "parameters", "parts_of",
    "readings", "root_field", "states", "streams",
]  # fmt: skip


STATES = frozenset({"state", "memory"})
"""Operations that read what outlives the step: a number, a queue of vectors."""
NAMED = STATES | {"parameter", "draw"}
"""Operations whose nodes are told apart by a name, unique in a program."""
_PAIRS = frozenset({"join", "blend"})
"""Operations that make one stream of an image and a text, which a batch holds apart."""
_DEFAULT_TOWERS = ("vision", "language")


OUTPUTS = ("pooled", "tokens", "vocabulary")
"""Operations that read one of an encoder's outputs."""
MIXED, ONE_SOURCE = "mixed", "one_source"
BATCH_POLICIES = (MIXED, ONE_SOURCE)
"""Which samples may be together in a batch: any, or those of one source."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named term of the objective; `node` has type Loss (or Scalar)."""

    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class Metric:
    """A number worth logging beside the loss: a temperature, a bias. `node` is a Scalar."""

    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class Update:
    """What a state holds after a training step: `state` is its node, `node` the new value, made from the old one.

    Who reads `state` sees the value of the step before, who reads `node` the new one: the order against use is the graph's.
    """

    state: Node
    node: Node


@dataclass(frozen=True, slots=True)
class Program:
    """What the front end makes and every back end reads. Passes give a new one (`with_terms`)."""

    name: str
    graph: Graph
    terms: tuple[Term, ...]
    metrics: tuple[Metric, ...] = ()
    updates: tuple[Update, ...] = ()
    documentation: str = ""
    citations: tuple[str, ...] = ()
    status: str = ""
    batch_policy: str = MIXED
    """Which samples a batch is made of: `mixed` (any), or `one_source` (all of one source of the data)."""
    knobs: tuple[tuple[str, object], ...] = ()
    fields: tuple[tuple[str, FieldType], ...] = ()
    """The signature: every batch field of the recipe, used or not."""
    digests: tuple[tuple[str, str], ...] = ()
    """SHA-256 of every source text that took part, by name."""

    def roots(self) -> tuple[Node, ...]:
        named = tuple(term.node for term in self.terms) + tuple(metric.node for metric in self.metrics)
        return named + tuple(node for update in self.updates for node in (update.state, update.node))

    def nodes(self) -> list[Node]:
        """Every live node, inputs before users."""
        return list(walk(self.roots()))

    def mapped(self, graph: Graph, moved: dict[int, Node]) -> Program:
        """This program over a rebuilt graph (see `Graph.rebuild`)."""
        return replace(
            self,
            graph=graph,
            terms=tuple(replace(term, node=moved[term.node.index]) for term in self.terms),
            metrics=tuple(replace(metric, node=moved[metric.node.index]) for metric in self.metrics),
            updates=tuple(Update(moved[update.state.index], moved[update.node.index]) for update in self.updates),
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """One encoded stream: a field, or a view of one, through an encoder.

    `name` is the field's name where the field is encoded in one view only; else the view's is added (`image_augment_0`), the
    last head's where several encode the same (`image_augment_0_predict`), and that a teacher does (`image_teacher`).
    `source` is the field or view node, `encode` the encode node; `pooled`, `tokens` and `vocabulary` say which outputs are
    used.
    """

    name: str
    source: Node
    encode: Node
    pooled: bool
    tokens: bool
    vocabulary: bool = False

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.encode)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Which outputs are used, by name."""
        return tuple(output for output in OUTPUTS if getattr(self, output))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a batch holds for encoders: a field, or a view of one. Streams of one source share it, of pairs read two."""

    name: str
    source: Node


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the reference set: what `encoder` makes of `field`, of type `kind`; the objective calls it `name`."""

    name: str
    encoder: Encoder
    field: str
    kind: str


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor the compiled objective takes: name, axes (`("B", "D")`), dtype (`float`, `bool`, `int64`), meaning."""

    name: str
    axes: tuple[str, ...]
    dtype: str
    meaning: str


def parameters(program: Program) -> list[Node]:
    """The `parameter` nodes in the order of first use; each has a unique `name` attribute."""
    return [node for node in program.nodes() if node.operation == "parameter"]


def states(program: Program) -> list[Node]:
    """The nodes of state in the order of first use; each has a unique `name` attribute, which no parameter has."""
    return [node for node in program.nodes() if node.operation in STATES]


def draws(program: Program) -> list[Node]:
    """The `draw` nodes, one random number a step each, in the order of first use; names are unique."""
    return [node for node in program.nodes() if node.operation == "draw"]


def streams(program: Program) -> list[Stream]:
    """The encoded streams that the terms use, in the order of first use, with unique names."""
    nodes = program.nodes()
    used: dict[int, set[str]] = {}
    for node in nodes:
        if node.operation in OUTPUTS:
            used.setdefault(node.inputs[0].index, set()).add(node.operation)
    encodes = [node for node in nodes if node.operation == "encode" and node.index in used]
    names = _stream_names(encodes)
    return [
        Stream(names[position], node.inputs[0], node, **{output: output in used[node.index] for output in OUTPUTS})
        for position, node in enumerate(encodes)
    ]


def parts_of(source: Node) -> tuple[Node, ...]:
    """The sources that a joined or blended one is made of, the image first; any other is made of itself."""
    return source.inputs[:2] if source.operation in _PAIRS else (source,)


def columns(program: Program) -> list[Column]:
    """What the reference set must hold, in the order of first use; empty where the objective retrieves nothing."""
    return [column_of(node) for node in program.nodes() if node.operation == "reference"]


def column_of(node: Node) -> Column:
    """The column that a `reference` node reads."""
    encoder = encoder_of(node)
    field = node.string("field")
    return Column(f"{field}_{encoder.tower}", encoder, field, node.string("kind"))


def readings(encoded: Iterable[Stream]) -> list[Reading]:
    """What a batch must hold to encode these streams: each source once, named after the first stream that is it alone."""
    encoded = list(encoded)
    names: dict[Node, str] = {}
    for stream in encoded:
        if stream.source.operation not in _PAIRS:
            names.setdefault(stream.source, stream.name)
    for stream in encoded:
        for part in parts_of(stream.source):
            names.setdefault(part, f"{stream.name}_{root_field(part).string('name')}")
    return [Reading(name, source) for source, name in names.items()]


def root_field(source: Node) -> Node:
    """The field node that a view chain starts from."""
    while source.operation != "field":
        source = source.inputs[0]
    return source


def mixtures(source: Node) -> tuple[Node, ...]:
    """The `mix` nodes by which the images of a stream are mixed before they are encoded, in turn; none for most."""
    found: list[Node] = []
    while source.operation == "mix":
        found.append(source)
        source = source.inputs[0]
    return tuple(reversed(found))


def block_of(node: Node) -> int:
    """How many consecutive samples of the batch a `mix` or a `flipped` reads backwards; 0: all of it."""
    block = dict(node.attributes).get("block", 0)
    assert isinstance(block, int)
    return block


def _view_suffix(source: Node, pipelines: bool) -> str:
    """What was done to a field, from the field on; with the names of pipelines where the field goes through several."""
    if source.operation == "field":
        return ""
    if source.operation in _PAIRS:
        parts = "".join(_view_suffix(part, pipelines) for part in parts_of(source))
        return parts if source.operation == "join" else f"{parts}_{source.operation}"
    suffix = _view_suffix(source.inputs[0], pipelines) + "_" + source.operation
    attributes = dict(source.attributes)
    shown = [attributes.get("pipeline") if pipelines else None, attributes.get("view")]
    return "_".join([suffix, *(str(value) for value in shown if value is not None)])


def _tower_suffix(node: Node, encodes: list[Node]) -> str:
    """The tower's name, where several encode this source and it is one of the recipe's own."""
    tower = encoder_of(node).tower
    rivals = {encoder_of(other).tower for other in encodes if other.inputs[0] is node.inputs[0]}
    return "" if len(rivals) == 1 or tower in _DEFAULT_TOWERS else f"_{tower}"


def _stream_names(encodes: list[Node]) -> list[str]:
    fields = ["_".join(root_field(part).string("name") for part in parts_of(node.inputs[0])) for node in encodes]
    pipelines: dict[str, set[object]] = {}
    for node, field in zip(encodes, fields, strict=True):
        pipelines.setdefault(field, set()).update(dict(part.attributes).get("pipeline") for part in parts_of(node.inputs[0]))
    plain: list[str] = []
    for node, name in zip(encodes, fields, strict=True):
        several = len({other.inputs[0] for other, field in zip(encodes, fields, strict=True) if field == name}) > 1
        suffix = _view_suffix(node.inputs[0], len(pipelines[name] - {None}) > 1) if several else ""
        plain.append(name + suffix + _tower_suffix(node, encodes))
    learners = [(node.inputs[0], encoder_of(node).bare) for node in encodes]
    names: list[str] = []
    for node, candidate, learner in zip(encodes, plain, learners, strict=True):
        heads = encoder_of(node).heads
        if heads and learners.count(learner) > 1:
            candidate += f"_{heads[-1].name}"
        candidate += "_teacher" if encoder_of(node).teacher else ""
        unique, copy = candidate, 2
        while unique in names:
            unique, copy = f"{candidate}_{copy}", copy + 1
        names.append(unique)
    return names


def inputs(program: Program) -> list[Input]:
    """The tensors the objective takes when it is given features: two for a stream whose tokens are compared. Of an encoder
    with heads they are what the last head gives.

    A stream used pooled only is `NAME [B, D]`; tokens only `NAME [B, L, D]` and `NAME_mask [B, L]`; both: `NAME [B, D]`,
    `NAME_tokens`, `NAME_mask`. The mask of an image stream is optional (all patches are real). A masked text whose hidden
    tokens are guessed adds `NAME_vocabulary [B, L, V]` and `NAME_targets [B, L]`. Other fields that the graph reads (labels,
    flags) follow under their own names, then the numbers drawn for the step, without axes.
    """
    found: list[Input] = []
    for stream in streams(program):
        found.extend(_stream_inputs(stream))
    found.extend(_plain_inputs(program.nodes()))
    for node in draws(program):
        meaning = f"a draw of the step from {node.string('distribution')}{node.attribute('arguments')}"
        found.append(Input(node.string("name"), (), "float", meaning))
    return found


def _stream_inputs(stream: Stream) -> Iterable[Input]:
    kind = stream.encode.type
    assert isinstance(kind, EncodedType)
    axis = TOKEN_AXIS[kind.kind]
    if stream.pooled:
        heads = stream.encoder.heads
        what = (
            f"features of {stream.name} after the head `{heads[-1].name}`" if heads else f"pooled features of {stream.name}"
        )
        yield Input(stream.name, ("B", "D"), "float", f"{what}, not normalised")
    if stream.tokens:
        name = f"{stream.name}_tokens" if stream.pooled else stream.name
        yield Input(name, ("B", axis, "D"), "float", f"token features of {stream.name}, not normalised")
        yield Input(f"{stream.name}_mask", ("B", axis), "bool", f"true where {stream.name} has a token")
    if stream.vocabulary:
        yield Input(f"{stream.name}_vocabulary", ("B", axis, "V"), "float", f"logits of the tokens of {stream.name}")
        meaning = f"what the chosen tokens of {stream.name} were, -100 elsewhere"
        yield Input(f"{stream.name}_targets", ("B", axis), "int64", meaning)


def _plain_inputs(nodes: list[Node]) -> Iterable[Input]:
    dtypes = {"Label": "int64", "Key": "int64", "Flag": "bool", "Number": "float"}
    for node in nodes:
        if node.operation == "field" and isinstance(node.type, FieldType) and node.type.kind in dtypes:
            yield Input(node.string("name"), ("B",), dtypes[node.type.kind], f"field {node.string('name')}: {node.type}")
