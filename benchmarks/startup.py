"""How long the language commands take from a cold start, as a ratio to an empty Python process of the same round.

`python benchmarks/startup.py [--rounds N] [--json]`. The rounds alternate over the commands, so a busy machine slows all
of them alike; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
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


def seconds(command: list[str]) -> float:
    """Wall seconds of one run."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """For every command the median seconds and the median ratio to `python -c pass`."""
    for arguments in COMMANDS.values():
        seconds(["-m", "vlmdsl", *arguments])  # the first run writes byte code and the cached grammar tables
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    ratios: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        empty = seconds(["-c", "pass"])
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(["-m", "vlmdsl", *arguments]))
            ratios[name].append(taken[name][-1] / empty)
    return {
        name: {"seconds": round(statistics.median(taken[name]), 3), "ratio": round(statistics.median(ratios[name]), 1)}
        for name in COMMANDS
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
        print(f"{name:15} {row['seconds']:6.3f} s {row['ratio']:6.1f} x python -c pass")


if __name__ == "__main__":
    main()
