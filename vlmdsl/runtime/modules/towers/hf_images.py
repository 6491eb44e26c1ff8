"""How a pretrained image tower takes its images: what the image processor that comes with it does, as an `ImageFormat`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmdsl.runtime.values.image import ImageFormat, Resampling

__all__ = ["ProcessedImages", "image_format", "square_side", "write_image_processor"]

_RESAMPLING: dict[int, Resampling] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers."""
_CROPPED_BELOW = 384
"""ConvNeXT's processor cuts a margin off images that are smaller than this, in pixels."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ProcessedImages:
    """The form of a tower's images, and what is reported about it."""

    form: ImageFormat
    notes: tuple[str, ...] = ()


def image_format(name: str, config: Any, side: int | None) -> ProcessedImages:
    """The form of the images of the model called `name` with this configuration: that of its image processor.

    The side is `side`, else the processor's if it states one, else the model's own. ValueError if the processor
    does what an `ImageFormat` cannot say.
    """
    own = square_side(config)
    stated, processor = _processor(name, side, own)
    if processor is None:
        form = ImageFormat(side or own or stated.get("side", 224))
        return ProcessedImages(form, ("comes without an image processor: images are standardised by 0.5 and 0.5",))
    form = _format(processor, config)
    if _agrees(processor, form):
        return ProcessedImages(form)
    measured = _measured(processor, form)
    if measured is not None and _agrees(processor, measured):
        return ProcessedImages(measured)
    kind = type(processor).__name__
    raise ValueError(f"comes with an image processor, `{kind}`, that does more than resize, crop and standardise")


def write_image_processor(folder: Path, form: ImageFormat) -> None:
    """Write the settings of the image processor that makes images of this form.

    Images that are not square are resized and then cropped to whole pixels, where a form without a `shorter` crops first.
    """
    square = {"height": form.size, "width": form.size}
    crops = form.fitting == "crop"
    settings = {
        "image_processor_type": "CLIPImageProcessor" if crops else "ViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": form.shorter or form.size} if crops else square,
        "resample": next(number for number, filter in _RESAMPLING.items() if filter == form.resampling),
        "do_center_crop": crops,
        **({"crop_size": square} if crops else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(form.mean),
        "image_std": list(form.deviation),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def square_side(config: Any) -> int | None:
    """The side of the images that a model was made for, in pixels; None if it states none. ValueError if they are not
    square."""
    size = getattr(config, "image_size", None)
    if size is None and getattr(config, "num_patches", None):
        size = math.isqrt(config.num_patches) * _side(config.patch_size)
    return None if size is None else _side(size)


def _side(size: Any) -> int:
    sides = {int(side) for side in size} if isinstance(size, list | tuple) else {int(size)}
    if len(sides) != 1:
        raise ValueError(f"takes images of {' by '.join(map(str, size))} pixels; only square images are supported")
    return sides.pop()


def _processor(name: str, requested: int | None, own: int | None) -> tuple[dict[str, Any], Any]:
    """What the settings beside the model state, and the processor that they make, set to the `requested` side; None if the
    model has none."""
    from transformers import AutoImageProcessor
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        stated, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        return {}, None
    try:
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        side = requested or (None if _states_size(stated) else own)
        if side is not None:
            processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **_sizes(processor, side))
    except Exception as fault:
        # The library raises whatever the settings beside a model provoke.
        raise ValueError(f"comes with an image processor that cannot be loaded: {str(fault).splitlines()[0]}") from fault
    return stated, processor


def _states_size(stated: dict[str, Any]) -> bool:
    return any(stated.get(name) is not None for name in ("size", "crop_size", "max_num_patches"))


