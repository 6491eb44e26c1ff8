"""Programs built by hand, as the planner would leave them."""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Contrast, Direction, Encoder, Graph, Metric, Node, Program, TargetPart, Term
from vlmdsl.source import SourceMap, SourceText, Span
from vlmdsl.types import EncodedType, FieldType, LossType, ScalarType, ScoreType, SimType, TargetType, TokensType, VecType

RECIPE = SourceText("clip.vlo", "vlo 1\nlet tau = learned(0.07)\nminimize contrast(image, text, temperature=tau)\n")
SOURCES = SourceMap({RECIPE.name: RECIPE})
LEARNED, LOSS = Span("clip.vlo", 16, 29), Span("clip.vlo", 39, 77)


def encoded(graph: Graph, kind: str, *, name: str = "", tower: str = "", frozen: bool = False) -> Node:
    """An `encode` node of a field, named as its type by default."""
    name, tower = name or kind.lower(), tower or {"Image": "vision", "Text": "language"}[kind]
    field = graph.add("field", type=FieldType(kind), name=name, span=LOSS)
    return graph.add("encode", field, type=EncodedType(kind), encoder=Encoder(tower, kind, frozen), span=LOSS)


def unit_vector(graph: Graph, encode: Node) -> Node:
    pooled = graph.add("pooled", encode, type=VecType(), span=LOSS)
    return graph.add("normalize", pooled, type=VecType(), span=LOSS, epsilon=0.0)


def unit_tokens(graph: Graph, encode: Node, axis: str) -> Node:
    kind = TokensType(tokens=axis)
    tokens = graph.add("tokens", encode, type=kind, span=LOSS)
    return graph.add("normalize", tokens, type=kind, span=LOSS, epsilon=0.0)


def temperature(graph: Graph, name: str = "log_scale") -> tuple[Node, Node]:
    """The learned log scale and its exponential."""
    learned = graph.add("parameter", type=ScalarType(), name=name, initial=2.6593, lower=None, upper=4.6052, span=LEARNED)
    return learned, graph.add("exp", learned, type=ScalarType(), span=LEARNED)


def clip(*, frozen: bool = False, parameter: str = "log_scale", rows: Direction | None = None) -> Program:
    """Both directions over pooled features; `rows` replaces the row direction."""
    graph = Graph()
    image = unit_vector(graph, encoded(graph, "Image", frozen=frozen))
    text = unit_vector(graph, encoded(graph, "Text"))
    _, scale = temperature(graph, parameter)
    columns = Direction(0.5, (TargetPart("paired", 1.0),), scale=2)
    region = Contrast(True, rows or columns, columns)
    loss = graph.add("contrast", image, text, scale, type=LossType(), span=LOSS, contrast=region)
    return Program("clip", graph, (Term("contrast", loss),), (Metric("logit_scale", scale),))


def labelled() -> Program:
    """Everything that a distributed region may be asked for at once: label targets smoothed, weights, unequal masks."""
    graph = Graph()
    image = unit_vector(graph, encoded(graph, "Image"))
    text = unit_vector(graph, encoded(graph, "Text"))
    _, scale = temperature(graph)
    weight = graph.add("field", type=FieldType("Number"), name="weight")
    label = graph.add("field", type=FieldType("Label"), name="label")
    asks = graph.add("field", type=FieldType("Flag"), name="asks")
    kept = graph.add("field", type=FieldType("Flag"), name="kept")
    targets = (TargetPart("same", 0.7, 4), TargetPart("uniform", 0.2), TargetPart("others", 0.1))
    rows = Direction(0.5, targets, scale=2, weight=3, over=5, keep=6)
    columns = replace(rows, scale=3, weight=None, without_positive=True)
    region = Contrast(True, rows, columns)
    inputs = (image, text, scale, weight, label, asks, kept)
    loss = graph.add("contrast", *inputs, type=LossType(), contrast=region)
    return Program("labelled", graph, (Term("contrast", loss),))


def tokenwise() -> Program:
    """FILIP's two matrices, and beside them, unrecognised, a plain criterion and a sigmoid loss on their transpose."""
    graph = Graph()
    image = unit_tokens(graph, encoded(graph, "Image"), "P")
    text = unit_tokens(graph, encoded(graph, "Text"), "L")
    _, scale = temperature(graph)
    matrix = graph.add("similarity", image, text, type=SimType(), by="tokenmax", arguments=())
    direction = Direction(0.5, (TargetPart("paired", 1.0),), scale=1)
    region = Contrast(False, direction, direction)
    contrast = graph.add("contrast", matrix, scale, type=LossType(), contrast=region)
    turned = graph.add("multiply", graph.add("transpose", matrix, type=SimType()), scale, type=SimType())
    paired = graph.add("paired", type=TargetType())
    score = graph.add("score", image, text, type=ScoreType(), by="tokenmean", arguments=())
    plain = graph.add("cross_entropy", turned, paired, type=ScoreType(), along="columns", denominator="all")
    weighted = graph.add("mean", graph.add("multiply", plain, score, type=ScoreType()), type=LossType())
    sigmoid = graph.add("sigmoid_loss", turned, paired, type=ScoreType())
    half = graph.add("constant", type=ScalarType(), value=0.5)
    halved = graph.add("multiply", half, graph.add("mean", sigmoid, type=LossType()), type=LossType())
    terms = (Term("contrast", contrast), Term("plain", weighted), Term("sigmoid", halved))
    return Program("tokenwise", graph, terms)
