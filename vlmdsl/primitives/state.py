"""Primitives with state across steps: an initial value, an update before or after use, an entry in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.ir.operations.encoding import MIX
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.scalars import STOP
from vlmdsl.ir.operations.views import DROP, MASK, REPLACE, SWAP
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.similarities import COSINE, apply_similarity
from vlmdsl.primitives.spec import Builder, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import NumberValue, SimilarityValue, TupleValue, Value
from vlmdsl.source.limits import MAXIMUM_QUEUE
from vlmdsl.types import (
    FieldType,
    InputsType,
    LabelsType,
    MemoryType,
    PerSampleType,
    ScalarType,
    ScoreType,
    VectorType,
    as_value,
    memory_axis,
)

_STREAM = ("Encoded", "Vec", "Image", "Text")


class RunningMeanParameters(Parameters):
    """Arguments of `running_mean`."""

    per: Literal["batch", "sample"] = Field(
        default="batch",
        description=(
            "`batch`: one mean, of all samples; `sample`: a mean for each sample of the data set, of its scores in the "
            "steps that it was in"
        ),
    )
    start: float | None = Field(
        default=None,
        description=(
            "the mean before the first step; by default 1 of a score, 0 of features; of a sample by default nothing, so "
            "that its first score is its mean"
        ),
    )
    reads: Literal["updated", "previous"] = Field(
        default="updated",
        description="which mean the loss reads: with the batch of this step in it, or as it was before (the centre of DINO)",
    )
    name: OptionalName = Field(default="", description="its name in the checkpoint; by default the name it is bound to")


def _running_mean(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, RunningMeanParameters)
    value = subjects["value"]
    score = isinstance(value, Node) and as_value(value.type) == ScoreType()
    averaged = value if score else builder.pooled(value, "value", "running_mean")
    assert isinstance(averaged, Node)
    if parameters.per == "sample":
        if not score:
            reason = '"sample" needs a score: of features one mean is kept'
            raise bad_value(builder, "per", "running_mean", reason)
        return running_means(builder, averaged, subjects["momentum"], parameters)
    default = 1.0 if score else 0.0
    initial = default if parameters.start is None else parameters.start
    before = builder.state(parameters.name, type=ScalarType() if score else VectorType(), initial=initial)
    if averaged.operation is not STOP:
        averaged = builder.add("stop", averaged)
    after = moved(builder, "running_mean", before, averaged, subjects["momentum"])
    builder.update(before, after)
    if score:
        builder.report(before, after)
    return after if parameters.reads == "updated" else before


def moved(builder: Builder, operation: str, before: Node, averaged: Node, momentum: Value) -> Node:
    """The mean after this step; Fault for a momentum that is a plain number and not a share."""
    if isinstance(momentum, Node):
        return builder.add(operation, before, averaged, momentum)
    assert isinstance(momentum, NumberValue)
    if not 0.0 <= momentum.value <= 1.0:
        raise bad_value(builder, "momentum", "running_mean", "must be between 0 and 1")
    return builder.add(operation, before, averaged, momentum=float(momentum.value))


def running_means(builder: Builder, scores: Node, momentum: Value, parameters: RunningMeanParameters) -> Node:
    """The mean of each sample's scores: a table over the data set, of which a step reads and writes its batch."""
    table = builder.state(parameters.name, type=PerSampleType(), initial=parameters.start)
    index = builder.index()
    before = builder.add("lookup", table, index)
    stopped = scores if scores.operation is STOP else builder.add("stop", scores)
    after = moved(builder, "running_means", before, stopped, momentum)
    builder.update(table, builder.add("write", table, index, after))
    # Of a sample without a mean, its score: a momentum of 1 says so.
    return after if parameters.reads == "updated" else builder.add("running_means", before, stopped, momentum=1.0)


register(
    Primitive(
        name="running_mean",
        family="scores",
        summary=(
            "The mean over the steps so far of a score, or of each feature: of the global batch in each step, without "
            "gradient. The mean of features is a vector, added to the features of each sample or subtracted: a centre. With "
            '`per="sample"` a score has one mean for each sample of the data set, and the result is a score.'
        ),
        meaning=_running_mean,
        subjects=(
            Subject("value", ("Score", *_STREAM), "one number per sample, or features"),
            Subject(
                "momentum",
                ("Scalar",),
                "the share of the mean so far: a number, or a schedule",
                default=NumberValue(0.99),
                keyword=True,
            ),
        ),
        parameters=RunningMeanParameters,
        laws=("permutation",),
        formula=r"\mu \leftarrow m\,\mu + (1 - m) \frac{1}{B}\sum_i s_i",
        cost='none; with `per="sample"` a number per sample of the data set on every process',
        example=(
            "let s = stop(score(image, text))\nminimize contrast(image, text, weight=exp(s - running_mean(s, momentum=0.9)))"
        ),
    )
)


class QueueParameters(Parameters):
    """Arguments of `queue`."""

    size: int = Field(
        default=65536,
        ge=1,
        le=MAXIMUM_QUEUE,
        description="number of vectors, or labels, that it holds; the oldest are replaced first",
    )
    keep: Literal["features", "inputs"] = Field(
        default="features",
        description=(
            "`features`: unit vectors; `inputs`: the images or texts themselves, as towers take them, so that those that "
            "`mine` picks can be encoded again"
        ),
    )
    start: Literal["empty", "random"] = Field(
        default="empty",
        description="`empty`: entries that are not written yet do not count; `random`: initially random directions",
    )
    name: OptionalName = Field(default="", description="its name in the checkpoint; by default the name it is bound to")


