"""Texts that a decoder writes before the first step of a stage: of which images, and by the decoder of which stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmdsl.ir.encoders import encoder_of
from vlmdsl.ir.node import Node
from vlmdsl.ir.operations.encoding import context_of
from vlmdsl.ir.operations.prediction import TOKEN_IDS
from vlmdsl.ir.operations.views import PROMPTED, WRITTEN
from vlmdsl.ir.program import Program
from vlmdsl.ir.stages import Stage

__all__ = ["Writing", "decoded_texts", "writer_of", "writes", "writing_of", "writings"]


@dataclass(frozen=True, slots=True)
class Writing:
    """Texts in place of the field `text`: what the decoder `by` writes of the images in the field `image`, after the texts
    in the field `prompt`, if there is one (else ""), by a search with so many `beams`."""

    text: str
    by: str
    image: str
    prompt: str
    beams: int


def writing_of(node: Node) -> Writing:
    """What a `written` node reads."""
    text, image, *prompt = (field.string("name") for field in node.inputs)
    return Writing(text, node.string("by"), image, prompt[0] if prompt else "", int(node.number("beams")))


def writings(program: Program) -> dict[Writing, Node]:
    """What decoders write for a program, each with the first node that reads it."""
    readers: dict[Writing, Node] = {}
    for node in program.nodes():
        if node.operation is WRITTEN:
            readers.setdefault(writing_of(node), node)
    return readers


def decoded_texts(program: Program) -> Iterator[Node]:
    """The `encode` nodes of text decoders whose next tokens a program predicts."""
    for node in program.nodes():
        if node.operation is TOKEN_IDS and node.string("which") == "next" and encoder_of(node.inputs[0]).decoder is not None:
            yield node.inputs[0]


def writes(encode: Node, writing: Writing) -> bool:
    """Whether a decoder has been trained as it is to write: given an image, and after a prompt or not."""
    prompted = encode.inputs[0].operation is PROMPTED
    return encoder_of(encode).tower == writing.by and context_of(encode) is not None and prompted == bool(writing.prompt)


def writer_of(writing: Writing, earlier: Sequence[Stage]) -> Stage | None:
    """The latest of some stages that trains the decoder to write this; None if none does."""
    for stage in reversed(earlier):
        if any(writes(encode, writing) for flow in stage.flows for encode in decoded_texts(flow.program)):
            return stage
    return None
