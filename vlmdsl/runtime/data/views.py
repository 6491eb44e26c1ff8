"""Views of a sample's fields, by operation of the graph. To add one, write its function and put it into `VIEWS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import CannotLoad
from vlmdsl.ir import Node, Writing, loaded_origin, root_field, writing_of
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl.ir.operations.grounding import CONCEPTS, PROMPT, TEXT_OF
from vlmdsl.ir.operations.views import (
    ALTERNATIVE,
    AUGMENT,
    CROP,
    DROP,
    EDA,
    MASK,
    RENDER,
    REPLACE,
    REWRITE,
    SUMMARIZE,
    SWAP,
    WRITTEN,
)
from vlmdsl.primitives.pipelines import PIPELINES, Crop, PipelineName, Steps
from vlmdsl.runtime.data.augmentations import Place, augmented, augmented_at
from vlmdsl.runtime.data.context import Attributes, ViewContext
from vlmdsl.runtime.data.eda import eda
from vlmdsl.runtime.data.naming import concepts, prompt, text_of
from vlmdsl.runtime.data.rendering import render
from vlmdsl.runtime.data.summaries import summarize
from vlmdsl.runtime.values import ImageFormat, MaskedText, TextValue, dropped_first, kept, patch_segments, replaced
from vlmdsl.source import Span
from vlmdsl.types import FieldType

__all__ = ["VIEWS", "View", "ViewContext", "view_of"]

_NO_PLACE = Span("<command line>", 0, 0)


_OF_PATCHES = (DROP, REPLACE)
_MASKS = (MASK, *_OF_PATCHES)
"""Operations that say what the tower does with patches, after all others; pixels stay as they are."""

_ELSEWHERE = (*_OF_PATCHES, SWAP, WRITTEN)
"""Operations that no function of `VIEWS` computes: `SampleReader` takes other texts before the others."""
_WRITING = "writing"
"""What a step of a view reads, beside the attributes of its operation."""

Value = Any
"""One sample's value: `TextValue`, `MaskedText`, pixels, or what else the family of a kind reads."""


