"""The few coercions of the language: a field becomes the output of its encoder, a number a scalar."""

from __future__ import annotations

from vlmdsl.diagnostics.catalog.types import (
    ContextNotTaken,
    NoClassToken,
    NoEncoder,
    PooledWhereTokensAreCompared,
    SetWhereOneIsWanted,
    TokensWherePooledIsCompared,
    WrongType,
)
from vlmdsl.frontend.hints import MADE_BY, READ_BY
from vlmdsl.frontend.session import Session
from vlmdsl.ir import Node, encoder_of
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.modules import APPLY, EMBEDDED, STATES, pooler_of
from vlmdsl.ir.operations.scalars import STOP
from vlmdsl.primitives import Fault
from vlmdsl.primitives.values import (
    AllSamples,
    EncoderValue,
    ErrorValue,
    FunctionValue,
    FusionValue,
    MaskValue,
    NumberValue,
    PixelsValue,
    SimilarityValue,
    StringValue,
    TupleValue,
    Value,
    ViewSet,
    ViewValue,
    type_of,
)
from vlmdsl.source import Span
from vlmdsl.types import (
    FIELD_KINDS,
    JOINED,
    AlignmentType,
    AssignmentType,
    BoxAssignmentType,
    CodesType,
    ConditionType,
    DistributionType,
    DrawsType,
    EncodedType,
    FieldType,
    InputsType,
    LabelsType,
    LogitsType,
    LossType,
    MemoryType,
    PatchesType,
    PicksType,
    ScalarType,
    ScoreType,
    SimType,
    TableType,
    TargetType,
    TokensType,
    VectorType,
    VecType,
    WordMapType,
    as_value,
)

__all__ = ["encode", "fits", "kind_of", "pooled", "tokens", "words"]

_NODE_KINDS = {
    EncodedType: "Encoded",
    VecType: "Vec",
    VectorType: "Vector",
    TokensType: "Tokens",
    MemoryType: "Memory",
    LabelsType: "Labels",
    InputsType: "Inputs",
    TableType: "Table",
    PicksType: "Picks",
    PatchesType: "Patches",
    BoxAssignmentType: "BoxAssignment",
    LogitsType: "Logits",
    CodesType: "Codes",
    DrawsType: "Draws",
    DistributionType: "Distribution",
    SimType: "Sim",
    AlignmentType: "Alignment",
    AssignmentType: "Assignment",
    WordMapType: "WordMap",
    ScoreType: "Score",
    ConditionType: "Condition",
    TargetType: "Target",
    ScalarType: "Scalar",
    LossType: "Loss",
}

_STATIC_KINDS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (NumberValue, ("Scalar", "Static")),
    (StringValue, ("String", "Static")),
    (AllSamples, ("Condition",)),
    (MaskValue, ("Mask",)),
    (PixelsValue, ("Pixels",)),
    (SimilarityValue, ("Similarity",)),
    (ViewValue, ("View",)),
    (EncoderValue, ("Encoder",)),
    (FusionValue, ("Fusion",)),
    (TupleValue, ("Tuple",)),
    (FunctionValue, ("Function",)),
)

_WORDS = {
    "Encoded": "an encoded stream",
    "Vec": "pooled features",
    "Vector": "one vector per step",
    "Tokens": "token features",
    "Memory": "a memory (a queue of features)",
    "Labels": "a queue of labels",
    "Inputs": "a queue of images or texts",
    "Table": "a column of a reference set",
    "Picks": "picks of the batch",
    "Logits": "logits of tokens or patches",
    "Codes": "codes of patches",
    "Distribution": "a distribution per sample",
    "Sim": "a similarity matrix",
    "Alignment": "logits of regions and words",
    "BoxAssignment": "the box that each patch is for",
    "WordMap": "a map of the words of regions",
    "Score": "one number per sample",
    "Condition": "a condition per sample",
    "Choice": "a comparison of draws",
    "Target": "a target",
    "Scalar": "a number",
    "Loss": "a loss",
    "Joined": "an image with a text",
    "Mask": "a mask",
    "Patches": "patches of pixels",
    "Pixels": "the pixels of an image",
    "Similarity": "a similarity",
    "Function": "a function",
    "View": "a view",
    "Encoder": "an encoder",
    "Tuple": "a tuple",
    "String": "a string",
    "Static": "a constant",
}


def kind_of(value: Value) -> tuple[str, ...]:
    """The kinds (`Subject.accepts`) of a value."""
    if isinstance(value, Node):
        if isinstance(value.type, FieldType):
            read = as_value(value.type)
            return (value.type.kind,) if read is value.type else (value.type.kind, _NODE_KINDS[type(read)])
        if value.type == ConditionType(""):
            return ("Choice",)
        return (_NODE_KINDS[type(value.type)],)
    if isinstance(value, NumberValue) and value.is_truth:
        return ("Choice",)
    for static, kinds in _STATIC_KINDS:
        if isinstance(value, static):
            return kinds
    return ()


