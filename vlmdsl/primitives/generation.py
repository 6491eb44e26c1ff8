"""Primitives of captioning: text decoders, the split of a text into a prefix and the rest, the loss of next tokens, and
texts that a decoder has written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Encoder, Node, encoder_of, parts_of, root_field, walk
from vlmdsl.ir.operations.encoding import ENCODE, context_of
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.prediction import TARGETS, TokenLossParameters, check_targets, logits_of_tokens
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES, chosen_samples
from vlmdsl.primitives.spec import Builder, GivenName, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, FusionValue, TupleValue, Value
from vlmdsl.source.limits import MAXIMUM_BLOCKS, MAXIMUM_WIDTH
from vlmdsl.types import EncodedType, FieldType


class TextDecoderParameters(Parameters):
    """Arguments of `text_decoder`."""

    depth: int = Field(default=6, ge=1, le=MAXIMUM_BLOCKS, description="number of blocks")
    width: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="width of the decoder; 0: that of its context")
    heads: int = Field(
        default=0,
        ge=0,
        le=MAXIMUM_WIDTH,
        description="number of attention heads; 0: one per 64 features, at least four of 16",
    )
    cross_from: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="the share of the blocks, the first ones, that do not see the context"
    )
    class_token: Literal["none", "appended"] = Field(
        default="none",
        description=(
            "`appended`: a learned token after the text collects it in the blocks that do not see the context, and gives"
            " the pooled features (CoCa)"
        ),
    )
    name: GivenName = Field(default="captioner", description="its name in checkpoints; decoders with one name share weights")


def _text_decoder(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    from vlmdsl.ir.modules import TextDecoderSettings  # few recipes have a decoder, and classes take time to make

    assert isinstance(parameters, TextDecoderParameters)
    if isinstance(subjects["shares"], FusionValue):
        return _sharing(builder, subjects["shares"], parameters)
    values = {**parameters.model_dump(), "class_token": parameters.class_token == "appended"}
    name, depth = values.pop("name"), parameters.depth
    if values["class_token"] and not 0 < round(parameters.cross_from * depth) < depth:
        reason = (
            f"of {depth} blocks a share of {parameters.cross_from:g} leaves no block without the context, or none with it"
        )
        help = "a class token needs blocks that do not see the context, and others that do: `depth=2, cross_from=50%`"
        raise bad_value(builder, "cross_from", "text_decoder", reason, help)
    if parameters.width % (parameters.heads or 1):
        reason = f"{parameters.width} is not a multiple of {parameters.heads}, the heads"
        raise bad_value(builder, "width", "text_decoder", reason)
    return EncoderValue(Encoder(name, "Text", decoder=TextDecoderSettings(**values)))


def _sharing(builder: Builder, fusion: FusionValue, parameters: TextDecoderParameters) -> Value:
    """The decoder that has the blocks of a fusion module, but for self-attention."""
    from vlmdsl.ir.modules import FusionSettings, TextDecoderSettings

    own = fusion.settings
    if not isinstance(own, FusionSettings) or own.attention != "cross" or fusion.teacher is not None or fusion.heads:
        expected = "a built-in fusion module in which texts attend to images, `fuse()`, itself: no teacher or head of it"
        raise wrong_type(builder, "shares", "text_decoder", fusion, expected)
    for name in ("depth", "width", "heads", "cross_from", "class_token"):
        if name in parameters.model_fields_set:
            reason = f"is that of `{fusion.name}`, whose weights the decoder shares: leave it out"
            raise bad_value(builder, name, "text_decoder", reason)
    settings = TextDecoderSettings(own.depth, own.width, own.heads, shares=fusion.name)
    return EncoderValue(Encoder(parameters.name, "Text", decoder=settings))


register(
    Primitive(
        name="text_decoder",
        family="generation",
        summary=(
            "A transformer that predicts each token of a text from those before it, and attends to a context:"
            " `captioner(text, image)`. The context is an image, what a pooler gives of one, or nothing. One that shares"
            " the weights of a fusion module has its blocks, all but their self-attention, and the words and positions of"
            " the text tower (BLIP)."
        ),
        meaning=_text_decoder,
        subjects=(
            Subject(
                "shares",
                ("Fusion",),
                "the fusion module whose weights it shares, and whose depth, width and heads it has",
                default=TupleValue(()),
                keyword=True,
            ),
        ),
        parameters=TextDecoderParameters,
        formula=r"d(t_{\leq k}, x)",
        cost="its blocks, over the tokens of the text, with attention to those of the context",
        example=(
            "recipe captions(image: Image, text: Text)\nencoder captioner = text_decoder(depth=2)\n"
            "minimize next_token(linear(captioner(text, image)), text)"
        ),
    )
)


class PrefixParameters(Parameters):
    """Arguments of `prefix`."""

    name: OptionalName = Field(default="", description="the name of its draw; by default the name that it is bound to")


def _prefix(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, PrefixParameters)
    return builder.uniforms(parameters.name, count=1)


register(
    Primitive(
        name="prefix",
        family="generation",
        summary=(
            "The first tokens of a text, as many as a draw of each sample and epoch says: all counts but the whole text are"
            " as likely. A text decoder sees them in both directions, and does not predict them (SimVLM)."
        ),
        meaning=_prefix,
        parameters=PrefixParameters,
        formula=r"p_i \sim \mathcal{U}\{0, \ldots, n_i - 1\}",
        cost="none",
        example=(
            "recipe captions(image: Image, text: Text)\nencoder captioner = text_decoder(depth=2)\nlet p = prefix()\n"
            "minimize next_token(linear(captioner(text, image, prefix=p)), text)"
        ),
    )
)


def _next_token(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, TokenLossParameters)
    logits, stopped = logits_of_tokens(builder, subjects["logits"], "logits", "next_token")
    encode = logits.inputs[0]
    if encode.operation is not ENCODE or encode.type != EncodedType("Text") or encoder_of(encode).teacher is not None:
        expected = "logits of a text decoder or a causal text tower: others see the tokens that they would predict"
        raise wrong_type(builder, "logits", "next_token", subjects["logits"], expected)
    check_targets(builder, encode, "targets", subjects["targets"], "next_token")
    arguments = parameters.model_dump(exclude_defaults=True)
    chosen = chosen_samples(builder, subjects, "next_token")
    loss = builder.add("token_loss", logits, builder.add("token_ids", encode, which="next"), *chosen, **arguments)
    return builder.add("stop", loss) if stopped else loss


register(
    Primitive(
        name="next_token",
        family="generation",
        summary=(
            "The cross-entropy between the logits at each token and the id of the next one, averaged over the tokens of the"
            " global batch; never of padding, the first token or a prefix; 0 if there are none. With `weight` the weighted"
            " mean, each token with the weight of its sample."
        ),
        meaning=_next_token,
        subjects=(
            Subject("logits", ("Logits",), "the logits that a text decoder computes at each token"),
            TARGETS,
            *SAMPLES,
        ),
        parameters=TokenLossParameters,
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{\sum_i n_i} \sum_i \sum_k -\log p(t_{i,k+1} \mid t_{i, \leq k}, x_i)",
        cost="2 N W V FLOPs and N V logits for N tokens; large logits are computed in chunks of tokens",
        example=(
            "recipe captions(image: Image, text: Text)\nencoder captioner = text_decoder(depth=2)\n"
            "minimize next_token(linear(captioner(text, image)), text, smoothing=10%)"
        ),
    )
)


class WrittenParameters(Parameters):
    """Arguments of `written`."""

    share: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="the probability, per sample and epoch, of the written text, not the own one",
    )
    beams: int = Field(
        default=1, ge=1, le=16, description="texts that the search keeps at each token; 1: the likeliest token"
    )


def _written(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    decoded = subjects["decoded"]
    assert isinstance(parameters, WrittenParameters)
    if not isinstance(decoded, Node) or decoded.operation is not ENCODE or not (encoder := encoder_of(decoded)).decoder:
        raise wrong_type(builder, "decoded", "written", decoded, "the call of a text decoder: `captioner(text, image)`")
    if encoder.teacher is not None:
        raise bad_value(builder, "decoded", "written", "its decoder is a teacher, and teachers do not write")
    *prompt, text = parts_of(decoded.inputs[0])
    image = _image_of(decoded)
    if image is None:
        raise bad_value(builder, "decoded", "written", "its decoder sees no image, and would write the same of all samples")
    if any(each.operation is not FIELD for each in (text, *prompt)):
        help = "give the decoder the fields themselves, and take views of what is written"
        raise bad_value(builder, "decoded", "written", "its decoder is given a view of a text", help)
    values = parameters.model_dump()
    return builder.add("written", text, image, *prompt, by=encoder.tower, draw=builder.draw(), **values)


def _image_of(decoded: Node) -> Node | None:
    """The field of the image that a decoder attends to."""
    context = context_of(decoded)
    encoded = [] if context is None else [node for node in walk([context]) if node.operation is ENCODE]
    fields = (root_field(node.inputs[0]) for node in encoded)
    return next((field for field in fields if field.type == FieldType("Image")), None)


register(
    Primitive(
        name="written",
        family="views",
        summary=(
            "The text that a decoder writes of the whole image, in place of the text that it is given here, after its prompt"
            " if it has one. An earlier stage has trained the decoder, which writes before the first step of this stage."
        ),
        meaning=_written,
        subjects=(Subject("decoded", ("Encoded",), "the call of a text decoder, which names what it reads"),),
        parameters=WrittenParameters,
        formula=r"\hat t_i = \arg\max_t p(t \mid x_i)",
        cost="none in a step; before the first one, a pass of the decoder for each token of each sample",
        example=(
            "recipe captions(image: Image, text: Text)\nencoder captioner = text_decoder(depth=2)\n"
            "let said = captioner(text, image)\nstage writing {\n  minimize next_token(linear(said), text)\n}\n"
            "stage pairs from writing {\n  minimize contrast(image, written(said, share=50%))\n}"
        ),
    )
)
