"""Primitives on a reference set: samples that are set aside, encoded once by frozen towers, and retrieved from."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import NotAReference
from vlmdsl.ir import Encoder, Node, encoder_of
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.reference import REFERENCE
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import TupleValue, Value, type_of
from vlmdsl.source.limits import MAXIMUM_RETRIEVED
from vlmdsl.types import FieldType


def _column(builder: Builder, value: Value, argument: str) -> Node:
    """The column of the reference set that holds this stream; Fault V0318 unless a frozen encoder encodes a field."""
    encoded = builder.encoded(value, argument)
    if isinstance(encoded, Node) and encoded.operation is ENCODE:
        encoder, source = encoder_of(encoded), encoded.inputs[0]
        plain = encoder == Encoder(encoder.tower, encoder.kind, frozen=True)
        if plain and source.operation is FIELD and isinstance(source.type, FieldType):
            attributes = {"encoder": encoder, "field": source.string("name"), "kind": source.type.kind}
            return builder.add("reference", **attributes)
    raise Fault(NotAReference.at(builder.place(argument), found=type_of(encoded)), value)


def _reference(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    value = subjects["values"]
    values = value.items if isinstance(value, TupleValue) else (value,)
    keys = _column(builder, subjects["keys"], "keys")
    return TupleValue((keys, *(_column(builder, value, "values") for value in values)))


register(
    Primitive(
        name="reference",
        family="memory",
        summary=(
            "A fixed table of samples that are set aside from the data: their fields, encoded by frozen encoders. The first "
            "column is searched, the others are returned."
        ),
        meaning=_reference,
        subjects=(
            Subject("keys", ("Encoded",), "the column to search: a field, encoded by a frozen encoder"),
            Subject("values", ("Encoded", "Tuple"), "the columns to return, one or several, of the same form", keyword=True),
        ),
        formula=r"\{(d_r, v_r)\}_{r=1}^{R}",
        cost="R D numbers per column on each process",
        example=(
            "recipe augmented(image: Image, text: Text, key: Key)\n"
            'encoder eye = frozen(separate(vision, name="eye"))\n'
            'encoder reader = frozen(separate(language, name="reader"))\n'
            "let found = retrieve(eye(image), reference(eye(image), values=reader(text)), without=key, k=2)\n"
            "minimize contrast(attend(image, keys=found[0], values=found[0]), text)"
        ),
    )
)


class RetrieveParameters(Parameters):
    """Arguments of `retrieve`."""

    k: int = Field(default=64, ge=1, le=MAXIMUM_RETRIEVED, description="number of samples to retrieve")


def _retrieve(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, RetrieveParameters)
    table, key = subjects["table"], subjects["without"]
    columns = table.items if isinstance(table, TupleValue) else ()
    if len(columns) < 2 or not all(isinstance(column, Node) and column.operation is REFERENCE for column in columns):
        raise Fault(NotAReference.at(builder.place("table"), found=type_of(table)), table)
    assert isinstance(key, Node)
    searched, *values = (column for column in columns if isinstance(column, Node))
    query = builder.pooled(subjects["query"], "query", "retrieve")
    query = builder.add("stop", query)
    picks = builder.add("retrieve", query, searched, key, k=parameters.k)
    return TupleValue(tuple(builder.add("take", value, picks) for value in values))


register(
    Primitive(
        name="retrieve",
        family="memory",
        summary=(
            "The k samples of a reference set with the largest cosine to each sample, best first: a tuple of the "
            "returned columns. The earlier of equal ones comes first; a sample is never retrieved for itself."
        ),
        meaning=_retrieve,
        subjects=(
            Subject("query", ("Encoded", "Vec", "Image", "Text"), "the query features"),
            Subject("table", ("Tuple",), "the reference set"),
            Subject("without", ("Key",), "the key of each sample, which excludes the sample itself", keyword=True),
        ),
        parameters=RetrieveParameters,
        laws=("permutation",),
        formula=r"\{v_r : r \in \mathrm{top}_k \cos(x_i, d_r)\}",
        cost="2 B R D FLOPs, split among the processes",
        example=(
            "recipe augmented(image: Image, text: Text, key: Key)\n"
            'encoder eye = frozen(separate(vision, name="eye"))\n'
            "let found = retrieve(eye(image), reference(eye(image), values=eye(image)), without=key, k=2)\n"
            "minimize contrast(attend(image, keys=found[0], values=found[0]), text)"
        ),
    )
)


def _attend(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    query = builder.pooled(subjects["query"], "query", "attend")
    keys = builder.tokens(subjects["keys"], "keys", "attend")
    value = subjects["values"]
    items = value.items if isinstance(value, TupleValue) else (value,)
    values = (builder.tokens(value, "values", "attend") for value in items)
    return builder.add("attend", query, keys, *values)


register(
    Primitive(
        name="attend",
        family="encoding",
        summary=(
            "Attention with a residual connection: adds to each vector the mean of the values, weighted by the softmax "
            "of its products with the keys over sqrt(D). Means of several values are added; without unmasked keys "
            "nothing is."
        ),
        meaning=_attend,
        subjects=(
            Subject("query", ("Encoded", "Vec", "Image", "Text"), "the query vector"),
            Subject("keys", ("Tokens", "Encoded"), "the keys", keyword=True),
            Subject("values", ("Tokens", "Encoded", "Tuple"), "the values, one or several", keyword=True),
        ),
        laws=("permutation",),
        formula=r"q + \sum_k \mathrm{softmax}_k(q^\top r_k / \sqrt{D})\, v_k",
        cost="4 B K D FLOPs per value",
        example="minimize contrast(attend(image, keys=text.tokens, values=text.tokens), text)",
    )
)