@dataclass(frozen=True)
class View:
    """A field and the operations applied to it in order; `kind` is the kind of the result.

    What it says of its steps is looked up for every sample, and so kept.
    """

    field: str
    kind: str
    steps: tuple[tuple[str, tuple[tuple[str, object], ...]], ...] = ()

    @cached_property
    def side(self) -> float:
        """The side of its images as a share of the encoder's: less than 1 for small crops."""
        sides = [dict(attributes).get("side", 1.0) for operation, attributes in self.steps if operation == CROP]
        return float(str(sides[-1])) if sides else 1.0

    @cached_property
    def untouched(self) -> bool:
        """Whether no step changes its value: patches may be dropped or replaced by the tower."""
        return all(operation in _OF_PATCHES for operation, _ in self.steps)

    @cached_property
    def shown(self) -> View:
        """The view of what is in it: without steps that drop or replace patches, which is left to the tower."""
        return replace(self, steps=tuple(step for step in self.steps if step[0] not in _OF_PATCHES))

    @cached_property
    def drops(self) -> tuple[Attributes, ...]:
        """The attributes of its steps that drop patches, which is done after all others, whatever the order."""
        return tuple(dict(attributes) for operation, attributes in self.steps if operation == DROP)

    @cached_property
    def replaces(self) -> tuple[Attributes, ...]:
        """The attributes of its steps that replace patches, of those that are not dropped."""
        return tuple(dict(attributes) for operation, attributes in self.steps if operation == REPLACE)

    @cached_property
    def swap(self) -> Attributes | None:
        """The attributes of its step that takes the text of another sample; None without one."""
        return next((dict(attributes) for operation, attributes in self.steps if operation == SWAP), None)

    @cached_property
    def written(self) -> tuple[Writing, Attributes] | None:
        """What its step reads that takes a written text, with the attributes of that step; None without one."""
        for operation, attributes in self.steps:
            if operation == WRITTEN:
                step = dict(attributes)
                writing = step[_WRITING]
                assert isinstance(writing, Writing)
                return writing, step
        return None

    @cached_property
    def field_kind(self) -> str:
        """The kind of the field itself: a rendered text is an image made of a text, a prompt a text made of phrases."""
        return next((_MADE_OF[operation] for operation, _ in self.steps if operation in _MADE_OF), self.kind)

    def without_draws(self, *, masks: bool = False) -> View:
        """The view for evaluation: its deterministic steps, such as `render`; with `masks` also those of masks."""
        kept = (step for step in self.steps if OPERATIONS[step[0]].in_evaluation or (masks and step[0] in _MASKS))
        return View(self.field, self.kind, tuple(kept))

    def apply(self, value: Value, context: ViewContext) -> Value:
        """The view of one sample's value; an image has the side that the tower takes, if there is one that does."""
        for operation, attributes in self.steps:
            if operation not in _ELSEWHERE:
                value = VIEWS[operation](value, dict(attributes), context)
        if self.kind == "Image" and context.form is not None:
            # The result of a step no longer has a margin.
            form = context.images if self.untouched else ImageFormat(context.images.side(self.side))
            return form.fit(value)
        return value

    def segments(self, image: np.ndarray, numbers: np.ndarray, context: ViewContext) -> np.ndarray:
        """The segments `int64 [P]` of the patches of the view of an image, given those of the image's pixels `[H, W]`."""
        assert context.images.patch is not None, "segments are of images whose tower has patches"
        moved = [(operation, dict(attributes)) for operation, attributes in self.steps if operation in PLACES]
        for operation, attributes in moved:
            side = context.images.side(float(str(attributes.get("side", 1.0))))
            image, place = augmented_at(image, PLACES[operation](attributes), side, context.random(operation, attributes))
            numbers = place.of(numbers, side)
        if not moved:
            height, width = image.shape[:2]
            left, top, right, bottom = context.images.shown(width, height)
            box = (left / width, top / height, right / width, bottom / height)
            numbers = Place(box).of(numbers, context.images.side(1.0))
        return patch_segments(numbers, context.images.patch)

    def kept(self, context: ViewContext) -> np.ndarray:
        """The patches `int64 [K]` that one sample's image keeps; every step drops some of those that are left."""
        left = np.arange(context.images.patches(self.side))
        for attributes in self.drops:
            random, share = context.random("drop", attributes), float(str(attributes["share"]))
            by, patches = attributes.get("by"), context.images.patches(self.side)
            noise = dropped_first(str(by), patches, random, attributes)[left] if by else random.random(len(left))
            left = left[kept(noise, share)]
        return left

    def replaced(self, context: ViewContext) -> np.ndarray:
        """The patches that are replaced of one sample's image: bool [P]. A mask selects the same that it would drop."""
        patches = context.images.patches(self.side)
        selected = np.zeros(patches, dtype=bool)
        for attributes in self.replaces:
            selected |= replaced(patches, context.random("drop", attributes), attributes)
        return selected


def view_of(source: Node, span: Span = _NO_PLACE) -> View:
    """The view of a stream's source node; raises `DiagnosticError` if data loading does not support it."""
    steps: list[tuple[str, tuple[tuple[str, object], ...]]] = []
    start = root_field(source)
    node = source = loaded_origin(source)  # what is made of the whole batch is made by the model
    while node is not start:
        attributes = dict(node.attributes)
        pipeline = _pipeline(attributes)
        if node.operation not in (*VIEWS, *_ELSEWHERE) or pipeline not in PIPELINES:
            what = f"the view `{node.operation}`" if pipeline in PIPELINES else f"the pipeline `{pipeline}`"
            raise DiagnosticError((CannotLoad.at(span, what=what),))
        reads = ((_WRITING, writing_of(node)),) if node.operation is WRITTEN else ()
        steps.append((node.operation, (*node.attributes, *reads)))
        node = node.inputs[0]
    assert isinstance(source.type, FieldType), f"a view has a field type, not {source.type}"
    return View(start.string("name"), source.type.kind, tuple(reversed(steps)))


