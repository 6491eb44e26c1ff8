"""The streams that a program encodes, with unique names, and the values that a batch must hold for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from vlmdsl.ir.encoders import Encoder, encoder_of
from vlmdsl.ir.node import Node
from vlmdsl.ir.operations.detection import AROUND_PATCHES, ATSS, BOX_ERROR, CENTRENESS, GIOU, MATCHED_IOU
from vlmdsl.ir.operations.encoding import ENCODE, MIX, PATCH_CODES, POOLED, TOKENS, VOCABULARY, source_of, transforms
from vlmdsl.ir.operations.grounding import REGIONS, WORD_MAP
from vlmdsl.ir.operations.grouping import ASSIGNMENT, PATCH_SEGMENTS
from vlmdsl.ir.operations.mining import FETCH, fetches_input
from vlmdsl.ir.operations.modules import APPLY, DROPPED, EMBEDDED, PIXELS, REPLACED, STATES, use_of
from vlmdsl.ir.operations.prediction import TOKEN_IDS, predicts_selected
from vlmdsl.ir.operations.views import BLEND, FIELD
from vlmdsl.ir.program import Program
from vlmdsl.types import InputsType, LogitsType, PatchesType, TokensType, VecType

__all__ = [
    "CODES", "OUTPUTS", "ModuleOutput", "Reading", "Stream", "block_of", "boxed_images", "kept_inputs", "loaded_origin",
    "loaded_parts", "module_outputs", "parts_of", "readings", "root_field", "source_names", "streams",
]  # fmt: skip

OUTPUTS = (POOLED, TOKENS, VOCABULARY, STATES, EMBEDDED, PATCH_CODES, ASSIGNMENT)
"""The outputs of an encoder, each named like the operation that reads it."""
CODES = {"selected": "targets", "all": "ids", "next": "next"}
"""What the input is called that holds ids of tokens, by which they are (`token_ids`)."""
_DEFAULT_TOWERS = ("vision", "language")
_AT_PLACES = (REGIONS, ATSS, GIOU, CENTRENESS, AROUND_PATCHES, BOX_ERROR, MATCHED_IOU)
"""What reads its first input, tokens of an image, at places of it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One encoded stream: a field, or a view of one, through an encoder.

    `name` depends only on what is encoded and by what: the field, each view with its pipeline and number
    (`image_augment_slip_0`, `text_masked`), a tower other than the default (`image_retriever`), the last head
    (`image_project`) and `teacher`. If this gives several streams the same name (two crops), the later ones are numbered.
    `source` is the field or view node, `encode` the encode node; `pooled`, `tokens`, `vocabulary`, `states`, `embedded`,
    `codes` and `assignment` say which outputs are used, and `asked_only` that nothing reads the vocabulary but criteria of
    the selected tokens. What the tower is given may be read too: `pixels`, and which of their patches were `dropped` or
    `replaced`; the ids of those tokens of a text that a mask selected, `targets`, of all, `ids`, or of the `next` token of
    each; which `words` of it name each region; the segments of patches, of the field `segments`; and that its tokens are
    read at the places of patches, `placed`. A `transform` goes before the map to the vocabulary.
    """

    name: str
    source: Node
    encode: Node
    pooled: bool
    tokens: bool
    vocabulary: bool = False
    states: bool = False
    embedded: bool = False
    codes: bool = False
    assignment: bool = False
    asked_only: bool = False
    pixels: bool = False
    dropped: bool = False
    replaced: bool = False
    targets: bool = False
    ids: bool = False
    next: bool = False
    words: bool = False
    segments: str = ""
    placed: bool = False
    transform: bool = False

    @property
    def learns(self) -> bool:
        """Whether a gradient reaches the weights of its encoder."""
        return self.encoder.learns

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.encode)

    @property
    def picked(self) -> bool:
        """Whether what is encoded is the image or the text of samples that were picked in the step."""
        return any(fetches_input(part) for part in parts_of(self.source))

    @property
    def linear(self) -> str:
        """What the linear map from its states to logits is called."""
        return f"{self.encoder.tower}_vocabulary{'_teacher' if self.encoder.teacher else ''}"

    def input(self, output: str) -> str:
        """What the input of the objective that holds one output is called, or its `mask`, `targets`, `ids`, `next`,
        `predicted`, `pixels`, `dropped`, `replaced`, `words` or `segments`.

        Pooled features have the stream's own name.
        """
        return self.name if output == "pooled" else f"{self.name}_{output}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Which outputs are used, by name."""
        return tuple(output for output in OUTPUTS if getattr(self, output))

    @property
    def entering(self) -> tuple[str, ...]:
        """Which of them modules on features take."""
        return tuple(output for output in (STATES, EMBEDDED) if getattr(self, output))


