"""Pictures in a grid: as high as its pictures and the lines above them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmdsl.runtime.tracking import draw_grid


@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 96), (144, 96)])
def test_rows_are_as_high_as_pictures(height: int, width: int, tmp_path: Path) -> None:
    place = tmp_path / "grid.png"
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    draw_grid([(pixels, "a line above it")] * 12, place)
    drawn = np.asarray(Image.open(place).convert("L"))
    rows = (drawn == 0).sum(axis=1) > drawn.shape[1] / 2
    assert rows.mean() > 0.6  # the rest are titles and margins
    assert drawn[rows].shape[0] == pytest.approx(2 * drawn.shape[1] / 6 * height / width, rel=0.1)
