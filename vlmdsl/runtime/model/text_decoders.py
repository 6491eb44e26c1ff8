"""The text decoders of a model: what each must be for, how it is built, and its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlmdsl.backends.torch.applied import states_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Node, Stream, encoder_of, parts_of
from vlmdsl.ir.modules import TextDecoderSettings
from vlmdsl.ir.operations.encoding import context_of, parallel_draw_of, prefix_draw_of
from vlmdsl.ir.operations.views import PROMPTED
from vlmdsl.runtime.model.contexts import ContextMask, ContextStates, context_width
from vlmdsl.runtime.modules import TextDecoderTower
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import MaskedTokens, Parallel, Prefix, TextBatch, TowerInput, Value, prefix_lengths, prompted
from vlmdsl.source import Span
from vlmdsl.types import EncodedType

__all__ = ["DecoderNeed", "built_decoder", "decoder_input", "decoder_need", "split_text", "tower_of_words"]


@dataclass(frozen=True)
class DecoderNeed:
    """The uses of one text decoder, all together: its settings, the contexts that texts attend to, and whether some texts
    are predicted in `parallel`, or come after a prompt and are `prompted`. One that shares weights has the `words` of this
    tower."""

    settings: TextDecoderSettings
    contexts: tuple[Node, ...] = ()
    parallel: bool = False
    prompted: bool = False
    words: str = ""


def decoder_need(streams: Iterable[Stream], tower: str) -> DecoderNeed | None:
    """What the streams of a tower need it to decode; None if it is not a text decoder. Raises `DiagnosticError` (V0832) if
    two decoders of this name differ."""
    streams = list(streams)
    nodes = [stream.encode for stream in streams if stream.encoder.tower == tower and stream.encoder.decoder is not None]
    settings = {encoder_of(node).decoder for node in nodes}
    if not nodes:
        return None
    if len(settings) > 1:
        raise _unfit(tower, "is two decoders of different sizes", "give one another name: `text_decoder(..., name=...)`")
    (own,) = settings
    assert own is not None
    contexts = tuple(context for node in nodes if (context := context_of(node)) is not None)
    parallel = any(parallel_draw_of(node) is not None for node in nodes)
    follows_prompts = any(node.inputs[0].operation is PROMPTED for node in nodes)
    return DecoderNeed(own, contexts, parallel, follows_prompts, tower_of_words(streams, tower) if own.shares else "")


def tower_of_words(streams: Iterable[Stream], tower: str) -> str:
    """The text tower whose states a fusion module takes, of a decoder that shares the weights of both. Raises
    `DiagnosticError` (V0832) if there is not one such tower."""
    own = [stream for stream in streams if stream.entering and stream.encode.type == EncodedType("Text")]
    (first, *others) = dict.fromkeys(stream.encoder.tower for stream in own if stream.encoder.teacher is None) or ("",)
    if others or not first:
        problem = "shares the weights of a fusion module, but that takes the states of several text towers, or of none"
        raise _unfit(tower, problem, "leave `shares` out, or fuse texts of one tower in the same stage")
    return first


def built_decoder(
    tower: str,
    need: DecoderNeed,
    yields: Iterable[str],
    towers: Mapping[str, Encoder],
    *,
    vocabulary_size: int,
    text_length: int,
    dimension: int,
) -> TextDecoderTower:
    """A decoder with untrained weights; `towers` are those that encode its contexts. `text_length` is that of a text, or of
    a prompt. Raises `DiagnosticError` (V0832) if contexts are of different widths, or heads do not divide its width."""
    widths = {context_width(context, towers.__getitem__) for context in need.contexts}
    if len(widths) > 1:
        listed = ", ".join(map(str, sorted(widths)))
        raise _unfit(tower, f"attends to contexts of different widths: {listed}", "give each its own decoder: `name=`")
    of_context = next(iter(widths), None)
    entering = towers[need.words].states_width if need.words else of_context
    blocks, settings = towers[need.words].shared_blocks if need.words else None, need.settings
    if not settings.depth and blocks is not None:
        settings = replace(settings, depth=len(blocks.blocks), heads=blocks.heads)
    width = settings.width or entering or dimension
    if width % (settings.heads or 1):
        problem = f"has states of {width} numbers, which its {settings.heads} heads do not divide evenly"
        raise _unfit(tower, problem, "set `heads` of `text_decoder` to a divisor, or leave it out")
    length = 2 * text_length if need.prompted else text_length
    return TextDecoderTower(settings, width, vocabulary_size, length, dimension, of_context, yields, parallel=need.parallel)


def split_text(encode: Node, environment: Environment, form: Any) -> tuple[TextBatch, Prefix | None, MaskedTokens | None]:
    """The text of an `encode` node in the form of its tower, after its prompt if it has one; how much of it is a prefix;
    and what a mask selected of it."""
    *prompts, text = (environment[part][form] for part in parts_of(encode.inputs[0]))
    words, masked = text.value, text.ports.get("masked")
    if prompts:
        words, lengths = prompted(prompts[0].value, words)
        return words, Prefix(lengths), None
    draw = None if encoder_of(encode).decoder is None else prefix_draw_of(encode)
    return words, None if draw is None else Prefix(prefix_lengths(words, environment[draw])), masked


def decoder_input(encode: Node, environment: Environment, form: Any, *, whole: bool) -> TowerInput:
    """What a text decoder takes for an `encode` node: the text without its last token, which has no next one, unless
    pooled features need the `whole`, and what comes with it."""
    words, prefix, _ = split_text(encode, environment, form)
    if not whole and words.ids.shape[1] > 1:
        words = TextBatch(words.ids[:, :-1], words.mask[:, :-1])
    ports: dict[str, Value] = {} if prefix is None else {"prefix": prefix}
    draw, context = parallel_draw_of(encode), context_of(encode)
    if draw is not None:
        ports["parallel"] = Parallel(environment[draw] < encode.number("parallel"))
    if context is not None:
        states, mask = states_input(context, environment)
        ports |= {"context": ContextStates(states)} | ({} if mask is None else {"context_mask": ContextMask(mask)})
    return TowerInput(words, ports)


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
