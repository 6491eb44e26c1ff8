"""The built-in data as a source: scenes with all the annotations that a surveyed method needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np

from vlmdsl.runtime.data.keys import Keys
from vlmdsl.runtime.data.shapes.captions import PICKS, WRITERS, coarse, describe, korean, phrase
from vlmdsl.runtime.data.shapes.drawing import Drawing, place
from vlmdsl.runtime.data.shapes.scenes import (
    ARRANGEMENTS,
    CLASSES,
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    draw_scene,
    scenes_of_split,
)
from vlmdsl.runtime.data.source import LazyColumns
from vlmdsl.runtime.draws import generator

__all__ = ["DEFAULT_SAMPLES", "ShapesSource"]

Split = Literal["train", "val"]

DEFAULT_SAMPLES: dict[Split, int] = {"train": 8000, "val": 400}
REWRITES = 5
"""How many rewrites a text has."""

_COLUMNS = (
    "image", "text", "clean_text", "text_rewrites", "caption", "text_ko", "label", "class_name", "boxes", "phrases",
    "regions", "segments", "source", "flag",
)  # fmt: skip


class ShapesSource:
    """Scenes of one to three coloured shapes; sample `i` is a function of the seed, the split and the options.

    Columns: `image` (`uint8 [size, size, 3]`), `text` (a caption by one of several writers, for a share `noise` of the
    samples that of another or a changed scene), `clean_text` (a caption that always fits), `text_rewrites` (five other
    phrasings of `text`), `caption` (short, always fits, as if a captioning model wrote it), `text_ko` (Korean, always fits),
    `label` (an index into `class_names`: by the option `label` the main object's colour and shape, `object`, or one of them,
    `colour`, `shape`, or the number of objects, `count`), `class_name`, `boxes` (`float32 [n, 4]`: left, top, right, bottom
    in pixels), `phrases` (a name for each box), `regions` (`float32 [n, 17]`: what a detector would say of each box: its
    colour and shape, one number per name, whether it is large, and the box as shares of the image), `segments` (`uint8
    [size, size]`: 0 or the number of the object), `source` (who wrote the text), `flag` (true: the text does not fit the
    image).

    `scenes` is how many samples differ in content (None: all, as far as there are enough scenes); further samples show the
    same scenes drawn and described again. The held-out split has no noise and all writers.

    >>> source = ShapesSource(samples=3)
    >>> len(source), source[0]["image"].shape, source[0]["text"] == source[0]["clean_text"]
    (3, (32, 32, 3), True)
    """

    def __init__(
        self,
        split: Split = "train",
        *,
        samples: int | None = None,
        scenes: int | None = None,
        size: int = 32,
        objects: int = 3,
        noise: float = 0.0,
        single_template: bool = False,
        label: str = "object",
        seed: int = 0,
        name: str = "shapes",
    ) -> None:
        self.name = name
        self.sound = True
        self.columns: tuple[str, ...] = _COLUMNS
        self.class_names: tuple[str, ...] | None = CLASSES[label]
        self._label = label
        self._split = split
        self._size = size
        self._objects = objects
        self._noise = noise if split == "train" else 0.0
        self._single_template = single_template and split == "train"
        self._seed = seed
        count = DEFAULT_SAMPLES[split] if samples is None else samples
        self._count = count
        self._scenes = scenes_of_split(seed, split, objects, min(count, scenes or count))

    @property
    def keys(self) -> Keys:
        return Keys(len(self), lambda index: f"{self._split}-{index:06d}")

    def __len__(self) -> int:
        return self._count

    def folder_of(self, index: int) -> str | None:
        return None

    def __getitem__(self, index: int) -> Mapping[str, object]:
        random = generator(self._seed, "sample", self._split, self.keys[index])
        scene = self._scenes[index % len(self._scenes)]
        noisy = random.random() < self._noise
        described = self._mistaken(scene, random) if noisy else scene
        writers = random.permutation(WRITERS).tolist()
        picks = random.integers(6, size=(2 + REWRITES, PICKS)).tolist()
        text = describe(described, 0) if self._single_template else describe(described, writers[0], picks[0])
        ready: dict[str, object] = {
            "text": text,
            "clean_text": describe(scene, writers[0], picks[1]) if noisy else text,
            "caption": coarse(scene),
            "text_ko": korean(scene),
            "label": scene.label(self._label),
            "class_name": CLASSES[self._label][scene.label(self._label)],
            "phrases": [phrase(thing) for thing in scene.things],
            "source": 0 if self._single_template else writers[0],
            "flag": noisy,
        }
        by = list(zip(writers[1 : 1 + REWRITES], picks[2:], strict=True))
        return LazyColumns(
            ready,
            {
                "text_rewrites": lambda: [describe(described, writer, words) for writer, words in by],
                "image": partial(self._image, index),
                "boxes": partial(self._boxes, index),
                "regions": partial(self._regions, index),
                "segments": partial(self._segments, index),
            },
        )

    def _image(self, index: int) -> np.ndarray:
        drawing, random = self._drawing(index)
        return drawing.image(self._size, random)

    def _boxes(self, index: int) -> np.ndarray:
        drawing, _ = self._drawing(index)
        return np.array([placement.box(self._size) for placement in drawing.placements], dtype=np.float32)

    def _regions(self, index: int) -> np.ndarray:
        things = self._scenes[index % len(self._scenes)].things
        colours = np.eye(len(COLOURS), dtype=np.float32)[[thing.colour for thing in things]]
        shapes = np.eye(len(SHAPES), dtype=np.float32)[[thing.shape for thing in things]]
        large = np.array([[thing.large] for thing in things], dtype=np.float32)
        return np.hstack([colours, shapes, large, self._boxes(index) / self._size])

    def _segments(self, index: int) -> np.ndarray:
        drawing, _ = self._drawing(index)
        return drawing.segments(self._size)

    def _drawing(self, index: int) -> tuple[Drawing, np.random.Generator]:
        """The drawing of a sample, and the generator that continues with its pixels. The size draws nothing, so a larger
        image shows the same picture."""
        random = generator(self._seed, "drawing", self._split, self.keys[index])
        placements = place(self._scenes[index % len(self._scenes)], random)
        return Drawing(placements, ground=int(random.integers(205, 246))), random

    def _mistaken(self, scene: Scene, random: np.random.Generator) -> Scene:
        """The scene of a wrong text: half of the time another one, else this one with a wrong main object."""
        while True:
            if random.random() < 0.5:
                mistaken = draw_scene(random, self._objects)
            else:
                main = scene.things[0]
                wrong = Thing(int(random.integers(len(COLOURS))), int(random.integers(len(SHAPES))), main.large)
                arrangements = ARRANGEMENTS[len(scene.things)]
                mistaken = Scene((wrong, *scene.things[1:]), arrangements[int(random.integers(len(arrangements)))])
            # A held-out scene stays unseen in texts, too.
            if mistaken != scene and not mistaken.held_out:
                return mistaken
