"""Pages: what is not HTML is escaped, charts survive any numbers, pictures are only pixels."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmdsl.backends.latex.render import formula_svg
from vlmdsl.runtime.reporting.charts import Line, chart
from vlmdsl.runtime.reporting.html import element, page, table
from vlmdsl.runtime.reporting.pictures import picture, picture_of_file
from vlmdsl.runtime.reporting.run_page import RunFacts, run_page
from vlmdsl.runtime.training.records import StoredExamples

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='alert(3)' \u202e\x00 {{7*7}}"


class Seen(HTMLParser):
    """The elements, attributes and texts that a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def harmless(text: str) -> Seen:
    """A page without anything that runs or loads."""
    seen = Seen(text)
    assert not seen.elements & {"script", "iframe", "object", "embed", "link", "base", "form", "foreignObject"}
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    for name, value in seen.attributes:
        if name in ("src", "href", "action", "srcset", "data"):
            assert re.match(r"data:image/(png|svg\+xml);base64,[\w+/=]*$|#[\w-]+$", value), (name, value[:80])
    assert "\u202e" not in text
    assert "\x00" not in text
    return seen


def png(width: int = 8, height: int = 8) -> str:
    written = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def facts(folder: Path, **others: Any) -> RunFacts:
    names = {"name": HOSTILE, "folder": folder, "facts": {}, "steps": 5, "records": [], "evaluation": {}, "examples": {}}
    rest = {"documentation": HOSTILE, "source": HOSTILE, "flows": [], "settings": HOSTILE, "changed": [("a", HOSTILE, None)]}
    return RunFacts(**{**names, **rest, "notes": [HOSTILE], **others})


def test_everything_that_a_stranger_says_is_text(tmp_path: Path) -> None:
    sample = {"image": png(), "text": HOSTILE}
    matches = [{"sample": sample, "similarity": 0.5, "right": True}]
    queries = [{"sample": sample, "rank": 1, "matches": matches}]
    confusion = {"classes": [HOSTILE, "b"], "counts": [[0, 1, 3]]}
    stored = {"format": 1, "image_to_text": queries, "text_to_image": queries, "confusion": confusion}
    run_facts = {
        "seed": HOSTILE,
        "started": {"at": HOSTILE, "command": [HOSTILE], "versions": {HOSTILE: HOSTILE}},
        "resumed": [{"at": HOSTILE}, HOSTILE],
        "recipe": {"knobs": {HOSTILE: HOSTILE}},
        "data": {HOSTILE: {"name": HOSTILE, HOSTILE: [HOSTILE]}},
        "skipped": {HOSTILE: {"skipped": {HOSTILE: 2, "x": HOSTILE}, "examples": {HOSTILE: [HOSTILE]}, "notes": [HOSTILE]}},
        "towers": [HOSTILE],
    }
    evaluation = {"samples": 4, "zero_shot": {"top-1": 0.5, "chance": {"top-1": 0.1}}, "notes": [HOSTILE]}
    records = [{"step": step, "loss": 1.0, f"terms/{HOSTILE}": 1.0, HOSTILE: 2.0} for step in (1, 2)]
    examples = {HOSTILE: StoredExamples.model_validate(stored)}
    text = run_page(facts(tmp_path, facts=run_facts, evaluation=evaluation, records=records, examples=examples))
    seen = harmless(text)
    assert sum("<script>alert(1)</script>" in part for part in seen.texts) > 20
    assert ("content", next(value for name, value in seen.attributes if "default-src 'none'" in value)) in seen.attributes


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    seen = harmless(run_page(facts(tmp_path, name="clip", documentation="", source="", settings="", notes=[])))
    assert "Run of clip" in seen.texts


def test_long_texts_and_tables_are_bounded() -> None:
    assert len(element("p", "x" * 1_000_000)) < 21_000
    assert table(("a",), []) == ""
    assert "<td" in table(("a",), [("1",)])
    assert harmless(page("t", [("empty", "e", element("p"))][:0])).elements >= {"h1", "style"}


@pytest.mark.parametrize(
    "points",
    [
        [(1, 1.0)],
        [(1, 2.0), (2, 2.0)],
        [(1, 0.0), (2, 1e-30)],
        [(1, 1e300), (2, -1e300)],
        [(1, math.nan), (2, 1.0), (3, math.inf), (4, 2.0)],
        [(step, math.sin(step)) for step in range(5000)],
    ],
    ids=["one", "level", "tiny", "huge", "gaps", "many"],
)
def test_a_chart_of_any_numbers(points: list[tuple[float, float]]) -> None:
    text = chart("loss", [Line("loss", points), Line("chance", [(1, 1.0)], dashed=True)])
    harmless(text)
    assert "nan" not in text
    assert "inf" not in text
    assert len(text) < 20_000
    numbers = [float(number) for part in re.findall(r'points="([^"]*)"', text) for number in re.split(r"[ ,]", part)]
    assert all(0 <= number <= 310 for number in numbers)


def test_a_jump_stays_in_a_long_line() -> None:
    points = [(step, 100.0 if step == 4321 else 1.0) for step in range(10_000)]
    heights = {
        float(point.split(",")[1])
        for part in re.findall(r'points="([^"]*)"', chart("loss", [Line("loss", points)]))
        for point in part.split()
    }
    assert len(heights) == 2


def test_a_chart_without_numbers_is_nothing() -> None:
    assert chart("loss", [Line("loss", [(1, math.nan)])]) == ""


@pytest.mark.parametrize("encoded", ["", "AAAA", "not base64!", base64.b64encode(b"<svg onload=alert(1)>").decode()])
def test_what_is_not_a_picture_is_not_embedded(encoded: str) -> None:
    assert "<img" not in picture(encoded, "a")


def test_pictures_are_encoded_again_and_made_smaller(tmp_path: Path) -> None:
    hidden = base64.b64encode(base64.b64decode(png()) + b"<script>alert(1)</script>").decode()
    (embedded,) = re.findall(r"base64,([^\"]*)", picture(hidden, HOSTILE))
    assert b"script" not in base64.b64decode(embedded)
    Image.fromarray(np.zeros((10, 4000, 3), dtype=np.uint8)).save(tmp_path / "wide.png")
    (embedded,) = re.findall(r"base64,([^\"]*)", picture_of_file(tmp_path / "wide.png", ""))
    assert Image.open(io.BytesIO(base64.b64decode(embedded))).width == 1600
    (tmp_path / "link.png").symlink_to(tmp_path / "wide.png")
    assert picture_of_file(tmp_path / "link.png", "") == ""
    assert picture_of_file(tmp_path / "missing.png", "") == ""


def test_a_formula_is_outlines_alone() -> None:
    text = formula_svg([r"\mathcal{L} = \frac{1}{B} \sum_{i=1}^{B} x_i", "y"])
    assert Seen(text).elements == {"svg", "defs", "path", "g", "use"}
    assert set(re.findall(r"[A-Za-z]", "".join(re.findall(r' d="([^"]*)"', text)))) <= set("MLQCZ")
    assert text == formula_svg([r"\mathcal{L} = \frac{1}{B} \sum_{i=1}^{B} x_i", "y"])


def test_the_bars_of_a_norm_are_drawn() -> None:
    assert "<use" in formula_svg([r"\lVert x \rVert^{2}"])
