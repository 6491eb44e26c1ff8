"""Changes of colour and sharpness.

An image is its planes, levels 0 to 255 as `float32 [3, H, W]`: real arithmetic, rounded once at the end.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from vlmdsl.primitives.pipelines import Blur, Jitter

__all__ = [
    "blurred", "brightened", "contrasted", "gaussian_blur", "grayscale", "jittered", "pixels_of", "planes_of",
    "saturated", "shifted", "solarized", "turned",
]  # fmt: skip

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_OFFSETS = np.array([5, 3, 1], dtype=np.float32)[:, None, None]
_TINY = np.float32(1e-6)


def planes_of(pixels: np.ndarray) -> np.ndarray:
    """`float32 [3, H, W]` of `uint8 [H, W, 3]`."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def pixels_of(planes: np.ndarray) -> np.ndarray:
    """`uint8 [H, W, 3]` of `float32 [3, H, W]`, rounded."""
    return np.ascontiguousarray((planes + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0))


def _kept(planes: np.ndarray) -> np.ndarray:
    return planes.clip(0, 255)


def brightened(planes: np.ndarray, factor: float) -> np.ndarray:
    """Every level times the factor."""
    return _kept(planes * factor)


def shifted(planes: np.ndarray, share: float) -> np.ndarray:
    """Every level plus `share` of the highest."""
    return _kept(planes + 255 * share)


def contrasted(planes: np.ndarray, factor: float, *, by_channel: bool = False) -> np.ndarray:
    """Every level's distance to the mean times the factor: the mean of the grey image, or each channel's own."""
    means = planes.reshape(3, -1).mean(1)
    mean = means[:, None, None] if by_channel else _LUMA @ means
    return _kept(factor * planes + (1 - factor) * mean)


def saturated(planes: np.ndarray, factor: float, *, in_hsv: bool = False) -> np.ndarray:
    """Every pixel's distance to its own grey times the factor, or its saturation in HSV times the factor, at most 1."""
    if not in_hsv:
        return _kept(factor * planes + (1 - factor) * _luma(planes))
    value, chroma = _value_and_chroma(planes)
    scale = np.minimum(factor, value / np.maximum(chroma, _TINY))
    return _kept(value - scale * (value - planes))


def turned(planes: np.ndarray, share: float) -> np.ndarray:
    """Every pixel's hue in HSV moved by a share of the circle."""
    value, chroma = _value_and_chroma(planes)
    red, green, blue = planes
    is_red, is_green = value == red, value == green
    difference = np.where(is_red, green - blue, np.where(is_green, blue - red, red - green))
    start = np.where(is_red, np.float32(0), np.where(is_green, np.float32(2), np.float32(4)))
    sixths = start + difference / np.maximum(chroma, _TINY)
    # Of its own hue (0, 2, 4 sixths of the circle for red, green, blue) a channel has all, two sixths away nothing.
    places = sixths + (_OFFSETS + np.float32(6 * share))
    places -= 6 * np.floor(places / 6)
    return _kept(value - chroma * np.minimum(places, 4 - places).clip(0, 1))


def _value_and_chroma(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[H, W]` each: the highest level of each pixel, and its distance to the lowest."""
    value = planes.max(0)
    return value, value - planes.min(0)


def jittered(planes: np.ndarray, jitter: Jitter, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue in random order, each by a separate draw; strength 0 omits one."""
    from_tensorflow = jitter.definitions == "tensorflow"
    order = random.permutation(4).tolist()
    draws = random.random(4).tolist()
    for change in order:
        if change == 0 and jitter.adds:
            planes = shifted(planes, jitter.brightness * (2 * draws[0] - 1))
        elif change == 0 and jitter.brightness:
            planes = brightened(planes, _factor(jitter.brightness, draws[0]))
        elif change == 1 and jitter.contrast:
            planes = contrasted(planes, _factor(jitter.contrast, draws[1]), by_channel=from_tensorflow)
        elif change == 2 and jitter.saturation:
            planes = saturated(planes, _factor(jitter.saturation, draws[2]), in_hsv=from_tensorflow)
        elif change == 3 and jitter.hue:
            planes = turned(planes, jitter.hue * (2 * draws[3] - 1))
    return planes


def _factor(strength: float, draw: float) -> float:
    """A draw from [0, 1), mapped to [1 - strength, 1 + strength) and clamped at 0."""
    low = max(0.0, 1.0 - strength)
    return low + (1.0 + strength - low) * draw


def _luma(planes: np.ndarray) -> np.ndarray:
    return (_LUMA @ planes.reshape(3, -1)).reshape(planes.shape[1:])


def grayscale(planes: np.ndarray) -> np.ndarray:
    """The luma 0.299 R + 0.587 G + 0.114 B (ITU-R 601) in all three channels."""
    return np.repeat(_luma(planes)[None], 3, axis=0)


def blurred(planes: np.ndarray, blur: Blur, random: np.random.Generator) -> np.ndarray:
    """A Gaussian blur with a drawn deviation; see `Blur`."""
    sigma = random.uniform(*blur.sigma)
    if blur.kernel is not None:
        return gaussian_blur(planes, sigma, radius=int(blur.kernel * planes.shape[1] / 2))
    image = Image.fromarray(pixels_of(planes)).filter(ImageFilter.GaussianBlur(sigma))
    return planes_of(np.asarray(image))


def gaussian_blur(planes: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """The convolution with exp(-d^2 / (2 sigma^2)) for distances d up to `radius` pixels along each axis, summing to 1.

    Beyond the border all is black, as in SimCLR's and BYOL's code.
    """
    if radius == 0:
        return planes
    rows = _band(planes.shape[1], sigma, radius)
    columns = rows if planes.shape[1] == planes.shape[2] else _band(planes.shape[2], sigma, radius)
    return _kept(rows @ planes @ columns)


def _band(length: int, sigma: float, radius: int) -> np.ndarray:
    """`[length, length]`: the blur along one axis as a matrix; symmetric."""
    places = np.arange(length)
    distances = np.abs(places[:, None] - places)
    weights = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma**2))
    weights /= 2 * weights.sum() - weights[0]
    return np.append(weights, 0.0).astype(np.float32)[np.minimum(distances, radius + 1)]


def solarized(planes: np.ndarray, threshold: float) -> np.ndarray:
    """Levels of at least the threshold are inverted."""
    return np.where(planes < threshold, planes, 255 - planes)
