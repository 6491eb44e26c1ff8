"""Batching of encoders: which streams go through which tower in one call."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir import Encoder, Program, Stream, streams

__all__ = ["EncoderCall", "encoder_calls"]


@dataclass(frozen=True, slots=True)
class EncoderCall:
    """One call of one tower on the samples of all these streams, one stream after the other."""

    encoder: Encoder
    streams: tuple[Stream, ...]


def encoder_calls(program: Program) -> tuple[EncoderCall, ...]:
    """The calls in the order of first use: one a tower, since the streams of a tower all have the tower's shape."""
    calls: dict[Encoder, list[Stream]] = {}
    for stream in streams(program):
        calls.setdefault(stream.encoder, []).append(stream)
    return tuple(EncoderCall(encoder, tuple(group)) for encoder, group in calls.items())
