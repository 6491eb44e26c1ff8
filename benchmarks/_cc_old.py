"""Whether two commits train alike: two steps of every bundled recipe on the CPU, compared bit by bit.

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
from commits import files_of, paths_of
from safetensors.torch import load_file
from torch import Tensor

RUN = """
import json, sys
from pathlib import Path

import pytest
import vlmdsl
from bundled.runs import DATA, RECIPES, SETTINGS, columns_of, knobs_of, program_of, with_tiny_towers

out, steps, *chosen = sys.argv[1:]
with pytest.MonkeyPatch.context() as patch:
    with_tiny_towers(patch)
    for recipe in chosen or RECIPES:
        settings = SETTINGS | {"data.map": columns_of(program_of(recipe))}
        folder = Path(out) / recipe
        vlmdsl.train(recipe, data=[DATA], steps=int(steps), knobs=knobs_of(recipe), settings=settings, out=folder)
"""
"""What each side executes: its own tests know how a recipe is trained in small."""


def train(tree: Path, out: Path, steps: int, recipes: list[str]) -> None:
    """Train with the files of `tree`, one run folder per recipe under `out`; raises where that fails."""
    environment = os.environ | paths_of(tree, "tests") | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(out), str(steps), *recipes]
    finished = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"training with the files of {tree} failed:\n{finished.stderr[-4000:]}")


def numbers(folder: Path) -> dict[str, Tensor]:
    """Everything a run left in numbers, by name."""
    values: dict[str, Tensor] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        step = record.pop("step")
        values |= {f"step {step}: {name}": torch.tensor(value) for name, value in _flat(record) if "per_second" not in name}
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
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / side for side in ("before", "after")]
        for commit, folder in zip((options.before, options.after), folders, strict=True):
            with files_of(commit) as tree:
                train(tree, folder, options.steps, options.recipes)
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
