"""The built-in data as a source: scenes with all the annotations that a surveyed method needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Literal, NamedTuple

import numpy as np

from vlmdsl.runtime.data.keys import Keys
from vlmdsl.runtime.data.shapes.captions import PICKS, WRITERS, Caption, coarse, describe, explained, phrase
from vlmdsl.runtime.data.shapes.drawing import Drawing, place
from vlmdsl.runtime.data.shapes.korean import KOREAN_FRAMES, korean, korean_words
from vlmdsl.runtime.data.shapes.negatives import hard_negative
from vlmdsl.runtime.data.shapes.scenes import (
    SHAPES,
    USUAL_COLOURS,
    Scene,
    Thing,
    Variety,
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
    "image", "text", "clean_text", "text_rewrites", "caption", "knowledge", "text_ko", "text_ko_rewrites", "label",
    "class_name", "boxes", "phrases", "objects", "objects_ko", "arrangement", "text_spans", "clean_text_spans",
    "caption_spans", "text_ko_spans", "wrong_text", "wrong_text_kind", "wrong_caption", "wrong_caption_kind", "regions",
    "segments", "source", "flag",
)  # fmt: skip
_PLAIN_GROUND = 225
_KEPT_BYTES = 32 * 2**20
"""How much memory drawn images may take, so that later epochs need not draw them again."""


class _Written(NamedTuple):
    """The texts of a sample, which describe `described`, another scene if they are `noisy`; by the `writer` of this number,
    and how `clean` and the rewrites choose their words."""

    noisy: bool
    described: Scene
    text: Caption
    clean: Caption
    clean_by: tuple[int, Sequence[int]]
    writer: int
    rewritten_by: Sequence[tuple[int, Sequence[int]]]


class ShapesSource:
    """Scenes of one to three coloured shapes; sample `i` is a function of the seed, the split and the options.

    The columns:

    - `image`: `uint8 [size, size, 3]`; `source`: who wrote the text; `flag`: true if the text does not fit the image.
    - `text`: a caption by one of several writers, for a share `noise` of the samples that of another or a changed scene;
      `clean_text`: a caption that always fits; `text_rewrites`: five other phrasings of `text`.
    - `caption`: short, always fits, as if a captioning model wrote it; `knowledge`: `clean_text` with a definition of the
      main object's shape behind it.
    - `text_ko`: Korean, always fits; `text_ko_rewrites`: five other phrasings of it.
    - `label`: an index into `class_names`, by the option `label` the main object's colour and shape, `object`, or one of
      them, `colour`, `shape`, or the number of objects, `count`; `class_name`: that class.
    - `boxes`: `float32 [n, 4]`, left, top, right, bottom in pixels; `phrases`: a name for each box; `segments`: `uint8
      [size, size]`, 0 or the number of the object; `regions`: `float32 [n, 17]`, what a detector would say of each box: its
      colour and shape, one number per name, whether it is large, and the box as shares of the image.
    - `text_spans`, `clean_text_spans`, `caption_spans`, `text_ko_spans`: `int64 [n, 2]`, for each box the part of that text
      that names it, the first character and the one after the last; of length 0 where a text that does not fit names
      something else.
    - `wrong_text`, `wrong_caption`: `clean_text` and `caption` with one thing wrong, which `wrong_text_kind` and
      `wrong_caption_kind` name: a word of `WRONG_KINDS`.
    - `objects`, `objects_ko`: for each box its `size` (unless all are equal), `colour` and `shape`, in the words of
      `phrases` and `text_ko`; `arrangement`: the place of a lone object, the side on which the first of two is, or the line
      of three.

    `scenes` is how many samples differ in content (None: all, as far as there are enough scenes); further samples show the
    same scenes drawn and described again. Scenes have `fewest` to `objects` objects. The held-out split has no noise and all
    writers. With `equal_sizes` all objects of an image have the same size, and no text states it; with `distinct` no two of
    a scene have the same phrase; there are `colours` colours of objects, 2 to 16; with `plain_ground` all images have a
    ground of the same lightness, and pixels no noise.

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
        equal_sizes: bool = False,
        distinct: bool = False,
        colours: int = USUAL_COLOURS,
        fewest: int = 1,
        plain_ground: bool = False,
        noise: float = 0.0,
        single_template: bool = False,
        label: str = "object",
        seed: int = 0,
        name: str = "shapes",
    ) -> None:
        self.name = name
        self.sound = True
        self.columns: tuple[str, ...] = _COLUMNS
        self._variety = Variety(objects, equal_sizes, distinct, colours, fewest)
        self.class_names: tuple[str, ...] | None = self._variety.classes(label)
        self._label = label
        self._split = split
        self._size = size
        self._plain_ground = plain_ground
        self._noise = noise if split == "train" else 0.0
        self._single_template = single_template and split == "train"
        self._seed = seed
        count = DEFAULT_SAMPLES[split] if samples is None else samples
        self._count = count
        self._scenes = scenes_of_split(seed, split, self._variety, min(count, scenes or count))
        self._images: dict[int, np.ndarray] = {}

    @property
    def keys(self) -> Keys:
        return Keys(len(self), lambda index: f"{self._split}-{index:06d}")

    def __len__(self) -> int:
        return self._count

    def folder_of(self, index: int) -> str | None:
        return None

    def __getitem__(self, index: int) -> Mapping[str, object]:
        scene = self._scenes[index % len(self._scenes)]
        # A column that is not read costs nothing: most runs read three of them, in each epoch again.
        written = cache(partial(self._written, index))
        caption, korean_text = cache(partial(coarse, scene)), cache(partial(korean, scene))
        wrong_text = partial(self._wrong, index, lambda other: describe(other, *written().clean_by))
        wrong_caption = partial(self._wrong, index, coarse)
        return LazyColumns(
            {
                "label": scene.label(self._label),
                "class_name": self._variety.classes(self._label)[scene.label(self._label)],
                "arrangement": scene.arrangement,
            },
            {
                "text": lambda: written().text.text,
                "clean_text": lambda: written().clean.text,
                "caption": lambda: caption().text,
                "knowledge": lambda: explained(scene, written().clean.text),
                "text_ko": lambda: korean_text().text,
                "phrases": lambda: [phrase(thing) for thing in scene.things],
                "objects": lambda: [thing.words for thing in scene.things],
                "objects_ko": lambda: [korean_words(thing) for thing in scene.things],
                "text_spans": lambda: _spans(written().text, scene, written().described),
                "clean_text_spans": lambda: _spans(written().clean, scene, scene),
                "caption_spans": lambda: _spans(caption(), scene, scene),
                "text_ko_spans": lambda: _spans(korean_text(), scene, scene),
                "source": lambda: written().writer,
                "flag": lambda: written().noisy,
                "text_rewrites": lambda: [describe(written().described, *by).text for by in written().rewritten_by],
                "text_ko_rewrites": partial(self._korean_rewrites, index),
                "wrong_text": lambda: wrong_text()[0],
                "wrong_text_kind": lambda: wrong_text()[1],
                "wrong_caption": lambda: wrong_caption()[0],
                "wrong_caption_kind": lambda: wrong_caption()[1],
                "image": partial(self._image, index),
                "boxes": partial(self._boxes, index),
                "regions": partial(self._regions, index),
                "segments": partial(self._segments, index),
            },
        )

    def _written(self, index: int) -> _Written:
        """What is drawn for the texts of a sample, and these."""
        random = generator(self._seed, "sample", self._split, self.keys[index])
        scene = self._scenes[index % len(self._scenes)]
        noisy = random.random() < self._noise
        described = self._mistaken(scene, random) if noisy else scene
        writers = random.permutation(WRITERS).tolist()
        picks = random.integers(6, size=(2 + REWRITES, PICKS)).tolist()
        by = (0, ()) if self._single_template else (writers[0], picks[0])
        clean_by = (writers[0], picks[1]) if noisy else by
        text = describe(described, *by)
        rewritten_by = list(zip(writers[1 : 1 + REWRITES], picks[2:], strict=True))
        clean = describe(scene, *clean_by) if noisy else text
        writer = 0 if self._single_template else writers[0]
        return _Written(noisy, described, text, clean, clean_by, writer, rewritten_by)

    def _wrong(self, index: int, describe: Callable[[Scene], Caption]) -> tuple[str, str]:
        """A hard negative of a description of a sample, and its kind."""
        random = generator(self._seed, "wrong", self._split, self.keys[index])
        scene = self._scenes[index % len(self._scenes)]
        return hard_negative(
            scene, lambda other: describe(other).text, random, held_out=self._split == "val", colours=self._variety.colours
        )

    def _korean_rewrites(self, index: int) -> list[str]:
        random = generator(self._seed, "korean", self._split, self.keys[index])
        scene = self._scenes[index % len(self._scenes)]
        writers = (1 + random.permutation(len(KOREAN_FRAMES) - 1)).tolist()
        return [korean(scene, writer, random.integers(6, size=PICKS).tolist()).text for writer in writers[:REWRITES]]

    def _image(self, index: int) -> np.ndarray:
        image = self._images.get(index)
        if image is None:
            drawing, random = self._drawing(index)
            image = drawing.image(self._size, random)
            # None is dropped for a newer one: an epoch reads each sample once, and would find none of the last ones.
            if len(self._images) < _KEPT_BYTES // image.nbytes:
                self._images[index] = image
        return image.copy()

    def _boxes(self, index: int) -> np.ndarray:
        drawing, _ = self._drawing(index)
        return np.array([placement.box(self._size) for placement in drawing.placements], dtype=np.float32)

    def _regions(self, index: int) -> np.ndarray:
        things = self._scenes[index % len(self._scenes)].things
        colours = np.eye(self._variety.colours, dtype=np.float32)[[thing.colour for thing in things]]
        shapes = np.eye(len(SHAPES), dtype=np.float32)[[thing.shape for thing in things]]
        large = np.array([[bool(thing.large)] for thing in things], dtype=np.float32)
        return np.hstack([colours, shapes, large, self._boxes(index) / self._size])

    def _segments(self, index: int) -> np.ndarray:
        drawing, _ = self._drawing(index)
        return drawing.segments(self._size)

    def _drawing(self, index: int) -> tuple[Drawing, np.random.Generator]:
        """The drawing of a sample, and the generator that continues with its pixels. The size draws nothing, so a larger
        image shows the same picture."""
        random = generator(self._seed, "drawing", self._split, self.keys[index])
        placements = place(self._scenes[index % len(self._scenes)], random)
        ground = int(random.integers(205, 246))
        if self._plain_ground:
            return Drawing(placements, ground=_PLAIN_GROUND, grain=0.0), random
        return Drawing(placements, ground=ground), random

    def _mistaken(self, scene: Scene, random: np.random.Generator) -> Scene:
        """The scene of a wrong text: half of the time another one, else this one with a wrong main object."""
        while True:
            if random.random() < 0.5:
                mistaken = draw_scene(random, self._variety)
            else:
                main = scene.things[0]
                wrong = Thing(int(random.integers(self._variety.colours)), int(random.integers(len(SHAPES))), main.large)
                arrangements = self._variety.arrangements(len(scene.things))
                mistaken = Scene((wrong, *scene.things[1:]), arrangements[int(random.integers(len(arrangements)))])
            # A held-out scene stays unseen in texts, too.
            if mistaken != scene and not mistaken.held_out:
                return mistaken


def _spans(caption: Caption, scene: Scene, described: Scene) -> np.ndarray:
    """Where a caption of the scene `described` names each object of `scene`: int64 [n, 2]."""
    left = list(zip(described.things, caption.spans, strict=True))
    spans = []
    for thing in scene.things:
        place = next((place for place, (named, _) in enumerate(left) if named == thing), None)
        spans.append((0, 0) if place is None else left.pop(place)[1])
    return np.array(spans, dtype=np.int64)
