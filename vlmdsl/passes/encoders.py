"""Batching of encoders: which streams go through which tower in one call."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir import Encoder, Head, Node, Program, Stream, streams, walk
from vlmdsl.ir.operations.views import BLEND, CROP, DROP
from vlmdsl.types import Type

__all__ = ["EncoderCall", "encoder_calls"]


@dataclass(frozen=True, slots=True)
class EncoderCall:
    """One call of one tower on the samples of all these streams, one stream after the other, and the heads on top of it.

    `streams` are as many as there are values to encode: of those that differ in their heads only, the first.
    """

    encoder: Encoder
    streams: tuple[Stream, ...]
    heads: tuple[tuple[Head, int], ...] = ()
    """The heads on top, in the order of first use, each with the number of views that it takes."""
    share: float = 1.0
    """The share of an image's patches that the tower sees: less than 1 of small crops, and where patches are dropped."""


def encoder_calls(program: Program) -> tuple[EncoderCall, ...]:
    """The calls in the order of first use: one a tower and kind of stream, since those all have the same shape; but
    a blended pair has other tokens than a joined one, and crops of another side or images with other shares of their patches
    dropped have fewer."""
    calls: dict[tuple[Encoder, Type, bool, float, float], list[Stream]] = {}
    for stream in streams(program):
        area, kept = _seen(stream.source)
        kind = (stream.encoder.bare, stream.encode.type, stream.source.operation is BLEND, area, kept)
        calls.setdefault(kind, []).append(stream)
    return tuple(EncoderCall(kind[0], _distinct(group), _heads(group), kind[3] * kind[4]) for kind, group in calls.items())


def _seen(source: Node) -> tuple[float, float]:
    """What a tower sees of the images of a stream: the area of the smallest crop as a share of the tower's images, and the
    share of patches that is left."""
    area = kept = 1.0
    for node in walk([source]):
        if node.operation is CROP and "side" in dict(node.attributes):
            area = min(area, node.number("side") ** 2)
        elif node.operation is DROP:
            kept *= 1.0 - node.number("share")
    return area, kept


def _distinct(group: list[Stream]) -> tuple[Stream, ...]:
    """The first stream of each source."""
    first: dict[Node, Stream] = {}
    for stream in group:
        first.setdefault(stream.source, stream)
    return tuple(first.values())


def _heads(group: list[Stream]) -> tuple[tuple[Head, int], ...]:
    """Each head on its chain of heads once for every source that goes through it."""
    taken: dict[tuple[Head, ...], set[Node]] = {}
    for stream in group:
        for depth in range(len(stream.encoder.heads)):
            taken.setdefault(stream.encoder.heads[: depth + 1], set()).add(stream.source)
    return tuple((chain[-1], len(sources)) for chain, sources in taken.items())
