"""`ground`: where phrases are in an image. Torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmdsl.api.load import load
from vlmdsl.api.runs import folder_and_checkpoint
from vlmdsl.diagnostics.cells import displayed

__all__ = ["GroundedImage", "ground"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class GroundedImage:
    """Boxes of an image, left, top, right, bottom in pixels, each with the phrase that names it and a score in [0, 1]."""

    image: str
    boxes: tuple[tuple[Box, str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        rows = [{"box": list(box), "phrase": phrase, "score": score} for box, phrase, score in self.boxes]
        return {"image": self.image, "boxes": rows}

    def to_text(self) -> str:
        """A line per box: score, left, top, right, bottom, phrase."""
        rows = [
            f"{score:6.3f}  {' '.join(f'{number:7.1f}' for number in box)}  {displayed(phrase)}"
            for box, phrase, score in self.boxes
        ]
        return "\n".join(
            [f"{'score':>6}  {' '.join(f'{side:>7}' for side in ('left', 'top', 'right', 'bottom'))}  phrase", *rows]
        )


def ground(
    run: str | Path,
    image: str | Path,
    phrases: str | Iterable[str],
    *,
    boxes: Sequence[Box] | None = None,
    best: int = 10,
    picture: str | Path | None = None,
    device: str | None = None,
) -> GroundedImage:
    """Where `phrases` are in an image, by a model that predicts boxes; or which of them is in each of given `boxes`.

    Raises `DiagnosticError` as `load` does, V0860 for an image, phrases or boxes that cannot be used, V0861 where the recipe
    names no regions of images, or, without `boxes`, predicts none, V0870 for a picture that would replace the image.

    Args:
        run: the run folder.
        image: a file.
        phrases: what to look for.
        boxes: left, top, right, bottom in pixels of the image.
        best: at most how many boxes that the model predicts.
        picture: a PNG file to draw the image in, with the boxes.
        device: see `load`.

    >>> import tempfile, vlmdsl
    >>> from PIL import Image
    >>> from vlmdsl.api.ground import ground
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 8}
    >>> run = vlmdsl.train("glip", data=["shapes:samples=32,objects=2"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> file = tempfile.mkdtemp() + "/white.png"
    >>> Image.new("RGB", (40, 40), "white").save(file)
    >>> len(ground(run.folder, file, ["a red circle", "a blue square"], best=3).boxes)
    3
    """
    if picture is not None:
        places = import_module("vlmdsl.runtime.data.read_places")
        for read in (image, folder_and_checkpoint(run)[0].path):
            places.check_apart_from(picture, read, "`--picture`")
    model, draw_boxes = load(run, device=device), import_module("vlmdsl.runtime.tracking.boxes").draw_boxes
    grounded = model.ground(image, phrases if isinstance(phrases, str) else list(phrases), boxes=boxes, most=best)
    named = tuple((box.box, box.phrase, box.score) for box in grounded)
    if picture is not None:
        levels = import_module("vlmdsl.runtime.trained.pictures").levels
        draw_boxes(levels(str(image)), named, Path(picture))
    return GroundedImage(str(image), named)
