"""Prediction of tokens and patches: logits over a vocabulary or a codebook, and criteria that compare them with ids or
codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.meaning import NothingHidden
from vlmdsl.diagnostics.catalog.types import PooledWhereTokensAreCompared
from vlmdsl.ir import Module, Node, Use, encoder_of, masked_text, parts_of, uses_of
from vlmdsl.ir.operations.encoding import ENCODE, VOCABULARY, source_of
from vlmdsl.ir.operations.modules import APPLY, STATES, patches_of, use_of
from vlmdsl.ir.operations.scalars import STOP
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.patch_masks import check_all_patches, decodes_states, mask_of_patches, without_masks
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES, chosen_samples, without_samples
from vlmdsl.primitives.spec import Builder, Fault, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import MaskValue, TupleValue, Value
from vlmdsl.source.limits import MAXIMUM_ENTRIES
from vlmdsl.types import JOINED, CodesType, EncodedType, LogitsType


def _encoded_text(builder: Builder, value: Value, function: str, argument: str = "text") -> tuple[Node, bool]:
    """The encoded text (alone, joined with its image or fused with it), and whether its gradient is stopped."""
    encoded = builder.encoded(value, argument)
    stopped = isinstance(encoded, Node) and encoded.operation is STOP
    encode = encoded.inputs[0] if isinstance(encoded, Node) and stopped else encoded
    texts = (EncodedType("Text"), EncodedType(JOINED))
    if not isinstance(encode, Node) or encode.type not in texts or encode.operation not in (ENCODE, APPLY):
        raise wrong_type(builder, argument, function, encoded, "a Text")
    if encode.operation is ENCODE and encoder_of(encode).heads:
        help = ("a head outputs pooled features only: use the tower itself, without `project` or `predict`",)
        place = builder.place(argument)
        raise Fault(
            PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity=function), encoded
        )
    return encode, stopped


def _linear_of_patches(builder: Builder, encode: Node, parameters: LinearParameters) -> Node:
    """Logits of the patches of an encoded image, or of the states that a decoder gives of them: a map of the tower."""
    from vlmdsl.ir.modules import LinearSettings  # few recipes apply modules, and classes take time to make

    decoded = encode if decodes_states(encode) else None
    encode = encode if decoded is None else decoded.inputs[0].inputs[0]
    fused = encode.operation is APPLY
    if fused and getattr(use_of(encode).module.settings, "attention", "") != "merged":
        help = ('put both in one sequence: `encoder fusion = fuse(attention="merged")`',)
        raise bad_value(builder, "of", "linear", "the fusion has no states of the image", *help)
    if fused and encode.inputs[1].operation is not STATES:
        raise bad_value(builder, "of", "linear", "the fusion has what a pooler gives of the image, and no patches of it")
    if not fused and encoder_of(encode).heads:
        help = ("a head outputs pooled features only: use the tower itself, without `project` or `predict`",)
        place = builder.place("stream")
        raise Fault(PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity="linear"), encode)
    if not parameters.size:
        help = ("give the number of entries of the codebook: `linear(mask(image, m), size=8192)`",)
        raise bad_value(builder, "size", "linear", "the logits of patches need a size", *help)
    settings = LinearSettings(transform=parameters.transform != "none", size=parameters.size)
    below = use_of(encode) if fused else uses_of(encoder_of(encode))[0]
    states = decoded or builder.add("context" if fused else "states", encode)
    module = Module(parameters.name, "linear", settings, on=below.module)
    return builder.add("apply", states, use=Use(module, gradient=below.follows is None, follows=below.follows))


class LinearParameters(Parameters):
    """Arguments of `linear`; those but the transform are for the patches of an image: the head of a text is its tower's."""

    size: int = Field(default=0, ge=0, le=MAXIMUM_ENTRIES, description="entries of the codebook that is predicted")
    transform: Literal["none", "gelu"] = Field(
        default="none", description="what comes first: `none`, or a linear map, a `gelu` and a norm (BERT's head, FLAVA)"
    )
    of: Literal["text", "image"] = Field(
        default="text", description="which part of a text and an image in one sequence: its tokens, or its patches"
    )
    name: GivenName = Field(
        default="linear", description="its name in checkpoints; maps with one name on the same tower share weights"
    )


def _linear(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, LinearParameters)
    encoded = builder.encoded(subjects["stream"], "stream")
    if isinstance(encoded, Node) and encoded.operation is ENCODE and encoded.type == EncodedType("Image"):
        return _linear_of_patches(builder, encoded, parameters)
    if isinstance(encoded, Node) and (decodes_states(encoded) or (encoded.operation is APPLY and parameters.of == "image")):
        return _linear_of_patches(builder, encoded, parameters)
    encode, stopped = _encoded_text(builder, subjects["stream"], "linear", "stream")
    if parameters.of == "image" and encode.type == EncodedType(JOINED):
        reason = "a shared tower predicts the words of an image and its text in one sequence, not its patches"
        fused = '`encoder fusion = fuse(attention="merged")`, `linear(text | mask(image, m), of="image", size=...)`'
        raise bad_value(builder, "of", "linear", reason, f"put both in one sequence by a fusion module: {fused}")
    for name in sorted(parameters.model_fields_set - {"transform"}):
        raise bad_value(
            builder, name, "linear", "it is for the patches of an image; a text is predicted by its tower's head"
        )
    logits = _logits_of_text(builder, encode, parameters.model_dump(include={"transform"}, exclude_defaults=True))
    return builder.add("stop", logits) if stopped else logits


