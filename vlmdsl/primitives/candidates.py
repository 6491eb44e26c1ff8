"""Primitives for candidates: several matrices side by side, and pairs that are excluded."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.diagnostics.catalog.types import AxesDisagree, WrongType
from vlmdsl.ir import Node
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, Parameters, Primitive, Subject
from vlmdsl.primitives.values import TupleValue, Value
from vlmdsl.source.limits import MAXIMUM_UNITED
from vlmdsl.types import LabelsType, SimType, TargetType


def _unite(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    a, b = subjects["a"], subjects["b"]
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    kind = type(a.type)
    if type(b.type) is not kind:
        words = "two matrices or two targets"
        place = builder.place("b")
        raise Fault(WrongType.at(place, str(b.type), argument="b", function="unite", wanted=words, found=b.type), b)
    assert isinstance(a.type, SimType | TargetType)
    assert isinstance(b.type, SimType | TargetType)
    if a.type.rows != b.type.rows:
        raise Fault(AxesDisagree.at(builder.place("b"), str(b.type), left=a.type, right=b.type), b)
    united = f"{a.type.columns}+{b.type.columns}"
    if united.count("+") >= MAXIMUM_UNITED:
        raise Fault(TooLarge.at(builder.span, reason=f"more than {MAXIMUM_UNITED} matrices side by side"))
    return builder.add("unite", a, b)


register(
    Primitive(
        name="unite",
        family="candidates",
        summary=(
            "The columns of both matrices side by side: the candidates of a row are those of both, with the written "
            "entries of a queue. Targets are united in the same way; in a target of fewer columns the additional ones"
            " are negatives."
        ),
        meaning=_unite,
        subjects=(
            Subject("a", ("Sim", "Target"), "the first columns, which the targets refer to"),
            Subject("b", ("Sim", "Target"), "the additional columns"),
        ),
        laws=("permutation",),
        formula=r"\sum_k e^{z_{ik}} + \sum_k e^{w_{ik}}",
        cost="none",
        example=(
            "let z = unite(similarity(image, text), exclude_pairs(similarity(image, image))) / 0.1\n"
            'minimize mean(cross_entropy(z, targets=paired, along="rows"))'
        ),
    )
)


def _exclude_pairs(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    matrix, key, keys = (subjects[name] for name in ("matrix", "key", "keys"))
    assert isinstance(matrix, Node)
    assert isinstance(matrix.type, SimType)
    if isinstance(key, Node) and isinstance(keys, Node):
        return _exclude_own(builder, matrix, key, keys)
    if isinstance(key, Node) or isinstance(keys, Node):
        argument, other = ("key", "keys") if isinstance(key, Node) else ("keys", "key")
        raise bad_value(
            builder, argument, "exclude_pairs", f"needs `{other}` too: the keys of samples, and those of entries"
        )
    if matrix.type.rows != matrix.type.columns:
        square = SimType(matrix.type.rows, matrix.type.rows)
        raise Fault(AxesDisagree.at(builder.place("matrix"), str(matrix.type), left=square, right=matrix.type), matrix)
    return builder.add("exclude_pairs", matrix)


def _exclude_own(builder: Builder, matrix: Node, key: Node, keys: Node) -> Node:
    assert isinstance(matrix.type, SimType)
    assert isinstance(keys.type, LabelsType)
    against_queue = SimType(matrix.type.rows, keys.type.rows)
    if matrix.type != against_queue:
        raise Fault(
            AxesDisagree.at(builder.place("matrix"), str(matrix.type), left=against_queue, right=matrix.type), matrix
        )
    if builder.entering(keys) != (key,):
        raise wrong_type(builder, "keys", "exclude_pairs", keys, "a queue of `key`: `queue(key)`")
    return builder.add("exclude_own", matrix, key, keys)


register(
    Primitive(
        name="exclude_pairs",
        family="candidates",
        summary=(
            "Excludes each sample from its own row and column, as is needed when a stream is compared with itself. Of the "
            "entries of a queue, those of the sample itself, by the `keys` of a queue that is written with it."
        ),
        meaning=_exclude_pairs,
        subjects=(
            Subject("matrix", ("Sim",), "the matrix"),
            Subject("key", ("Key",), "the key of each sample", default=TupleValue(()), keyword=True),
            Subject("keys", ("Labels",), "the keys of the entries of a queue", default=TupleValue(()), keyword=True),
        ),
        laws=("permutation",),
        formula=r"z_{ii} = -\infty",
        cost="none",
        example=(
            "recipe labels(image: Image, label: Label)\n"
            "let z = exclude_pairs(similarity(image, image)) / 0.1\n"
            'minimize mean(cross_entropy(z, targets=same(label), along="rows"))'
        ),
    )
)
