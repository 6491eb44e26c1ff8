"""Changes of colour and sharpness of an 8-bit RGB image. Whatever maps each level for itself is one look-up a channel."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter, ImageOps, ImageStat

from vlmdsl.primitives.pipelines import Blur, Jitter, Solarize

__all__ = [
    "added", "blurred", "brightened", "contrasted", "gaussian_blur", "grayscale", "jittered", "saturated", "solarized",
    "turned",
]  # fmt: skip

_LEVELS = np.arange(256, dtype=np.float64)


def _looked_up(image: Image.Image, *tables: np.ndarray) -> Image.Image:
    """Each channel through its table (one table: all through the same); levels are rounded and kept in 0 to 255."""
    levels = np.clip(np.concatenate(tables) + 0.5, 0, 255.5).astype(np.uint8)
    return image.point(levels.tolist() * (3 // len(tables)))


def brightened(image: Image.Image, factor: float) -> Image.Image:
    """Every level times the factor."""
    return _looked_up(image, _LEVELS * factor)


def added(image: Image.Image, share: float) -> Image.Image:
    """Every level plus `share` of the highest."""
    return _looked_up(image, _LEVELS + 255 * share)


def contrasted(image: Image.Image, factor: float, *, by_channel: bool = False) -> Image.Image:
    """Every level's distance to the mean times the factor: the mean of the grey image, or each channel's own."""
    if by_channel:
        return _looked_up(image, *(mean + factor * (_LEVELS - mean) for mean in ImageStat.Stat(image).mean))
    # Rounded, as torchvision and Pillow round it.
    mean = int(ImageStat.Stat(image.convert("L")).mean[0] + 0.5)
    return _looked_up(image, mean + factor * (_LEVELS - mean))


def saturated(image: Image.Image, factor: float, *, in_hsv: bool = False) -> Image.Image:
    """Every pixel's distance to its own grey times the factor, or its saturation in HSV times the factor."""
    if not in_hsv:
        return Image.blend(grayscale(image), image, factor)
    hue, saturation, value = image.convert("HSV").split()
    table = np.clip(_LEVELS * factor + 0.5, 0, 255.5).astype(np.uint8)
    return Image.merge("HSV", (hue, saturation.point(table.tolist()), value)).convert("RGB")


def turned(image: Image.Image, share: float) -> Image.Image:
    """Every pixel's hue moved by a share of the circle, to the nearest of 256 steps."""
    hue, saturation, value = image.convert("HSV").split()
    table = (np.arange(256) + round(256 * share)) % 256
    return Image.merge("HSV", (hue.point(table.tolist()), saturation, value)).convert("RGB")


def jittered(image: Image.Image, jitter: Jitter, random: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue in random order, each by a number of its own; strength 0 leaves one out."""
    from_tensorflow = jitter.definitions == "tensorflow"
    order = random.permutation(4)
    strengths = (jitter.brightness, jitter.contrast, jitter.saturation)
    low = [max(0.0, 1.0 - strength) for strength in strengths]
    high = [1.0 + strength for strength in strengths]
    if jitter.adds:
        low[0], high[0] = -jitter.brightness, jitter.brightness
    numbers = random.uniform((*low, -jitter.hue), (*high, jitter.hue)).tolist()
    for change in order:
        if change == 0 and jitter.brightness:
            image = added(image, numbers[0]) if jitter.adds else brightened(image, numbers[0])
        elif change == 1 and jitter.contrast:
            image = contrasted(image, numbers[1], by_channel=from_tensorflow)
        elif change == 2 and jitter.saturation:
            image = saturated(image, numbers[2], in_hsv=from_tensorflow)
        elif change == 3 and jitter.hue:
            image = turned(image, numbers[3])
    return image


def grayscale(image: Image.Image) -> Image.Image:
    """The luma 0.299 R + 0.587 G + 0.114 B (ITU-R 601) in all three channels."""
    gray = image.convert("L")
    return Image.merge("RGB", (gray, gray, gray))


def blurred(image: Image.Image, blur: Blur, random: np.random.Generator) -> Image.Image:
    """A Gaussian blur with a drawn deviation; see `Blur`."""
    sigma = random.uniform(*blur.sigma)
    if blur.kernel is None:
        return image.filter(ImageFilter.GaussianBlur(sigma))
    return gaussian_blur(image, sigma, radius=int(blur.kernel * image.height / 2))


def gaussian_blur(image: Image.Image, sigma: float, radius: int) -> Image.Image:
    """The convolution with exp(-d^2 / (2 sigma^2)) for distances d up to `radius` pixels along each axis, summing to 1.

    Beyond the border all is black, as in SimCLR's and BYOL's code.
    """
    if radius == 0:
        return image
    rows, columns = (_band(length, sigma, radius) for length in (image.height, image.width))
    channels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    smooth = rows @ channels @ columns
    return Image.fromarray((smooth.transpose(1, 2, 0) + 0.5).clip(0, 255).astype(np.uint8))


def _band(length: int, sigma: float, radius: int) -> np.ndarray:
    """`[length, length]`: the blur along one axis as a matrix; symmetric."""
    places = np.arange(length)
    distances = np.abs(places[:, None] - places)
    weights = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma**2))
    weights /= 2 * weights.sum() - weights[0]
    return np.append(weights, 0.0)[np.minimum(distances, radius + 1)].astype(np.float32)


def solarized(image: Image.Image, solarize: Solarize) -> Image.Image:
    """Levels of at least the threshold are inverted."""
    return ImageOps.solarize(image, solarize.threshold)
