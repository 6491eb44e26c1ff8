"""The runs that `evidence.py` looks at: a recipe at its scale, in a folder that is thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from columns import SHAPES_COLUMNS
from scale import PAIRS, Scale
from scales import SCALES

import vlmdsl
from vlmdsl.api.driver import build_flows
from vlmdsl.runtime.data import requirements
from vlmdsl.runtime.tracking import read_metrics

__all__ = ["SETTINGS", "begun", "columns_of", "losses", "train"]

CURVES = "curves.png"
SETTINGS: dict[str, object] = {
    "train.batch": PAIRS,
    "train.compile": False,
    "train.log_every": 5,
    "data.workers": 0,
    "schedule.warmup_steps": 10,
}
"""A second process that loads takes no time off one core, but some to hand batches over."""
UNMEASURED: dict[str, object] = {
    "evaluation.limit": 1,
    "evaluation.captions": 0,
    "evaluation.average_precision": False,
    "evaluation.probe": 0,
    "tracking.report": False,
}
"""Of runs whose evaluation nobody reads: one held-out sample, and nothing that is written of it."""


def train(
    recipe: str,
    scale: Scale,
    data: str,
    columns: Mapping[str, str],
    steps: int,
    settings: Mapping[str, object] | None = None,
    *,
    measured: bool = True,
) -> dict[str, Any]:
    """One run in a folder that is thrown away: its records, its evaluation, and its pictures of held-out samples.

    Where `settings` say how long stages are, they say it of all, and `steps` is how often a checkpoint is written. Of a run
    that is not `measured` only the records count.
    """
    of_stages = any(name.startswith("stages.") and name.endswith(".train.steps") for name in settings or {})
    lengths: dict[str, object] = {"train.checkpoint_every": steps} | ({} if of_stages else {"train.steps": steps})
    with tempfile.TemporaryDirectory() as folder:
        result = vlmdsl.train(
            recipe,
            knobs=scale.knobs,
            data=[data],
            map=columns_of(recipe, columns),
            settings={
                **SETTINGS,
                **scale.settings,
                **(settings or {}),
                **({} if measured else UNMEASURED),
                **lengths,
            },
            out=Path(folder) / "run",
        )
        return {
            "metrics": read_metrics(result.folder / "metrics.jsonl"),
            "evaluation": result.evaluation,
            "pictures": {path.name: path.read_bytes() for path in result.folder.glob("*.png") if path.name != CURVES},
        }


@contextmanager
def begun(scale: Scale) -> Iterator[dict[str, object]]:
    """The setting of the weights that runs of a recipe begin with: those of the last of the runs `before`, on the same
    scenes, if there are any. Nothing of these is measured."""
    init: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, before in enumerate(scale.before):
            earlier = SCALES[before.recipe]
            lengths = {"train.checkpoint_every": before.steps, "train.steps": before.steps}
            run = vlmdsl.train(
                before.recipe,
                knobs={**earlier.knobs, **before.knobs},
                data=[scale.scenes],
                map=columns_of(before.recipe, {**SHAPES_COLUMNS, **earlier.columns}),
                settings={**SETTINGS, **earlier.settings, **before.settings, **lengths, **UNMEASURED, **init},
                out=Path(folder) / str(number),
            )
            init = {"model.init": str(run.folder)}
        yield init


def columns_of(recipe: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The columns of the fields that the recipe has; the others keep their names."""
    needed = {need.field for built in build_flows(recipe) for need in requirements(built.planned)}
    return {name: column for name, column in columns.items() if name in needed}


def losses(metrics: list[dict[str, float]], steps: int) -> dict[str, float]:
    """Of the last stage, which has so many steps."""
    before = metrics[-1]["step"] - steps
    every = [record["loss"] for record in metrics if record["step"] > before]
    return {"first": every[0], "highest": max(every), "last": every[-1]}
