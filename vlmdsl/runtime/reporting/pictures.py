"""Pictures inside a page, as data: decoded and encoded again, so that nothing but pixels comes through."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import replace
from pathlib import Path

from PIL import Image

from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS
from vlmdsl.runtime.reporting.html import Html, element
from vlmdsl.runtime.values import BadSample

__all__ = ["drawing", "picture", "picture_of_file"]

_LIMITS = replace(DEFAULT_LIMITS, file_bytes=8 * 2**20, image_pixels=2**24)
_LONGEST_SIDE = 1600


def picture(encoded: str, text: str, **attributes: str | None) -> Html:
    """A small picture in base64; a note where it is not a picture."""
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return element("span", "(not a picture)", class_="muted")
    return _decoded(content, None, text, **attributes)


def picture_of_file(path: Path, text: str) -> Html:
    """A picture in a folder, made smaller where it is very large; nothing where there is no such file."""
    if not path.is_file() or path.is_symlink():
        return Html("")
    return _decoded(path.name, str(path.parent.resolve()), text, style="max-width:100%")


def drawing(svg: str, text: str) -> Html:
    """A drawing that this program made, at its own size; `text` says what is drawn."""
    data = base64.b64encode(svg.encode()).decode("ascii")
    return element("div", element("img", src=f"data:image/svg+xml;base64,{data}", alt=text), class_="wide")


def _decoded(value: str | bytes, folder: str | None, text: str, **attributes: str | None) -> Html:
    try:
        image = Image.fromarray(decode_image(value, folder, _LIMITS))
    except BadSample as fault:
        return element("span", f"({fault})", class_="muted")
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    written = io.BytesIO()
    image.save(written, format="PNG")
    data = base64.b64encode(written.getvalue()).decode("ascii")
    return element("img", src=f"data:image/png;base64,{data}", alt=text, **attributes)