def _logits_of_text(builder: Builder, encode: Node, transform: Mapping[str, object]) -> Node:
    """The logits of a text: of its tower after the `transform` that is asked for, of a fusion module always after one."""
    if transform and encode.operation is APPLY:
        reason = "a fusion module always predicts words after a linear map, a GELU and a norm"
        raise bad_value(builder, "transform", "linear", reason, "leave `transform` out")
    return builder.add("vocabulary", encode, **transform)


register(
    Primitive(
        name="linear",
        family="prediction",
        summary=(
            "Logits of each token of a text, one per vocabulary entry: a linear map of the token's state, whose weights are "
            "the text tower's; a tower has one such head, with a `transform` or without. Of the patches of an image: one "
            "per entry of a codebook, by a map with separate weights, which that of a teacher follows."
        ),
        meaning=_linear,
        subjects=(
            Subject(
                "stream",
                ("Encoded", "Text", "Image", "Tokens"),
                "a text, with an image or without, an image, a tower's output for one, or decoded states of an image",
            ),
        ),
        parameters=LinearParameters,
        formula=r"z_{ik} = W h_{ik} + b",
        cost="2 N W V FLOPs and N V logits for N tokens",
        example="let m = random(15%)\nminimize token_loss(linear(mask(text, m)), text, at=m)",
    )
)


TARGETS = Subject("targets", ("Text", "Codes"), "the text whose tokens are predicted, masked or not, or codes of patches")
AT = Subject(
    "at", ("Mask",), "the mask that selected tokens or patches; without it all are predicted", TupleValue(()), keyword=True
)
"""The arguments of criteria over logits, besides the logits."""


class TokenLossParameters(Parameters):
    """Arguments of `token_loss`."""

    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of each target that goes to other entries")
    over: Literal["all", "others"] = Field(
        default="all", description="which entries get it: `all`, including the target, or only the `others`"
    )
    reduction: Literal["token", "sample", "sum"] = Field(
        default="token",
        description=(
            "`token`: the mean over all tokens of the global batch; `sample`: the mean over samples of each one's mean; "
            "`sum`: the mean over samples of each one's sum; samples are those that count, each as much as its weight"
        ),
    )


def _token_loss(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, TokenLossParameters)
    return loss_of_tokens(builder, subjects, "token_loss", parameters.model_dump(exclude_defaults=True))


def loss_of_tokens(builder: Builder, subjects: Mapping[str, Value], operation: str, arguments: Mapping[str, object]) -> Node:
    """The loss of an operation that compares the logits of tokens with their ids.

    `subjects` are the logits, the text and the mask, in the order of `token_loss`, under any names; and `SAMPLES`.
    """
    chosen, subjects = chosen_samples(builder, subjects, operation), without_samples(subjects)
    names = list(subjects)
    targets = subjects[names[1]]
    if isinstance(targets, Node) and isinstance(targets.type, CodesType):
        return _loss_of_codes(builder, subjects, chosen, operation, arguments)
    logits, stopped = logits_of_tokens(builder, subjects[names[0]], names[0], operation)
    encode = logits.inputs[0]
    without_decoder(builder, encode, names[0], operation, subjects[names[0]])
    which = which_tokens(builder, encode, {name: subjects[name] for name in names[1:]}, operation)
    loss = builder.add(operation, logits, builder.add("token_ids", encode, which=which), *chosen, **arguments)
    return builder.add("stop", loss) if stopped else loss


def _loss_of_codes(
    builder: Builder,
    subjects: Mapping[str, Value],
    chosen: tuple[Node, ...],
    operation: str,
    arguments: Mapping[str, object],
) -> Node:
    """The loss of an operation that compares the logits of patches with their codes."""
    (argument, value), (target, codes), (where, at) = subjects.items()
    stopped = isinstance(value, Node) and value.operation is STOP
    logits = value.inputs[0] if isinstance(value, Node) and stopped else value
    if not isinstance(logits, Node) or logits.operation is not APPLY or not isinstance(logits.type, LogitsType):
        raise wrong_type(builder, argument, operation, value, "logits of patches, `linear(image, size=...)`")
    check_all_patches(builder, logits, argument, operation)
    encode = patches_of(logits)
    assert isinstance(codes, Node)
    source, settings = encode.inputs[0], encoder_of(codes.inputs[0]).codebook
    if codes.inputs[0].inputs[0] not in (source, without_masks(source)):
        help = ("name the view, `let x = augment(image)`, and use it in both",)
        raise bad_value(builder, target, operation, "these are not codes of the image of which there are logits", *help)
    entries = getattr(use_of(logits).module.settings, "size", 0)
    if settings is not None and settings.size != entries:
        reason = f"the codebook has {settings.size} entries, and there are logits of {entries}"
        raise bad_value(builder, target, operation, reason, f"predict all of them: `linear(..., size={settings.size})`")
    if isinstance(at, MaskValue):
        codes = builder.add("codes_at", codes, mask_of_patches(builder, encode, at, where, operation))
    loss = builder.add(operation, logits, codes, *chosen, **arguments)
    return builder.add("stop", loss) if stopped else loss


