"""Primitives for a text given an image: the module that encodes both, and image-text matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Encoder, Head, Module, Node, Use, walk
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES, chosen_samples
from vlmdsl.primitives.spec import Builder, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, FusionValue, TupleValue, Value
from vlmdsl.source.limits import MAXIMUM_LAYERS, MAXIMUM_WIDTH

_MATCH = Head("matched", 1, 0, 2, "none", "none", "relu", "all", "global", "each")
"""The head of image-text matching: a linear map to two logits, the second of which stands for a pair."""


class FuseParameters(Parameters):
    """Arguments of `fuse`."""

    depth: int = Field(default=6, ge=1, le=MAXIMUM_LAYERS, description="number of blocks")
    width: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="width of the module; 0: that of the text states")
    heads: int = Field(
        default=0,
        ge=0,
        le=MAXIMUM_WIDTH,
        description="number of attention heads; 0: one per 64 features, at least four of 16",
    )
    attention: Literal["cross", "merged", "none"] = Field(
        default="cross",
        description=(
            "`cross`: the text attends to the image in every block (ALBEF); `merged`: both are one sequence (FLAVA); "
            "`none`: further blocks for a text alone, `reader(text)` (the text decoder of MaskCLIP)"
        ),
    )
    pooled: Literal["first", "learned"] = Field(
        default="first", description="the pooled features: the state of the `first` token, or of a `learned` one"
    )
    gate: Literal["none", "learned"] = Field(
        default="none",
        description="`learned`: a gate in each block, which starts at 0, multiplies the output of cross-attention (FIBER)",
    )
    name: GivenName = Field(default="fusion", description="its name in checkpoints; modules with one name share weights")


def _fuse(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    from vlmdsl.ir.modules import FusionSettings  # few recipes apply modules, and classes take time to make

    assert isinstance(parameters, FuseParameters)
    values = parameters.model_dump()
    shares = subjects["shares"]
    if isinstance(shares, EncoderValue):
        values |= {"depth": 0, "shares": _shared_tower(builder, shares, parameters)}
    return FusionValue(values.pop("name"), FusionSettings(gated=values.pop("gate") == "learned", **values))


def _shared_tower(builder: Builder, shares: EncoderValue, parameters: FuseParameters) -> str:
    """The name of the text tower whose blocks the module has."""
    tower = shares.encoder
    if replace(tower, frozen=False) != Encoder(tower.tower, "Text"):
        expected = "a text tower, `language`, itself: no teacher, head or decoder, and none that encodes images too"
        raise wrong_type(builder, "shares", "fuse", shares, expected)
    for name in ("depth", "width", "heads", "attention", "pooled"):
        if name in parameters.model_fields_set:
            reason = f"is that of `{tower.tower}`, whose blocks the module shares: leave it out"
            raise bad_value(builder, name, "fuse", reason)
    return tower.tower


register(
    Primitive(
        name="fuse",
        family="fusion",
        summary=(
            "The module that encodes a text given an image, `text | image`: a transformer over the last states of the"
            " text tower that attends to those of the image tower. A recipe replaces the default by an encoder called"
            " `fusion`. One that shares a text tower is that tower, run once more on the embedded tokens, with"
            " cross-attention in each block, attention in both directions and a first token of its own (BLIP)."
        ),
        meaning=_fuse,
        subjects=(
            Subject(
                "shares",
                ("Encoder",),
                "the text tower whose blocks it shares, all of them",
                default=TupleValue(()),
                keyword=True,
            ),
        ),
        parameters=FuseParameters,
        formula=r"f(t \mid x)",
        cost="its blocks, over the tokens of the text, with attention to those of the image",
        example=(
            "recipe fused(image: Image, text: Text)\nencoder fusion = fuse(depth=2)\n"
            "minimize mlm(mask(text, random(15%)) | image)"
        ),
    )
)


def _matched(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    pairs = _logits(builder, subjects["pairs"], "pairs")
    inputs = [pairs, *chosen_samples(builder, subjects, "matched")]
    for name in ("others", "more"):
        value = subjects[name]
        if isinstance(value, TupleValue):  # left out
            continue
        logits = _logits(builder, value, name)
        picks = {node.inputs[1]: None for node in walk([logits]) if node.operation is FETCH}
        if not picks:
            raise wrong_type(
                builder, name, "matched", value, "a text given an image, one of which is `take`n from another sample"
            )
        inputs += [logits, builder.add("picked", next(iter(picks)))]
    return builder.add("matched", *inputs)


def _logits(builder: Builder, value: Value, argument: str) -> Node:
    """The two logits of each sample of a text given an image."""
    if not isinstance(value, Node) or value.operation is not APPLY:
        raise wrong_type(builder, argument, "matched", value, "a text given an image, `text | image`")
    head = Module(_MATCH.name, "head", _MATCH, on=use_of(value).module)
    return builder.add("apply", builder.add("pooled", value), use=Use(head))


register(
    Primitive(
        name="matched",
        family="fusion",
        summary=(
            "Image-text matching: a linear head on a text given an image separates pairs from mined negatives; the "
            "mean cross-entropy over both. A sample without a pick has no negative. `where` and `weight` are about the pair "
            "of a sample and its negatives."
        ),
        meaning=_matched,
        subjects=(
            Subject("pairs", ("Encoded",), "texts given their images"),
            Subject("others", ("Encoded",), "texts given images, where the text or the image is that of a picked sample"),
            Subject("more", ("Encoded",), "further negatives", default=TupleValue(())),
            *SAMPLES,
        ),
        formula=r"-\frac{1}{N} \sum_n \log p(y_n \mid t_n, x_n)",
        cost="one pass of fusion per argument",
        example=(
            'let s = similarity(image, text) / 0.07\nlet wrong_text = mine(s, along="rows")\n'
            "minimize matched(text | image, take(text, wrong_text) | image)"
        ),
    )
)
