"""The checks of `gpu.py`: each a function of the device (`cuda`, or `cpu` where it runs in small) that gives numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from commits import ROOT, paths_of
from plan_memory import CASES, Case, features, peak_of, step
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import metrics

import vlmdsl
from vlmdsl.runtime.tracking import read_metrics
from vlmdsl.testing import example_features, example_modules

__all__ = ["CHECKS", "Check", "CheckError"]

SIZES = (16, 24, 1, 33, 16, 7)
"""Batches that one compiled objective is called with."""
MOST_GRAPHS = 3
KERNELS = ("clip", "siglip", "filip")
PRECISIONS = ("float32", "bfloat16", "float16")
LARGEST = list({(case.recipe, case.lowering): case for case in CASES if case.recipe in KERNELS}.values())
"""Of each recipe, the largest batch of each lowering that `plan_memory.py` measures."""


class CheckError(Exception):
    """A check that did not pass, with the numbers that it has."""

    def __init__(self, reason: str, numbers: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.numbers = dict(numbers)


@dataclass(frozen=True)
class Check:
    """What is checked, in words; how many seconds it may take; and the function that does it."""

    about: str
    limit: int
    run: Callable[[str], dict[str, Any]]
    needs_cuda: bool = False


def required(holds: bool, reason: str, numbers: Mapping[str, Any]) -> None:
    """`CheckError` with a reason, where a condition does not hold."""
    if not holds:
        raise CheckError(reason, numbers)


def precision(device: str) -> dict[str, Any]:
    """Runs in bfloat16, compiled with their encoders on a GPU, and in float16 learn what a run in float32 learns."""
    on_gpu = device == "cuda"
    steps, batch, samples = (100, 128, 2000) if on_gpu else (6, 16, 100)
    settings = {
        "train.device": device, "train.batch": batch, "train.log_every": 1,
        "tracking.report": False, "evaluation.limit": 16,
    }  # fmt: skip
    numbers: dict[str, Any] = {}
    for name in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            data = [f"shapes:samples={samples}"]
            graphs = on_gpu and name == "bfloat16"
            chosen = settings | {"train.precision": name, "train.compile": graphs, "train.compile_encoders": graphs}
            run = vlmdsl.train("clip", data=data, steps=steps, settings=chosen, out=Path(folder) / "run")
            records = read_metrics(run.folder / "metrics.jsonl")
        late = records[-max(steps // 10, 1) :]
        numbers[f"loss_{name}"] = round(sum(record["loss"] for record in late) / len(late), 4)
        numbers[f"samples_per_second_{name}"] = round(records[-1]["samples_per_second"])
        numbers["skipped_steps"] = int(records[-1].get("skipped_steps", 0))
    for name in PRECISIONS[1:]:
        difference = abs(numbers[f"loss_{name}"] / numbers["loss_float32"] - 1)
        required(difference <= 0.1, f"the loss in {name} is {100 * difference:.0f} % from that in float32", numbers)
    required(numbers["skipped_steps"] <= 0.1 * steps + 3, "many steps in float16 were skipped", numbers)
    return numbers


def compiled(device: str) -> dict[str, Any]:
    """Batches of any size share three graphs without a break, and have the loss of the objective that is not compiled."""
    recipes = ("clip", "siglip", "filip", "declip") if device == "cuda" else ("clip",)
    numbers: dict[str, Any] = {"graphs": {}, "graph_breaks": 0, "largest_difference": 0.0}
    for recipe in recipes:
        torch._dynamo.reset()
        counters.clear()
        eager, graphs = (vlmdsl.compile(recipe, compiled=wish).to(device) for wish in (False, True))
        modules = {name: module.float().to(device) for name, module in example_modules(eager).items()}
        for batch in SIZES:
            inputs = _on(device, example_features(eager, batch=batch), torch.float32)
            losses = [objective(modules=modules, **inputs).loss.item() for objective in (eager, graphs)]
            difference = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1.0)
            numbers["largest_difference"] = max(numbers["largest_difference"], difference)
        numbers["graphs"][recipe] = counters["stats"]["unique_graphs"]
        numbers["graph_breaks"] += sum(counters["graph_break"].values())
    required(numbers["graph_breaks"] == 0, "there are graph breaks", numbers)
    most = max(numbers["graphs"].values())
    required(most <= MOST_GRAPHS, f"a recipe took {most} compilations, more than {MOST_GRAPHS}", numbers)
    required(numbers["largest_difference"] <= 2e-4, "compiled losses differ from those that are not", numbers)
    return numbers


def kernels(device: str) -> dict[str, Any]:
    """Kernels that inductor writes (Triton's on CUDA), whole matrices and blocks of rows, err no more than the plain
    operations do in the same precision; all against float64."""
    batch, dim = (512, 256) if device == "cuda" else (24, 16)
    recipes, dtypes = (KERNELS, PRECISIONS[:2]) if device == "cuda" else (KERNELS[:1], PRECISIONS[:1])
    metrics.reset()
    numbers: dict[str, Any] = {"errors": {}}
    for recipe in recipes:
        shape = Case(recipe, batch if recipe != "filip" else batch // 8, dim=dim)
        leaves = features(vlmdsl.compile(recipe, compiled=False), shape)
        exact = _loss_and_gradients(recipe, leaves, device, torch.float64)
        for dtype in PRECISIONS if recipe == "clip" and device == "cuda" else dtypes:
            forms = {"plain": {"compiled": False}, "dense": {}, "chunked": {"lowering": "chunked"}}
            run = partial(_loss_and_gradients, recipe, leaves, device, getattr(torch, dtype))
            errors = {name: _error(run(**options), exact) for name, options in forms.items()}
            numbers["errors"][f"{recipe} {dtype}"] = errors
            allowed = 1.5 * errors["plain"] + 2e-6
            worst = max(errors, key=lambda name: errors[name])
            required(errors[worst] <= allowed, f"{recipe} in {dtype}, {worst}, errs more than plain operations", numbers)
    numbers["kernels"] = metrics.generated_kernel_count
    required(numbers["kernels"] > 0, "inductor wrote no kernel", numbers)
    return numbers


def _loss_and_gradients(
    recipe: str, leaves: Mapping[str, Tensor], device: str, dtype: torch.dtype, **options: Any
) -> list[Tensor]:
    """In float64, whatever they were computed in."""
    torch._dynamo.reset()
    objective = vlmdsl.compile(recipe, **{"compiled": dtype is not torch.float64, **options}).to(device)
    objective = objective.double() if dtype is torch.float64 else objective
    inputs = _on(device, leaves, dtype)
    loss = objective(**inputs).loss
    scale = 2.0**12 if dtype is torch.float16 else 1.0  # as runs in float16 have one
    (scale * loss).backward()
    gradients = [value.grad.double() / scale for value in inputs.values() if value.grad is not None]
    return [loss.detach().double(), *gradients]


def _error(actual: list[Tensor], exact: list[Tensor]) -> float:
    """The largest relative error, in the Euclidean norm."""
    errors = ((mine - right).norm() / right.norm() for mine, right in zip(actual, exact, strict=True))
    return float(f"{max(error.item() for error in errors):.3g}")


def _on(device: str, values: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same values as new leaves."""
    moved = {}
    for name, value in values.items():
        learns = value.is_floating_point() and value.dim() > 0
        moved[name] = value.detach().to(device, dtype if value.is_floating_point() else value.dtype).requires_grad_(learns)
    return moved


def memory(device: str) -> dict[str, Any]:
    """The peak that `vlmdsl plan` computes is within 15 % of the one that is measured, of the sizes of `plan_memory.py`."""
    cases = LARGEST if device == "cuda" else [CASES[0]]
    rows: dict[str, dict[str, float]] = {}
    for case in cases:
        torch._dynamo.reset()
        plan = vlmdsl.plan(case.recipe, lowering=case.lowering, batch=case.batch, dim=case.dim, vocabulary=case.vocabulary)
        objective = vlmdsl.compile(case.recipe, lowering=case.lowering, compiled=device == "cuda").to(device)
        batch = _on(device, features(objective, case), torch.float32)
        taken = partial(step, objective, batch)
        leaves = (*batch.values(), *objective.parameters())
        peak = _cuda_peak(taken, leaves) if device == "cuda" else peak_of(taken, leaves)
        row = {"plan_mib": round(plan.peak / 2**20, 1), "measured_mib": round(peak, 1)}
        rows[f"{case.recipe} {case.batch} {case.lowering}"] = row | {
            "ratio": round(row["plan_mib"] / row["measured_mib"], 3)
        }
    ratios = [row["ratio"] for row in rows.values()]
    numbers = {"lowest_ratio": min(ratios), "highest_ratio": max(ratios), "cases": rows}
    near = all(abs(ratio - 1) <= 0.15 for ratio in ratios) or device == "cpu"  # where `plan_memory.py` measures with care
    required(near, "a plan is more than 15 % from the peak that was measured", numbers)
    return numbers


def _cuda_peak(run: Callable[[], None], leaves: tuple[Tensor, ...]) -> float:
    """MiB by which the memory in use rises at most in a step after two, whose gradients are gone."""
    for _ in range(2):
        run()
    for leaf in leaves:
        leaf.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def contrast(device: str) -> dict[str, Any]:
    """`benchmarks/contrast.py`: the emitted loss against the one that is usually written, in float32 and bfloat16."""
    sizes = ["--batch", "8192"] if device == "cuda" else ["--batch", "128", "--rounds", "2", "--times-only"]
    numbers: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16")[: 2 if device == "cuda" else 1]:
        sizes += ["--times-only"] if dtype == "bfloat16" else []
        with tempfile.TemporaryDirectory() as folder:
            script = Path(__file__).with_name("contrast.py")
            command = [sys.executable, str(script), *sizes, "--device", device, "--dtype", dtype, "--out", folder]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths_of(ROOT))
            required(done.returncode == 0, f"in {dtype}: {(done.stderr.splitlines() or ['no message'])[-1]}", numbers)
            (path,) = Path(folder).iterdir()
            measured = json.loads(path.read_text("utf-8"))["results"]
        for row in measured:
            own, usual = (row["variants"][f"{name} compiled"] for name in ("dense", "usual"))
            numbers[f"{dtype}_{row['batch']}_time_ratio"] = round(own["milliseconds"] / usual["milliseconds"], 3)
            numbers[f"{dtype}_{row['batch']}"] = row["variants"]
    return numbers


