"""How long the language commands take from a cold start, and as a ratio to an empty Python process of the same round.

`python benchmarks/startup.py [--rounds N] [--json]`. The rounds alternate over the commands, so a busy machine slows all
of them alike; the median of the rounds counts. Processor time is what a quiet machine would take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "check": ["check", "clip"],
    "fmt": ["fmt", "--check", "recipes/clip.vlo"],
    "explain": ["explain", "filip"],
    "explain a code": ["explain", "V0304"],
    "plan": ["plan", "filip", "--batch", "4096", "--world", "8"],
    "recipes": ["recipes"],
    "train --help": ["train", "--help"],
}


# Users have byte code; some machines for development are told not to write any.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, env=ENVIRONMENT, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """For every command the median seconds, wall and processor, and the median ratio to `python -c pass`."""
    for arguments in COMMANDS.values():
        seconds(["-m", "vlmdsl", *arguments])  # the first run writes byte code and the cached grammar tables
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        empty, _processor = seconds(["-c", "pass"])
        for name, arguments in COMMANDS.items():
            wall, processor = seconds(["-m", "vlmdsl", *arguments])
            taken[name].append((wall, processor, wall / empty))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in taken.items()}
    return {
        name: {"seconds": round(wall, 3), "processor": round(processor, 3), "ratio": round(ratio, 1)}
        for name, (wall, processor, ratio) in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, row in result.items():
        print(
            f"{name:15} {row['seconds']:6.3f} s {row['processor']:6.3f} s of processor {row['ratio']:6.1f} x python -c pass"
        )


if __name__ == "__main__":
    main()
