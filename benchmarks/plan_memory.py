"""The peak memory that `vlmdsl plan` foretells beside the one that a step of the compiled objective takes.

    python benchmarks/plan_memory.py [--recipes clip filip] [--eager]

Each case runs in a process of its own: two steps, then the mark of the most memory held is set back to what is held now,
and one step more, forward and backward; measured is by how much the mark rises. Freed tensors are given back to the system
at once. Features are there before the step; their gradients are made in it, as the plan counts them.
The result is printed and written to `benchmarks/results/plan_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.passes.masked import places_asked

RESULT = Path(__file__).parent / "results" / "plan_memory.json"
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Makes the C library give freed tensors back at once, so that what a process holds is what it uses."""
PATCHES, WORDS, MASKED = 49, 32, 0.15


@dataclass(frozen=True)
class Case:
    """One recipe at one size; `vocabulary` are the words of a tokenizer where tokens are asked for."""

    recipe: str
    batch: int
    dim: int = 512
    vocabulary: int = 1000
    knobs: dict[str, float] = field(default_factory=dict)


CASES = (
    Case("clip", 1024),
    Case("clip", 4096),
    Case("siglip", 1024),
    Case("siglip", 4096),
    Case("filip", 64, dim=256),
    Case("filip", 128, dim=256),
    Case("otter", 1024),
    Case("declip", 512, knobs={"size": 16384}),
    Case("laclip_mt", 1024),
    Case("simclr", 512),
    Case("unicl", 1024),
)


def features(objective: Objective, case: Case) -> dict[str, Tensor]:
    """Random inputs, those of towers that learn with a gradient."""
    torch.manual_seed(0)
    sizes = {"B": case.batch, "P": PATCHES, "L": WORDS, "V": case.vocabulary}
    learning, lengths, asked = set[str](), dict[str, int](), set[str]()
    for stream in objective.streams:
        names = {stream.input(output) for output in ("pooled", "tokens", "vocabulary", "mask", "targets")}
        lengths |= dict.fromkeys(names, stream.encoder.dimension(case.dim))
        learning |= names if stream.encoder.learns else set()
        asked |= {stream.input("vocabulary"), stream.input("targets")} if stream.asked_only else set()
    places = places_asked(case.batch, WORDS, MASKED)
    given = {}
    for name, wanted in objective.inputs.items():
        own = sizes | {"D": lengths.get(name, case.dim)} | ({"L": places} if name in asked else {})
        shape = [own[axis] for axis in wanted.axes]
        if wanted.dtype == "float":
            given[name] = torch.randn(shape, requires_grad=name in learning)
        elif wanted.dtype == "bool":
            given[name] = torch.arange(shape[1])[None, :] < torch.randint(8, shape[1] + 1, (shape[0], 1))
        else:
            given[name] = torch.randint(case.vocabulary, shape)
    return given


def step(objective: Objective, given: dict[str, Tensor]) -> None:
    """Forward and backward; the gradients of the step before are gone."""
    for value in (*given.values(), *objective.parameters()):
        value.grad = None
    objective(**given).loss.backward()


def own_peak(case: Case, compiled: bool) -> float:
    """MiB that one step needs beyond what is held before it; for a process of its own."""
    torch.set_num_threads(1)
    objective = vlmdsl.compile(case.recipe, compiled=compiled, **case.knobs)
    given = features(objective, case)
    for _ in range(2):
        step(objective, given)
    for value in (*given.values(), *objective.parameters()):
        value.grad = None
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step(objective, given)
    return (resident("VmHWM") - before) / 1024


def resident(name: str) -> int:
    """KiB that this process holds (`VmRSS`), or the most it has held since the mark was set back (`VmHWM`)."""
    line = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return int(line.group(1))


def measured(case: Case, compiled: bool) -> float:
    command = [sys.executable, __file__, "--own", json.dumps(asdict(case))] + ([] if compiled else ["--eager"])
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    return float(done.stdout)


def compare(case: Case, eager: bool) -> dict[str, Any]:
    """What the plan says, what is measured, and their ratio."""
    plan = vlmdsl.plan(
        case.recipe, batch=case.batch, dim=case.dim, vocabulary=case.vocabulary, knobs=case.knobs
    )  # fmt: skip
    planned, peak = plan.peak / 2**20, measured(case, compiled=True)
    row = {**asdict(case), "plan_mib": round(planned, 1), "measured_mib": round(peak, 1), "ratio": round(planned / peak, 3)}
    return row | ({"eager_mib": round(measured(case, compiled=False), 1)} if eager else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.recipe for case in CASES))
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="RECIPE")
    parser.add_argument("--eager", action="store_true", help="measure the objective that is not compiled too")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--own", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own is not None:
        print(own_peak(Case(**json.loads(options.own)), compiled=not options.eager))
        return
    rows = []
    for case in CASES:
        if case.recipe in options.recipes:
            row = compare(case, options.eager)
            rows.append(row)
            print(
                f"{row['recipe']:<10}{row['batch']:>6}{row['plan_mib']:>9.1f}{row['measured_mib']:>9.1f}{row['ratio']:>7.2f}"
            )
    options.result.write_text(json.dumps({"torch": torch.__version__, "cases": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