def tested(*words: str) -> Callable[[str], dict[str, Any]]:
    """A check that runs tests which need a CUDA device."""

    def run(device: str) -> dict[str, Any]:
        workers = str(min(8, os.cpu_count() or 1))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers, "--dist=worksteal", *words]
        environment = os.environ | paths_of(ROOT) | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        counted = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
        numbers: dict[str, Any] = {"passed": 0, **counted}
        failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        numbers |= {"failures": failures[:50]} if failures else {}
        required(done.returncode == 0 and numbers["passed"] > 0, (failures or ["no test passed"])[0][:200], numbers)
        return numbers

    return run


CHECKS = {
    "precision": Check("bfloat16 and float16 learn what float32 learns", 90, precision),
    "compile": Check("no graph break, three compilations at most", 90, compiled),
    "kernels": Check("compiled kernels err no more than plain operations", 120, kernels),
    "memory": Check("the plan's peak against the measured one", 60, memory),
    "contrast": Check("benchmarks/contrast.py", 100, contrast),
    "nccl": Check("exchange, DDP and FSDP2 of one process", 40, tested("tests/gpu/test_one_process.py"), needs_cuda=True),
    "tests": Check(
        "all other tests that need a GPU, but the slow ones",
        100,
        tested("tests/gpu", "-m", "gpu and not slow", "--ignore=tests/gpu/test_one_process.py"),
        needs_cuda=True,
    ),
}
"""In the order in which they run; their limits are ten minutes together."""
