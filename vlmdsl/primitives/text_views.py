"""Views of a text: the words of it changed at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import FieldType

EdaOperation = Literal["synonym", "swap", "deletion", "insertion"]


class EdaParameters(Parameters):
    """Arguments of `eda`."""

    operations: tuple[EdaOperation, ...] = Field(
        default=("synonym", "swap", "deletion"),
        min_length=1,
        description="one of them is drawn for each text: `synonym` and `insertion` (which need the run's `data.synonyms`; "
        "without, one of the others is drawn), `swap`, `deletion`",
    )
    words: int = Field(default=1, ge=1, le=100, description="how many words are replaced, how many inserted or swapped")
    deletion: float = Field(default=0.1, ge=0, le=1, description="the chance of each word to be deleted")


def _eda(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, EdaParameters)
    return builder.add(
        "eda",
        text,
        type=FieldType("Text"),
        operations=parameters.operations,
        words=parameters.words,
        deletion=float(parameters.deletion),
        draw=builder.draw(),
    )


register(
    Primitive(
        name="eda",
        family="views",
        summary="A text after one random edit of its words: easy data augmentation (Wei and Zou), as DeCLIP uses it.",
        meaning=_eda,
        subjects=(Subject("text", ("Text",), "the text"),),
        parameters=EdaParameters,
        formula=r"\tilde t \sim \mathrm{EDA}(t)",
        example='contrast(image, eda(text, operations=("swap", "deletion")))',
        view_of="Text",
    )
)
