"""Images of every make to the pixels of an encoder; those that cannot be used are bad samples, never a crash."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmdsl.runtime.data import BadSample
from vlmdsl.runtime.data.images import ImageCache, decode_image
from vlmdsl.runtime.values import ImageFormat, StandardisedImages


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)  # type: ignore[arg-type]
    return file.getvalue()


GREY = Image.new("RGB", (6, 4), (10, 20, 30))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "JPEG"])
def test_common_formats(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = decode_image(encoded(GREY, format, **options))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (4, 6, 3))
    assert np.abs(pixels.astype(int) - (10, 20, 30)).max() <= 3


def test_transparent_pixels_show_white() -> None:
    assert (decode_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == 255).all()
    assert (decode_image(encoded(Image.new("LA", (2, 2), (0, 0)))) == 255).all()
    palette = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    pixels = decode_image(encoded(palette, transparency=3))
    assert pixels[..., 0].tolist() == [[0, 1], [2, 255]]


def test_sixteen_bit_levels_are_scaled() -> None:
    levels = np.full((2, 2), 0x8080, dtype=np.uint16)
    assert (decode_image(encoded(Image.fromarray(levels))) == 128).all()


def test_images_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(GREY, "JPEG", exif=exif)).shape == (6, 4, 3)


def test_paths_are_relative_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(GREY))
    assert decode_image("a.png", str(tmp_path)).shape == (4, 6, 3)
    assert decode_image(tmp_path / "a.png").shape == (4, 6, 3)
    with pytest.raises(BadSample, match="not found"):
        decode_image("b.png", str(tmp_path))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing image"), (b"", "missing image"), ("", "missing image"), (b"no image", "damaged image"),
        (encoded(GREY, "BMP")[:80], "damaged image"), (3, "holds no image"), (np.zeros((2, 2), np.uint8), "damaged image"),
        (np.zeros((0, 2, 3), np.uint8), "damaged image"),
    ],
    ids=["null", "no bytes", "no path", "text", "cut off", "number", "no channels", "no rows"],
)  # fmt: skip
def test_what_is_not_an_image(value: object, reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        decode_image(value)


@given(st.binary(max_size=40), st.integers(0, 70))
def test_no_bytes_crash_the_decoder(garbage: bytes, at: int) -> None:
    damaged = encoded(GREY)
    damaged = damaged[:at] + garbage + damaged[at + len(garbage) :]
    with contextlib.suppress(BadSample):
        assert decode_image(damaged).dtype == np.uint8


def test_a_decompression_bomb_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(BadSample, match="too large"):
        decode_image(encoded(GREY))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12))
def test_fitting_keeps_the_centre_and_the_size(height: int, width: int, size: int) -> None:
    assert ImageFormat(size).fit(np.full((height, width, 3), 77, np.uint8)).shape == (size, size, 3)
    assert (ImageFormat(size).fit(np.full((height, width, 3), 77, np.uint8)) == 77).all()


def test_fitting_cuts_both_ends_alike() -> None:
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 4:8] = 200
    assert (ImageFormat(4).fit(image) == 200).all()
    assert (ImageFormat(4).fit(np.swapaxes(image, 0, 1)) == 200).all()


def test_levels_are_standardised_by_channel() -> None:
    format = ImageFormat(1, mean=(0.0, 0.5, 1.0), deviation=(1.0, 0.5, 0.25))
    tensor = format.tensor([np.array([[[255, 0, 255]]], np.uint8), np.array([[[0, 255, 0]]], np.uint8)])
    assert tensor.shape == (2, 3, 1, 1)
    torch.testing.assert_close(tensor[:, :, 0, 0], torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -4.0]]))


def test_the_cache_keeps_to_its_budget() -> None:
    cache, image = ImageCache(100), np.zeros((4, 4, 3), np.uint8)
    for key in range(4):
        cache.put(key, image)
    assert [cache.get(key) is image for key in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("form", [ImageFormat(16), ImageFormat(16, fitting="squash"), ImageFormat(16, shorter=20)])
def test_an_image_is_the_same_whether_it_is_fitted_as_it_is_decoded_or_later(form: ImageFormat) -> None:
    """The loader does the first where nothing else reads the image."""
    levels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG")
    later = form.fit(decode_image(file.getvalue()))
    assert np.array_equal(decode_image(file.getvalue(), fit=form.fit), later)
    assert np.array_equal(form.fit(later) if form.shorter is None else later, later)


def test_levels_are_standardised_as_by_arithmetic_and_arrays_in_use_are_not_used_again() -> None:
    form = ImageFormat(16, mean=(0.48, 0.46, 0.41), deviation=(0.27, 0.26, 0.28))
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    mean, deviation = torch.tensor(form.mean).view(3, 1, 1), torch.tensor(form.deviation).view(3, 1, 1)
    expected = torch.from_numpy(levels).permute(2, 0, 1).float().div(255.0).sub(mean).div(deviation)
    held = [form.tensor([levels + number]) for number in range(6)]
    assert torch.equal(held[0][0], expected)
    assert len({tensor.data_ptr() for tensor in held}) == 6
    address = held.pop().data_ptr()
    assert form.tensor([levels]).data_ptr() == address


@pytest.mark.parametrize("form", [ImageFormat(16), ImageFormat(16, (0.481, 0.457, 0.408), (0.268, 0.261, 0.275))])
def test_levels_are_standardised_as_torch_computes_it(form: ImageFormat) -> None:
    """Every level of every channel, to the bit; fewer images than there is room for."""
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    standardised = StandardisedImages(form, 3)
    for turned in (image, image.transpose(1, 0, 2)):
        standardised.add(turned)
    levels = torch.from_numpy(np.stack([image, image.transpose(1, 0, 2)])).permute(0, 3, 1, 2).float().div(255.0)
    means, deviations = (torch.tensor(values).view(3, 1, 1) for values in (form.mean, form.deviation))
    assert torch.equal(standardised.tensor(), (levels - means) / deviations)
    assert torch.equal(form.tensor([image]), standardised.tensor()[:1])