def _rewrite(value: Value, attributes: Attributes, context: ViewContext) -> TextValue:
    """One of the text and its first M rewrites, with equal probability; the text itself if the drawn one has too few
    words."""
    assert isinstance(value, TextValue)
    count, minimum_words = int(str(attributes["count"])), int(str(attributes["minimum_words"]))
    candidates = (value.text, *value.rewrites[:count])
    context.counts["rewrite: draws"] += 1
    if len(candidates) <= count:
        context.counts[f"rewrite: fewer than {count} rewrites"] += 1
    drawn = candidates[int(context.random("rewrite", attributes).integers(len(candidates)))]
    if len(drawn.split()) < minimum_words:
        context.counts[f"rewrite: drawn text of fewer than {minimum_words} words"] += drawn != value.text
        drawn = value.text
    return TextValue(drawn)


def _alternative(value: Value, attributes: Attributes, context: ViewContext) -> TextValue:
    """The text (view 0) or its rewrite of that number; the text if there are fewer."""
    assert isinstance(value, TextValue)
    candidates = (value.text, *value.rewrites)
    number = int(str(attributes["view"]))
    context.counts["alternative: draws"] += 1
    if number >= len(candidates):
        context.counts["alternative: rewrite missing, text used"] += 1
        number = 0
    return TextValue(candidates[number])


def _mask(value: Value, attributes: Attributes, context: ViewContext) -> MaskedText:
    """The text with what is to happen to its tokens, once there are any."""
    assert isinstance(value, TextValue)
    share, hidden, replaced = (float(str(attributes[name])) for name in ("share", "hidden", "replaced"))
    arguments = attributes.get("arguments", ())
    assert isinstance(arguments, tuple)
    purpose = context.purpose("mask", attributes)
    return MaskedText(value.text, share, hidden, replaced, purpose, str(attributes.get("by", "")), arguments)


def _eda(value: Value, attributes: Attributes, context: ViewContext) -> TextValue:
    assert isinstance(value, TextValue)
    return eda(value.text, attributes, context)


def _summarize(value: Value, attributes: Attributes, context: ViewContext) -> TextValue:
    assert isinstance(value, TextValue)
    return TextValue(summarize(value.text, int(str(attributes["sentences"])), str(attributes["by"])))


def _render(value: Value, attributes: Attributes, context: ViewContext) -> np.ndarray:
    assert isinstance(value, TextValue)
    return render(value.text, attributes, context)


def _augment(value: Value, attributes: Attributes, context: ViewContext) -> np.ndarray:
    assert isinstance(value, np.ndarray)
    return augmented(value, _pipeline_steps(attributes), context.images.size, context.random("augment", attributes))


def _crop(value: Value, attributes: Attributes, context: ViewContext) -> np.ndarray:
    assert isinstance(value, np.ndarray)
    side = context.images.side(float(str(attributes.get("side", 1.0))))
    return augmented(value, _crop_steps(attributes), side, context.random("crop", attributes))


def _pipeline_steps(attributes: Attributes) -> Steps:
    return PIPELINES[_pipeline(attributes)].steps(int(str(attributes["view"])))


def _crop_steps(attributes: Attributes) -> Steps:
    return (Crop((float(str(attributes["smallest"])), float(str(attributes["largest"]))), resample="bicubic"),)


def _pipeline(attributes: Attributes) -> PipelineName:
    return cast(PipelineName, attributes.get("pipeline", "crop"))


_MADE_OF: dict[str, str] = {TEXT_OF: "Phrases", PROMPT: "Phrases", CONCEPTS: "Phrases", RENDER: "Text"}
"""The kind of field that a view of another kind is made of."""

VIEWS: dict[str, Callable[[Value, Attributes, ViewContext], Value]] = {
    REWRITE: _rewrite,
    ALTERNATIVE: _alternative,
    EDA: _eda,
    CROP: _crop,
    SUMMARIZE: _summarize,
    RENDER: _render,
    AUGMENT: _augment,
    MASK: _mask,
    TEXT_OF: text_of,
    PROMPT: prompt,
    CONCEPTS: concepts,
}
"""Operation of the graph -> what makes the view of one sample's value; `drop` and `replace` do not change pixels."""
PLACES: dict[str, Callable[[Attributes], Steps]] = {CROP: _crop_steps, AUGMENT: _pipeline_steps}
"""Views that show a part of an image -> their steps."""
