"""The dense lowering of CLIP's loss against the loss as it is usually written by hand, forward and backward.

    python benchmarks/contrast.py --batch 1024 4096 --dim 512 --threads 1

`usual` multiplies twice and takes two cross-entropies; `dense` is what `vlmdsl.compile` emits for a contrastive region. Each
is run eagerly and compiled. First a gate: loss and gradients against float64, with an error no larger than that of `usual`.
Then rounds in which every variant runs once, in rotating order; a ratio is the median over rounds of the ratio within the
round, with a 95 % bootstrap interval, so that a busy machine disturbs all alike. On a CPU, time is CPU time of the process.
Peak memory is measured in a process of its own: the largest amount in use during one step, less what was in use before it.
The result is printed and written to `benchmarks/results/contrast_HARDWARE[_DTYPE]_DATE.json`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from hand_written import usual
from torch import Tensor

from vlmdsl.backends.torch import ops

RESULTS = Path(__file__).parent / "results"
BASELINE = "usual eager"
GATE_BATCH = 2048
SCALE = 1 / 0.07
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Makes the C library give freed tensors back at once, so that what a process holds is what it uses."""


def dense(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """The lowering: one product, both log-sum-exps, gradients by formula."""
    direction = ops.Direction(0.5, ops.paired(), scale=scale)
    return ops.contrast(x, y, rows=direction, columns=direction).loss


def variants() -> dict[str, Callable[..., Tensor]]:
    """Every variant by name, the baseline first."""
    return {
        BASELINE: usual,
        "usual compiled": torch.compile(usual, fullgraph=True, dynamic=False),
        "dense eager": dense,
        "dense compiled": torch.compile(dense, fullgraph=True, dynamic=False),
    }


def leaves(batch: int, dim: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features whose pairs have a cosine of about 0.3, and the scale."""
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(batch, dim, generator=generator), dim=-1)
    y = F.normalize(F.normalize(torch.randn(batch, dim, generator=generator), dim=-1) + 0.3 * x, dim=-1)
    tensors = (x.to(device, dtype), y.to(device, dtype), torch.tensor(SCALE, device=device))
    return tuple(tensor.requires_grad_() for tensor in tensors)  # type: ignore[return-value]


def step(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Loss and gradients, of the tensors that ask for one, of one forward and backward pass."""
    loss = function(*tensors)
    return (loss.detach(), *torch.autograd.grad(loss, [tensor for tensor in tensors if tensor.requires_grad]))


def errors(options: argparse.Namespace, batch: int) -> dict[str, float]:
    """The largest relative error, in the Euclidean norm, of loss and gradients against float64, by variant."""
    tensors = leaves(min(batch, GATE_BATCH), options.dim, options.dtype, options.device)
    wide = tuple(tensor.detach().double().requires_grad_() for tensor in tensors)
    exact = step(usual, wide)  # type: ignore[arg-type]
    return {
        name: max(
            ((actual.double() - right).norm() / right.norm()).item()
            for actual, right in zip(step(function, tensors), exact, strict=True)
        )
        for name, function in variants().items()
    }


def passes_gate(deviations: dict[str, float]) -> bool:
    """Whether no lowering errs more than the usual code does; below float32's resolution there is nothing to tell apart."""
    allowed = max(1.5 * deviations[BASELINE], 2e-6)
    return all(error <= allowed for name, error in deviations.items() if name.startswith("dense"))


def seconds(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> float:
    """The time of one step: of the device on CUDA, of the process's CPU elsewhere."""
    if tensors[0].is_cuda:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        step(function, tensors)
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    begin = time.process_time()
    step(function, tensors)
    return time.process_time() - begin


def times(options: argparse.Namespace, batch: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round."""
    tensors = leaves(batch, options.dim, options.dtype, options.device)
    functions = variants()
    for function in functions.values():
        for _ in range(options.warmup):
            step(function, tensors)
    measured: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            measured[name].append(seconds(functions[name], tensors))
    return measured


def ratio_with_interval(measured: list[float], baseline: list[float]) -> tuple[float, tuple[float, float]]:
    """Median of the per-round ratios to the baseline, and its 95 % bootstrap interval."""
    ratios = numpy.array(measured) / numpy.array(baseline)
    samples = numpy.random.default_rng(0).choice(ratios, size=(2000, len(ratios)))
    low, high = numpy.percentile(numpy.median(samples, axis=1), [2.5, 97.5])
    return float(numpy.median(ratios)), (float(low), float(high))


def own_peak(options: argparse.Namespace) -> float:
    """MiB that one step of the variant `options.peak_of` needs beyond what is in use before it; for a process of its own."""
    tensors = leaves(options.batch[0], options.dim, options.dtype, options.device)
    return peak_of_step(variants()[options.peak_of], tensors)


def peak_of_step(function: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> float:
    """MiB that a step of a function needs beyond what is in use before it, after two that do not count."""
    for _ in range(2):
        step(function, tensors)
    if tensors[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(function, tensors)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to the present use
    before = _resident("VmRSS")
    step(function, tensors)
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match is not None
    return int(match.group(1))


def peaks(options: argparse.Namespace, batch: int) -> dict[str, float]:
    """Peak MiB by variant; empty where the system does not tell (a CPU without /proc)."""
    if options.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        return {}
    common = ["--batch", str(batch), "--dim", str(options.dim), "--threads", str(options.threads)]
    common += ["--device", options.device, "--dtype", str(options.dtype).removeprefix("torch.")]
    measured = {}
    for name in variants():
        command = [sys.executable, __file__, *common, "--peak-of", name]
        finished = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
        measured[name] = float(finished.stdout)
    return measured


def measure(options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Gate, times and memory of one batch size."""
    gate = errors(options, batch)
    if not passes_gate(gate):
        raise SystemExit(f"the gate is not passed at batch {batch}: relative errors {gate}")
    clock, memory = times(options, batch), {} if options.times_only else peaks(options, batch)
    rows: dict[str, Any] = {}
    for name, taken in clock.items():
        ratio, interval = ratio_with_interval(taken, clock[BASELINE])
        rows[name] = {
            "milliseconds": round(1e3 * statistics.median(taken), 3),
            "time_ratio": round(ratio, 4),
            "time_ratio_interval": [round(bound, 4) for bound in interval],
            "relative_error": gate[name],
        }
        if memory:
            rows[name]["peak_mib"] = round(memory[name], 1)
            rows[name]["memory_ratio"] = round(memory[name] / memory[BASELINE], 4)
    return {"batch": batch, "dim": options.dim, "variants": rows}


def table(result: dict[str, Any]) -> str:
    """One batch size as text; `times as fast` is one over the ratio of times."""
    lines = [f"batch {result['batch']}, {result['dim']} features"]
    lines.append(f"  {'':<16}{'ms':>10}{'ratio':>8}  {'95 % interval':<18}{'times as fast':>14}{'peak MiB':>10}{'ratio':>7}")
    for name, row in result["variants"].items():
        low, high = row["time_ratio_interval"]
        memory = f"{row['peak_mib']:>10.0f}{row['memory_ratio']:>7.2f}" if "peak_mib" in row else ""
        lines.append(
            f"  {name:<16}{row['milliseconds']:>10.1f}{row['time_ratio']:>8.3f}  [{low:.3f}, {high:.3f}]    "
            f"{1 / row['time_ratio']:>14.2f}{memory}"
        )
    return "\n".join(lines)


def hardware(device: str) -> str:
    """The device's name as a part of a file name."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*:\s*(.+)", information.read_text()) if information.exists() else None
    return match.group(1) if match else platform.machine()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--times-only", action="store_true", help="leave out memory, which takes a process for each variant")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dtype = getattr(torch, options.dtype)
    return options


def main() -> None:
    """Measure every batch size, print tables and write the result file."""
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(own_peak(options))
        return
    results = []
    for batch in options.batch:
        results.append(measure(options, batch))
        print(table(results[-1]), flush=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    setting = {
        "hardware": hardware(options.device),
        "date": today,
        "torch": torch.__version__,
        "threads": options.threads,
        "dtype": str(options.dtype).removeprefix("torch."),
        "rounds": options.rounds,
        "baseline": BASELINE,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    precision = "" if options.dtype is torch.float32 else f"_{setting['dtype']}"
    path = options.out / f"contrast_{setting['hardware']}{precision}_{today}.json"
    path.write_text(json.dumps({**setting, "results": results}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
