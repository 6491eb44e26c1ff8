"""The pipelines of `augment` have the published numbers, and every one runs from data to batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from batches import streams_in_forms
from vlmdsl.ir import Stream
from vlmdsl.primitives.pipelines import PIPELINES, Blur, Crop, Grayscale, Jitter, Mirror, PipelineName, Solarize
from vlmdsl.runtime.data import BatchLoader, Requirement, map_fields, open_source
from vlmdsl.runtime.data.context import ViewContext
from vlmdsl.runtime.data.views import View
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat

MOCO_V2 = ("crop .2", "jitter .4 .4 .4 .1 p.8", "grayscale p.2", "blur .1 2 p.5", "mirror p.5")
BYOL = ("crop .08", "mirror p.5", "jitter .4 .4 .2 .1 p.8", "grayscale p.2")
MOCO_V3 = ("crop .08", "jitter .4 .4 .2 .1 p.8", "grayscale p.2")
SLIP = ("crop .08", *MOCO_V2[1:])

# Smallest share of the area; strengths of brightness, contrast, saturation, hue; deviations of the blur; p: the chance.
PUBLISHED: dict[str, tuple[tuple[str, ...], ...]] = {
    "crop": (("crop .5",),),
    "crop_flip": (("crop .5", "mirror p.5"),),
    "simclr": (("crop .08", "mirror p.5", "jitter .8 .8 .8 .2 p.8", "grayscale p.2", "blur .1 2 p.5 kernel.1"),),
    "moco_v1": (("crop .2", "grayscale p.2", "jitter .4 .4 .4 .4 p1", "mirror p.5"),),
    "moco_v2": (MOCO_V2,),
    "moco_v3": (
        (*MOCO_V3, "blur .1 2 p1", "mirror p.5"),
        (*MOCO_V3, "blur .1 2 p.1", "solarize p.2 128", "mirror p.5"),
    ),
    "byol": ((*BYOL, "blur .1 2 p1 kernel.1"), (*BYOL, "blur .1 2 p.1 kernel.1", "solarize p.2 128")),
    "slip": (SLIP,),
    "declip": (MOCO_V2,),
    "uniclip": (SLIP,),
    "mae": (("crop .2", "mirror p.5"),),
    "beit": (("crop .08", "jitter .4 .4 .4  p1", "mirror p.5"),),
    "flava": (("crop .9",),),
}


def words(step: object) -> str:
    def short(*numbers: float) -> str:
        return " ".join(f"{number:g}".removeprefix("0") for number in numbers)

    match step:
        case Crop(area=(low, high), ratio=ratio):
            assert (high, ratio) == (1.0, (3 / 4, 4 / 3))
            return f"crop {short(low)}"
        case Mirror(chance=p):
            return f"mirror p{short(p)}"
        case Jitter(b, c, s, h, chance=p):
            return f"jitter {short(b, c, s, h)} p{short(p)}"
        case Grayscale(chance=p):
            return f"grayscale p{short(p)}"
        case Blur(chance=p, sigma=sigma, kernel=kernel):
            return f"blur {short(*sigma)} p{short(p)}" + ("" if kernel is None else f" kernel{short(kernel)}")
        case Solarize(chance=p, threshold=threshold):
            return f"solarize p{short(p)} {threshold}"
    raise AssertionError(step)


def test_the_published_numbers() -> None:
    published = {name: tuple(tuple(map(words, steps)) for steps in line.views) for name, line in PIPELINES.items()}
    assert published == PUBLISHED
    assert tuple(PUBLISHED) == get_args(PipelineName)


def test_who_resizes_and_jitters_how() -> None:
    """SimCLR and BYOL are TensorFlow and JAX, FLIP JAX, MAE, BEiT and FLAVA ask for it; LaCLIP, MoCo, SLIP do not."""
    bicubic = {name for name, line in PIPELINES.items() if line.views[0][0].resample == "bicubic"}
    assert bicubic == {"crop", "crop_flip", "simclr", "byol", "mae", "beit", "flava"}
    jitters = {
        name: step for name, line in PIPELINES.items() for steps in line.views for step in steps if isinstance(step, Jitter)
    }
    assert {name for name, step in jitters.items() if step.definitions == "tensorflow"} == {"simclr", "byol"}
    assert {name for name, step in jitters.items() if step.adds} == {"byol"}


def pixels_of(pipeline: str, view: int, *, seed: int = 0, epoch: int = 0, key: str = "a") -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (80, 104, 3)).astype(np.uint8)
    step = ("augment", (("draw", 0), ("pipeline", pipeline), ("view", view)))
    result = View("image", "Image", (step,)).apply(image, ViewContext(seed, epoch, key, ImageFormat(16)))
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype) == ((16, 16, 3), np.uint8)
    return result.tobytes()


@pytest.mark.parametrize("pipeline", PUBLISHED)
def test_a_view_depends_on_seed_epoch_sample_and_place_alone(pipeline: str) -> None:
    assert pixels_of(pipeline, 0) == pixels_of(pipeline, 0)
    others = [
        pixels_of(pipeline, 0, seed=1),
        pixels_of(pipeline, 0, epoch=1),
        pixels_of(pipeline, 0, key="b"),
        pixels_of(pipeline, 1),
    ]
    assert len({pixels_of(pipeline, 0), *others}) == 5


def test_the_views_of_an_asymmetric_pair_are_made_in_turn() -> None:
    """White images are white after everything but solarising, which makes them black: view 1's chance only."""
    white = np.full((8, 8, 3), 255, np.uint8)
    for pipeline in ("moco_v3", "byol"):
        black = [0] * 4
        for view, number in itertools.product(range(4), range(300)):
            step = ("augment", (("draw", 0), ("pipeline", pipeline), ("view", view)))
            result = View("image", "Image", (step,)).apply(white, ViewContext(0, 0, str(number), ImageFormat(8)))
            black[view] += bool(np.asarray(result).mean() < 128)
        assert black[0] == black[2] == 0
        assert 30 < black[1] < 90
        assert 30 < black[3] < 90


@pytest.mark.parametrize("pipeline", PUBLISHED)
def test_every_pipeline_feeds_batches_whatever_loads_them(pipeline: str, streams_of: Callable[[str], list[Stream]]) -> None:
    source = open_source("shapes:samples=12,size=40")
    mapping = map_fields(source, [Requirement("image", "Image"), Requirement("text", "Text")])
    tokenizer = train_tokenizer(["a text"], 300)
    streams = streams_of(f'contrast(augment(image, n=2, pipeline="{pipeline}"), text)')

    def images(**options: int) -> torch.Tensor:
        readings = streams_in_forms(streams, ImageFormat(32), tokenizer, 16)
        loader = BatchLoader(source, mapping, readings, batch=4, seed=1, **options)
        batches = itertools.islice(loader, 5)
        return torch.stack(
            [torch.stack([batch.values[f"image_augment_{pipeline}_{view}"][0] for view in (0, 1)]) for batch in batches]
        )

    alone = images()
    assert alone.shape == (5, 2, 4, 3, 32, 32)
    assert alone.isfinite().all()
    assert not torch.equal(alone[:, 0], alone[:, 1])
    shares = [images(rank=rank, world=2, workers=rank) for rank in (0, 1)]
    assert torch.equal(alone, torch.cat(shares, dim=2))
