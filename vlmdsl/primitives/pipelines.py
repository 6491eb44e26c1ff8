"""The published pipelines of `augment`: their steps, in order, with their parameters.

They are declared here; `vlmdsl.runtime.data.augmentations` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "PIPELINES", "Blur", "Change", "Crop", "Grayscale", "Jitter", "Mirror", "Pipeline", "PipelineName", "Range",
    "Solarize", "Steps", "describe",
]  # fmt: skip

PipelineName = Literal[
    "crop", "crop_flip", "simclr", "moco_v1", "moco_v2", "moco_v3", "byol", "slip", "declip", "uniclip", "mae",
    "beit", "flava",
]  # fmt: skip

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of the image, resized to the tower's image size: a share of the area, and an aspect ratio."""

    area: Range
    ratio: Range = (3 / 4, 4 / 3)
    resample: Literal["bilinear", "bicubic"] = "bilinear"

    def __str__(self) -> str:
        low, high = (f"{100 * share:g}" for share in self.area)
        return f"crop {low} to {high} % of the area ({self.resample})"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A horizontal flip."""

    chance: float = 0.5

    def __str__(self) -> str:
        return f"mirror p={self.chance:g}"


@dataclass(frozen=True, slots=True)
class Jitter:
    """Brightness, contrast, saturation and hue change, in random order, by numbers drawn evenly around no change.

    A strength s stands for factors in [1 - s, 1 + s], of the hue for a turn in [-s, s] of the circle. The definitions of
    contrast and saturation are `torchvision`'s (towards the mean grey, towards each pixel's grey) or `tensorflow`'s (towards
    each channel's mean, of the saturation in HSV). With `adds` brightness is a number in [-s, s] added to levels in [0, 1].
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    chance: float = 0.8
    definitions: Literal["torchvision", "tensorflow"] = "torchvision"
    adds: bool = False

    def __str__(self) -> str:
        strengths = ", ".join(f"{number:g}" for number in (self.brightness, self.contrast, self.saturation, self.hue))
        added = ", brightness added" if self.adds else ""
        return f"jitter {strengths} p={self.chance:g} (as {self.definitions}{added})"


@dataclass(frozen=True, slots=True)
class Grayscale:
    """The luma of ITU-R 601 in all three channels."""

    chance: float = 0.2

    def __str__(self) -> str:
        return f"grayscale p={self.chance:g}"


@dataclass(frozen=True, slots=True)
class Blur:
    """A Gaussian blur whose deviation, in pixels, is drawn evenly from `sigma`.

    `kernel` is its width as a share of the image's side, with black beyond the border; None is Pillow's blur, which is
    unbounded and repeats the border.
    """

    chance: float
    sigma: Range = (0.1, 2.0)
    kernel: float | None = None

    def __str__(self) -> str:
        kernel = "" if self.kernel is None else f" (kernel {100 * self.kernel:g} % of the side)"
        return f"blur sigma {self.sigma[0]:g} to {self.sigma[1]:g} p={self.chance:g}{kernel}"


@dataclass(frozen=True, slots=True)
class Solarize:
    """Levels of at least `threshold` (of 255) are inverted."""

    chance: float
    threshold: int = 128

    def __str__(self) -> str:
        return f"solarize p={self.chance:g}"


Change = Mirror | Jitter | Grayscale | Blur | Solarize
Steps = tuple[Crop, *tuple[Change, ...]]
"""A crop to the input size of the tower, and the changes to it."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Its source, and the steps of each view of a set in turn: with two of them, view 2 is made like view 0."""

    source: str
    views: tuple[Steps, ...]

    def steps(self, view: int) -> Steps:
        """The steps of the view with this index."""
        return self.views[view % len(self.views)]


def _moco_v2(area: Range = (0.2, 1.0)) -> Steps:
    return (Crop(area), Jitter(0.4, 0.4, 0.4, 0.1), Grayscale(), Blur(0.5), Mirror())


_BYOL: Steps = (
    Crop((0.08, 1.0), resample="bicubic"),
    Mirror(),
    Jitter(0.4, 0.4, 0.2, 0.1, definitions="tensorflow", adds=True),
    Grayscale(),
)
_MOCO_V3: Steps = (Crop((0.08, 1.0)), Jitter(0.4, 0.4, 0.2, 0.1), Grayscale())

PIPELINES: dict[PipelineName, Pipeline] = {
    "crop": Pipeline("LaCLIP, SLIP's view for the text", ((Crop((0.5, 1.0), resample="bicubic"),),)),
    "crop_flip": Pipeline("FLIP", ((Crop((0.5, 1.0), resample="bicubic"), Mirror()),)),
    "simclr": Pipeline(
        "arXiv:2002.05709 with brightness as in the released code",
        (
            (
                Crop((0.08, 1.0), resample="bicubic"),
                Mirror(),
                Jitter(0.8, 0.8, 0.8, 0.2, definitions="tensorflow"),
                Grayscale(),
                Blur(0.5, kernel=0.1),
            ),
        ),
    ),
    "moco_v1": Pipeline(
        "arXiv:1911.05722", ((Crop((0.2, 1.0)), Grayscale(), Jitter(0.4, 0.4, 0.4, 0.4, chance=1.0), Mirror()),)
    ),
    "moco_v2": Pipeline("arXiv:2003.04297; SimSiam's too", (_moco_v2(),)),
    "moco_v3": Pipeline(
        "arXiv:2104.02057, as for vision transformers",
        ((*_MOCO_V3, Blur(1.0), Mirror()), (*_MOCO_V3, Blur(0.1), Solarize(0.2), Mirror())),
    ),
    "byol": Pipeline(
        "arXiv:2006.07733",
        ((*_BYOL, Blur(1.0, kernel=0.1)), (*_BYOL, Blur(0.1, kernel=0.1), Solarize(0.2))),
    ),
    "slip": Pipeline("arXiv:2112.12750, the two views of the image term", (_moco_v2((0.08, 1.0)),)),
    "declip": Pipeline("arXiv:2110.05208", (_moco_v2(),)),
    "uniclip": Pipeline("a stand-in: SLIP's, since arXiv:2209.13430 comes without code", (_moco_v2((0.08, 1.0)),)),
    "beit": Pipeline(
        "arXiv:2106.08254, as in the released code, which changes colours before the crop",
        ((Crop((0.08, 1.0), resample="bicubic"), Jitter(0.4, 0.4, 0.4, 0.0, chance=1.0), Mirror()),),
    ),
    "flava": Pipeline("arXiv:2112.04482, as in torchmultimodal", ((Crop((0.9, 1.0), resample="bicubic"),),)),
    "mae": Pipeline("arXiv:2111.06377, as in the released code", ((Crop((0.2, 1.0), resample="bicubic"), Mirror()),)),
}
"""By name. Every crop has an aspect of 3:4 to 4:3."""


def describe(name: PipelineName) -> str:
    """One line: the steps of each view, and the source.

    >>> describe("crop_flip")
    'crop 50 to 100 % of the area (bicubic), mirror p=0.5. FLIP'
    """
    pipeline = PIPELINES[name]
    views = [", ".join(str(step) for step in steps) for steps in pipeline.views]
    shown = views[0] if len(views) == 1 else "; ".join(f"view {index}: {steps}" for index, steps in enumerate(views))
    return f"{shown}. {pipeline.source}"
