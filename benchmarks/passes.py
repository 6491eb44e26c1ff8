"""What the passes of the compiler gain: time and memory of objectives with them, with some of them, and without.

    python benchmarks/passes.py [--recipes declip alip] [--each] [--batch 512]

Every variant is compiled with `torch.compile` and gives the same loss, which is checked. Each runs once per round, in
rotating order; a ratio is the median over rounds of the ratio within the round to `off`, with a 95 % bootstrap interval.
Peak memory is that of a step in a process of its own (`plan_memory.py`). `--each` adds the variants in between, so that a
pass is seen by itself. The result is printed and written to `benchmarks/results/passes.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from contrast import RETURN_MEMORY, ratio_with_interval
from plan_memory import Case, features, peak_of, step

import vlmdsl
from vlmdsl.backends.torch.objective import Objective

RESULT = Path(__file__).parent / "results" / "passes.json"
RECIPES = ("declip", "laclip_mt", "pyramidclip", "alip")
HYPER_PARAMETERS: dict[str, dict[str, float]] = {"declip": {"size": 8192}}
ENDS = {"off": "off", "all": "all"}
BETWEEN = {
    "off": "off",
    "fold": "fold,dead",
    "+ share": "fold,share,dead",
    "+ contrast": "fold,share,contrast,dead",
    "all": "all",
}
"""Each variant adds to the one before: simpler formulas, one matrix per pair of streams, contrastive regions, and products
that are part of their region."""


def objective_of(recipe: str, passes: str) -> Objective:
    return vlmdsl.compile(recipe, passes=passes, lowering="dense", **HYPER_PARAMETERS.get(recipe, {}))


def own_peak(recipe: str, passes: str, batch: int) -> float:
    """MiB that a step takes beyond what is there before it."""
    objective = objective_of(recipe, passes)
    tensors = features(objective, Case(recipe, batch))
    return peak_of(partial(step, objective, tensors), (*tensors.values(), *objective.parameters()))


def peak(recipe: str, passes: str, batch: int) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--own", recipe, passes, str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    return float(done.stdout)


def times(recipe: str, variants: dict[str, str], batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU of every variant in every round; SystemExit if the losses differ."""
    objectives = {name: objective_of(recipe, passes) for name, passes in variants.items()}
    tensors = features(objectives["all"], Case(recipe, batch))
    losses = {name: objective.eval()(**tensors).loss.item() for name, objective in objectives.items()}
    if max(losses.values()) - min(losses.values()) > 1e-4 * abs(losses["all"]):
        raise SystemExit(f"the passes changed the loss of {recipe}: {losses}")
    for objective in objectives.values():
        step(objective.train(), tensors)
    clock: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.process_time()
            step(objectives[name], tensors)
            clock[name].append(time.process_time() - begin)
    return clock


def measure(recipe: str, variants: dict[str, str], batch: int, rounds: int) -> dict[str, Any]:
    """Time and memory of every variant, and their ratios to `off`."""
    clock = times(recipe, variants, batch, rounds)
    peaks = {name: peak(recipe, passes, batch) for name, passes in variants.items()}
    rows = {}
    for name in variants:
        ratio, interval = ratio_with_interval(clock[name], clock["off"])
        rows[name] = {
            "milliseconds": round(1e3 * float(numpy.median(clock[name])), 1),
            "time_to_off": [round(value, 3) for value in (ratio, *interval)],
            "peak_mib": round(peaks[name], 1),
            "memory_to_off": round(peaks[name] / peaks["off"], 3),
        }
    return {"recipe": recipe, "batch": batch, "variants": rows}


def table(result: dict[str, Any]) -> str:
    """One recipe as text."""
    lines = [
        f"{result['recipe']}, batch {result['batch']}",
        f"  {'':<14}{'ms':>9}{'to off':>8}{'peak MiB':>10}{'to off':>8}",
    ]
    for name, row in result["variants"].items():
        ratios = f"{row['time_to_off'][0]:>8.2f}{row['peak_mib']:>10.1f}{row['memory_to_off']:>8.2f}"
        lines.append(f"  {name:<14}{row['milliseconds']:>9.1f}{ratios}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES, metavar="RECIPE")
    parser.add_argument("--each", action="store_true", help="measure the variants in between too")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--own", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.own:
        print(own_peak(options.own[0], options.own[1], int(options.own[2])))
        return
    stored = json.loads(options.result.read_text("utf-8"))["results"] if options.result.exists() else []
    results = [result for result in stored if result["recipe"] not in options.recipes]
    for recipe in options.recipes:
        results.append(measure(recipe, BETWEEN if options.each else ENDS, options.batch, options.rounds))
        print(table(results[-1]), flush=True)
    setting = {"torch": torch.__version__, "threads": 1, "rounds": options.rounds}
    options.result.write_text(json.dumps({**setting, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
