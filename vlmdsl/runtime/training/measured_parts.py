"""What is measured on held-out data beside features, where a recipe has the part: one function for each kind of part."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from vlmdsl.ir import Program, root_field
from vlmdsl.ir.operations.views import DROP, REPLACE
from vlmdsl.runtime.data import BadSample, EvaluationLoader, Loaded, Source, View, plain_fields, values_of_step, view_of
from vlmdsl.runtime.evaluation import (
    CaptionSettings,
    HardNegatives,
    Matching,
    Measures,
    Objects,
    box_phrase_accuracy,
    caption_measures,
    captioning_of,
    coco_precision,
    code_accuracy,
    code_prediction_of,
    drawn_towers,
    grounding_of,
    group_overlap,
    grouping_tower,
    masked_error,
    masked_word_accuracy,
    masked_words_of,
    matching_accuracy,
    matching_of,
    objects_in,
    reconstruction_of,
)
from vlmdsl.runtime.evaluation.overlap import overlap
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.evaluation_loaders import Loaders
from vlmdsl.runtime.values import FieldColumns, ImageFormat

__all__ = ["MeasuredPart", "has_measured_part", "measured_parts"]


@dataclass(frozen=True)
class MeasuredPart:
    """A measure of one part of a recipe.

    `name` is that of its group in `evaluation.json`, whose title is in `evaluation.PART_TITLES`; `measure` gives None where
    the held-out samples have nothing to measure. `measure_untrained`, of a model before its first step, is the mean over
    several draws of weights, where one says little; None for the same as `measure`.
    """

    name: str
    batches: EvaluationLoader
    measure: Callable[[VisionLanguageModel], Measures | None]
    measure_untrained: Callable[[VisionLanguageModel], Measures | None] | None = None


def measured_parts(program: Program, loaders: Loaders) -> tuple[MeasuredPart, ...]:
    """Every part of the program that has a measure."""
    parts = (part(program, loaders) for part in _PARTS)
    return tuple(part for part in parts if part is not None)


def has_measured_part(program: Program) -> bool:
    """Whether the program has a part that is measured where the held-out data has what it reads; groups of patches, which
    any tower of images may have, apart."""
    return any(part_of(program) is not None for part_of in _PART_OF)


_PART_OF: tuple[Callable[[Program], object], ...] = (
    reconstruction_of,
    code_prediction_of,
    grounding_of,
    captioning_of,
    matching_of,
    masked_words_of,
)


def _dropped_patches(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """The error of reconstructed patches; each sample always has the same patches dropped."""
    reconstruction = reconstruction_of(program)
    if reconstruction is None:
        return None
    view, name = view_of(reconstruction.source), root_field(reconstruction.source).string("name")
    dropped = View(view.field, view.kind, tuple(step for step in view.steps if step[0] == DROP))
    values, objects = {name: loaders.value(dropped, reconstruction.tower)}, None
    source = loaders.data.held_out
    if source is not None and SEGMENTS in source.columns:
        objects = f"{name}_objects"
        values[objects] = objects_of(name, loaders.model.form(reconstruction.tower, "Image"))
    batches = loaders.held_out(values)
    return MeasuredPart("reconstruction", batches, lambda model: masked_error(model, batches, name, reconstruction, objects))


def _codes_of_patches(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """The accuracy of predicted codes; each sample always has the same patches replaced or dropped."""
    prediction = code_prediction_of(program)
    if prediction is None:
        return None
    view, name = view_of(prediction.source), root_field(prediction.source).string("name")
    replaced = View(view.field, view.kind, tuple(step for step in view.steps if step[0] in (DROP, REPLACE)))
    values = {
        name: loaders.value(replaced, prediction.tower),
        prediction.tokenizer: loaders.value(View(view.field, view.kind), prediction.tokenizer),
    }
    batches = loaders.held_out(values)
    return MeasuredPart("codes", batches, lambda model: code_accuracy(model, batches, name, prediction))


def _boxes(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """How well the boxes of held-out images are named."""
    grounding = grounding_of(program)
    mapping = loaders.data.held_out_mapping
    if grounding is None or mapping is None or not {grounding.boxes, grounding.phrases} <= mapping.columns.keys():
        return None
    values = _as_in_a_step(loaders)
    if values is None:
        return None
    batches = loaders.held_out(values)
    names = partial(_names, loaders, grounding.phrases)
    precision = coco_precision if loaders.config.evaluation.average_precision else None
    return MeasuredPart(
        "grounding", batches, lambda model: box_phrase_accuracy(model, batches, grounding, names(), precision)
    )


def _names(loaders: Loaders, field: str) -> dict[int, tuple[str, ...]]:
    """The names of the boxes of each held-out sample, by its index."""
    source, mapping = loaders.data.held_out, loaders.data.held_out_mapping
    assert source is not None
    assert mapping is not None
    names: dict[int, tuple[str, ...]] = {}
    limit = loaders.config.evaluation.limit
    for index in range(len(source) if limit is None else min(limit, len(source))):
        try:
            names[index] = mapping.read(field, "Phrases", source[index]).names
        except BadSample:
            continue
    return names


def _captions(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """What a text decoder says of held-out images."""
    captioning, mapping = captioning_of(program), loaders.data.held_out_mapping
    if captioning is None or mapping is None:
        return None
    texts = [name for name in (captioning.text, captioning.prompt) if name is not None]
    values = {name: loaders.value(View(name, "Text"), captioning.tower) for name in texts}
    if captioning.image_field is not None:
        values[captioning.image_field] = loaders.value(View(captioning.image_field, "Image"), captioning.image_tower)
    if not values.keys() <= mapping.columns.keys():
        return None
    batches, config = loaders.held_out(values), loaders.config.evaluation
    settings = CaptionSettings(config.captions, config.beams, overlap if config.caption_overlap else None)
    source = loaders.data.held_out
    assert source is not None
    objects = [partial(_objects, source, name) for name in _OBJECTS if name in source.columns]
    return MeasuredPart("captions", batches, lambda model: caption_measures(model, batches, captioning, settings, objects))


def _groups(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """How well groups of patches are the objects of held-out images, where the data says which pixels these have."""
    tower, source = grouping_tower(loaders.model), loaders.data.held_out
    if tower is None or source is None or SEGMENTS not in source.columns:
        return None
    stream = next(stream for stream in loaders.model.streams if stream.encoder.tower == tower)
    name, form = root_field(stream.source).string("name"), loaders.model.form(tower, "Image")
    batches = loaders.held_out({name: objects_of(name, form)})
    return MeasuredPart(
        "grouping",
        batches,
        lambda model: group_overlap(model, batches, name, tower),
        lambda model: group_overlap(model, batches, name, tower, drawn_towers(model, tower)),
    )


def objects_of(image: str, form: Hashable) -> Loaded:
    """An image in the form of a tower, with the object of each of its pixels."""
    assert isinstance(form, ImageFormat)
    return Loaded(View(image, "Image"), replace(form, patch=1), segments=FieldColumns(SEGMENTS, (SEGMENTS,)))


SEGMENTS = "segments"
"""The column that may say which object each pixel of an image belongs to, 0 for none."""


def _matching(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """How well pairs and negatives are distinguished."""
    matching, values = matching_of(program), _as_in_a_step(loaders)
    if matching is None or values is None:
        return None
    batches, hard = loaders.held_out(values), _hard_negatives(matching, values, loaders)
    return MeasuredPart("matching", batches, lambda model: matching_accuracy(model, batches, matching, hard))


def _hard_negatives(matching: Matching, values: Mapping[str, Loaded], loaders: Loaders) -> HardNegatives | None:
    """The held-out samples with a wrong text, where the data has one for the column of the text, and says what is wrong."""
    source, mapping = loaders.data.held_out, loaders.data.held_out_mapping
    assert source is not None
    assert mapping is not None
    text = matching.text
    columns = mapping.columns[text]
    wrong, kinds = f"wrong_{columns[0]}", f"wrong_{columns[0]}_kind"
    if len(columns) > 1 or not {wrong, kinds} <= set(source.columns):
        return None
    batches = loaders.loader(
        (source, replace(mapping, columns={**mapping.columns, text: (wrong,)})), values, loaders.config.evaluation.limit
    )
    return HardNegatives(batches, lambda index: _kind(source[index][kinds]))


def _kind(value: object) -> str | None:
    """What is wrong in a text, as the name of a measure; None for what is not a short word or two."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w -]{1,30}", value) else None


