"""What the gradient norm of each term costs, in steps.

    python benchmarks/term_gradients.py
    python benchmarks/term_gradients.py --recipes slip flava --steps 40

Trains each recipe with the tiny towers on the built-in scenes, measures the norms every few steps, and compares the CPU time
of a measurement with that of a step, medians of both; the loader is in the step. The result is printed and written to
`benchmarks/results/term_gradients.json`, with the share of a run at the default of `train.term_gradients_every`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import vlmdsl
from vlmdsl.runtime.training import loop
from vlmdsl.schema import RunConfig

RESULT = Path(__file__).parent / "results" / "term_gradients.json"
RECIPES = ("slip", "declip", "albef", "flava")
EVERY, WARM_UP = 3, 6
"""Steps between measurements, and those at the beginning that are not counted: they compile."""


def measured(recipe: str, steps: int, batch: int, compiled: bool) -> dict[str, Any]:
    """The median CPU seconds of a step and of a measurement."""
    norms, spent = loop.term_gradient_norms, list[tuple[float, int]]()
    ends: list[tuple[float, bool]] = []
    """When steps and measurements ended, and whether it was a step."""

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        result = norms(*arguments, **options)
        spent.append((time.process_time() - start, len(result)))
        ends.append((time.process_time(), False))
        return result

    every_step = loop._update

    def noted(*arguments: Any, **options: Any) -> None:
        every_step(*arguments, **options)
        ends.append((time.process_time(), True))

    loop.term_gradient_norms, loop._update = timed, noted
    settings = {"train.batch": batch, "train.term_gradients_every": EVERY, "train.compile": compiled}
    settings |= {"evaluation.limit": 2, "tracking.report": False}
    try:
        with tempfile.TemporaryDirectory() as folder:
            vlmdsl.train(recipe, data=["shapes:samples=500"], steps=steps, settings=settings, out=Path(folder) / "run")
    finally:
        loop.term_gradient_norms, loop._update = norms, every_step
    between = [after - before for (before, first), (after, second) in pairwise(ends) if first and second]
    measurements = [seconds for seconds, terms in spent if terms > 1][WARM_UP // EVERY :]
    step, measurement = statistics.median(between[WARM_UP // 2 :]), statistics.median(measurements)
    every = RunConfig().train.term_gradients_every
    return {
        "terms": max(terms for _, terms in spent),
        "step_seconds": round(step, 4),
        "measurement_seconds": round(measurement, 4),
        "measurement_in_steps": round(measurement / step, 2),
        "share_of_a_run": round(measurement / step / every, 4),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="compile the objective")
    arguments = parser.parse_args()
    results = {recipe: measured(recipe, arguments.steps, arguments.batch, arguments.compile) for recipe in arguments.recipes}
    every = RunConfig().train.term_gradients_every
    RESULT.write_text(
        json.dumps({"batch": arguments.batch, "compiled": arguments.compile, "every": every, "recipes": results}, indent=2)
        + "\n"
    )
    for recipe, row in results.items():
        print(f"{recipe:10} {row['terms']} terms  {row['measurement_in_steps']} steps  {100 * row['share_of_a_run']:.1f} %")


if __name__ == "__main__":
    main()
