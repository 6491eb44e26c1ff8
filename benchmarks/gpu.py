"""Everything that only a CUDA device can show, within ten minutes on one GPU: `make gpu`.

    python benchmarks/gpu.py                             # all checks
    python benchmarks/gpu.py --only precision memory     # those that are named
    python benchmarks/gpu.py --device cpu                # what of them a CPU can run, in small: whether this script works

Each check of `gpu_checks.py` runs in a process of its own, which is ended after its share of the ten minutes. A table is
printed, and `benchmarks/results/gpu_HARDWARE_DATE.json` written: versions, device, and of each check whether it passed, its
seconds and its numbers. The exit code is 0 if all passed, 1 if not, 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from commits import ROOT, commit_of, paths_of
from contrast import RETURN_MEMORY, hardware
from gpu_checks import CHECKS, CheckError

from vlmdsl._resources import installed_version

RESULTS = Path(__file__).parent / "results"
PASSED, FAILED, LEFT_OUT = "passed", "FAILED", "left out"


def outcome_of(name: str, device: str, limit: float) -> dict[str, Any]:
    """What a check says, run in a process of its own."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        command = [sys.executable, __file__, "--own", name, "--device", device, "--out", str(result)]
        # On a CPU its memory is what it holds: without that setting a step may take what earlier ones have freed.
        environment = os.environ | paths_of(ROOT) | (RETURN_MEMORY if device == "cpu" else {})
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
            try:
                process.wait(timeout=limit)
                said = json.loads(result.read_text("utf-8")) if result.exists() else {}
                if "reason" not in said:
                    said = {"reason": f"it ended with exit code {process.returncode}", "end": log.read_text("utf-8")[-2000:]}
            except subprocess.TimeoutExpired:
                said = {"reason": f"it took longer than {limit:.0f} s", "end": log.read_text("utf-8")[-2000:]}
            finally:
                _end(process)
    state = FAILED if said["reason"] else PASSED
    return {"state": state, "seconds": round(time.monotonic() - start, 1), **said}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a check with all processes that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def own_outcome(name: str, device: str) -> dict[str, Any]:
    """The numbers of a check that runs in this process, and why it failed, "" if it did not."""
    try:
        return {"reason": "", "numbers": CHECKS[name].run(device)}
    except CheckError as failure:
        return {"reason": str(failure), "numbers": failure.numbers}


def run_checks(names: list[str], device: str, seconds: float) -> dict[str, dict[str, Any]]:
    """The outcome of each check by name, a line printed as each is done; all together take no longer than `seconds`."""
    outcomes, end = dict[str, dict[str, Any]](), time.monotonic() + seconds
    for name in names:
        check, left = CHECKS[name], end - time.monotonic()
        if device == "cpu" and check.needs_cuda:
            outcomes[name] = {"state": LEFT_OUT, "seconds": 0.0, "reason": "it needs a CUDA device"}
        elif left < 1:
            outcomes[name] = {"state": FAILED, "seconds": 0.0, "reason": "no time was left for it"}
        else:
            outcomes[name] = outcome_of(name, device, min(check.limit, left) if device == "cuda" else left)
        print(line_of(name, outcomes[name]), flush=True)
    return outcomes


def line_of(name: str, outcome: dict[str, Any]) -> str:
    """A row of the table."""
    numbers = outcome.get("numbers", {})
    plain = [f"{key} {_short(value)}" for key, value in numbers.items() if not isinstance(value, dict | list)]
    words = outcome["reason"] or ", ".join(plain) or CHECKS[name].about
    return f"{outcome['state']:<9}{name:<11}{outcome['seconds']:>7.1f} s  {words}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def versions() -> dict[str, str | None]:
    """Of everything that the numbers depend on; None for what is not installed."""
    try:
        triton: str | None = __import__("triton").__version__
    except ImportError:
        triton = None
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else None
    return {
        "vlmdsl": installed_version(),
        "commit": commit_of(ROOT),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.cuda.is_available() else None,
        "nccl": nccl,
        "triton": triton,
    }


def device_facts(device: str) -> dict[str, Any]:
    """The hardware that was measured."""
    if device == "cpu":
        return {"name": hardware("cpu"), "cores": os.cpu_count()}
    facts = torch.cuda.get_device_properties(0)
    return {
        "name": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "memory_gib": round(facts.total_memory / 2**30, 1),
        "bfloat16": torch.cuda.is_bf16_supported(),
    }


def written(outcomes: dict[str, dict[str, Any]], device: str, folder: Path) -> Path:
    """The results as a file of `folder`; checks that were not run now stay as they were with the same versions."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = folder / f"gpu_{hardware(device)}_{today}.json"
    made_of = {"device": device_facts(device), "versions": versions()}
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
    same = all(stored.get(name) == value for name, value in made_of.items())
    checks = (stored["checks"] if same else {}) | outcomes
    result = {
        **made_of,
        "date": today,
        "seconds": round(sum(outcome["seconds"] for outcome in checks.values()), 1),
        "passed": all(outcome["state"] == PASSED for outcome in checks.values()) and checks.keys() == CHECKS.keys(),
        "checks": {name: checks[name] for name in CHECKS if name in checks},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, print the table, write the file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = "".join(f"\n  {name:<11}{check.about}" for name, check in CHECKS.items())
    parser.epilog = f"checks:{names}"
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=600.0, help="for all checks together")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--own", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        built = "built without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        print(
            f"there is no CUDA device: torch {torch.__version__}, {built}, sees none, so that nothing was checked",
            file=sys.stderr,
        )
        print(
            "`vlmdsl doctor` says what this machine has; `--device cpu` tries the checks that a CPU can run", file=sys.stderr
        )
        return 2
    if options.own:
        options.out.write_text(json.dumps(own_outcome(options.own, options.device)), encoding="utf-8")
        return 0
    outcomes = run_checks(options.only, options.device, options.seconds)
    path = written(outcomes, options.device, options.out)
    print(f"written to {path}")
    return int(any(outcome["state"] == FAILED for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
