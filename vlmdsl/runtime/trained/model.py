"""A trained model as its users see it: images and texts in, features, similarities and classes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import NotLearned
from vlmdsl.ir import walk
from vlmdsl.ir.operations.scalars import CONSTANT, PARAMETER
from vlmdsl.runtime.data import Loaded, Materials, View, text_inputs, view_of
from vlmdsl.runtime.evaluation import (
    DEFAULT_TEMPLATES,
    ClassPrompts,
    Comparison,
    class_similarities,
    comparison_of,
    first_image_tower,
    grounding_of,
    image_names,
)
from vlmdsl.runtime.evaluation.captions import captioning_of, written_captions
from vlmdsl.runtime.evaluation.features import block_size, blocks, evaluation_mode, gather
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.trained.grounded import Box, GroundedBox, boxes_named, boxes_predicted
from vlmdsl.runtime.trained.pictures import (
    Images,
    Picture,
    Texts,
    checked_boxes,
    decoded,
    listed_classes,
    listed_images,
    listed_templates,
    listed_texts,
)
from vlmdsl.runtime.values import ImageBatch, ImageFormat, Value, count, take, to
from vlmdsl.source import Span

__all__ = ["TrainedModel"]

_Item = TypeVar("_Item")
_TEXT = "text"


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained by a recipe. `vlmdsl.load(RUN)` loads one from a run folder.

    `recipe` is the recipe's name, `checkpoint` the folder of its weights, `step` the number of optimiser steps that they
    had, `model` the towers and the objective. Everything is computed without gradient and in evaluation mode, in batches of
    `batch` images or texts; results are on the CPU, in float32. No images, or no texts, are a ValueError.
    """

    recipe: str
    checkpoint: Path
    step: int
    model: VisionLanguageModel
    materials: Materials
    batch: int = 64

    @property
    def device(self) -> torch.device:
        """The device that images and texts are encoded on."""
        return next(self.model.encoders.parameters()).device

    @property
    def temperature(self) -> float:
        """The recipe's temperature, 1 where it has none of that name, or one that is not a number of the model alone."""
        metrics = {metric.name: metric.node for metric in self.model.objective.program.metrics}
        node = metrics.get("temperature")
        if node is None or any(leaf.operation not in (PARAMETER, CONSTANT) for leaf in walk([node]) if not leaf.inputs):
            return 1.0
        return self.model.objective.value(node, {}).item()

    def to(self, device: str | torch.device) -> TrainedModel:
        """The same model, moved to another device."""
        self.model.to(device)
        return self

    def encode_image(self, images: Images) -> Tensor:
        """The features of images, `[n, D]`: those that the recipe compares with texts, of unit length where it scales them
        so; of a recipe of images alone, the pooled features of its first image tower.

        An image is a path, the bytes of a file, a Pillow image, `uint8 [H, W, 3]`, or a tensor `[3, H, W]` or `[n, 3, H, W]`
        of numbers in [0, 1] or of `uint8` levels. Raises `DiagnosticError`: V0860, which counts the images that cannot be
        used and names the first, and V0861 where the recipe compares images token by token (`similarity` compares those).
        """
        return self.vectors(self.image_features(images))

    def encode_text(self, texts: Texts) -> Tensor:
        """The features of texts, `[n, D]`, as `encode_image` for images; V0861 for a recipe of images alone."""
        return self.vectors(self.text_features(texts))

    def similarity(self, images: Images, texts: Texts) -> Tensor:
        """The similarity of every image to every text, `[n, m]`, as the recipe ranks texts for an image; before any
        temperature. V0861 for a recipe of images alone."""
        self._comparison()
        return self.compare(self.image_features(images), self.text_features(texts))

    def classify(self, images: Images, classes: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> Tensor:
        """The probability of every class for every image, `[n, classes]`: the softmax of the image's similarities to the
        classes over the recipe's temperature, if it has one. V0861 for a recipe of images alone.

        Each of the `templates` has one `{}` for the name of a class, else V0860; the features of a class's prompts are
        averaged.
        """
        classifier = self.classifier(classes, templates)
        return classifier(self.image_features(images))

    def classifier(
        self, classes: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES
    ) -> Callable[[EncodedFeatures], Tensor]:
        """`classify` as a function of `image_features`, which encodes the classes once."""
        comparison, temperature = self._comparison(), self.temperature
        prompts = ClassPrompts(listed_classes(classes), self._tokenize(), listed_templates(templates))
        words = self.text_features(prompts.texts())

        def probabilities(images: EncodedFeatures) -> Tensor:
            similarities = [own for _, own in class_similarities(images, words, len(prompts.templates), comparison)]
            return (torch.cat(similarities) / temperature).softmax(dim=1)

        return probabilities

    def compare(self, images: EncodedFeatures, texts: EncodedFeatures) -> Tensor:
        """`similarity` for features."""
        comparison, size = self._comparison(), block_size(images, texts)
        rows = []
        for own in blocks(count(images), size):
            parts = (comparison(take(images, own), take(texts, part)).rows.cpu() for part in blocks(count(texts), size))
            rows.append(torch.cat(list(parts), dim=1))
        return torch.cat(rows)

    def caption(self, images: Images, *, prompt: str = "", beams: int = 1) -> list[str]:
        """The caption that the recipe's text decoder writes of each image: greedily, or by a search with several `beams`.

        V0861 for a recipe without a decoder that sees an image, and without a `prompt` for one that writes after prompts.
        """
        captioning = captioning_of(self.model.objective.program)
        if captioning is None or captioning.image is None:
            raise self._lack("writes no captions of images")
        if captioning.prompt is not None and not prompt.strip():
            raise self._lack('writes after a prompt, and there is none: `model.caption(images, prompt="...")`')
        form = self.model.form(captioning.image_tower, "Image")
        texts: list[str] = []
        for part in _parts(decoded(listed_images(images)), self.batch):
            pixels = to(_pixels(form, part), self.device)
            texts += written_captions(self.model, captioning, pixels, prompt=prompt, beams=beams)
        return texts

    def ground(
        self, image: Picture, phrases: Texts, *, boxes: Sequence[Box] | None = None, most: int = 100
    ) -> list[GroundedBox]:
        """Where `phrases` are in an image: at most `most` boxes that the recipe predicts, each with its phrase and a score,
        the best first. With `boxes`, left, top, right, bottom in pixels, the best phrase for each of these, in their order.

        V0860 for an image, phrases or boxes that cannot be used; V0861 for a recipe that names no regions, and without
        `boxes` for one that predicts none.
        """
        program = self.model.objective.program
        grounding, (pixels,), names = grounding_of(program), decoded([image]), listed_texts(phrases)
        if grounding is None:
            raise self._lack("names no regions of images")
        if boxes is not None:
            inside = checked_boxes(boxes, pixels)
            return boxes_named(self.model, grounding, self.materials, pixels, names, inside)
        if grounding.prediction is None:
            raise self._lack("names boxes and predicts none: `model.ground(image, phrases, boxes=[...])`")
        return boxes_predicted(self.model, grounding, self.materials, pixels, names, most)

    def image_features(self, images: Images) -> EncodedFeatures:
        """What the recipe compares of images, or of a recipe of images alone their pooled features; not yet scaled to unit
        length."""
        values = self.image_values()
        parts = [
            self.features_of_images({tower: _pixels(loaded.form, part) for tower, loaded in values.items()})
            for part in _parts(decoded(listed_images(images)), self.batch)
        ]
        return gather(parts)

    def text_features(self, texts: Texts) -> EncodedFeatures:
        """What the recipe compares of texts, not yet scaled to unit length."""
        tokenize = self._tokenize()
        parts = [self.features_of_texts({_TEXT: tokenize(part)}) for part in _parts(listed_texts(texts), self.batch)]
        return gather(parts)

    def image_values(self) -> dict[str, Loaded]:
        """What to load of an image for each tower that encodes it, by tower; V0861 for a recipe that encodes none."""
        program, view = self.model.objective.program, View("image", "Image")
        comparison, first = comparison_of(program), first_image_tower(program)
        if comparison is not None:
            return {tower: Loaded(view, self.model.form(tower, "Image")) for tower in image_names(self.model, comparison)}
        if first is None:
            raise self._lack("encodes no images to vectors")
        return {first[0]: Loaded(view, self.model.form(first[0], "Image"))}

    def text_values(self) -> dict[str, Loaded]:
        """What to load of a text; V0861 for a recipe that compares none with images."""
        comparison = self._comparison()
        source = comparison.text_source
        view = View(_TEXT, "Text") if source is None else replace(view_of(source).without_draws(), field=_TEXT)
        return {_TEXT: Loaded(view, self.model.form(comparison.text_tower, view.kind))}

    def features_of_images(self, values: Mapping[str, Value]) -> EncodedFeatures:
        """`image_features` of what `image_values` says."""
        comparison, tower = comparison_of(self.model.objective.program), next(iter(values))
        on_device = {name: to(value, self.device) for name, value in values.items()}
        with evaluation_mode(self.model):
            if comparison is None or comparison.image_features is None:
                heads = () if comparison is None else comparison.image_heads
                return _kept(self.model.encode(tower, on_device[tower], heads))
            keys = [f"image {number}" for number in range(count(values[tower]))]
            return _kept(self.model.features(comparison.image_features, on_device, keys))

    def features_of_texts(self, values: Mapping[str, Value]) -> EncodedFeatures:
        """`text_features` of what `text_values` says."""
        comparison = self._comparison()
        with evaluation_mode(self.model):
            return _kept(self.model.encode(comparison.text_tower, to(values[_TEXT], self.device), comparison.text_heads))

    def _tokenize(self) -> Callable[[list[str]], Value]:
        return text_inputs(self.text_values()[_TEXT], self.materials)

    def vectors(self, features: EncodedFeatures) -> Tensor:
        """Features as vectors `[n, D]`, as `encode_image` returns them; V0861 where the recipe compares tokens."""
        comparison = comparison_of(self.model.objective.program)
        if features.pooled is None or (comparison is not None and not comparison.pooled):
            raise self._lack("compares tokens, so that an image or a text is not one vector; `similarity` compares them")
        scaled = comparison is not None and comparison.normalized
        return functional.normalize(features.pooled, dim=-1) if scaled else features.pooled

    def _comparison(self) -> Comparison:
        comparison = comparison_of(self.model.objective.program)
        if comparison is None:
            raise self._lack("compares no images with texts")
        return replace(comparison, device=self.device)

    def _lack(self, lack: str) -> DiagnosticError:
        help = ("`vlmdsl recipes` lists what each recipe trains",)
        return DiagnosticError((NotLearned.at(Span("<python>", 0, 0), recipe=self.recipe, lack=lack, help=help),))


def _kept(features: EncodedFeatures) -> EncodedFeatures:
    """Features in float32 on the CPU, which has room for those of a whole data set."""
    pooled, tokens = (None if part is None else part.float().cpu() for part in (features.pooled, features.tokens))
    return EncodedFeatures(pooled, tokens, None if features.mask is None else features.mask.cpu())


def _pixels(form: object, images: Sequence[np.ndarray]) -> ImageBatch:
    assert isinstance(form, ImageFormat)
    return ImageBatch(form.tensor(form.fit(image) for image in images))


def _parts(items: list[_Item], size: int) -> Iterator[list[_Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
