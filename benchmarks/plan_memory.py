"""The peak memory that `vlmdsl plan` foretells beside the one that a step of the compiled objective takes.

    python benchmarks/plan_memory.py [--recipes clip filip] [--eager]

Each case runs in a process of its own: two steps, then the mark of the most memory held is set back to what is held now,
and one step more, forward and backward; measured is by how much the mark rises. Freed tensors are given back to the system
at once. Features are there before the step; their gradients are made in it, as the plan counts them. The loss as
it is usually written by hand (`hand_written.py`) is measured in the same way, beside what the plan says of it.
The result is printed and written to `benchmarks/results/plan_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contrast import RETURN_MEMORY
from hand_written import HAND_WRITTEN, learned
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.planning.masked import places_asked

RESULT = Path(__file__).parent / "results" / "plan_memory.json"
PATCHES, WORDS, MASKED = 49, 32, 0.15


@dataclass(frozen=True)
class Case:
    """One recipe at one size; `vocabulary` is the number of vocabulary entries where tokens are predicted."""

    recipe: str
    batch: int
    dim: int = 512
    vocabulary: int = 1000
    lowering: str = "dense"
    knobs: dict[str, float] = field(default_factory=dict)


CASES = (
    *(Case("clip", batch) for batch in (1024, 4096, 8192)),
    *(Case("clip", batch, lowering="chunked") for batch in (4096, 8192)),
    *(Case("siglip", batch) for batch in (1024, 4096, 8192)),
    *(Case("siglip", batch, lowering="chunked") for batch in (4096, 8192)),
    *(Case("filip", batch, dim=256) for batch in (32, 64, 128)),
    *(Case("filip", batch, dim=256, lowering="chunked") for batch in (128, 256)),
    *(Case("otter", batch) for batch in (512, 1024, 2048)),
    *(Case("declip", batch, knobs={"size": 16384}) for batch in (256, 512, 1024)),
    Case("laclip_mt", 1024),
    Case("simclr", 512),
    Case("unicl", 1024),
)


def features(objective: Objective, case: Case) -> dict[str, Tensor]:
    """Random inputs, those of towers that learn with a gradient."""
    torch.manual_seed(0)
    sizes = {"B": case.batch, "P": PATCHES, "L": WORDS, "V": case.vocabulary}
    learning, lengths, predicted = set[str](), dict[str, int](), set[str]()
    for stream in objective.streams:
        names = {stream.input(output) for output in ("pooled", "tokens", "vocabulary", "mask", "targets")}
        lengths |= dict.fromkeys(names, stream.encoder.dimension(case.dim))
        learning |= names if stream.encoder.learns else set()
        predicted |= {stream.input("vocabulary"), stream.input("targets")} if stream.asked_only else set()
    places = places_asked(case.batch, WORDS, MASKED)
    batch = {}
    for name, port in objective.inputs.items():
        own = sizes | {"D": lengths.get(name, case.dim)} | ({"L": places} if name in predicted else {})
        shape = [own[axis] for axis in port.axes]
        if port.dtype == "float":
            batch[name] = torch.randn(shape, requires_grad=name in learning)
        elif port.dtype == "bool":
            batch[name] = torch.arange(shape[1])[None, :] < torch.randint(8, shape[1] + 1, (shape[0], 1))
        else:
            batch[name] = torch.randint(case.vocabulary, shape)
    return batch


def step(objective: Objective, batch: dict[str, Tensor]) -> None:
    """Forward and backward; the gradients of the step before are gone."""
    for value in (*batch.values(), *objective.parameters()):
        value.grad = None
    objective(**batch).loss.backward()


def own_peak(case: Case, compiled: bool) -> float:
    """MiB that one step needs beyond what is held before it; for a process of its own."""
    torch.set_num_threads(1)
    objective = vlmdsl.compile(case.recipe, compiled=compiled, lowering=case.lowering, **case.knobs)
    batch = features(objective, case)
    return peak_of(partial(step, objective, batch), (*batch.values(), *objective.parameters()))


def hand_written_peak(case: Case) -> float:
    """The same for the loss of the same inputs as it is usually written by hand (`hand_written.py`), not compiled."""
    torch.set_num_threads(1)
    inputs = features(vlmdsl.compile(case.recipe, compiled=False, **case.knobs), case)
    numbers = learned(case.recipe, case.dim, round(case.knobs.get("size", 0)))
    loss, leaves = HAND_WRITTEN[case.recipe], (*inputs.values(), *numbers.values())

    def loss_and_gradients() -> None:
        for value in leaves:
            value.grad = None
        loss(numbers, **inputs).backward()

    return peak_of(loss_and_gradients, leaves)


def peak_of(run: Callable[[], None], leaves: Iterable[Tensor]) -> float:
    """MiB by which the most memory held rises in a step after two, whose gradients are gone."""
    for _ in range(2):
        run()
    for leaf in leaves:
        leaf.grad = None
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 1024


def resident(name: str) -> int:
    """KiB that this process holds (`VmRSS`), or the most it has held since the mark was set back (`VmHWM`)."""
    line = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return int(line.group(1))


def measured(case: Case, *options: str) -> float:
    command = [sys.executable, __file__, "--own", json.dumps(asdict(case)), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    return float(done.stdout)


def compare(case: Case, eager: bool) -> dict[str, Any]:
    """What the plan says, what is measured, and their ratio."""
    sizes = {"batch": case.batch, "dim": case.dim, "vocabulary": case.vocabulary}
    plan = vlmdsl.plan(case.recipe, lowering=case.lowering, knobs=case.knobs, **sizes)
    planned, peak, usual = plan.peak / 2**20, measured(case), plan.hand_written
    row = {**asdict(case), "plan_mib": round(planned, 1), "measured_mib": round(peak, 1), "ratio": round(planned / peak, 3)}
    if case.recipe in HAND_WRITTEN and usual is not None:
        by_hand = round(measured(case, "--by-hand"), 1)
        row["hand_written"] = {"plan_mib": round(usual.peak / 2**20, 1), "measured_mib": by_hand}
    return row | ({"eager_mib": round(measured(case, "--eager"), 1)} if eager else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(case.recipe for case in CASES))
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="RECIPE")
    parser.add_argument("--eager", action="store_true", help="measure the objective that is not compiled too")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--own", help=argparse.SUPPRESS)
    parser.add_argument("--by-hand", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own is not None:
        case = Case(**json.loads(options.own))
        print(hand_written_peak(case) if options.by_hand else own_peak(case, compiled=not options.eager))
        return
    rows = []
    for case in CASES:
        if case.recipe in options.recipes:
            row = compare(case, options.eager)
            rows.append(row)
            print(
                f"{row['recipe']:<10}{row['lowering']:<9}{row['batch']:>6}{row['plan_mib']:>9.1f}{row['measured_mib']:>9.1f}"
                f"{row['ratio']:>7.2f}",
                flush=True,
            )
    stored = json.loads(options.result.read_text("utf-8"))["cases"] if options.result.exists() else []
    rows = [row for row in stored if row["recipe"] in names and row["recipe"] not in options.recipes] + rows
    options.result.write_text(json.dumps({"torch": torch.__version__, "cases": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
