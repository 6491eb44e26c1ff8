"""The inputs of a compiled objective: features of its streams, plain fields, draws, and columns of the reference set."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vlmdsl.ir.encoders import Encoder, encoder_of
from vlmdsl.ir.node import Node
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import EMBEDDED, OWN, STATES
from vlmdsl.ir.operations.reference import REFERENCE
from vlmdsl.ir.operations.scalars import SCALAR
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.ir.program import Program, draws, ramps, sample_index
from vlmdsl.ir.streams import CODES, ModuleOutput, Stream, kept_inputs, module_outputs, root_field, streams
from vlmdsl.types import FIELD_KINDS, EncodedType, FieldType, TokensType, token_axis

__all__ = ["Column", "Input", "column_of", "columns", "inputs", "module_inputs"]


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the compiled objective: name, axes (`("B", "D")`), dtype (`float`, `bool`, `int64`), meaning."""

    name: str
    axes: tuple[str, ...]
    dtype: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the reference set: the output of `encoder` for `field`, of type `kind`, under `name`."""

    name: str
    encoder: Encoder
    field: str
    kind: str

    @property
    def of_names(self) -> bool:
        """Whether its entries are names of things, not samples that are set aside."""
        return self.kind == "Phrases"


def inputs(program: Program, without_logits: Collection[Node] = ()) -> list[Input]:
    """The tensors that the objective takes. For an encoder with heads they are the outputs of the last head.

    The pooled features of a stream are `NAME [B, D]`, its tokens `NAME_tokens [B, L, D]` with the padding mask `NAME_mask
    [B, L]`, which is optional for images. A text whose tokens are predicted has `NAME_vocabulary [B, L, V]` and
    `NAME_targets [B, L]`, or `NAME_ids [B, L]` where all are, or `NAME_next [B, L]` where each predicts the next one; an
    image whose pixels are decoded has `NAME_pixels [B, 3, H, W]` and `NAME_dropped [B, P]`; a text that names regions
    `NAME_words [B, R, L]`; an image whose patches are grouped `NAME_assignment [B, P, G]`, and `NAME_segments [B, P]` where
    that is compared with segments. Images and texts that a queue keeps are inputs themselves, `NAME_input` [B, 3, H, W], or
    [B, L] with `NAME_input_mask [B, L]`; those that are picked are encoded in the step. Other fields that the graph reads
    (labels, flags) follow under their own names, then numbers from the caller (0-d), `index [B]` where numbers are kept per
    sample, numbers drawn per step, or K per sample, and schedules.

    Token losses of the encoded texts `without_logits` make the product themselves: these have `NAME_predicted [B, L, W]`
    instead of logits, and their vocabulary `MODULE_weight [V, W]` and `MODULE_bias [V]` (`language_vocabulary_weight`).
    """
    listed: list[Input] = []
    applied = _applied_states(program)
    for stream in streams(program):
        if not stream.picked:
            listed.extend(_stream_inputs(stream, stream.encode in applied, stream.encode in without_logits))
    for output in module_outputs(program):
        listed.extend(_codes(output))
    for source, name in kept_inputs(program).items():
        listed.extend(_kept(source, name))
    listed.extend(_weights(stream for stream in streams(program) if stream.encode in without_logits))
    listed.extend(_plain_inputs(program.nodes()))
    index = sample_index(program)
    if index is not None:
        listed.append(
            Input(index.string("name"), ("B",), "int64", "the position of each sample in the data set, counted from 0")
        )
    listed.extend(_drawn_input(node) for node in draws(program) if node not in _split(program))
    for node in ramps(program):
        listed.append(Input(node.string("name"), (), "float", f"a number that goes {node.attribute('ramp')}"))
    return listed


def _applied_states(program: Program) -> set[Node]:
    """The encoded streams whose states a module on features takes. Those that only text decoders attend to are for towers
    alone."""
    nodes = program.nodes()
    read = {parent for node in nodes if node.operation is not ENCODE for parent in node.inputs}
    return {node.inputs[0] for node in nodes if node.operation in (STATES, EMBEDDED) and node in read}


def _split(program: Program) -> set[Node]:
    """The draws that only decide what text decoders see and predict of a text."""
    nodes = program.nodes()
    readers = {parent: {reader.operation for reader in nodes if parent in reader.inputs} for parent in draws(program)}
    return {draw for draw, operations in readers.items() if operations == {ENCODE}}


def _drawn_input(node: Node) -> Input:
    count = node.attribute("count")
    whose = "the step" if count is None else "each sample"
    axes = () if count is None else ("B",) if count == 1 else ("B", "K")
    distribution = f"{node.string('distribution')}{node.attribute('arguments')}"
    return Input(node.string("name"), axes, "float", f"a draw of {whose} from {distribution}")


def _stream_inputs(stream: Stream, states: bool, without_logits: bool) -> Iterable[Input]:
    kind = stream.encode.type
    assert isinstance(kind, EncodedType)
    axis = token_axis(kind.kind)
    if stream.pooled:
        heads = stream.encoder.heads
        what = (
            f"features of {stream.name} after the head `{heads[-1].name}`" if heads else f"pooled features of {stream.name}"
        )
        yield Input(stream.input("pooled"), ("B", "D"), "float", f"{what}, not normalised")
    if stream.tokens:
        yield Input(stream.input("tokens"), ("B", axis, "D"), "float", f"token features of {stream.name}, not normalised")
    for entering in stream.entering if states else ():
        what = "last states of the tokens" if entering == STATES else "embedded tokens"
        yield Input(stream.input(entering), ("B", axis, "W"), "float", f"{what} of {stream.name}")
    if stream.tokens or states:
        yield Input(stream.input("mask"), ("B", axis), "bool", f"true where {stream.name} has a token")
    if stream.pixels:
        yield Input(
            stream.input("pixels"), ("B", "C", "H", "W"), "float", f"pixels of {stream.name}, as its tower takes them"
        )
    for what in ("dropped", "replaced"):
        if getattr(stream, what):
            yield Input(stream.input(what), ("B", axis), "bool", f"true where a patch of {stream.name} was {what}")
    if stream.codes:
        yield Input(stream.input("codes"), ("B", axis), "int64", f"the codebook entries of the patches of {stream.name}")
    if stream.words:
        yield Input(stream.input("words"), ("B", "R", axis), "bool", f"true where a word of {stream.name} names a region")
    if stream.assignment:
        yield Input(
            stream.input("assignment"),
            ("B", axis, "G"),
            "float",
            f"how much each patch of {stream.name} belongs to each group",
        )
    if stream.segments:
        yield Input(stream.input("segments"), ("B", axis), "int64", f"the segment of each patch of {stream.name}")
    if stream.vocabulary:
        yield _predicted(stream, without_logits)
    yield from _codes(stream)


def module_inputs(program: Program, without_logits: Collection[Node] = ()) -> list[Input]:
    """The outputs of modules applied to features, and of towers applied to picked inputs, that the functions of a program
    take; as for `inputs`."""
    ports: list[Input] = []
    applied = _applied_states(program)
    for stream in streams(program):
        if stream.picked:
            ports.extend(_stream_inputs(stream, stream.encode in applied, stream.encode in without_logits))
    for output in module_outputs(program):
        if output.pooled:
            ports.append(Input(output.name, ("B", "D"), "float", f"pooled features of {output.name}"))
        if output.patches:
            ports.append(Input(output.name, ("B", "P", "C"), "float", f"pixels of all patches, {output.name}"))
        if output.tokens:
            axis = output.node.type.tokens if isinstance(output.node.type, TokensType) else "L"
            ports.append(Input(output.input("tokens"), ("B", axis, "D"), "float", f"token features of {output.name}"))
            ports.append(Input(output.input("mask"), ("B", axis), "bool", f"true where {output.name} has a token"))
        if output.vocabulary:
            ports.append(_predicted(output, output.node in without_logits))
        if output.logits:
            ports.append(_predicted(output, output.node in without_logits))
        ports.extend(_codes(output))
    return [*ports, *_weights(output for output in module_outputs(program) if output.node in without_logits)]


def _kept(source: Node, name: str) -> Iterable[Input]:
    """An image or a text of each sample, as its tower takes it."""
    field = root_field(source).string("name")
    if source.type == FieldType("Image"):
        yield Input(name, ("B", "C", "H", "W"), "float", f"the {field} of each sample, as its tower takes it")
    else:
        yield Input(name, ("B", "L"), "int64", f"the token ids of the {field} of each sample")
        yield Input(f"{name}_mask", ("B", "L"), "bool", f"true where the {field} has a token")


def _predicted(owner: Stream | ModuleOutput, without_logits: bool) -> Input:
    """What is predicted of tokens: logits, or the states that these are a product of."""
    patches = isinstance(owner, ModuleOutput) and owner.logits
    axis = token_axis("Image" if patches else "Text")  # of an image joined with a text, only the text's tokens are predicted
    parts, name = ("patches", owner.name) if patches else ("tokens", owner.input("vocabulary"))
    if without_logits:
        return Input(owner.input("predicted"), ("B", axis, "W"), "float", f"states of the predicted {parts} of {owner.name}")
    return Input(name, ("B", axis, "V"), "float", f"logits of the {parts} of {owner.name}")


def _weights(owners: Iterable[Stream | ModuleOutput]) -> Iterable[Input]:
    """The weights that states of predicted tokens are multiplied with."""
    for name in dict.fromkeys(owner.linear for owner in owners):
        yield Input(f"{name}_weight", ("V", "W"), "float", f"the weight of {name}, from states to logits")
        yield Input(f"{name}_bias", ("V",), "float", f"the bias of {name}, if it has one")


def _codes(owner: Stream | ModuleOutput) -> Iterable[Input]:
    """The token ids that are predicted."""
    for which, whose in (("selected", "selected"), ("all", "real"), ("next", "next")):
        output = CODES[which]
        if getattr(owner, output):
            meaning = f"the ids of the {whose} tokens of {owner.name}, -100 elsewhere"
            yield Input(owner.input(output), ("B", token_axis("Text")), "int64", meaning)


def _plain_inputs(nodes: list[Node]) -> Iterable[Input]:
    for node in nodes:
        if node.operation is OWN:
            field = root_field(node).string("name")
            yield Input(node.string("name"), ("B",), "bool", f"true where {field} is that of the sample, not swapped")
        elif node.operation is SCALAR:
            yield Input(node.string("name"), (), "float", "one number, the same on every process, passed by the caller")
        elif node.operation is FIELD and isinstance(node.type, FieldType):
            kind = FIELD_KINDS[node.type.kind]
            if kind.dtype is not None:
                yield Input(node.string("name"), kind.axes, kind.dtype, f"field {node.string('name')}: {node.type}")


def columns(program: Program) -> list[Column]:
    """The columns of the reference set, in the order of first use; empty if the objective does not retrieve."""
    return [column_of(node) for node in program.nodes() if node.operation is REFERENCE]


def column_of(node: Node) -> Column:
    """The column that a `reference` node reads."""
    encoder = encoder_of(node)
    field = node.string("field")
    return Column(f"{field}_{encoder.tower}", encoder, field, node.string("kind"))
