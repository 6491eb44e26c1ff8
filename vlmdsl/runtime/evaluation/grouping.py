"""How well the groups of patches of a tower are the objects of images, beside groups that need no learning."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.retrieval import Example, Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, PatchSegments, port, to

__all__ = ["best_group_overlap", "drawn_towers", "group_overlap", "grouping_tower"]

_SHOWN = 15
_DRAWS = 5
"""Of a tower without training: how far its groups overlap objects varies threefold between draws of its weights."""
_PALETTE = np.array(
    [
        (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
        (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (170, 110, 40), (128, 0, 0), (128, 128, 0),
        (0, 0, 128), (128, 128, 128),
    ],
    dtype=np.float64,
)  # fmt: skip


def grouping_tower(model: VisionLanguageModel) -> str | None:
    """The first tower of images that groups patches; None if there is none."""
    towers = dict.fromkeys(stream.encoder.tower for stream in model.streams if stream.encoder.kind == "Image")
    return next((tower for tower in towers if model.encoders.encoder(tower).groups), None)


def best_group_overlap(groups: np.ndarray, segments: np.ndarray) -> list[float]:
    """For each segment of an image its intersection over union with a group, no group for two segments.

    The pairs are those with the largest sum of overlaps; a segment without a group has 0. Segment 0 is the ground, which is
    not counted. Both arrays are `[H, W]` whole numbers.

    >>> best_group_overlap(np.array([[3, 3, 5, 5]]), np.array([[1, 1, 1, 0]]))
    [0.6666666666666666]
    """
    objects, kinds = np.unique(segments[segments > 0]), np.unique(groups)
    overlaps = np.zeros((len(objects), len(kinds)))
    for row, number in enumerate(objects):
        for column, group in enumerate(kinds):
            one, other = segments == number, groups == group
            overlaps[row, column] = (one & other).sum() / (one | other).sum()
    best = np.zeros(len(objects))
    rows, columns = linear_sum_assignment(-overlaps)
    best[rows] = overlaps[rows, columns]
    return [float(overlap) for overlap in best]


def drawn_towers(model: VisionLanguageModel, tower: str) -> list[Encoder]:
    """Towers like that of a model, with weights of other draws: as many as make five with it."""
    encoder = model.encoders.encoder(tower)
    device, build = next(encoder.parameters()).device, encoder.build_again
    towers: list[Encoder] = []
    with torch.random.fork_rng(devices=[]):
        for draw in range(1, _DRAWS if build is not None else 1):
            assert build is not None
            torch.default_generator.manual_seed(draw)
            towers.append(build().to(device).eval())
    return towers


def group_overlap(
    model: VisionLanguageModel, batches: Iterable[Batch], name: str, tower: str, others: Sequence[Encoder] = ()
) -> Measures | None:
    """The mean intersection over union of objects with the groups that a tower assigns patches to (`IoU`); None without any
    object.

    Batches hold images under `name`, with the number of the object of each pixel, 0 for the ground. Each object of an image
    has a group of its own, see `best_group_overlap`. `chance` is that of as many groups, drawn for each patch; the baseline
    `colour k-means` clusters the mean colours of an image's patches into as many groups. With `others`, towers like
    it (`drawn_towers`), `IoU` is the mean over all of them. The model is left in the mode it was in.
    """
    encoder = model.encoders.encoder(tower)
    form, count = encoder.image_format, encoder.groups
    assert isinstance(form, ImageFormat)
    assert count is not None
    random = np.random.default_rng(0)
    overlaps: dict[str, list[float]] = {"own": [], "others": [], "chance": [], "colour k-means": []}
    examples: list[Example] = []
    images = 0
    with evaluation_mode(model):
        device = next(model.encoders.parameters()).device
        for batch in batches:
            value, segments = batch.values[name], batch.values[port(name, "segments")]
            assert isinstance(value, ImageBatch)
            assert isinstance(segments, PatchSegments)
            moved = to(value, device).pixels
            patches = np.stack([_segmented(one, moved) for one in (encoder, *others)], axis=1)
            for pixels, grids, numbers in zip(_levels(value.pixels, form), patches, segments.numbers.numpy(), strict=True):
                truth, grid = numbers.reshape(pixels.shape[:2]), grids[0]
                answers = {
                    "own": grid,
                    "chance": random.integers(count, size=grid.shape),
                    "colour k-means": _by_colour(pixels, grid.shape[0], count),
                }
                every = {answer: best_group_overlap(_enlarged(groups, truth), truth) for answer, groups in answers.items()}
                for answer, own in every.items():
                    overlaps[answer] += own
                for other in grids[1:]:
                    overlaps["others"] += best_group_overlap(_enlarged(other, truth), truth)
                images += 1
                if len(examples) < _SHOWN and every["own"]:
                    text = f"IoU {100 * np.mean(every['own']):.0f} %"
                    examples.append(Example(_painted(pixels, _enlarged(grid, truth)), text))
    if not overlaps["own"]:
        return None
    return Measures(
        {"IoU": float(np.mean(overlaps["own"] + overlaps["others"]))},
        {"IoU": float(np.mean(overlaps["chance"]))},
        {"images": images, "objects": len(overlaps["own"]), "groups": count},
        {"colour k-means": {"IoU": float(np.mean(overlaps["colour k-means"]))}},
        tuple(examples),
    )


def _segmented(encoder: Encoder, pixels: Tensor) -> np.ndarray:
    """The group of each patch, `[b, grid, grid]`."""
    segment = encoder.segment  # of every tower with `groups`
    groups: Tensor = segment(pixels)  # type: ignore[operator]
    return groups.cpu().numpy()


def _levels(pixels: Tensor, form: ImageFormat) -> np.ndarray:
    """Images `[b, S, S, 3]` as levels from 0 to 255."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (form.mean, form.deviation))
    levels = (255 * (pixels.cpu() * deviation + mean)).clamp(0, 255)
    return levels.permute(0, 2, 3, 1).double().numpy()


def _enlarged(groups: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The groups of patches as those of the pixels of an image."""
    side = like.shape[0] // groups.shape[0]
    return groups.repeat(side, axis=0).repeat(side, axis=1)


def _by_colour(pixels: np.ndarray, grid: int, count: int) -> np.ndarray:
    """The patches of an image in clusters of their mean colours."""
    side = pixels.shape[0] // grid
    colours = pixels.reshape(grid, side, grid, side, 3).mean(axis=(1, 3)).reshape(-1, 3)
    distinct = len(np.unique(colours, axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of clusters without a patch
        _, clusters = kmeans2(colours, min(count, distinct), minit="++", rng=0)
    return clusters.reshape(grid, grid)


def _painted(pixels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """An image beside the same image with the colour of each pixel's group laid over it."""
    colours = _PALETTE[groups % len(_PALETTE)]
    return np.concatenate([pixels, 0.35 * pixels + 0.65 * colours], axis=1).round().astype(np.uint8)