def logits_of_tokens(builder: Builder, value: Value, argument: str, function: str) -> tuple[Node, bool]:
    """The logits that `linear` returned, and whether their gradient is stopped."""
    stopped = isinstance(value, Node) and value.operation is STOP
    logits = value.inputs[0] if isinstance(value, Node) and stopped else value
    if not isinstance(logits, Node) or logits.operation is not VOCABULARY:
        raise wrong_type(builder, argument, function, value, "logits, `linear(...)`")
    return logits, stopped


def without_decoder(builder: Builder, encode: Node, argument: str, function: str, value: Value) -> None:
    """Fault for the logits of a text decoder: what it predicts is the next token."""
    if encode.operation is ENCODE and encoder_of(encode).decoder is not None:
        expected = "logits of tokens that it hides; those of a text decoder are for `next_token`"
        raise wrong_type(builder, argument, function, value, expected)


def check_targets(builder: Builder, encode: Node, argument: str, targets: Value, function: str) -> None:
    """Fault unless `targets` is the text, masked or not, of which something is predicted."""
    source = parts_of(source_of(encode))[-1]
    masked = masked_text(source)
    if targets is not source and (masked is None or targets is not masked.inputs[0]):
        help = ("name the text, `let t = rewrite(text, M=1)`, and use it in both",)
        raise bad_value(builder, argument, function, "this is not the text of which there are logits", *help)


def which_tokens(builder: Builder, encode: Node, subjects: Mapping[str, Value], function: str) -> str:
    """Which tokens of a text are predicted: those that a mask selected, or all."""
    (text, targets), (mask, at) = subjects.items()
    check_targets(builder, encode, text, targets, function)
    masked = masked_text(parts_of(source_of(encode))[-1])
    if isinstance(at, TupleValue):  # left out
        return "all"
    assert isinstance(at, MaskValue)
    selected = {"share": float(at.share), "draw": at.draw, **at.attributes}
    if masked is None or not selected.items() <= dict(masked.attributes).items():
        help = ("name the mask, `let m = random(15%)`, and use it in both: `linear(mask(text, m))`, `at=m`",)
        raise bad_value(builder, mask, function, "it is not the mask by which tokens of the text were selected", *help)
    return "selected"


register(
    Primitive(
        name="token_loss",
        family="prediction",
        summary=(
            "The cross-entropy between the logits and the ids of tokens, averaged over the tokens of the global batch that "
            "a mask selected, or over all tokens; 0 if there are none. With `weight` the weighted mean, each token with the "
            "weight of its sample."
        ),
        meaning=_token_loss,
        subjects=(
            Subject("logits", ("Logits",), "the logits of each token"),
            TARGETS,
            AT,
            *SAMPLES,
        ),
        parameters=TokenLossParameters,
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{|M|} \sum_{(i,k) \in M} \left(\log \sum_v e^{z_{ikv}} - z_{ik t_{ik}}\right)",
        cost="one pass over N V logits for N tokens; large logits are computed in chunks of tokens",
        example="let m = random(15%)\nminimize token_loss(linear(mask(text, m)), text, at=m, smoothing=10%)",
    )
)


def _mlm(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    encode, stopped = _encoded_text(builder, subjects["text"], "mlm")
    if masked_text(source_of(encode)) is None:
        help = ("mask some: `mlm(mask(text, random(15%)))`",)
        raise Fault(NothingHidden.at(builder.place("text"), help=help), subjects["text"])
    without_decoder(builder, encode, "text", "mlm", subjects["text"])
    logits = builder.add("vocabulary", encode)
    chosen = chosen_samples(builder, subjects, "mlm")
    loss = builder.add("token_loss", logits, builder.add("token_ids", encode, which="selected"), *chosen)
    return builder.add("stop", loss) if stopped else loss


register(
    Primitive(
        name="mlm",
        family="prediction",
        summary=(
            "Masked language modelling, `token_loss(linear(masked), text, at=m)`: the text tower predicts each selected "
            "token; the mean over all selected tokens of the global batch, 0 if there is none."
        ),
        meaning=_mlm,
        subjects=(
            Subject("text", ("Encoded", "Text"), "a masked text or a tower's output for it, joined with an image or not"),
            *SAMPLES,
        ),
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{\sum_i |M_i|} \sum_i \sum_{k \in M_i} -\log p(t_{ik} \mid \tilde{t}_i)",
        cost="2 N W V FLOPs and N V logits for about N selected tokens",
        example="minimize mlm(mask(text, random(15%)))",
    )
)
