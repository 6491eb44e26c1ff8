"""How long the first step of a compiled objective takes, with an empty compile cache and with what a first process left.

    python benchmarks/compile_time.py --recipes clip siglip filip declip moco_v3 otter

For each recipe a fresh cache folder and two processes that do the same: import, `vlmdsl.compile`, one forward and backward
pass. `cold` is the first, `warm` the second. Seconds are of the processor, for the process and those it starts, so that a
busy machine disturbs little; `total` is everything from the start of Python on. The result is printed and written to
`benchmarks/results/compile_time_HARDWARE_DATE.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from contrast import hardware

RESULTS = Path(__file__).parent / "results"
RECIPES = ["clip", "siglip", "filip", "declip", "moco_v3", "otter"]
BATCH = 8


def processor_seconds() -> float:
    """What this process and those it started have taken so far."""
    used = (resource.getrusage(whom) for whom in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


def first_step(recipe: str) -> dict[str, float]:
    """Seconds of each part of a first step; for a process of its own."""
    taken, before = {}, 0.0

    def note(part: str) -> None:
        nonlocal before
        now = processor_seconds()
        taken[part], before = round(now - before, 2), now

    import torch  # noqa: F401

    note("torch")
    import vlmdsl
    from vlmdsl.testing.laws import example_features

    objective = vlmdsl.compile(recipe)
    note("compile")
    features = {
        name: value.float().requires_grad_(bool(value.dim())) if value.is_floating_point() else value
        for name, value in example_features(objective, batch=BATCH).items()
    }
    note("features")
    loss = objective(**features).loss
    note("forward")
    loss.backward()
    note("backward")
    taken["total"] = round(processor_seconds(), 2)
    return taken


def in_process(recipe: str, cache: str) -> dict[str, float]:
    """`first_step` of a fresh process with this cache folder."""
    command = [sys.executable, __file__, "--first-step", recipe]
    finished = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
    )
    seconds: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return seconds


def measure(recipe: str) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as cache:
        return {name: in_process(recipe, cache) for name in ("cold", "warm")}


def main() -> None:
    """Measure every recipe, print a table and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--first-step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_step:
        print(json.dumps(first_step(options.first_step)))
        return
    import torch

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    setting = {"hardware": hardware("cpu"), "date": today, "torch": torch.__version__, "batch": BATCH}
    path = options.out / f"compile_time_{setting['hardware']}_{today}.json"
    results = {}
    for recipe in options.recipes:
        results[recipe] = measure(recipe)
        totals = ", ".join(f"{name} {seconds['total']:6.2f} s" for name, seconds in results[recipe].items())
        print(f"{recipe:12} {totals}  (warm: {results[recipe]['warm']})", flush=True)
        path.write_text(json.dumps({**setting, "processor_seconds": results}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
