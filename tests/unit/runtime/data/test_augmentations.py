"""Augmentations: each step against its definition, what is drawn against its distribution."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from vlmdsl.primitives.pipelines import Blur, Change, Crop, Grayscale, Jitter, Mirror, Solarize
from vlmdsl.runtime.data.augmentations import augmented, colors, crop_box
from vlmdsl.runtime.draws import generator

NOISE = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8)
IMAGE = Image.fromarray(NOISE)
PLANES = colors.planes_of(NOISE)
WHOLE = Crop((1.0, 1.0), (1.0, 1.0))
"""Leaves a square image of the wanted side as it is."""


def close(pixels: np.ndarray, expected: Image.Image | np.ndarray, within: float) -> bool:
    """Planes against pixels."""
    return bool(np.abs(pixels.transpose(1, 2, 0) - np.asarray(expected).astype(float)).max() <= within)


def after(change: Change, pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    return augmented(pixels, (WHOLE, change), len(pixels), generator(seed))


@pytest.mark.parametrize("factor", [0.0, 0.35, 1.0, 1.7])
def test_torchvisions_jitter_is_that_of_pillow(factor: float) -> None:
    # Pillow rounds the grey, and cuts the fractions of the result off.
    assert close(colors.brightened(PLANES, factor), ImageEnhance.Brightness(IMAGE).enhance(factor), within=1)
    assert close(colors.contrasted(PLANES, factor), ImageEnhance.Contrast(IMAGE).enhance(factor), within=1.6)
    assert close(colors.saturated(PLANES, factor), ImageEnhance.Color(IMAGE).enhance(factor), within=1.6)


@pytest.mark.parametrize("factor", [0.2, 1.0, 1.8])
def test_tensorflows_contrast_is_about_the_mean_of_each_channel(factor: float) -> None:
    x = NOISE.astype(float)
    mean = x.mean((0, 1))
    assert close(colors.contrasted(PLANES, factor, by_channel=True), np.clip((x - mean) * factor + mean, 0, 255), 1e-3)


def in_hsv(turn: float = 0.0, factor: float = 1.0) -> np.ndarray:
    changed = np.empty(NOISE.shape)
    for place in np.ndindex(NOISE.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(NOISE[place] / 255))
        changed[place] = colorsys.hsv_to_rgb((hue + turn) % 1.0, min(saturation * factor, 1.0), value)
    return 255 * changed


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.0, 0.2, 0.5])
def test_a_hue_is_turned_on_its_circle(turn: float) -> None:
    assert close(colors.turned(PLANES, turn), in_hsv(turn=turn), within=1e-3)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.8])
def test_a_saturation_in_hsv_is_multiplied(factor: float) -> None:
    assert close(colors.saturated(PLANES, factor, in_hsv=True), in_hsv(factor=factor), within=1e-3)


def test_grays_have_no_hue() -> None:
    gray = np.repeat(np.arange(256, dtype=np.float32)[None, :, None], 3, 0)
    assert (colors.turned(gray, 0.3) == gray).all()
    assert (colors.saturated(gray, 1.7, in_hsv=True) == gray).all()


def test_single_pixels() -> None:
    pixel = colors.planes_of(np.array([[[200, 100, 50]]], np.uint8))
    assert colors.brightened(pixel, 0.5).ravel().tolist() == [100, 50, 25]
    assert colors.brightened(pixel, 2.0).ravel().tolist() == [255, 200, 100]
    assert colors.shifted(pixel, -0.2).ravel().tolist() == [149, 49, 0]
    np.testing.assert_allclose(colors.grayscale(pixel).ravel(), 0.299 * 200 + 0.587 * 100 + 0.114 * 50, rtol=1e-6)
    assert colors.solarized(pixel, 128).ravel().tolist() == [55, 100, 50]
    assert colors.solarized(pixel, 100).ravel().tolist() == [55, 155, 50]


def test_levels_are_rounded_once() -> None:
    assert (colors.pixels_of(PLANES) == NOISE).all()
    assert colors.pixels_of(np.float32([[[1.4]], [[1.6]], [[255.0]]])).tolist() == [[[1, 2, 255]]]


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 1), (1.3, 1), (2.0, 3)])
def test_a_blur_of_stated_width_is_a_convolution_over_black(sigma: float, radius: int) -> None:
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    channels = torch.from_numpy(NOISE).permute(2, 0, 1)[:, None].float()
    smooth = torch.nn.functional.conv2d(channels, taps.outer(taps)[None, None], padding=radius)
    assert close(colors.gaussian_blur(PLANES, sigma, radius), smooth[:, 0].permute(1, 2, 0).numpy(), within=1e-3)


def test_the_width_of_a_blur_scales_with_the_image() -> None:
    dot = np.zeros((60, 60, 3), np.uint8)
    dot[30, 30] = 255
    blur = Blur(1.0, sigma=(50.0, 50.0), kernel=0.1)
    assert np.count_nonzero(after(blur, dot).any((1, 2))) == 7
    assert (after(blur, dot[21:40, 21:40]) == dot[21:40, 21:40]).all()


def test_pillows_blur_takes_sigma_for_its_radius() -> None:
    step = np.zeros((41, 41, 3), np.uint8)
    step[:, 20:] = 255
    for sigma in (0.7, 2.0):
        blurred = after(Blur(1.0, sigma=(sigma, sigma)), step)[20, :, 0] / 255
        expected = [0.5 * (1 + math.erf((place - 19.5) / (sigma * math.sqrt(2)))) for place in range(41)]
        assert np.abs(blurred - expected).max() < 0.06


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10**6))
def test_any_image_has_a_crop(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, (0.08, 1.0), (3 / 4, 4 / 3), generator(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def boxes(width: int, height: int, area: tuple[float, float], count: int = 2000) -> np.ndarray:
    ratio = (3 / 4, 4 / 3)
    return np.array([crop_box(width, height, area, ratio, generator(number)) for number in range(count)])


def test_areas_and_ratios_of_crops_are_drawn_evenly() -> None:
    crops = boxes(1000, 1000, (0.2, 0.5))
    across, along = crops[:, 2] - crops[:, 0], crops[:, 3] - crops[:, 1]
    shares, logarithms = across * along / 1e6, np.log(across / along)
    for values, low, high in ((shares, 0.2, 0.5), (logarithms, math.log(3 / 4), math.log(4 / 3))):
        deciles = np.quantile(values, np.linspace(0.1, 0.9, 9))
        np.testing.assert_allclose((deciles - low) / (high - low), np.linspace(0.1, 0.9, 9), atol=0.04)
    # Wherever a box of its size fits.
    for starts, sides in ((crops[:, 0], across), (crops[:, 1], along)):
        np.testing.assert_allclose(np.quantile(starts / (1000 - sides), [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)


def test_where_no_try_fits_the_crop_is_centred_with_the_nearest_ratio() -> None:
    assert crop_box(100, 12, (1.0, 1.0), (3 / 4, 4 / 3), generator(0)) == (42, 0, 58, 12)
    assert crop_box(12, 100, (1.0, 1.0), (3 / 4, 4 / 3), generator(0)) == (0, 42, 12, 58)


def test_a_crop_is_resized_to_the_side() -> None:
    for resample, filter in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        pixels = augmented(NOISE, (Crop((0.3, 0.3), resample=resample),), 10, generator(7))
        box = crop_box(30, 24, (0.3, 0.3), (3 / 4, 4 / 3), generator(7))
        assert (pixels == np.asarray(IMAGE.crop(box).resize((10, 10), filter))).all()


@pytest.mark.parametrize(
    "step", [Mirror(0.3), Jitter(0.4, 0.4, 0.4, 0.1, chance=0.3), Grayscale(0.3), Blur(0.3, sigma=(1, 2)), Solarize(0.3)]
)
def test_a_step_is_taken_as_often_as_its_chance(step: Mirror | Jitter | Grayscale | Blur | Solarize) -> None:
    square = NOISE[:, :24]
    taken = [(after(step, square, number) != square).any() for number in range(1000)]
    assert np.mean(taken) == pytest.approx(0.3, abs=0.06)


def test_jitter_draws_evenly_within_its_strengths() -> None:
    gray = np.full((1, 1, 3), 100, np.uint8)

    def means(jitter: Jitter) -> np.ndarray:
        return np.array([after(jitter, gray, number).mean() for number in range(1000)])

    for jitter, low, high in ((Jitter(0.4, 0, 0, 0, 1.0), 60, 140), (Jitter(0.2, 0, 0, 0, 1.0, adds=True), 49, 151)):
        drawn = means(jitter)
        assert low - 1 <= drawn.min() < low + 3
        assert high - 3 < drawn.max() <= high + 1
        assert drawn.mean() == pytest.approx(100, abs=3)


def test_the_changes_of_a_jitter_come_in_any_order() -> None:
    # Brightness before or after contrast about the mean: two results of the same numbers.
    class Fixed(np.random.Generator):
        def random(self, *_: object) -> np.ndarray:  # type: ignore[override]
            return np.array([0.75, 0.75, 0.5, 0.5])

    jitter = Jitter(1.0, 1.0, 0, 0, chance=1.0)
    results = {colors.jittered(PLANES, jitter, Fixed(np.random.PCG64(seed))).tobytes() for seed in range(20)}
    brightness_first = colors.contrasted(colors.brightened(PLANES, 1.5), 1.5)
    contrast_first = colors.brightened(colors.contrasted(PLANES, 1.5), 1.5)
    assert results == {brightness_first.tobytes(), contrast_first.tobytes()}
