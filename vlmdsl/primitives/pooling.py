"""The primitive of attentional pooling: learned queries that attend to an image."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import PooledWhereTokensAreCompared
from vlmdsl.ir import Module, Node, Use, encoder_of
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import pooler_of
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.source.limits import MAXIMUM_QUERIES, MAXIMUM_WIDTH
from vlmdsl.types import EncodedType


class PoolParameters(Parameters):
    """Arguments of `pool`."""

    queries: int = Field(
        default=1, ge=1, le=MAXIMUM_QUERIES, description="number of learned vectors that attend to the image"
    )
    width: int = Field(default=0, ge=0, le=MAXIMUM_WIDTH, description="width of the queries; 0: that of what they attend to")
    heads: int = Field(
        default=0,
        ge=0,
        le=MAXIMUM_WIDTH,
        description="number of attention heads; 0: one per 64 features, at least four of 16",
    )
    name: OptionalName = Field(
        default="", description="its name in checkpoints, by default `pooler_QUERIES`; poolers with one name share weights"
    )


def _pool(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    from vlmdsl.ir.modules import PoolerSettings  # few recipes apply modules, and classes take time to make

    assert isinstance(parameters, PoolParameters)
    encoded = builder.encoded(subjects["image"], "image")
    if not isinstance(encoded, Node) or encoded.type != EncodedType("Image"):
        raise wrong_type(builder, "image", "pool", encoded, "an image, or what another pooler gives of one")
    if encoded.operation is ENCODE and encoder_of(encoded).heads:
        help = ("a head outputs pooled features only: use the tower itself, without `project` or `predict`",)
        place = builder.place("image")
        raise Fault(PooledWhereTokensAreCompared.at(place, "the features of a head", help=help, similarity="pool"), encoded)
    if encoded.operation is not ENCODE and pooler_of(encoded) is None:
        raise wrong_type(builder, "image", "pool", encoded, "an image itself, or what another pooler gives of one")
    if parameters.width % (parameters.heads or 1):
        reason = f"{parameters.width} is not a multiple of {parameters.heads}, the heads"
        raise bad_value(builder, "width", "pool", reason)
    settings = PoolerSettings(parameters.queries, parameters.width, parameters.heads)
    module = Module(parameters.name or f"pooler_{parameters.queries}", "pooler", settings)
    tokens = builder.add("states" if encoded.operation is ENCODE else "tokens", encoded)
    return builder.add("apply", tokens, use=Use(module))


register(
    Primitive(
        name="pool",
        family="pooling",
        summary=(
            "Attentional pooling: learned queries attend to the states of an image. `.tokens` has one feature per query, "
            "`.pooled` a linear map of the first one. Poolers can stand on each other (CoCa)."
        ),
        meaning=_pool,
        subjects=(Subject("image", ("Encoded", "Image"), "an image, a tower's output for it, or that of a pooler"),),
        parameters=PoolParameters,
        formula=r"\mathrm{softmax}(Q K^\top) V",
        cost="one attention of the queries to the states, and maps of both",
        example=(
            "recipe pooled(image: Image, text: Text)\nlet seen = pool(image, queries=16)\n"
            "minimize contrast(pool(seen), text)"
        ),
    )
)
