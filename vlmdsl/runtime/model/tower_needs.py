"""The requirements of an objective on the towers of a model, and their check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Column, Program, Reading, Stream, kept_inputs, loaded_parts, parts_of
from vlmdsl.ir.modules import CodebookSettings
from vlmdsl.ir.operations.modules import replacements_of
from vlmdsl.runtime.model.text_decoders import DecoderNeed, decoder_need
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.source import Span
from vlmdsl.types import EncodedType

__all__ = ["TowerNeed", "check_kept_inputs", "check_lengths", "check_towers", "lengths_of_streams", "tower_needs"]


@dataclass(frozen=True)
class TowerNeed:
    """The requirements of an objective on one tower: the field kind it is for, the outputs it yields, whether it is frozen.

    A `decoder` says what the tower must decode, `causal` that it predicts the next token of texts.
    `takes` are the kinds of streams it encodes: a tower of images may take Regions, too, or nothing else. With
    `separate_patches` dropped or replaced patches of its images are to be predicted, so that none may leak into the others;
    with `replaced_patches` some are replaced. A tower may be a `codebook`. One with a `transform` predicts words after it.
    """

    kind: str
    yields: frozenset[str]
    frozen: bool
    takes: frozenset[str] = frozenset()
    separate_patches: bool = False
    causal: bool = False
    decoder: DecoderNeed | None = None
    replaced_patches: bool = False
    codebook: CodebookSettings | None = None
    transform: bool = False


def tower_needs(streams: Iterable[Stream], columns: Iterable[Column] = ()) -> dict[str, TowerNeed]:
    """The towers of an objective's streams, and of the columns of its reference set, by name.

    A tower is frozen if no stream of it takes a gradient.
    """
    needs: dict[str, TowerNeed] = {}
    streams = list(streams)
    for stream in streams:
        encoder = stream.encoder
        need = needs.get(encoder.tower, TowerNeed(encoder.tower_kind, frozenset(), True))
        needs[encoder.tower] = TowerNeed(
            encoder.tower_kind,
            need.yields | _used(stream),
            need.frozen and not encoder.tower_learns,
            need.takes | frozenset(encoder.takes),
            need.separate_patches or stream.dropped or stream.replaced,
            need.causal or stream.next,
            need.decoder or decoder_need(streams, encoder.tower),
            need.replaced_patches or any(replacements_of(part) for part in parts_of(stream.source)),
            encoder.codebook or need.codebook,
            need.transform or stream.transform,
        )
    for column in columns:
        encoder = column.encoder
        need = needs.get(encoder.tower, TowerNeed(encoder.tower_kind, frozenset(), True))
        needs[encoder.tower] = replace(need, yields=need.yields | {"pooled"}, takes=need.takes | frozenset(encoder.takes))
    return needs


def _used(stream: Stream) -> frozenset[str]:
    """What a tower yields for a stream: of several texts per sample the pooled features of each are the tokens."""
    if stream.encode.type == EncodedType("Concepts"):
        return frozenset({"pooled"})
    return frozenset(stream.outputs)


def check_towers(encoders: Mapping[str, Encoder], needs: Mapping[str, TowerNeed]) -> None:
    """Check that every tower exists, takes the right kind of field, and yields the compared features."""
    for tower, need in needs.items():
        encoder = encoders.get(tower)
        if encoder is None:
            raise _unfit(tower, "has no encoder", f"pass one for `{tower}` among the encoders")
        if encoder.kind != need.kind:
            raise _unfit(tower, f"encodes {need.kind.lower()}s, but its encoder takes {encoder.kind.lower()}s")
        if need.causal and not encoder.causal:
            problem = "is to predict the next token of texts, but its states depend on the tokens after them"
            raise _unfit(tower, problem, "predict by a text decoder: `text_decoder()`, or by a causal tower")
        lacking = sorted(need.yields - encoder.yields)
        if lacking:
            problem = (
                f"must yield {' and '.join(lacking)} features, but its encoder yields {', '.join(sorted(encoder.yields))}"
            )
            raise _unfit(tower, problem, f"build the encoder with `yields={sorted(need.yields)}`")
        if "vocabulary" in need.yields and need.transform != encoder.transforms_vocabulary:
            does, help = (
                ("after a transform", f'call `transform_vocabulary("{tower}")` of the encoder')
                if need.transform
                else ("by one linear map", 'predict by `linear(..., transform="gelu")`')
            )
            raise _unfit(tower, f"predicts words {does}, and its encoder's head is another", help)
    unused = sorted(encoders.keys() - needs.keys())
    if unused:
        raise _unfit(unused[0], "is used by no term of the recipe", f"leave the encoder of `{unused[0]}` out")


def check_kept_inputs(program: Program, readings: Iterable[Reading], streams: Iterable[Stream]) -> None:
    """Check that what a queue of inputs keeps is taken in one form by all towers."""
    readings = list(readings)
    for source in kept_inputs(program):
        forms = {reading.form for reading in readings if reading.source is source}
        if len(forms) > 1:
            takers = (stream.encoder.tower for stream in streams if source in loaded_parts(stream.source))
            first, *others = dict.fromkeys(takers)
            named = ", ".join(f"`{other}`" for other in others)
            problem = f"takes what a queue of inputs keeps in another form than {named}"
            raise _unfit(first, problem, "give both the same image size and standardisation, or the same tokenizer")


def lengths_of_streams(encoders: Mapping[str, Encoder], streams: Iterable[Stream]) -> dict[str, int]:
    """The dimensions of pooled features and tokens, by the names of the objective's inputs."""
    lengths: dict[str, int] = {}
    for stream in streams:
        tower = encoders[stream.encoder.tower].dimension
        lengths |= {stream.name: stream.encoder.dimension(tower), stream.input("tokens"): tower}
    return lengths


def check_lengths(
    encoders: Mapping[str, Encoder],
    streams: Iterable[Stream],
    compared: Iterable[tuple[str, str]],
    others: Mapping[str, int],
) -> None:
    """Check that compared features have the same dimension; `others` are those of fields that hold vectors, and of
    modules."""
    streams = list(streams)
    lengths = {**others, **lengths_of_streams(encoders, streams)}
    owners = {name: stream.encoder for stream in streams for name in (stream.name, stream.input("tokens"))}
    for pair in compared:
        if len({lengths[name] for name in pair if name in lengths}) > 1:
            differing = ", ".join(f"`{name}` {lengths[name]}" for name in pair)
            encoded = [owners[name] for name in pair if name in owners]
            headed = any(encoder.heads for encoder in encoded)
            help = "give the heads the same output dimension: `out=`" if headed else "set one `model.dimension` for all"
            if len(encoded) < len(pair):  # features of a module
                shortest = min(lengths[name] for name in pair)
                help = f"a head of the fusion module gives another length: `project(fusion, out={shortest})`"
                if any(name.endswith("_tokens") for name in pair):
                    head = f'`token_head(tokens, out={shortest}, name="compared")`'
                    help = f"a head on tokens gives them another length: {head}"
            problem = f"and what it is compared with have different feature dimensions: {differing}"
            raise _unfit(encoded[0].tower if encoded else pair[0], problem, help)


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
