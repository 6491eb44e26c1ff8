"""`caption`: what a text decoder writes of images. Torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdsl.api.load import load
from vlmdsl.diagnostics.cells import displayed

__all__ = ["Captions", "caption"]


@dataclass(frozen=True)
class Captions:
    """The caption of each image, in their order."""

    captions: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"captions": [{"image": image, "caption": text} for image, text in self.captions]}

    def to_text(self) -> str:
        """A line per image: the image, its caption."""
        rows = [(displayed(image), displayed(text)) for image, text in self.captions]
        width = max((len(image) for image, _ in rows), default=0)
        return "\n".join(f"{image:{width}}  {text}".rstrip() for image, text in rows)


def caption(
    run: str | Path,
    images: str | Path | Iterable[str | Path],
    *,
    prompt: str = "",
    beams: int = 1,
    device: str | None = None,
) -> Captions:
    """The caption that the text decoder of a trained model writes of each image.

    Raises `DiagnosticError` as `load` does, V0860 for images that cannot be read, V0861 where the recipe has no text decoder
    that sees an image, or one that writes after a prompt and there is none.

    Args:
        run: the run folder.
        images: files.
        prompt: the text to continue, for a decoder that was trained with prompts.
        beams: texts that the search keeps at each token; 1: the likeliest token.
        device: see `load`.

    >>> import tempfile, vlmdsl
    >>> from PIL import Image
    >>> from vlmdsl.api.caption import caption
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 8}
    >>> run = vlmdsl.train("cappa", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> file = tempfile.mkdtemp() + "/white.png"
    >>> Image.new("RGB", (40, 40), "white").save(file)
    >>> [(image == file, type(text).__name__) for image, text in caption(run.folder, [file]).captions]
    [(True, 'str')]
    """
    images = [images] if isinstance(images, str | Path) else list(images)
    texts = load(run, device=device).caption(images, prompt=prompt, beams=beams)
    return Captions(tuple(zip(map(str, images), texts, strict=True)))
