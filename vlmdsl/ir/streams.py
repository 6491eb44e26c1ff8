"""What a program has encoders read: its streams, with unique names, and what a batch must hold for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from vlmdsl.ir.encoders import Encoder, encoder_of
from vlmdsl.ir.graph import Node
from vlmdsl.ir.program import Program

__all__ = ["OUTPUTS", "Reading", "Stream", "block_of", "mixtures", "parts_of", "readings", "root_field", "streams"]

OUTPUTS = ("pooled", "tokens", "vocabulary")
"""Operations that read one of an encoder's outputs."""
_PAIRS = frozenset({"join", "blend"})
"""Operations that make one stream of an image and a text, which a batch holds apart."""
_DEFAULT_TOWERS = ("vision", "language")


@dataclass(frozen=True, slots=True)
class Stream:
    """One encoded stream: a field, or a view of one, through an encoder.

    `name` is the field's name where the field is encoded in one view only; else the view's is added (`image_augment_0`), the
    last head's where several encode the same (`image_augment_0_predict`), and that a teacher does (`image_teacher`).
    `source` is the field or view node, `encode` the encode node; `pooled`, `tokens` and `vocabulary` say which outputs are
    used, and `asked_only` that nothing reads the vocabulary but criteria of the chosen tokens.
    """

    name: str
    source: Node
    encode: Node
    pooled: bool
    tokens: bool
    vocabulary: bool = False
    asked_only: bool = False

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.encode)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Which outputs are used, by name."""
        return tuple(output for output in OUTPUTS if getattr(self, output))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a batch holds for encoders: a field, or a view of one, in one form. Streams of one source whose towers take it
    in equal forms share it; of pairs each is read for itself."""

    name: str
    source: Node
    form: Hashable = None


def streams(program: Program) -> list[Stream]:
    """The encoded streams that the terms use, in the order of first use, with unique names."""
    nodes = program.nodes()
    used: dict[int, set[str]] = {}
    for node in nodes:
        if node.operation in OUTPUTS:
            used.setdefault(node.inputs[0].index, set()).add(node.operation)
    encodes = [node for node in nodes if node.operation == "encode" and node.index in used]
    names = _stream_names(encodes)
    everywhere = _read_everywhere(nodes)
    return [
        Stream(
            names[position],
            node.inputs[0],
            node,
            **{output: output in used[node.index] for output in OUTPUTS},
            asked_only="vocabulary" in used[node.index] and node not in everywhere,
        )
        for position, node in enumerate(encodes)
    ]


def _read_everywhere(nodes: Iterable[Node]) -> set[Node]:
    """The encoded texts whose vocabulary is read at tokens that no mask chose, too."""
    return {
        parent.inputs[0]
        for node in nodes
        for parent in node.inputs
        if parent.operation == "vocabulary" and node.operation != "mlm"
    }


def parts_of(source: Node) -> tuple[Node, ...]:
    """The sources that a joined or blended one is made of, the image first; any other is made of itself."""
    return source.inputs[:2] if source.operation in _PAIRS else (source,)


def readings(
    encoded: Iterable[Stream], form: Callable[[Encoder, Node], Hashable] = lambda encoder, source: None
) -> list[Reading]:
    """What a batch must hold to encode these streams: each source once in each form that their towers take it in, named
    after the first stream that is it alone. `form` is that in which an encoder takes a source."""
    encoded = list(encoded)
    names: dict[tuple[Node, Hashable], str] = {}
    for stream in encoded:
        if stream.source.operation not in _PAIRS:
            names.setdefault((stream.source, form(stream.encoder, stream.source)), stream.name)
    for stream in encoded:
        for part in parts_of(stream.source):
            names.setdefault((part, form(stream.encoder, part)), f"{stream.name}_{root_field(part).string('name')}")
    return [Reading(name, source, taken) for (source, taken), name in names.items()]


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