def _masked_words(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """How well masked words are predicted given the image; each sample always has the same tokens masked."""
    masked, values = masked_words_of(program), _as_in_a_step(loaders)
    if masked is None or values is None:
        return None
    batches = loaders.held_out(values)
    return MeasuredPart("masked_words", batches, lambda model: masked_word_accuracy(model, batches, masked, _words(loaders)))


def _as_in_a_step(loaders: Loaders) -> dict[str, Loaded] | None:
    """What a step of the model takes, without the draws of views, except those of masks; None where the held-out data
    lacks some."""
    mapping = loaders.data.held_out_mapping
    fields = {name: kind for name, kind in plain_fields(loaders.model.objective.program).items() if kind != "Key"}
    model = loaders.model
    step = values_of_step(model.readings, fields, segments=model.segment_fields(), boxes=model.boxed_readings())
    values = {name: replace(loaded, view=loaded.view.without_draws(masks=True)) for name, loaded in step.items()}
    read = {loaded.view.field for loaded in values.values()}
    return values if mapping is not None and read <= mapping.columns.keys() else None


def _words(loaders: Loaders) -> dict[str, frozenset[str]]:
    """The words of each attribute of the objects of held-out samples, where the data says what these are."""
    source, config = loaders.data.held_out, loaders.config.evaluation
    assert source is not None
    words: dict[str, set[str]] = {}
    if _OBJECTS[0] in source.columns:
        for index in range(len(source) if config.limit is None else min(config.limit, len(source))):
            for thing in _objects(source, _OBJECTS[0], index) or ():
                for name, word in thing.items():
                    words.setdefault(f"{name}s", set()).add(word)
    return {name: frozenset(own) for name, own in words.items()}


_OBJECTS = ("objects", "objects_ko")
"""Columns that may hold what is in an image, in the words of captions of one language."""


def _objects(source: Source, column: str, index: int) -> Objects | None:
    return objects_in(source[index][column])


_PARTS: tuple[Callable[[Program, Loaders], MeasuredPart | None], ...] = (
    _dropped_patches,
    _codes_of_patches,
    _boxes,
    _captions,
    _groups,
    _matching,
    _masked_words,
)
"""A part that can be measured is a line here, and its title one of `evaluation.PART_TITLES`."""
