"""Dropped patches and crops of several sizes, from the data to a batch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

import vlmdsl
from batches import streams_in_forms
from vlmdsl.api.driver import build
from vlmdsl.ir import Stream
from vlmdsl.ir import streams as streams_of_program
from vlmdsl.runtime.data import BatchLoader, Requirement, map_fields, open_source
from vlmdsl.runtime.data.context import ViewContext
from vlmdsl.runtime.data.views import View, view_of
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, KeptPatches, kept, port

FORMAT = ImageFormat(32, patch=8)
StreamsOf = Callable[[str], list[Stream]]


def batches(streams: list[Stream], count: int = 1, **options: int) -> list[Batch]:
    source = open_source("shapes:samples=40,size=40")
    mapping = map_fields(source, [Requirement("image", "Image"), Requirement("text", "Text")])
    tokenizer = train_tokenizer(["a text"], 300)
    readings, settings = streams_in_forms(streams, FORMAT, tokenizer, 16), {"batch": 8, **options}
    return list(itertools.islice(BatchLoader(source, mapping, readings, **settings), count))  # type: ignore[arg-type]


def kept_of(batch: Batch, name: str = "image_augment_crop_0_drop") -> torch.Tensor:
    value = batch.values[port(name, "keep")]
    assert isinstance(value, KeptPatches)
    return value.places


def pixels_of(batch: Batch, name: str) -> torch.Tensor:
    value = batch.values[name]
    assert isinstance(value, ImageBatch)
    return value.pixels


def keep(*shares: float, key: str = "k", epoch: int = 0) -> list[int]:
    steps = tuple(("drop", (("draw", draw), ("share", share))) for draw, share in enumerate(shares))
    return View("image", "Image", steps).kept(ViewContext(0, epoch, key, FORMAT)).tolist()


@pytest.mark.parametrize(("share", "left"), [(0.5, 8), (0.75, 4), (0.9, 1), (0.05, 15)])
def test_so_many_patches_are_left_none_twice(share: float, left: int) -> None:
    places = keep(share)
    assert len(places) == len(set(places)) == left
    assert set(places) <= set(range(16))
    assert places == keep(share)
    assert places != keep(share, key="other") or share == 0.9


def test_every_patch_is_dropped_as_often() -> None:
    counts = Counter(itertools.chain(*(keep(0.75, key=str(number)) for number in range(2000))))
    assert all(abs(counts[patch] - 500) < 90 for patch in range(16))


def test_patches_dropped_twice_are_dropped_from_those_left() -> None:
    first, both = keep(0.5), keep(0.5, 0.5)
    assert len(both) == 4
    assert set(both) < set(first)


def test_ties_of_noise_keep_their_order() -> None:
    assert kept(np.array([0.5, 0.1, 0.5, 0.5]), 0.25).tolist() == [1, 0, 2]
    assert kept(np.zeros(10), 0.9).tolist() == []  # 10 (1 - 0.9) is below 1 in floating point, as in the authors' code


def test_a_batch_says_which_patches_to_keep(streams_of: StreamsOf) -> None:
    streams = streams_of('contrast(drop(augment(image, pipeline="crop"), share=50%), text)')
    (batch,) = batches(streams)
    places = kept_of(batch)
    assert (places.shape, places.dtype) == ((8, 8), torch.int64)
    assert pixels_of(batch, "image_augment_crop_0_drop").shape == (8, 3, 32, 32)
    assert len({tuple(row) for row in places.tolist()}) == 8
    assert port("text", "keep") not in batch.values
    assert kept_of(batch.to("meta")).device.type == "meta"
    # Whichever process loads a sample, in whichever order the views are written.
    halves = [kept_of(batches(streams, rank=rank, world=2, workers=rank)[0]) for rank in (0, 1)]
    assert torch.equal(places, torch.cat(halves))


def test_no_patch_dropped_is_the_image_itself(streams_of: StreamsOf) -> None:
    assert streams_of("contrast(drop(image, share=0), text)")[0].source.operation == "field"


def test_each_view_of_a_set_drops_patches_of_its_own(streams_of: StreamsOf) -> None:
    (batch,) = batches(streams_of("contrast(drop(augment(image, n=2)), text)"))
    first, second = (kept_of(batch, f"image_augment_crop_{view}_drop") for view in (0, 1))
    assert not torch.equal(first, second)


def test_a_named_mask_drops_the_same_patches_wherever_it_stands() -> None:
    def dropped(first: str, second: str) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = "recipe r(image: Image, text: Text)\nlet m = random(75%)\nlet views = augment(image, n=2)\n"
        recipe += f"minimize contrast(drop(views[0], {first}), text) + contrast(drop(views[1], {second}), text)\n"
        (batch,) = batches(streams_of_program(build(recipe).planned))
        return kept_of(batch, "image_augment_crop_0_drop"), kept_of(batch, "image_augment_crop_1_drop")

    one, other = dropped("m", "m")
    assert one.shape == (8, 4)
    assert torch.equal(one, other)
    assert not torch.equal(*dropped("random(75%)", "random(75%)"))


@pytest.mark.parametrize("mask", ["random(75%), share=50%", "random(100%)"])
def test_masks_that_drop_cannot_take_are_named(mask: str) -> None:
    (fault, *_) = vlmdsl.check(f"contrast(drop(image, {mask}), text)")
    assert fault.code == "V0405"


def test_large_and_small_crops(streams_of: StreamsOf) -> None:
    (batch,) = batches(streams_of("contrast(multi_crop(image, n=2, small=3, small_side=43%), text)"))
    crops = [pixels_of(batch, f"image_crop_{view}") for view in range(5)]
    assert [crop.shape[-1] for crop in crops] == [32, 32, 16, 16, 16]
    assert not torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[2], crops[3])


def test_crops_show_their_share_of_the_area(streams_of: StreamsOf) -> None:
    """Each place of the image has a colour of its own, so the corners of a crop tell what it shows."""
    rows, columns = np.mgrid[0:240, 0:240]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    streams = streams_of("contrast(multi_crop(image, n=1, small=1), text)")
    views = [view_of(stream.source) for stream in streams if stream.encoder.kind == "Image"]
    for view, low, high in zip(views, (0.14, 0.05), (1.0, 0.14), strict=True):
        shares = []
        for number in range(300):
            crop = np.asarray(view.apply(image, ViewContext(0, 0, str(number), ImageFormat(96, patch=8)))).astype(float)
            side = len(crop)
            spread = (crop[-1, 0, 0] - crop[0, 0, 0], crop[0, -1, 1] - crop[0, 0, 1])
            shares.append(spread[0] * spread[1] * (side / (side - 1)) ** 2 / 240**2)
        assert low - 0.02 < min(shares) < low + 0.04
        assert high - 0.08 < max(shares) < high + 0.03


def test_without_patches_there_is_one_size() -> None:
    whole = ImageFormat(30)
    assert (whole.side(0.4), whole.patches(1.0)) == (30, 0)
    assert [FORMAT.side(share) for share in (1.0, 0.43, 0.01)] == [32, 16, 8]
    assert [ImageFormat(224, patch=16).side(96 / 224), FORMAT.patches(0.5)] == [96, 4]
