"""Both lowerings of three losses beside the usual hand-written ones, forward and backward: time and memory.

    python benchmarks/lowerings.py [--cases clip-8192 siglip-4096] [--rounds 5]

`usual` is the loss as it is usually written: CLIP's with two products, the sigmoid loss with a matrix of labels, tokenwise
maxima by `einsum` and `max`. `dense` and `chunked` are what `vlmdsl.compile` emits, compiled. First a gate: loss and
gradients of the chunked form against those of the dense form. Then rounds in which every variant runs once, in rotating
order; a ratio is the median over rounds of the ratio within the round, so that a busy machine disturbs all alike; time is
CPU time.
Peak memory is measured in a process of its own: the largest amount in use during one step, less what was in use before it,
gradients of the features included. The result is printed and written to `benchmarks/results/lowerings.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from contrast import RETURN_MEMORY, peak_of_step, ratio_with_interval, seconds, step
from hand_written import usual, usual_siglip, usual_tokenmax
from torch import Tensor

from vlmdsl.backends.torch import ops

RESULT = Path(__file__).parent / "results" / "lowerings.json"
DIM, TOKEN_DIM, PATCHES, WORDS = 512, 256, 49, 32
SCALE, BIAS = 10.0, -10.0

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """A loss at one size of batch."""

    loss: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.loss}-{self.batch}"


CASES = (Case("clip", 8192), Case("siglip", 4096), Case("siglip", 8192), Case("tokenmax", 256))


def clip(lowering: Any, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss by one lowering."""
    direction = ops.Direction(0.5, ops.paired(), scale=scale)
    loss: Tensor = lowering.contrast(x, y, rows=direction, columns=direction).loss
    return loss


def siglip(lowering: Any, x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The sigmoid loss by one lowering."""
    logits = ops.add(ops.multiply(lowering.similarity(x, y, by="dot"), scale), bias)
    return ops.mean(lowering.sigmoid_loss(logits, ops.paired()))


def tokenmax(lowering: Any, x: Tensor, y: Tensor, scale: Tensor, real: Tensor) -> Tensor:
    """CLIP's loss over FILIP's two matrices by one lowering."""
    matrix = lowering.similarity(ops.TokenFeatures(x), ops.TokenFeatures(y, real), by="tokenmax")
    direction = ops.Direction(0.5, ops.paired(), scale=scale)
    return ops.contrast_of(matrix, rows=direction, columns=direction).loss


USUAL: dict[str, Loss] = {"clip": usual, "siglip": usual_siglip, "tokenmax": usual_tokenmax}
LOWERED: dict[str, Loss] = {"clip": clip, "siglip": siglip, "tokenmax": tokenmax}


def variants(loss: str) -> dict[str, Loss]:
    """Every variant by name, the baseline first."""

    def of(lowering: Any) -> Loss:
        return torch.compile(lambda *operands: LOWERED[loss](lowering, *operands), fullgraph=True, dynamic=False)

    return {
        "usual eager": USUAL[loss],
        "usual compiled": torch.compile(USUAL[loss], fullgraph=True, dynamic=False),
        "dense": of(ops),
        "chunked": of(ops.tiled),
    }


def operands(case: Case) -> tuple[Tensor, ...]:
    """Unit features, those of a pair alike, and what else the loss takes."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    scale = torch.tensor(SCALE, requires_grad=True)
    if case.loss == "tokenmax":
        lengths = torch.randint(8, WORDS + 1, (case.batch, 1), generator=generator)
        x, y = unit(case.batch, PATCHES, TOKEN_DIM), unit(case.batch, WORDS, TOKEN_DIM)
        return x.requires_grad_(), y.requires_grad_(), scale, torch.arange(WORDS)[None] < lengths
    x = unit(case.batch, DIM)
    y = F.normalize(unit(case.batch, DIM) + 0.3 * x, dim=-1)
    features = (x.requires_grad_(), y.requires_grad_(), scale)
    return features if case.loss == "clip" else (*features, torch.tensor(BIAS, requires_grad=True))


def check(case: Case, functions: dict[str, Loss]) -> float:
    """The largest relative error of the chunked form's loss and gradients against the dense form's, at a smaller size."""
    arguments = operands(Case(case.loss, min(case.batch, 512 if case.loss != "tokenmax" else 32)))
    dense, chunked = (LOWERED[case.loss](lowering, *arguments) for lowering in (ops, ops.tiled))
    learned = [value for value in arguments if value.requires_grad]
    pairs = zip(
        (chunked, *torch.autograd.grad(chunked, learned)), (dense, *torch.autograd.grad(dense, learned)), strict=True
    )
    error = max(((one - other).norm() / other.norm()).item() for one, other in pairs)
    if error > 1e-5:
        raise SystemExit(f"the gate is not passed by {case.name}: relative error {error}")
    return error


def times(case: Case, functions: dict[str, Loss], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round, after one that does not count."""
    arguments = operands(case)
    names = list(functions)
    for function in functions.values():
        step(function, arguments)
    clock: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            clock[name].append(seconds(functions[name], arguments))
    return clock


def peak(case: Case, name: str) -> float:
    """MiB that one step of a variant takes beyond what is there before it, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", case.name, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    return float(done.stdout)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Gate, times and memory of one case."""
    functions = variants(case.loss)
    error = check(case, functions)
    clock = times(case, functions, rounds)
    peaks = {name: peak(case, name) for name in functions}
    rows = {}
    for name in functions:
        row: dict[str, Any] = {"milliseconds": round(1e3 * float(numpy.median(clock[name])), 1)}
        for other in ("usual eager", "usual compiled", "dense"):
            ratio, interval = ratio_with_interval(clock[name], clock[other])
            row[f"time_to_{other.replace(' ', '_')}"] = [round(value, 3) for value in (ratio, *interval)]
            row[f"memory_to_{other.replace(' ', '_')}"] = round(peaks[name] / peaks[other], 3)
        rows[name] = row | {"peak_mib": round(peaks[name], 1)}
    return {"case": case.name, "relative_error": error, "variants": rows}


def table(result: dict[str, Any]) -> str:
    """One case as text."""
    lines = [result["case"], f"  {'':<16}{'ms':>9}{'to usual':>10}{'to dense':>10}{'peak MiB':>10}{'to dense':>10}"]
    for name, row in result["variants"].items():
        lines.append(
            f"  {name:<16}{row['milliseconds']:>9.0f}{row['time_to_usual_eager'][0]:>10.2f}{row['time_to_dense'][0]:>10.2f}"
            f"{row['peak_mib']:>10.0f}{row['memory_to_dense']:>10.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_name = {case.name: case for case in CASES}
    if options.peak_of:
        case, name = by_name[options.peak_of[0]], options.peak_of[1]
        print(peak_of_step(variants(case.loss)[name], operands(case)))
        return
    results = []
    for name in options.cases:
        results.append(measure(by_name[name], options.rounds))
        print(table(results[-1]), flush=True)
    kept = json.loads(options.result.read_text("utf-8"))["results"] if options.result.exists() else []
    merged = [result for result in kept if result["case"] not in options.cases] + results
    setting = {"torch": torch.__version__, "threads": 1, "rounds": options.rounds}
    options.result.write_text(json.dumps({**setting, "results": merged}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
