"""Batching of encoders: which streams go through which tower in one call."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir import Encoder, Program, Stream, streams
from vlmdsl.types import Type

__all__ = ["EncoderCall", "encoder_calls"]


@dataclass(frozen=True, slots=True)
class EncoderCall:
    """One call of one tower on the samples of all these streams, one stream after the other."""

    encoder: Encoder
    streams: tuple[Stream, ...]


def encoder_calls(program: Program) -> tuple[EncoderCall, ...]:
    """The calls in the order of first use: one a tower and kind of stream, since those all have the same shape."""
    calls: dict[tuple[Encoder, Type], list[Stream]] = {}
    for stream in streams(program):
        calls.setdefault((stream.encoder, stream.encode.type), []).append(stream)
    return tuple(EncoderCall(encoder, tuple(group)) for (encoder, _), group in calls.items())
