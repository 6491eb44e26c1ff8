"""Short runs without what takes longer than all the rest: the picture of their curves, and a formula laid out twice."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from vlmdsl.api import report
from vlmdsl.backends.latex.render import formula_svg
from vlmdsl.runtime.files import write_atomically
from vlmdsl.runtime.tracking.curves import draw_curves, panels_of
from vlmdsl.runtime.tracking.metrics import read_metrics
from vlmdsl.runtime.training import stages

__all__ = ["curves_are_not_drawn", "curves_drawn"]


@cache
def _pixel() -> bytes:
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    return file.getvalue()


@cache
def _formula(lines: tuple[str, ...]) -> str:
    return formula_svg(lines)


def _planned_curves(metrics: Path, picture: Path, _title: str = "") -> None:
    """All of `draw_curves` but the drawing."""
    records = read_metrics(metrics) if metrics.is_file() else []
    if records:
        for panel in panels_of(records):
            assert all(any(name in record for record in records) for name in panel.lines), panel
        write_atomically(picture, _pixel())


@pytest.fixture(scope="session", autouse=True)
def curves_are_not_drawn() -> Iterator[None]:
    """For a `conftest.py`: its runs leave a pixel in place of their curves, and lay out each formula once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "draw_curves", _planned_curves)
        patch.setattr(report, "formula_svg", lambda lines: _formula(tuple(lines)))
        yield


@contextmanager
def curves_drawn() -> Iterator[None]:
    """For a run whose tests are about all that it leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "draw_curves", draw_curves)
        yield
