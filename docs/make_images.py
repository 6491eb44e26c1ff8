"""The pictures of README.md: `python docs/make_images.py RUN_DIR` after `vlmdsl train clip --out RUN_DIR`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from vlmdsl.api.driver import build
from vlmdsl.api.search import search
from vlmdsl.backends.latex import formula_lines
from vlmdsl.runtime.data import open_source

IMAGES = Path(__file__).resolve().parent / "images"


def draw_formula(recipe: str, path: Path) -> None:
    """What `vlmdsl explain RECIPE --latex` prints, one equation under the other."""
    lines = formula_lines(build(recipe).written)
    heights = [1.0, *(0.7 if r"\frac" in line else 0.4 for line in lines[1:])]
    figure = plt.figure(figsize=(10, sum(heights)), facecolor="white")
    top = 1.0
    for number, (line, height) in enumerate(zip(lines, heights, strict=True)):
        share = height / sum(heights)
        size = 17 if number == 0 else 13
        figure.text(0.01, top - share / 2, f"${line}$", size=size, va="center", math_fontfamily="cm")
        top -= share
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.15)
    plt.close(figure)


def draw_search(run: str, query: str, path: Path) -> None:
    """The best of 200 held-out scenes for a query, as `vlmdsl search RUN pictures/ --query ... --grid` draws them."""
    scenes = open_source(("shapes:samples=200",), "val")
    with tempfile.TemporaryDirectory() as folder:
        for index in range(len(scenes)):
            Image.fromarray(np.asarray(scenes[index]["image"])).save(Path(folder) / f"{index:03d}.png")
        search(run, [folder], query, grid=path)


def main() -> None:
    (run,) = sys.argv[1:]
    draw_formula("clip", IMAGES / "clip.png")
    draw_formula("filip", IMAGES / "filip.png")
    shutil.copy(Path(run) / "curves.png", IMAGES / "curves.png")
    draw_search(run, "a large red circle", IMAGES / "search.png")


if __name__ == "__main__":
    main()
