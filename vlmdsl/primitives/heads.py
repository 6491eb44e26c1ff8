"""Heads of encoders: small networks on the pooled features, whose outputs replace them in the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.meaning import HeadOnTeacher
from vlmdsl.ir import Encoder, Head
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, GivenName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, FusionValue, Value
from vlmdsl.source.limits import MAXIMUM_LAYERS, MAXIMUM_WIDTH

_NAMED = "its name in checkpoints; equal heads with the same name on the same encoder are one head"


class HeadParameters(Parameters):
    """Arguments that `project` and `predict` share."""

    layers: int = Field(default=2, ge=1, le=MAXIMUM_LAYERS, description="number of linear layers")
    hidden: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="hidden dimension; 0: the input dimension")
    out: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="output dimension; 0: the input dimension")
    norm: Literal["batch", "none"] = Field(
        default="batch",
        description="norm after every layer but the last: a batch norm with learned scale and offset, or `none`",
    )
    last_norm: Literal["none", "batch", "scaled", "plain"] = Field(
        default="none",
        description="norm after the last layer: `none`, or a batch norm with learned scale and offset (`batch`), scale only "
        "(`scaled`), or neither (`plain`)",
    )
    activation: Literal["relu", "gelu", "tanh"] = Field(
        default="relu", description="activation after each layer (and its norm) but the last"
    )
    bias: Literal["all", "hidden", "last", "none"] = Field(
        default="all", description="which layers have a bias: `all`, all but the last (`hidden`), the `last`, or `none`"
    )
    statistics: Literal["global", "local"] = Field(
        default="global",
        description="statistics of the batch norms: of the `global` batch, or of each process (`local`)",
    )
    views: Literal["each", "joint"] = Field(
        default="each",
        description="`each`: separate statistics for each view; `joint`: all views of one kind are one batch",
    )


class ProjectParameters(HeadParameters):
    """Arguments of `project`."""

    out: int = Field(default=128, ge=0, le=MAXIMUM_WIDTH, description="output dimension; 0: the input dimension")
    name: GivenName = Field(default="project", description=_NAMED)


class PredictParameters(HeadParameters):
    """Arguments of `predict`."""

    name: GivenName = Field(default="predict", description=_NAMED)


def _headed(word: str) -> Callable[[Builder, Mapping[str, Value], Parameters], Value]:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        value = subjects["encoder"]
        assert isinstance(value, EncoderValue | FusionValue)
        encoder, name = (value.encoder, value.encoder.tower) if isinstance(value, EncoderValue) else (value, value.name)
        if encoder.teacher is not None:
            help = f"add the head first: `ema({word}(...))`; the teacher then follows the head too"
            raise Fault(HeadOnTeacher.at(builder.place("encoder"), tower=name, help=(help,)))
        heads = (*encoder.heads, Head(**parameters.model_dump()))
        return EncoderValue(replace(encoder, heads=heads)) if isinstance(encoder, Encoder) else replace(encoder, heads=heads)

    return meaning


register(
    Primitive(
        name="project",
        family="encoding",
        summary=(
            "The encoder with a head on its pooled features: losses use the output of the head, evaluation that of the "
            "tower. A teacher of it follows the head too."
        ),
        meaning=_headed("project"),
        subjects=(Subject("encoder", ("Encoder", "Fusion"), "the encoder or fusion module that the head is added to"),),
        parameters=ProjectParameters,
        formula=r"g(f(x)), \quad g = W_n \circ \sigma \circ \mathrm{norm} \circ W_{n-1} \circ \cdots \circ W_1",
        cost="its weights, and an exchange of two vectors per norm between processes",
        example=(
            "recipe pair(image: Image)\nencoder projected = project(vision, layers=2, out=128)\n"
            "let views = augment(image, n=2)\nminimize nt_xent(projected(views[0]), projected(views[1]))"
        ),
    )
)

register(
    Primitive(
        name="predict",
        family="encoding",
        summary=(
            "The encoder with a predictor on top: a head whose output has the dimension of its input. The encoder "
            "below keeps its weights, so `predict(p)` and `p` share all but the predictor."
        ),
        meaning=_headed("predict"),
        subjects=(Subject("encoder", ("Encoder", "Fusion"), "the encoder or fusion module, with its projection"),),
        parameters=PredictParameters,
        formula=r"q(g(f(x)))",
        cost="its weights, and an exchange of two vectors per norm between processes",
        example=(
            "recipe guess(image: Image)\nencoder projected = project(vision, out=64)\n"
            "encoder predicted = predict(projected, hidden=32)\nlet views = augment(image, n=2)\n"
            "minimize contrast(predicted(views[0]), projected(views[1]))"
        ),
    )
)
