"""Images and texts as callers have them, as what a tower takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import InputUnusable
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.values import BadSample
from vlmdsl.source import Span

__all__ = [
    "Images", "Picture", "Texts", "checked_boxes", "decoded", "listed_classes", "listed_images", "listed_templates",
    "listed_texts",
]  # fmt: skip

Picture: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Tensor
"""One image: a path, an encoded file, a Pillow image, `uint8 [H, W, 3]`, or a tensor `[3, H, W]`."""
Images: TypeAlias = Picture | Sequence[Picture]
"""One image or several; a tensor may be `[n, 3, H, W]`."""
Texts: TypeAlias = str | Sequence[str]


def listed_images(images: Images) -> Sequence[Picture]:
    """Several images, each by itself."""
    if isinstance(images, Tensor):
        return list(images) if images.dim() == 4 else [images]
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    return list(images)


def listed_texts(texts: Texts) -> list[str]:
    """Several texts; V0860 if one of them is empty or not a text."""
    several: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    reasons = {place: reason for place, text in enumerate(several) if (reason := _fault(text))}
    if reasons:
        raise _unusable("texts", len(several), {f"number {place + 1}": reason for place, reason in reasons.items()})
    return several


def listed_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes; V0860 if one of them is empty, not a text, or named before."""
    names, before, faults = listed_texts(classes), set[str](), dict[str, str]()
    for place, name in enumerate(name.strip() for name in names):
        if name in before:
            faults[f"number {place + 1}"] = f"`{name}` is named before"
        before.add(name)
    if faults:
        raise _unusable("classes", len(names), faults)
    return tuple(names)


def listed_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Prompts; V0860 unless each has one `{}` for the name of a class."""
    several = listed_texts(templates)
    faults = {
        f"number {place + 1}": "it does not have one {} for the name of a class"
        for place, template in enumerate(several)
        if template.count("{}") != 1
    }
    if faults:
        raise _unusable("templates", len(several), faults)
    return tuple(several)


def decoded(images: Sequence[Picture]) -> list[np.ndarray]:
    """Each image as `uint8 [H, W, 3]`; V0860, which names the first one, if some cannot be decoded."""
    pixels: list[np.ndarray] = []
    faults: dict[str, str] = {}
    for place, image in enumerate(images):
        try:
            pixels.append(levels(image))
        except BadSample as fault:
            faults[_name(image, place)] = str(fault)
    if faults:
        raise _unusable("images", len(images), faults)
    return pixels


def checked_boxes(boxes: Sequence[Sequence[float]], pixels: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Boxes, left, top, right, bottom in pixels of an image; V0860 if there are none, or one has no area in the image."""
    height, width = pixels.shape[:2]
    reasons: dict[str, str] = {} if len(boxes) else {"all of them": "there are none"}
    for place, box in enumerate(boxes):
        if len(box) != 4 or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            reasons[f"number {place + 1}"] = f"it is not left, top, right, bottom in an image of {width} by {height} pixels"
    if reasons:
        raise _unusable("boxes", len(boxes), reasons)
    return [(float(box[0]), float(box[1]), float(box[2]), float(box[3])) for box in boxes]


def levels(image: Picture) -> np.ndarray:
    """An image as `uint8 [H, W, 3]`; raises `BadSample`.

    >>> levels(torch.zeros(3, 2, 5)).shape
    (2, 5, 3)
    """
    if isinstance(image, Tensor):
        return _of_tensor(image)
    return decode_image(Path(image) if isinstance(image, str) else image)


def _of_tensor(image: Tensor) -> np.ndarray:
    if image.dim() != 3 or image.shape[0] != 3 or not image.numel():
        raise BadSample(f"a tensor of an image is [3, H, W], and this one is {list(image.shape)}")
    if image.dtype != torch.uint8:
        numbers = image.detach().float()
        if not bool(((numbers >= 0) & (numbers <= 1)).all()):
            raise BadSample("numbers of an image are from 0 to 1, or levels of type uint8")
        image = (numbers * 255).round().to(torch.uint8)
    return np.ascontiguousarray(image.detach().cpu().permute(1, 2, 0).numpy())


def _fault(text: object) -> str:
    if not isinstance(text, str):
        return f"it is of type {type(text).__name__}"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "it is not valid Unicode"
    return "" if text.strip() else "it is empty"


def _name(image: object, place: int) -> str:
    return f"`{image}`" if isinstance(image, str | Path) else f"number {place + 1}"


def _unusable(inputs: str, total: int, faults: dict[str, str]) -> DiagnosticError:
    which, reason = next(iter(faults.items()))
    place = Span("<python>", 0, 0)
    return DiagnosticError(
        (InputUnusable.at(place, count=len(faults), total=total, inputs=inputs, which=which, reason=reason),)
    )
