"""Texts that name the boxes of an image, and which of their words name which box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Encoder, Node
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.grounding import names_regions
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import EncoderValue, TupleValue, Value
from vlmdsl.types import EncodedType

MAXIMUM_CONCEPTS = 1000
"""Of a sample, and of the negatives of a prompt."""

_PHRASES = Subject("phrases", ("Phrases",), "what the boxes of the image are called")
_BOXES = Subject("boxes", ("Boxes",), "the boxes that are named")
_AT = Subject(
    "at", ("BoxAssignment",), "the box that each point is for: the map is of points then", TupleValue(()), keyword=True
)


def _text_of(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    phrases = subjects["phrases"]
    assert isinstance(phrases, Node)
    return builder.add("text_of", phrases)


register(
    Primitive(
        name="text_of",
        family="grounding",
        summary=(
            "The text in which the boxes of an image are named: the caption that the phrases are parts of, or the phrases "
            'joined with ". ".'
        ),
        meaning=_text_of,
        subjects=(_PHRASES,),
        formula=r"t(p)",
        cost="none",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\nlet words = language(text_of(phrases))\n"
            "minimize focal(alignment(regions(image, boxes), words), word_map(words, boxes))"
        ),
        view_of="Phrases",
    )
)


class PromptParameters(Parameters):
    """Arguments of `prompt`."""

    negatives: int = Field(
        default=85,
        ge=0,
        le=MAXIMUM_CONCEPTS,
        description="the most names of other things; 0: none, and the text is that of `text_of`",
    )
    full: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="how often there are so many; otherwise a number from 1 to the most is drawn",
    )


def _prompt(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    phrases = subjects["phrases"]
    assert isinstance(phrases, Node)
    assert isinstance(parameters, PromptParameters)
    return builder.add("prompt", phrases, negatives=parameters.negatives, full=float(parameters.full), draw=builder.draw())


register(
    Primitive(
        name="prompt",
        family="grounding",
        summary=(
            'The names of the boxes of an image and names of other things, shuffled and joined with ". ", drawn per sample '
            "and epoch (GLIP). Others are those of `data.concepts`, or that occur in the data; there are fewer where the "
            "text would be too long."
        ),
        meaning=_prompt,
        subjects=(_PHRASES,),
        parameters=PromptParameters,
        formula=r"t(p \cup n)",
        cost="none",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\n"
            "let words = language(prompt(phrases, negatives=8))\n"
            "minimize focal(alignment(regions(image, boxes), words), word_map(words, boxes))"
        ),
        view_of="Phrases",
    )
)


class ConceptsParameters(Parameters):
    """Arguments of `concepts`."""

    count: int = Field(default=150, ge=1, le=MAXIMUM_CONCEPTS, description="number of texts per sample")
    text: Literal["definition", "name"] = Field(
        default="definition",
        description="`definition`: a name with a definition in `data.concepts` is followed by it (DetCLIP); or the `name`",
    )


def _concepts(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    phrases = subjects["phrases"]
    assert isinstance(phrases, Node)
    assert isinstance(parameters, ConceptsParameters)
    return builder.add(
        "concepts", phrases, count=parameters.count, defined=parameters.text == "definition", draw=builder.draw()
    )


register(
    Primitive(
        name="concepts",
        family="grounding",
        summary=(
            "The names of the boxes of an image and names of other things, each a separate text that the text tower "
            "encodes by itself, drawn per sample and epoch (DetCLIP). Others are those of `data.concepts`, or that occur in "
            "the data."
        ),
        meaning=_concepts,
        subjects=(_PHRASES,),
        parameters=ConceptsParameters,
        formula=r"\{c_1, \ldots, c_N\}",
        cost="the text tower, N times per sample",
        example=(
            "recipe detected(image: Image, boxes: Boxes, phrases: Phrases)\n"
            "let names = language(concepts(phrases, count=8))\n"
            "minimize focal(alignment(regions(image, boxes), names), word_map(names, boxes))"
        ),
        view_of="Phrases",
    )
)


def _word_map(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    boxes, encoded = subjects["boxes"], builder.encoded(subjects["text"], "text")
    assert isinstance(boxes, Node)
    if not isinstance(encoded, Node) or not isinstance(encoded.type, EncodedType):
        raise wrong_type(builder, "text", "word_map", encoded, "a text that names boxes")
    while encoded.operation is not ENCODE:
        if encoded.operation is FETCH:
            raise bad_value(
                builder, "text", "word_map", "it is the text of another sample, and the boxes are not of its image"
            )
        encoded = encoded.inputs[0]
    if not names_regions(encoded.inputs[0]):
        help = ("make the text of phrases: `text_of(phrases)`, `prompt(phrases)`, `concepts(phrases)`",)
        raise bad_value(builder, "text", "word_map", "no part of this text is known to name a box", *help)
    words, at = builder.add("word_map", encoded, boxes), subjects["at"]
    return builder.add("assigned_words", words, at) if isinstance(at, Node) else words


register(
    Primitive(
        name="word_map",
        family="grounding",
        summary=(
            "Which words of a text, or which of several concepts, name each box: 0 or 1, many to many. A word that is "
            "several tokens is all of them."
        ),
        meaning=_word_map,
        subjects=(Subject("text", ("Encoded", "Text", "Concepts"), "the text, or a tower's output for it"), _BOXES, _AT),
        formula=r"y_{ikl} \in \{0, 1\}",
        cost="none",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\nlet words = language(text_of(phrases))\n"
            "minimize focal(alignment(regions(image, boxes), words), word_map(words, boxes))"
        ),
    )
)


def _dictionary(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    phrases, reader = subjects["phrases"], subjects["by"]
    assert isinstance(phrases, Node)
    assert isinstance(reader, EncoderValue)
    encoder = reader.encoder
    if encoder != Encoder(encoder.tower, "Text", frozen=True):
        help = ("freeze it: `encoder reader = frozen(language)`, `by=reader`",)
        raise bad_value(
            builder, "by", "dictionary", "its names are encoded once, by a frozen text tower without heads", *help
        )
    return builder.add("reference", encoder=encoder, field=phrases.string("name"), kind="Phrases")


register(
    Primitive(
        name="dictionary",
        family="grounding",
        summary=(
            "A fixed table of names of things, with their definitions where there are any, encoded once by a frozen text "
            "tower (RegionCLIP): those of `data.concepts`, or that occur in the data."
        ),
        meaning=_dictionary,
        subjects=(_PHRASES, Subject("by", ("Encoder",), "the frozen text tower", keyword=True)),
        formula=r"\{c_1, \ldots, c_K\}",
        cost="K D numbers on each process",
        example=(
            "recipe named(image: Image, boxes: Boxes, phrases: Phrases)\nencoder reader = frozen(language)\n"
            "encoder elder = ema(vision)\nlet names = dictionary(phrases, by=reader)\n"
            "minimize region_distillation(alignment(regions(image, boxes), names), "
            "alignment(regions(elder(image), boxes), names), boxes)"
        ),
    )
)
