"""Whether two commits train alike: two steps of every objective of a bundled recipe on the CPU, compared bit by bit.

    python benchmarks/compare_commits.py main                 # a commit with the working tree
    python benchmarks/compare_commits.py main feature --recipes clip declip

Each side runs in a process of its own, from its own files: a commit in a temporary work tree. Compared are the losses, terms
and metrics of each step, the weights, the optimiser's moments (which are made of every gradient), and the state: queues,
running means, teachers, batch statistics. A change that must not change the numbers is shown to be one; a change that means
to says how far it went: the largest difference relative to the largest entry. Names on one side only are listed.

The exit code is 0 where everything is equal, 1 where something differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from commits import ROOT, files_of, paths_of
from safetensors.torch import load_file
from torch import Tensor

RUNS = """
import json, sys

from bundled.objectives import OBJECTIVES
from bundled.runs import DATA, SETTINGS, columns_of, hyper_parameters_of, program_of

runs = {
    name: {
        "recipe": recipe,
        "data": [DATA],
        "hyper_parameters": hyper_parameters_of(recipe),
        "settings": SETTINGS | {"data.map": columns_of(program_of(recipe))},
    }
    for name, recipe in OBJECTIVES.items()
    if name.partition(".")[0] in (sys.argv[1:] or [name.partition(".")[0]])
}
print(json.dumps(runs))
"""
"""How recipes are trained in small, which the tests of this checkout know."""
TRAIN = """
import json, sys
from pathlib import Path

import vlmdsl

out, steps, runs = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
bundled = {card.name for card in vlmdsl.recipes()}
for name, run in runs.items():
    if name.partition(".")[0] not in bundled:
        continue
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in run["settings"].items()}
    run_of = dict(data=run["data"], knobs=run["hyper_parameters"], settings=settings)
    vlmdsl.train(run["recipe"], steps=steps, out=out / name, **run_of)
"""
"""What each side executes: no more than the public functions, which commits far apart have in common."""


def runs_of(recipes: list[str]) -> str:
    """The arguments of `vlmdsl.train` for each recipe, as JSON."""
    return _executed(ROOT, RUNS, *recipes)


def train(tree: Path, out: Path, steps: int, runs: str) -> None:
    """Train with the files of `tree`, one run folder per recipe under `out`; raises where that fails."""
    _executed(tree, TRAIN, str(out), str(steps), runs)


def _executed(tree: Path, script: str, *arguments: str) -> str:
    """What a script prints that runs with the files of `tree`."""
    environment = os.environ | paths_of(tree, "tests") | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    finished = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"training with the files of {tree} failed:\n{finished.stderr[-4000:]}")
    return finished.stdout


def numbers(folder: Path) -> dict[str, Tensor]:
    """Everything a run left in numbers, by name."""
    values: dict[str, Tensor] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        step = record.pop("step")
        values |= {f"step {step}: {name}": torch.tensor(value) for name, value in _flat(record) if "second" not in name}
    newest = max((folder / "checkpoints").glob("step-*"))
    for file in sorted(newest.glob("*.safetensors")):
        values |= {f"{file.stem}: {name}": value for name, value in load_file(file).items()}
    return values


def _flat(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


def differences(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """A line for each name on one side only, and for each tensor that is not equal bit by bit."""
    lines = [f"only before: {name}" for name in before.keys() - after.keys()]
    lines += [f"only after: {name}" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old.shape != new.shape:
            lines.append(f"{name}: the shape was {list(old.shape)} and is {list(new.shape)}")
        elif not torch.equal(old, new):
            largest = old.double().abs().max().clamp(min=torch.finfo(torch.float64).tiny)
            lines.append(f"{name}: differs by {((old.double() - new.double()).abs().max() / largest).item():.1e}")
    return sorted(lines)


def main() -> None:
    """Train both sides, print what differs, exit with 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", help="another one; the working tree if it is left out")
    parser.add_argument("--recipes", nargs="+", default=[], help="all bundled ones if it is left out")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--most", type=int, default=5, help="lines of each recipe that are printed")
    options = parser.parse_args()
    runs = runs_of(options.recipes)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / side for side in ("before", "after")]
        for commit, folder in zip((options.before, options.after), folders, strict=True):
            with files_of(commit) as tree:
                train(tree, folder, options.steps, runs)
        recipes = [sorted(run.name for run in folder.iterdir()) for folder in folders]
        unequal = 0
        for recipe in sorted({*recipes[0], *recipes[1]}):
            if not all(recipe in side for side in recipes):
                print(f"{recipe}: only {'before' if recipe in recipes[0] else 'after'}")
                continue
            lines = differences(*(numbers(folder / recipe) for folder in folders))
            unequal += bool(lines)
            print(f"{recipe}: {'equal' if not lines else f'{len(lines)} differences'}")
            print("".join(f"    {line}\n" for line in lines[: options.most]), end="")
    sys.exit(1 if unequal else 0)


if __name__ == "__main__":
    main()
