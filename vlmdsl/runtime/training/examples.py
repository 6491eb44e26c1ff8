"""Pictures of examples of what an evaluation measured: `captions.png` in the run folder."""

from __future__ import annotations

from pathlib import Path

from vlmdsl.runtime.evaluation import PART_TITLES, Evaluation
from vlmdsl.runtime.tracking import draw_grid

__all__ = ["draw_examples"]


def draw_examples(evaluation: Evaluation, folder: Path, whose: str = "") -> None:
    """Draws the examples of each measured part into `NAME.png`, those of another flow into `FLOW.NAME.png`."""
    for name, part in evaluation.parts.items():
        if part.examples:
            draw_grid(part.examples, folder / f"{whose}{name}.png", f"{whose}{PART_TITLES[name]}")
    for flow, own in evaluation.flows.items():
        draw_examples(own, folder, f"{whose}{flow}.")
