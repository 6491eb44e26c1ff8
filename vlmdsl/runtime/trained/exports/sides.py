"""What a trained model encodes to vectors: its image tower and, where it compares images with texts, its text tower."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import CannotExport
from vlmdsl.ir import Head
from vlmdsl.runtime.evaluation import comparison_of, first_image_tower
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.runtime.values import ImageFormat, TextFormat
from vlmdsl.source import Span

__all__ = ["Exported", "ImageSide", "Sides", "TextSide", "refused", "sides_of"]


@dataclass(frozen=True)
class Exported:
    """What was written: the names of files in the folder, each with a line that says what it is, and how they are used."""

    files: dict[str, str]
    usage: str


@dataclass(frozen=True)
class ImageSide:
    """The tower that encodes images, its heads, and the form of its images."""

    tower: Encoder
    name: str
    heads: tuple[Head, ...]
    form: ImageFormat

    @property
    def pixels(self) -> str:
        """What the tower takes, in words."""
        numbers = f"level in [0, 1] minus {list(self.form.mean)} over {list(self.form.deviation)}"
        return f"pixels [b, 3, {self.form.size}, {self.form.size}], float32, {numbers}"


@dataclass(frozen=True)
class TextSide:
    """The tower that encodes texts, its heads, and the form of its texts."""

    tower: Encoder
    name: str
    heads: tuple[Head, ...]
    form: TextFormat


@dataclass(frozen=True)
class Sides:
    """Both sides; `text` is None for a recipe of images alone, and where texts are `rendered` as images first.

    `normalized`: vectors are scaled to unit length before they are compared; `temperature`: what similarities are divided
    by.
    """

    image: ImageSide
    text: TextSide | None
    normalized: bool
    temperature: float
    rendered: bool = False


def sides_of(trained: TrainedModel) -> Sides:
    """The towers that make the vectors of `encode_image` and `encode_text`; `DiagnosticError` (V0865) where a vector is more
    than the output of one tower and its heads."""
    model = trained.model
    comparison = comparison_of(model.objective.program)
    if comparison is None:
        first = first_image_tower(model.objective.program)
        if first is None:
            raise refused(trained, "it encodes no images to vectors")
        return Sides(_image(trained, first[0], ()), None, False, 1.0)
    if not comparison.pooled:
        raise refused(trained, "it compares images with texts token by token")
    if comparison.image_features is not None:
        raise refused(trained, "its images are encoded with reference samples or other features")
    image = _image(trained, comparison.image_tower, comparison.image_heads)
    form = model.form(comparison.text_tower, "Text")
    if comparison.text_source is not None or not isinstance(form, TextFormat):
        return Sides(image, None, comparison.normalized, trained.temperature, rendered=True)
    tower = model.encoders.encoder(comparison.text_tower)
    text = TextSide(tower, comparison.text_tower, comparison.text_heads, form)
    return Sides(image, text, comparison.normalized, trained.temperature)


def _image(trained: TrainedModel, tower: str, heads: tuple[Head, ...]) -> ImageSide:
    form = trained.model.form(tower, "Image")
    assert isinstance(form, ImageFormat)
    return ImageSide(trained.model.encoders.encoder(tower), tower, heads, form)


def refused(trained: TrainedModel, reason: str) -> DiagnosticError:
    """V0865."""
    return DiagnosticError((CannotExport.at(Span("<command line>", 0, 0), recipe=trained.recipe, reason=reason),))
