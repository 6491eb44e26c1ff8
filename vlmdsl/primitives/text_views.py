"""Views of a text: a rewrite, a random edit of its words, some of its sentences, an image of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value, ViewSet
from vlmdsl.source.limits import MAXIMUM_VIEWS


class RewriteParameters(Parameters):
    """Arguments of `rewrite`."""

    count: int = Field(alias="M", ge=1, le=MAXIMUM_VIEWS - 1, description="number of rewrites of each text")
    minimum_words: int = Field(
        default=1, ge=1, description="if the drawn rewrite has fewer blank-separated words, the text itself is used"
    )
    pick: Literal["one", "each"] = Field(
        default="one", description="`one`: draw one per sample and step; `each`: the set of the text and all its rewrites"
    )


def _rewrite(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, RewriteParameters)
    if parameters.pick == "each":
        views = range(parameters.count + 1)
        return ViewSet(tuple(builder.add("alternative", text, view=view) for view in views))
    return builder.add(
        "rewrite",
        text,
        count=parameters.count,
        minimum_words=parameters.minimum_words,
        draw=builder.draw(),
    )


register(
    Primitive(
        name="rewrite",
        family="views",
        summary="One of the text and its M rewrites, drawn uniformly per sample and step (LaCLIP); or each of them.",
        meaning=_rewrite,
        subjects=(Subject("text", ("Text",), "the text; its rewrites are the data field NAME_rewrites"),),
        parameters=RewriteParameters,
        formula=r"t \sim U\{t_0, t_1, \ldots, t_M\}",
        example="contrast(image, rewrite(text, M=4))",
        view_of="Text",
    )
)


EdaOperation = Literal["synonym", "swap", "deletion", "insertion"]


class EdaParameters(Parameters):
    """Arguments of `eda`.

    The operations are DeCLIP's (`prototype/model/declip.py` of Sense-GVT/DeCLIP), which runs textaugment's EDA with the
    defaults there: one word, and a chance of 0.1 to be deleted (`textaugment/eda.py` of dsfsi/textaugment).
    """

    operations: tuple[EdaOperation, ...] = Field(
        default=("synonym", "swap", "deletion"),
        min_length=1,
        description="one is drawn for each text: `synonym` and `insertion` (which need the setting `data.synonyms`; "
        "without, one of the others is drawn), `swap`, `deletion`",
    )
    words: int = Field(default=1, ge=1, le=100, description="number of words to replace, insert or swap")
    deletion: float = Field(default=0.1, ge=0, le=1, description="the probability that a word is deleted")


def _eda(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, EdaParameters)
    return builder.add(
        "eda",
        text,
        operations=parameters.operations,
        words=parameters.words,
        deletion=float(parameters.deletion),
        draw=builder.draw(),
    )


register(
    Primitive(
        name="eda",
        family="views",
        summary="A text after one random edit of its words: easy data augmentation (Wei and Zou), with DeCLIP's operations "
        "and textaugment's numbers.",
        meaning=_eda,
        subjects=(Subject("text", ("Text",), "the text"),),
        parameters=EdaParameters,
        formula=r"\tilde t \sim \mathrm{EDA}(t)",
        example='contrast(image, eda(text, operations=("swap", "deletion")))',
        view_of="Text",
    )
)


class SummarizeParameters(Parameters):
    """Arguments of `summarize`."""

    sentences: int = Field(default=1, ge=1, description="number of sentences to keep, in their order")
    by: Literal["position", "centrality"] = Field(
        default="position",
        description="`position`: the first ones; `centrality`: those that share the most words with the others",
    )


def _summarize(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, SummarizeParameters)
    return builder.add("summarize", text, sentences=parameters.sentences, by=parameters.by)


register(
    Primitive(
        name="summarize",
        family="views",
        summary="Some sentences of a text: a stand-in for a summary written by a model, as in PyramidCLIP.",
        meaning=_summarize,
        subjects=(Subject("text", ("Text",), "the text"),),
        parameters=SummarizeParameters,
        formula=r"\mathrm{summarize}(t)",
        example="contrast(image, summarize(text, sentences=2))",
        view_of="Text",
    )
)


class RenderParameters(Parameters):
    """Arguments of `render`."""

    row_height: int = Field(default=16, ge=4, le=1000, description="height of a line of text, in pixels")
    smallest: int = Field(
        default=6, ge=4, le=1000, description="minimum height of a line to which a long text shrinks before it is truncated"
    )


def _render(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, RenderParameters)
    height, smallest = parameters.row_height, min(parameters.smallest, parameters.row_height)
    return builder.add("render", text, row_height=height, smallest=smallest)


register(
    Primitive(
        name="render",
        family="views",
        summary="A text rendered as an image, so that the image tower encodes it (CLIPPO).",
        meaning=_render,
        subjects=(Subject("text", ("Text",), "the text"),),
        parameters=RenderParameters,
        formula=r"\mathrm{render}(t)",
        example="contrast(image, render(text))",
        view_of="Text",
    )
)