@dataclass(frozen=True, slots=True)
class ModuleOutput:
    """The output of a module applied to features: `node` is the `apply` node.

    `name` says of which text and by which module: `text_masked_fusion`, `text_taken_fusion` where the text is that of a
    sample that was picked. `pooled`, `tokens` and `vocabulary` say which outputs are used, as for a `Stream`, `targets`,
    `ids` and `next` which tokens are predicted; `patches` that it is a decoder, which gives patches of pixels, `logits` that
    it is a linear map of patches.
    """

    name: str
    node: Node
    pooled: bool
    tokens: bool
    vocabulary: bool
    asked_only: bool
    patches: bool = False
    logits: bool = False
    targets: bool = False
    ids: bool = False
    next: bool = False

    @property
    def learns(self) -> bool:
        """Whether a gradient reaches the weights of the module."""
        return use_of(self.node).gradient

    @property
    def linear(self) -> str:
        """What the linear map from its states to logits is called."""
        use = use_of(self.node)
        own = f"{use.module.base.name}_{use.module.name}" if self.logits else f"{use.module.name}_vocabulary"
        return f"{own}{'_teacher' if use.follows else ''}"

    def input(self, output: str) -> str:
        """The name of the last function's input for one output, as for a `Stream`."""
        return self.name if output in ("pooled", "patches", "logits") else f"{self.name}_{output}"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a batch for encoders: a field, or a view of one, in one format. Streams of one source whose towers have
    equal formats share it; the parts of pairs are separate."""

    name: str
    source: Node
    form: Hashable = None


def streams(program: Program) -> list[Stream]:
    """The encoded streams that the terms use, in the order of first use, with unique names."""
    nodes = program.nodes()
    used: dict[int, set[str]] = {}
    for node in nodes:
        if node.operation.reads_encoder_output:
            used.setdefault(node.inputs[0].index, set()).add(node.operation)
    for node in nodes:
        if node.operation is WORD_MAP:  # which tokens name a region is known where the text is encoded
            used.setdefault(node.inputs[0].index, {TOKENS})
    encodes = [node for node in nodes if node.operation is ENCODE and node.index in used]
    names = _stream_names(encodes)
    everywhere = _read_everywhere(nodes)
    of_inputs = (PIXELS, DROPPED, REPLACED, WORD_MAP)
    read_of = {what: {node.inputs[0] for node in nodes if node.operation is what} for what in of_inputs}
    segmented = [(node.inputs[0], node.inputs[1].string("name")) for node in nodes if node.operation is PATCH_SEGMENTS]
    placed = {_tower_of(node.inputs[0]) for node in nodes if node.operation in _AT_PLACES}
    transformed = {node.inputs[0] for node in nodes if transforms(node)}
    return [
        Stream(
            names[position],
            node.inputs[0],
            node,
            **{output: output in used[node.index] for output in OUTPUTS},
            asked_only="vocabulary" in used[node.index] and node not in everywhere,
            pixels=node in read_of[PIXELS],
            dropped=node in read_of[DROPPED],
            words=node in read_of[WORD_MAP],
            replaced=node in read_of[REPLACED],
            **_ids(node, nodes),
            segments=next((field for encode, field in segmented if encode is node), ""),
            placed=node in placed,
            transform=node in transformed,
        )
        for position, node in enumerate(encodes)
    ]


def boxed_images(program: Program) -> dict[str, dict[Node, Node]]:
    """For each field of Boxes, by name, the encoded images that these are places in, each with a node that compares them."""
    boxed: dict[str, dict[Node, Node]] = {}
    for node in program.nodes():
        if node.operation in _AT_PLACES and len(node.inputs) > 1:
            encode = node.inputs[0]
            while encode.operation is not ENCODE and encode.inputs:
                encode = encode.inputs[0]
            boxed.setdefault(node.inputs[1].string("name"), {}).setdefault(encode, node)
    return boxed


def _tower_of(tokens: Node) -> Node | None:
    """The encoded image that tokens are those of; None for those that a module gives of it, such as a decoder of patches."""
    while tokens.operation is not ENCODE:
        if tokens.operation is STATES or not tokens.inputs:
            return None
        tokens = tokens.inputs[0]
    return tokens


def module_outputs(program: Program) -> list[ModuleOutput]:
    """The outputs of modules applied to features, in the order of first use, with unique names."""
    nodes = program.nodes()
    applied = [node for node in nodes if node.operation is APPLY]
    if not applied:
        return []
    used: dict[Node, set[str]] = {}
    for node in nodes:
        if node.operation.reads_encoder_output:
            used.setdefault(node.inputs[0], set()).add(node.operation)
    everywhere, encoded = _read_everywhere(nodes), streams(program)
    taken, names = {stream.name for stream in encoded}, source_names(stream.source for stream in encoded)
    outputs = []
    for node in applied:
        read = used.get(node, {POOLED} if isinstance(node.type, VecType) else set())
        name = _unique(names[source_of(node)] + _module_suffix(node), taken)
        flags = {output: output in read for output in ("pooled", "tokens", "vocabulary")}
        flags["tokens"] |= isinstance(node.type, TokensType)
        flags |= {"patches": isinstance(node.type, PatchesType), "logits": isinstance(node.type, LogitsType)}
        outputs.append(ModuleOutput(name, node, **flags, asked_only=node not in everywhere, **_ids(node, nodes)))
    return outputs


def _module_suffix(node: Node) -> str:
    """The suffix of the module, preceded by one for picked samples."""
    below, suffix = node.inputs[0], f"_{use_of(node).name}"
    while below.operation is not ENCODE:
        if below.operation is APPLY:
            suffix = f"_{use_of(below).module.name}{suffix}"
        elif below.operation is FETCH:
            suffix = f"_taken{suffix}"
        below = below.inputs[0]
    return suffix


def _ids(encoded: Node, nodes: Iterable[Node]) -> dict[str, bool]:
    """Which token ids of an encoded text are read."""
    which = {node.string("which") for node in nodes if node.operation is TOKEN_IDS and node.inputs[0] is encoded}
    return {name: of in which for of, name in CODES.items()}


def _read_everywhere(nodes: Iterable[Node]) -> set[Node]:
    """The encoded texts whose vocabulary is read at tokens that no mask selected, too."""
    return {
        parent.inputs[0]
        for node in nodes
        for parent in node.inputs
        if parent.operation is VOCABULARY and not predicts_selected(node)
    }


def parts_of(source: Node) -> tuple[Node, ...]:
    """The sources that a joined, blended or prompted one is made of, the image or the prompt first; any other is made of
    itself."""
    return source.inputs[:2] if source.operation.pairs_fields else (source,)


def loaded_parts(source: Node) -> tuple[Node, ...]:
    """The values of a batch for a source: its parts, or the source of a mixture, or that of which others' are picked."""
    return tuple(loaded_origin(part) for part in parts_of(source))