def words(accepts: tuple[str, ...]) -> str:
    """`accepts` in words, for messages."""
    named = [_words(kind) for kind in accepts if kind != "Static" or len(accepts) == 1]
    return named[0] if len(named) == 1 else ", ".join(named[:-1]) + " or " + named[-1]


def _words(kind: str) -> str:
    return _WORDS[kind] if kind in _WORDS else FIELD_KINDS[kind].words if kind in FIELD_KINDS else kind


def fits(value: Value, accepts: tuple[str, ...], *, function: str, argument: str, place: Span) -> Value:
    """`value` if it is of one of the kinds, else Fault V0301 (V0314 for a set)."""
    if isinstance(value, ErrorValue) or "Any" in accepts or set(kind_of(value)) & set(accepts):
        return value
    if "Encoded" in accepts and isinstance(value, Node) and isinstance(value.type, FieldType):
        return value  # Encoding it raises the specific fault.
    if isinstance(value, ViewSet):
        raise Fault(SetWhereOneIsWanted.at(place, found=type_of(value)), value)
    actual = type_of(value)
    ways = [way for kind, way in MADE_BY.items() if kind in accepts and len(accepts) <= 2]
    help = (*ways, f"`vlmdsl explain {function}` lists its arguments")
    wrong = WrongType.at(
        place, str(actual), help=help, argument=argument, function=function, wanted=words(accepts), found=actual
    )
    raise Fault(wrong, value)


def encode(session: Session, value: Value, place: Span) -> Value:
    """The output of the encoder of a field's type; other values unchanged. Fault V0312 if no encoder takes it."""
    if not (isinstance(value, Node) and isinstance(value.type, FieldType)) or isinstance(as_value(value.type), VecType):
        return value
    encoder = session.encoders.get(value.type.kind)
    if encoder is None or value.type.count is not None:
        joined = value.type.kind == JOINED
        help = (f"a shared tower encodes it: `shared(vision, language)({value.operation}(...))`",) if joined else ()
        if value.type.count is None and value.type.kind in READ_BY:
            help = (READ_BY[value.type.kind],)
        raise Fault(NoEncoder.at(place, str(value.type), help=help, type=value.type), value)
    return session.add("encode", value, span=place, encoder=encoder)


def _feature_fault(value: Value, place: Span, wanted_by: str, expected: str) -> Fault:
    if isinstance(value, ViewSet):
        return Fault(SetWhereOneIsWanted.at(place, found=type_of(value)), value)
    return Fault(
        WrongType.at(
            place, str(type_of(value)), argument="stream", function=wanted_by, wanted=expected, found=type_of(value)
        ),
        value,
    )


def pooled(session: Session, value: Value, place: Span, wanted_by: str) -> Node:
    """The pooled features of a stream. Fault V0305 for token features."""
    value = encode(session, value, place)
    if isinstance(value, Node):
        if isinstance(value.type, VecType):
            return value
        if isinstance(as_value(value.type), VecType):
            return session.add("stop", value, span=place)  # data has no gradient
        if isinstance(value.type, EncodedType) and not _collects_nothing(value):
            return _output(session, "pooled", value, place)
        if isinstance(value.type, EncodedType):
            help = ('give it a class token: `text_decoder(class_token="appended", cross_from=50%)`',)
            raise Fault(NoClassToken.at(place, help=help, decoder=encoder_of(_base(value)).tower), value)
        if isinstance(value.type, TokensType):
            help = ("drop `.tokens`, or choose a similarity that compares tokens: tokenmax, tokenmean",)
            raise Fault(
                TokensWherePooledIsCompared.at(place, str(value.type), help=help, similarity=_said(wanted_by)), value
            )
    raise _feature_fault(value, place, wanted_by, "an encoded stream or pooled features")


def tokens(session: Session, value: Value, place: Span, wanted_by: str) -> Node:
    """The token features of a stream. Fault V0304 if they have been pooled."""
    value = encode(session, value, place)
    if isinstance(value, Node):
        if isinstance(value.type, TokensType):
            return value
        if isinstance(value.type, EncodedType) and not _headed(value):
            return _output(session, "tokens", value, place)
        if isinstance(value.type, EncodedType):
            help = ("a head outputs pooled features only: compare the encoder's tokens, without `project` or `predict`",)
            raise Fault(
                PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity=_said(wanted_by)),
                value,
            )
        if isinstance(value.type, VecType):
            help = (f"drop `.pooled`: {wanted_by} reads the `.tokens` of the stream",)
            label = f"{value.type}, no token axis"
            raise Fault(PooledWhereTokensAreCompared.at(place, label, help=help, similarity=_said(wanted_by)), value)
    raise _feature_fault(value, place, wanted_by, "an encoded stream or token features")


