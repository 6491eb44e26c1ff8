"""Primitives for mined negatives: which other samples of the batch a sample picks, and the values of those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.types import AxesDisagree
from vlmdsl.ir import Node
from vlmdsl.ir.operations.mining import pool_of
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import TupleValue, Value
from vlmdsl.source.limits import MAXIMUM_MINED
from vlmdsl.types import FieldType, InputsType, PicksType, SimType

_EXAMPLE = (
    'let wrong = mine(similarity(image, text) / 0.07, along="rows")\n'
    "minimize mean(softplus(score(image, take(text, wrong)) - score(image, text)))"
)


_PLAIN = (FieldType("Label"), FieldType("Flag"), FieldType("Number"))
"""Fields that are not encoded."""


class MineParameters(Parameters):
    """Arguments of `mine`."""

    along: Literal["rows", "columns"] = Field(
        description="`rows`: each row picks one of the columns; `columns`: each column picks one of the rows"
    )
    k: int = Field(default=1, ge=1, le=MAXIMUM_MINED, description="how many negatives each sample picks, none twice")
    choose: Literal["drawn", "hardest"] = Field(
        default="drawn", description="`drawn` with the probabilities of the softmax, or the `hardest`: the most similar"
    )
    floor: float = Field(
        default=0.0, ge=0.0, description="added to each probability before drawing: 0 in ALBEF, 1e-4 in BLIP"
    )
    name: OptionalName = Field(
        default="", description="the name of its numbers among the inputs of the objective; by default NAME_uniform"
    )


def _mine(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, MineParameters)
    matrix = subjects["matrix"]
    assert isinstance(matrix, Node)
    assert isinstance(matrix.type, SimType)
    pool = pool_of(matrix.type)
    if not pool:
        raise Fault(AxesDisagree.at(builder.place("matrix"), str(matrix.type), left=SimType(), right=matrix.type), matrix)
    if pool != "B" and parameters.along != "rows":
        raise bad_value(builder, "along", "mine", 'must be "rows" where a queue is beside the batch')
    if parameters.choose == "hardest":
        if parameters.floor:
            raise bad_value(builder, "floor", "mine", 'needs choose="drawn": the hardest are not drawn')
        return builder.add("hardest", matrix, along=parameters.along, k=parameters.k)
    uniforms = builder.uniforms(parameters.name, count=parameters.k)
    return builder.add("mine", matrix, uniforms, along=parameters.along, floor=float(parameters.floor))


register(
    Primitive(
        name="mine",
        family="mining",
        summary=(
            "Hard negatives of each sample, picked from the whole batch, and from a queue where its entries are beside it "
            "(`unite`): drawn with the softmax over its candidates "
            "as probabilities, or the most similar ones. Never the pair or an excluded entry; no gradient. A draw is "
            "a function of seed, epoch and sample, so it is the same on any number of processes. A sample without any"
            " other candidate picks itself (`picked`)."
        ),
        meaning=_mine,
        subjects=(Subject("matrix", ("Sim",), "the logits: similarities over a temperature; a sample's pair is at (i, i)"),),
        parameters=MineParameters,
        formula=r"n_i \sim \mathrm{softmax}_{j \neq i}\, z_{ij}",
        cost="no product; passes over the matrix, along columns also an exchange of it",
        example=_EXAMPLE,
    )
)


def _take(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    x, picks = subjects["x"], subjects["picks"]
    assert isinstance(picks, Node)
    assert isinstance(picks.type, PicksType)
    if isinstance(subjects["queue"], Node):
        return _take_input(builder, x, picks, subjects["queue"])
    if picks.type.of != "B":
        expected = "picks of the batch; of a queue beside it `queue` says where the images or texts are: "
        expected += '`take(text, picks, queue=queue(text, keep="inputs"))`'
        raise wrong_type(builder, "picks", "take", picks, expected)
    if not (isinstance(x, Node) and x.type in _PLAIN):
        x = builder.encoded(x, "x")
    if picks.type.picked != "1":
        return builder.add("fetch", builder.pooled(x, "x", "take"), picks)
    assert isinstance(x, Node)
    return builder.add("fetch", x, picks)


def _take_input(builder: Builder, x: Value, picks: Node, queue: Node) -> Node:
    """The image or the text of the picked sample, from the batch or the queue, to be encoded."""
    assert isinstance(queue.type, InputsType)
    of_both = PicksType(picked="1", of=f"B+{queue.type.rows}")
    if picks.type != of_both:
        help = "mine among the batch and a queue of features of this size: `unite(similarity(x, y), similarity(x, queue))`"
        wrong = AxesDisagree.at(builder.place("picks"), str(picks.type), help=(help,), left=of_both, right=picks.type)
        raise Fault(wrong, picks)
    if not isinstance(x, Node) or builder.entering(queue) != (x,):
        raise wrong_type(builder, "x", "take", x, f"what the queue keeps, {_in_words(queue.type.kind)} of each sample")
    return builder.add("fetch", x, picks, queue)


def _in_words(kind: str) -> str:
    return "the Image" if kind == "Image" else "the Text"


register(
    Primitive(
        name="take",
        family="mining",
        summary=(
            "The values of the picked samples: with one pick each, features, tokens with their mask, a score, a "
            "condition or a label instead of the sample's own; with several picks, their pooled features as tokens. "
            "The gradient returns to the picked sample. With a `queue` of inputs, the image or the text that was picked "
            "from the batch or the queue, which is encoded again."
        ),
        meaning=_take,
        subjects=(
            Subject(
                "x",
                ("Encoded", "Vec", "Tokens", "Image", "Text", "Score", "Condition", "Label"),
                "the values to take",
            ),
            Subject("picks", ("Picks",), "the picked samples, from `mine`"),
            Subject(
                "queue",
                ("Inputs",),
                'the queue of `x`, `keep="inputs"`, for picks of the batch and a queue of this size',
                default=TupleValue(()),
                keyword=True,
            ),
        ),
        formula="x_{n_i}",
        cost="an exchange of the samples that are picked",
        example=_EXAMPLE,
    )
)


def _picked(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    picks = subjects["picks"]
    assert isinstance(picks, Node)
    return builder.add("picked", picks)


register(
    Primitive(
        name="picked",
        family="mining",
        summary="Holds for the samples that have picked another one; fails where none was a candidate.",
        meaning=_picked,
        subjects=(Subject("picks", ("Picks",), "what `mine` picked"),),
        formula=r"n_i \neq i",
        cost="none",
        example=(
            "recipe strict(image: Image, text: Text, foreign: Flag)\n"
            'let wrong = mine(restrict(similarity(image, text), to=foreign), along="rows", choose="hardest")\n'
            "let excess = softplus(score(image, take(text, wrong)) - score(image, text))\n"
            "minimize mean(excess, over=picked(wrong))"
        ),
    )
)