def loaded_origin(source: Node) -> Node:
    """The image or text of a batch that an image is mixed of, or of which those of other samples are picked."""
    while source.operation in (MIX, FETCH):
        source = source.inputs[0]
    return source


def kept_inputs(program: Program) -> dict[Node, str]:
    """The images and texts of the batch that queues of inputs keep or that are picked with them, each with the name of the
    input of the objective that holds it."""
    nodes = program.nodes()
    entering = [update.node.inputs[1] for update in program.updates if isinstance(update.state.type, InputsType)]
    taken = [node.inputs[0] for node in nodes if fetches_input(node)]
    names = source_names(stream.source for stream in streams(program))
    return {source: f"{names[source]}_input" for source in dict.fromkeys([*taken, *entering])}


def readings(
    encoded: Iterable[Stream],
    form: Callable[[Encoder, Node], Hashable] = lambda encoder, source: None,
    others: Iterable[str] = (),
) -> list[Reading]:
    """What a batch must hold to encode these streams: each source, of pairs their two parts, once in each form that towers
    take it in. It has the source's name, in a further form with that of the tower, and none of `others`, which a batch holds
    too. `form` is what an encoder takes."""
    encoded = list(encoded)
    names = source_names(stream.source for stream in encoded)
    alone = [stream for stream in encoded if not stream.source.operation.pairs_fields]
    apart = [(loaded_origin(stream.source), stream.encoder) for stream in alone]
    parts = [(part, stream.encoder) for stream in encoded for part in loaded_parts(stream.source)]
    taken: set[str] = set(others)
    in_forms: dict[tuple[Node, Hashable], str] = {}
    for source, encoder in [*apart, *parts]:
        if (source, form(encoder, source)) not in in_forms:
            first = names[source] not in taken
            name = names[source] if first else f"{names[source]}_{encoder.tower}"
            in_forms[source, form(encoder, source)] = _unique(name, taken)
    return [Reading(name, source, taken_in) for (source, taken_in), name in in_forms.items()]