def states(session: Session, value: Value, kind: str, place: Span) -> Node | None:
    """The last states of the tokens of a text or an image, or what a pooler gives of one, which fusion and text decoders
    take; None for anything else."""
    value = encode(session, value, place)
    if not isinstance(value, Node) or value.type != EncodedType(kind) or _headed(value):
        return None
    if _base(value).operation is APPLY:
        return _output(session, "tokens", value, place) if pooler_of(_base(value)) else None
    return _output(session, STATES, value, place)


def embedded(session: Session, value: Value, tower: str, place: Span) -> Node | None:
    """The embedded tokens of a text, which a fusion module takes that shares the blocks of this tower; None for anything
    else, and for what another tower encodes."""
    value = encode(session, value, place)
    if states(session, value, "Text", place) is None:
        return None
    assert isinstance(value, Node)
    return _output(session, EMBEDDED, value, place) if encoder_of(_base(value)).tower == tower else None


def _base(stream: Node) -> Node:
    """The encoded stream below `stop` and picks."""
    while stream.operation in (STOP, FETCH):
        stream = stream.inputs[0]
    return stream


def _output(session: Session, output: str, stream: Node, place: Span) -> Node:
    """One output of an encoded stream; of a stopped or fetched stream, the stopped or fetched output."""
    if stream.operation in (STOP, FETCH):
        inner = _output(session, output, stream.inputs[0], place)
        return session.add(stream.operation, inner, *stream.inputs[1:], span=place)
    return session.add(output, stream, span=place)


def _headed(stream: Node) -> bool:
    """Whether an encoded stream, perhaps stopped or fetched, went through a head."""
    while stream.operation in (STOP, FETCH):
        stream = stream.inputs[0]
    return stream.operation is ENCODE and bool(encoder_of(stream).heads)


def _collects_nothing(stream: Node) -> bool:
    """Whether an encoded stream is that of a text decoder without a token that collects the text."""
    base = _base(stream)
    decoder = encoder_of(base).decoder if base.operation is ENCODE else None
    return decoder is not None and not decoder.class_token


def _said(operation: str) -> str:
    """The name of a similarity as recipes write it: the operation `dot` on unit vectors is `cosine`."""
    return {"dot": "cosine"}.get(operation, operation)


def is_alone(fusion: FusionValue) -> bool:
    """Whether a fusion module is for texts alone."""
    return getattr(fusion.settings, "attention", "") == "none"


def shared_tower(fusion: FusionValue) -> str:
    """The text tower whose blocks a fusion module shares; empty if it has its own."""
    return getattr(fusion.settings, "shares", "")


def context_fault(subject: Value, context: Value | None, fusion: FusionValue, place: Span) -> Fault:
    """Why `subject | context` is not a text given an image, and how to write one; or why `fusion` does not take a text."""
    if context is None:
        expected = f"a Text; `{fusion.name}` takes the output of a tower, without a head"
        return Fault(WrongType.at(place, argument="text", function=fusion.name, wanted=expected, found=type_of(subject)))
    sides = [_kind_of(subject), _kind_of(context)]
    if is_alone(fusion) and sides == ["Text", "Image"]:
        help = f'`{fusion.name}` is for texts alone, `attention="none"`: call it by its name with the text'
    elif sides == ["Image", "Text"]:
        help = "exchange the sides: the text is on the left of `|`, the image on the right"
    elif sides == ["Text", "Image"]:
        help = "use the output of a tower, or what a pooler gives of it: streams with a head, or fused before, are not fused"
        if shared_tower(fusion):
            help = f"use the output of `{shared_tower(fusion)}`, whose blocks `{fusion.name}` shares"
    elif any(type_of(value) == TokensType(tokens="K") for value in (subject, context)):
        help = "several picks give pooled features: pick one, `mine(..., k=1)`, and for further negatives mine again"
    else:
        help = "fuse a Text with an Image: `text | image`"
    return Fault(ContextNotTaken.at(place, help=(help,), subject=type_of(subject), context=type_of(context)))


def fused_fault(fused: Node, fusion: FusionValue, place: Span) -> Fault:
    """Why a module that is called by its name does not take a text that is fused already."""
    help = f"call it with both: `{fusion.name}(text, image)`, and a teacher of it `elder(text, image)`"
    actual, expected = type_of(fused), "a Text, and its image"
    wrong = WrongType.at(place, help=(help,), argument="text", function=fusion.name, wanted=expected, found=actual)
    return Fault(wrong, fused)


def _kind_of(value: Value) -> str:
    """The kind of a field, or of the field that a stream encodes."""
    return value.type.kind if isinstance(value, Node) and isinstance(value.type, FieldType | EncodedType) else ""
