"""The towers of a run, built as its settings say, with weights drawn from its seed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from vlmdsl.backends.torch.objective import Objective
from vlmdsl.ir import Stream, root_field
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.runtime.model.text_decoders import built_decoder
from vlmdsl.runtime.model.tower_needs import TowerNeed, tower_needs
from vlmdsl.runtime.modules.towers import Encoder, build_encoder, is_pretrained, longest_text, usual_text_length
from vlmdsl.runtime.tokenizer import Tokenizer, Tokenizers
from vlmdsl.runtime.training.adaptation import adapt
from vlmdsl.runtime.training.codebooks import USUAL_SIDE, codebook_tower
from vlmdsl.runtime.training.processes import seed_generators
from vlmdsl.runtime.training.stage_sizes import OF_RUN, StageSizes
from vlmdsl.runtime.training.tokenizers import encoder_name, tokenizer_notes
from vlmdsl.runtime.values import ImageFormat, TextFormat
from vlmdsl.schema import ModelConfig, RunConfig
from vlmdsl.types import VecType, as_value

__all__ = ["built_encoders", "library_towers", "vector_lengths"]


def built_encoders(
    objectives: Sequence[Objective],
    config: RunConfig,
    tokenizers: Tokenizers,
    facts: Mapping[str, Any],
    separate_patches: Collection[str] = (),
    sizes: StageSizes = OF_RUN,
) -> dict[str, Encoder]:
    """The towers of all objectives, by name; those of `separate_patches` have them for objectives of other stages. They
    take images and texts of the `sizes` of a stage, for which they are not built."""
    model = config.model
    streams = [stream for objective in objectives for stream in objective.streams]
    columns = [column for objective in objectives for column in objective.references.columns]
    encoders: dict[str, Encoder] = {}
    needs = tower_needs(streams, columns)
    for tower, need in sorted(needs.items(), key=lambda item: item[1].decoder is not None):  # after what they attend to
        if need.codebook is not None:
            continue  # it goes by the patches of the others
        # Each tower's weights are its own draw, so that recipes with other towers beside it start with the same ones.
        seed_generators(config.train.seed, "weights", tower)
        kind = need.kind
        name = encoder_name(model, tower, kind)
        if need.decoder is not None:
            encoders[tower] = built_decoder(
                tower,
                need.decoder,
                need.yields,
                encoders,
                vocabulary_size=tokenizers[tower].vocabulary_size,
                text_length=model.text_length or longest_text(name),
                dimension=model.dimension,
            )
        else:
            encoders[tower] = build_encoder(
                name,
                kind,
                model.dimension,
                need.yields,
                image_size=model.image_size if "Image" in kind else None,
                vocabulary_size=tokenizers[tower].vocabulary_size if "Text" in kind else None,
                text_length=model.text_length if "Text" in kind else None,
                region_length=_region_length(streams, tower, facts),
                separate_patches=need.separate_patches or tower in separate_patches,
                replaced_patches=need.replaced_patches,
                pretrained=model.pretrained,
                facts=_facts_of(streams, tower, facts),
            )
        if is_pretrained(name):  # what is drawn after it is the same whether its weights were drawn or read
            seed_generators(config.train.seed, "weights after", tower)
        if "Image" in kind:
            _take_images(encoders[tower], name, model, sizes)
        if "Text" in kind:
            _take_texts(encoders[tower], name, need, model, tokenizers[tower], sizes)
    adapt(encoders, model)
    sizes.check_any(encoders.values())
    books = {tower: need.codebook for tower, need in needs.items() if need.codebook is not None}
    return encoders | {tower: codebook_tower(tower, book, model, encoders.values(), sizes) for tower, book in books.items()}


def _take_images(encoder: Encoder, name: str, model: ModelConfig, sizes: StageSizes) -> None:
    if encoder.image_format is None:
        encoder.image_format = ImageFormat(model.image_size or USUAL_SIDE)
    if sizes.image_size is not None:
        encoder.take_images(name, sizes.image_size, sizes.setting("image_size"))


def _take_texts(
    encoder: Encoder, name: str, need: TowerNeed, model: ModelConfig, tokenizer: Tokenizer, sizes: StageSizes
) -> None:
    length = sizes.text_length or model.text_length or (longest_text(name) if need.decoder else None)
    encoder.take_texts(name, _text_format(encoder, tokenizer, length), sizes.setting("text_length"))
    encoder.notes += tokenizer_notes(name, model.tokenizer, tokenizer)
    if need.transform:
        encoder.transform_vocabulary(name)
    if model.tied_vocabulary:
        encoder.tie_vocabulary(name)


def library_towers(config: ModelConfig) -> dict[str, str]:
    """Setting that names a tower of another library, such as `model.towers.words` -> its name.

    >>> from vlmdsl.schema import ModelConfig
    >>> library_towers(ModelConfig(image_encoder="hf:google/vit-base-patch16-224"))
    {'model.image_encoder': 'hf:google/vit-base-patch16-224'}
    """
    named = {"model.image_encoder": config.image_encoder, "model.text_encoder": config.text_encoder}
    named |= {f"model.towers.{tower}": encoder for tower, encoder in config.towers.items()}
    return {setting: name for setting, name in named.items() if is_pretrained(name)}


def vector_lengths(objective: Objective, facts: Mapping[str, Any]) -> dict[str, int]:
    """The dimensions of the fields that are read as vectors."""
    fields = [node for node in objective.program.nodes() if node.operation is FIELD]
    names = [node.string("name") for node in fields if isinstance(as_value(node.type), VecType)]
    return {name: facts[name] for name in names if facts.get(name) is not None}


def _facts_of(streams: Iterable[Stream], tower: str, facts: Mapping[str, Any]) -> object:
    """What is known of the first field that a tower takes."""
    fields = [root_field(stream.source).string("name") for stream in streams if stream.encoder.tower == tower]
    return facts.get(fields[0]) if fields else None


def _region_length(streams: Iterable[Stream], tower: str, facts: Mapping[str, Any]) -> int | None:
    """How many numbers describe a region of those that enter a tower part-way; None where none does."""
    fields = [
        root_field(stream.source).string("name")
        for stream in streams
        if stream.encoder.tower == tower and stream.encoder.enters is not None
    ]
    return facts.get(fields[0]) if fields else None


def _text_format(encoder: Encoder, tokenizer: Tokenizer, length: int | None) -> TextFormat:
    side = tokenizer.padding_side if encoder.reads_padding else "right"
    return TextFormat(tokenizer, length or usual_text_length(encoder), side)