def root_field(source: Node) -> Node:
    """The field node below a chain of views."""
    while source.operation is not FIELD:
        source = source.inputs[0]
    return source


def block_of(node: Node) -> int:
    """How many consecutive samples of the batch a `mix` or a `flipped` reads backwards; 0: all of it."""
    block = node.attribute("block")
    assert isinstance(block, int)
    return block


def _stream_names(encodes: list[Node]) -> list[str]:
    sources = source_names(node.inputs[0] for node in encodes)
    taken: set[str] = set()
    return [_unique(sources[node.inputs[0]] + _encoder_suffix(encoder_of(node)), taken) for node in encodes]


def source_names(encoded: Iterable[Node]) -> dict[Node, str]:
    """The name of each source that is encoded, of the parts of pairs, and of what is mixed: a plain field keeps its own."""
    encoded = list(dict.fromkeys(encoded))
    parts = [part for source in encoded for part in (*parts_of(source), *loaded_parts(source))]
    sources = list(dict.fromkeys([*encoded, *parts]))
    fields = [source for source in sources if source.operation is FIELD]
    taken: set[str] = set()
    names = {source: _unique(source.string("name"), taken) for source in fields}
    return names | {source: _unique(_source_name(source), taken) for source in sources if source not in names}


def _source_name(source: Node) -> str:
    """The fields of a source, followed by its views in order."""
    parts = parts_of(source)
    field = "_".join(root_field(part).string("name") for part in parts)
    return field + "".join(map(_view_suffix, parts)) + ("_blend" if source.operation is BLEND else "")


def _view_suffix(source: Node) -> str:
    """The suffix of the views of a field in order, with pipelines and numbers."""
    if source.operation is FIELD:
        return ""
    attributes = dict(source.attributes)
    words = [source.operation.word, attributes.get("pipeline"), attributes.get("view")]
    return "_".join([_view_suffix(source.inputs[0]), *(str(word) for word in words if word is not None)])


def _encoder_suffix(encoder: Encoder) -> str:
    """The tower, unless it is the one that a field of this kind has by itself; the last head; whether a teacher encodes."""
    tower = [] if encoder.tower in _DEFAULT_TOWERS else [encoder.tower]
    heads = [head.name for head in encoder.heads[-1:]]
    return "".join(f"_{word}" for word in [*tower, *heads, *(["teacher"] if encoder.teacher else [])])


def _unique(name: str, taken: set[str]) -> str:
    """`name`, with the next free number if it is taken; marks it as taken."""
    unique, copy = name, 2
    while unique in taken:
        unique, copy = f"{name}_{copy}", copy + 1
    taken.add(unique)
    return unique