def _unit(builder: Builder, value: Value, argument: str, **wide: bool) -> Node:
    """The direction of each vector, without gradient; `wide` computes in float32 whatever the dtype of the features, so that
    rounding does not decide which entry is nearest."""
    features = builder.pooled(value, argument, "queue")
    unit = builder.add("normalize", features, epsilon=0.0, **wide)
    return builder.add("stop", unit)


def _queue(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, QueueParameters)
    value = subjects["value"]
    items = value.items if isinstance(value, TupleValue) else (value,)
    if parameters.keep == "inputs":
        return _queue_of_inputs(builder, value, parameters)
    axis, of_labels = memory_axis(parameters.size), _are_labels(builder, items)
    if of_labels and parameters.start == "random":
        raise bad_value(builder, "start", "queue", 'must be "empty" for labels: a random entry would have no class')
    held = LabelsType(axis) if of_labels else MemoryType(axis)
    before = builder.memory(parameters.name, type=held, size=parameters.size, start=parameters.start)
    values = [item if of_labels else _unit(builder, item, "value", wide=True) for item in items]
    nodes = [value for value in values if isinstance(value, Node)]
    builder.update(before, builder.add("enqueue", before, *nodes))
    return before


_NOT_KEPT = (DROP, FETCH, MASK, MIX, REPLACE, SWAP)
"""What makes an input more than the image or the text: what is with it is not kept."""


def _queue_of_inputs(builder: Builder, value: Value, parameters: QueueParameters) -> Node:
    if parameters.start == "random":
        raise bad_value(builder, "start", "queue", 'must be "empty" for inputs: there are no random images or texts')
    whole = isinstance(value, Node) and value.type in (FieldType("Image"), FieldType("Text"))
    source = value
    while whole and isinstance(source, Node) and source.inputs:
        whole = source.operation not in _NOT_KEPT and not source.operation.pairs_fields
        source = source.inputs[0]
    if not whole or not isinstance(value, Node) or not isinstance(value.type, FieldType):
        expected = "an Image or a Text, whole: a field, or a view of one without masked tokens or missing patches"
        raise wrong_type(builder, "value", "queue", value, expected)
    held = InputsType(value.type.kind, memory_axis(parameters.size))
    before = builder.memory(parameters.name, type=held, size=parameters.size, start=parameters.start)
    builder.update(before, builder.add("enqueue", before, value))
    return before


def _are_labels(builder: Builder, items: tuple[Value, ...]) -> bool:
    """Whether labels, or keys, enter a queue, and not features; Fault for some of both."""
    labels = [item for item in items if isinstance(item, Node) and item.type in (FieldType("Label"), FieldType("Key"))]
    if labels and len({item.type for item in items if isinstance(item, Node)}) > 1:
        raise wrong_type(builder, "value", "queue", labels[0], "features only, labels only, or keys only")
    return bool(labels)


register(
    Primitive(
        name="queue",
        family="memory",
        summary=(
            "The unit vectors of a stream in earlier steps, first in, first out: read before those of this step are "
            "written, in the order of the global batch. Several streams are written one after the other. No gradient. A "
            "queue of labels belongs to a queue of features of the same size that is written with the same samples, and so "
            'does one of keys, and one of the inputs themselves, `keep="inputs"`: what is picked from both is encoded again.'
        ),
        meaning=_queue,
        subjects=(
            Subject("value", (*_STREAM, "Label", "Key", "Tuple"), "what is written after the step; several in this order"),
        ),
        parameters=QueueParameters,
        laws=("permutation",),
        formula=r"(a_1, \ldots, a_Q)",
        cost="Q D numbers on each process; of inputs, those of Q images or texts, and all processes exchange theirs",
        example='minimize memory_contrast(image, text, queue(text, size=16, start="random"), temperature=0.07)',
    )
)


def _nearest(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    memory, by = subjects["memory"], subjects["by"]
    assert isinstance(memory, Node)
    assert isinstance(by, SimilarityValue)
    compared, own = _unit(builder, subjects["value"], "value", wide=True), _unit(builder, subjects["value"], "value")
    raw = SimilarityValue(tuple(replace(part, normalized=False) for part in by.parts))  # both sides are unit vectors already
    matrix = apply_similarity(builder, raw, compared, memory)
    return builder.add("nearest", matrix, memory, own)


register(
    Primitive(
        name="nearest",
        family="memory",
        summary="Each vector's nearest neighbour in a queue, without gradient; the vector itself while the queue is empty.",
        meaning=_nearest,
        subjects=(
            Subject("value", _STREAM, "the query vectors"),
            Subject("memory", ("Memory",), "the queue"),
            Subject("by", ("Similarity",), "the similarity that compares them", default=COSINE, keyword=True),
        ),
        laws=("permutation",),
        formula=r"a_{j^*(i)}, \quad j^*(i) = \arg\max_j \mathrm{by}(x_i, a_j)",
        cost="2 B Q D FLOPs",
        example=(
            'let words = queue(stop(text), size=16, start="random")\n'
            'minimize contrast(image, nearest(stop(text), words), directions="rows", temperature=0.07)'
        ),
    )
)