def _sizes(processor: Any, side: int) -> dict[str, Any]:
    """The arguments by which a processor of this kind makes images of that side, its margin kept in proportion."""
    if hasattr(processor, "max_num_patches"):
        return {"max_num_patches": (side // processor.patch_size) ** 2}
    square = {"height": side, "width": side}
    if not getattr(processor, "do_center_crop", None):
        return {"size": {"shortest_edge": side} if _shortest(processor) else square}
    crop, short = _square(processor.crop_size), _shortest(processor)
    if short is None:
        resized = _square(processor.size)
        longer = round(side * resized / crop) if crop and resized else side
        return {"size": {"height": longer, "width": longer}, "crop_size": square}
    return {"size": {"shortest_edge": round(side * short / crop) if crop else side}, "crop_size": square}


def _format(processor: Any, config: Any) -> ImageFormat:
    """The format in the settings of a processor."""
    size, fitting, shorter = _geometry(processor, config)
    standard = ImageFormat(1)
    factor = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", True):
        mean = _three(processor.image_mean or standard.mean)
        deviation = _three(processor.image_std or standard.deviation)
    if abs(factor - 1) > _TOLERANCE / 10:
        mean, deviation = _three([m / factor for m in mean]), _three([d / factor for d in deviation])
    filter = getattr(processor, "resample", None)
    resampling = "bilinear" if filter is None else _RESAMPLING[int(filter)]
    return ImageFormat(size, mean, deviation, fitting=fitting, shorter=shorter, resampling=resampling)


def _geometry(processor: Any, config: Any) -> tuple[int, Any, int | None]:
    """The side of the images, how they are fitted, and the length that the shorter side is brought to first."""
    if hasattr(processor, "max_num_patches"):
        return math.isqrt(processor.max_num_patches) * _side(processor.patch_size), "squash", None
    short, square = _shortest(processor), _square(processor.size)
    crop = _square(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", None) else None
    if not getattr(processor, "do_resize", True):
        raise ValueError("comes with an image processor that does not resize images")
    if hasattr(processor, "crop_pct") and short is not None and crop is None:
        return (short, "crop", int(short / processor.crop_pct)) if short < _CROPPED_BELOW else (short, "squash", None)
    if short is not None:
        return crop or square_side(config) or short, "crop", short
    if square is None:
        raise ValueError("comes with an image processor without a fixed output size")
    if crop is not None and crop != square:
        raise ValueError("comes with an image processor that crops square images")
    return square, "squash", None


def _shortest(processor: Any) -> int | None:
    return getattr(processor.size, "shortest_edge", None)


def _square(size: Any) -> int | None:
    height, width = getattr(size, "height", None), getattr(size, "width", None)
    return None if not height or not width else _side([height, width])


def _three(values: Any) -> tuple[float, float, float]:
    values = [values] * 3 if isinstance(values, int | float) else list(values)
    if len(values) != 3:
        raise ValueError(f"takes images of {len(values)} channels; only RGB images are supported")
    return float(values[0]), float(values[1]), float(values[2])


def _agrees(processor: Any, form: ImageFormat) -> bool:
    """Whether the processor and the format agree on noise, for wide and high images."""
    noise = np.random.default_rng(0).integers(0, 256, (form.size + 37, form.size + 21, 3), dtype=np.uint8)
    for pixels in (noise, noise.transpose(1, 0, 2).copy(), noise[: form.size, : form.size].copy()):
        processed = _pixels(processor, pixels, form)
        if processed is None:
            continue  # a processor that keeps the shape of an image: ours are the squares in the middle
        ours = form.tensor([form.fit(pixels)])[0].numpy()
        if processed.shape != ours.shape or not np.allclose(processed, ours, rtol=_TOLERANCE, atol=_TOLERANCE):
            return False
    return True


def _measured(processor: Any, form: ImageFormat) -> ImageFormat | None:
    """The form with the standardisation that black and white images show; None if they show none."""
    ends = [_pixels(processor, np.full((form.size, form.size, 3), level, dtype=np.uint8), form) for level in (0, 255)]
    black, white = (None if end is None else end.reshape(3, -1).astype(np.float64) for end in ends)
    if black is None or white is None or np.ptp(black, axis=1).max() > _TOLERANCE:
        return None
    range_of = (white - black).mean(axis=1)
    if (np.abs(range_of) < _TOLERANCE).any():
        return None
    return replace(form, mean=_three(-black.mean(axis=1) / range_of), deviation=_three(1 / range_of))


def _pixels(processor: Any, image: np.ndarray, form: ImageFormat) -> np.ndarray | None:
    """`[3, S, S]` as the processor makes them of one image `[H, W, 3]`; None if they are not such a square."""
    processed = processor(images=image, input_data_format="channels_last", return_tensors="np")
    values = np.asarray(processed["pixel_values"])[0]
    if values.ndim == 2:  # patches, row by row, each as rows of pixels
        patch = _side(processor.patch_size)
        rows, columns = (int(side) for side in np.asarray(processed["spatial_shapes"])[0])
        if (rows, columns) != (form.size // patch, form.size // patch):
            return None
        cut = values[: rows * columns].reshape(rows, columns, patch, patch, 3)
        return cut.transpose(4, 0, 2, 1, 3).reshape(3, rows * patch, columns * patch)
    return values if values.shape == (3, form.size, form.size) else None
