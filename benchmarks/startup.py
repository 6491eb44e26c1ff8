"""What the language commands take from a cold start, as ratios to importing the libraries that they are made with.

    python benchmarks/startup.py --rounds 15
    python benchmarks/startup.py --rounds 31 --against e556962    # every command beside the same one of another commit

The baseline is `python -c "import click, pydantic, lark"`. Measured is the processor time of a whole process, whose byte
code and tables of the grammar are written already. The baseline and every command run once per round; a ratio is the
median over rounds of the ratio within the round, so that a busy machine disturbs all alike. `pydantic model` imports the
same libraries, defines one model and validates one value, as every command does that elaborates a recipe: the least that
such a command can take.

With `--against` each command runs once per round with the files of both commits, which take turns to be first; the ratio is
the median of the ratios within the rounds, with its 95 % bootstrap interval.
The result is printed and written to `benchmarks/results/startup.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from commits import ROOT, commit_of, files_of, paths_of
from contrast import ratio_with_interval

RESULT = ROOT / "benchmarks" / "results" / "startup.json"
BASELINE = "baseline"
LIBRARIES = ("click", "pydantic", "lark")

MODEL = (
    "import click, lark; from pydantic import BaseModel; "
    "Model = type('Model', (BaseModel,), {'__annotations__': {'x': int}, '__module__': '__main__'}); Model(x=1)"
)
COMMANDS = {
    BASELINE: ["-c", f"import {', '.join(LIBRARIES)}"],
    "pydantic model": ["-c", MODEL],
    **{
        command: ["-m", "vlmdsl", *command.split()]
        for command in (
            "check clip", "fmt --check recipes/clip.vlo", "recipes", "emit clip", "plan filip --batch 4096 --world 8",
            "explain clip", "explain V0304", "diff clip align", "train --help",
        )
    },
}  # fmt: skip


def milliseconds(command: list[str], tree: Path = ROOT) -> float:
    """Processor time of one run with the files of `tree`, the kernel's share included."""
    # Users have byte code; some machines for development are told not to write any.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= paths_of(tree) | {"PYDANTIC_DISABLE_PLUGINS": "__all__"}  # as `vlmdsl` does
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, env=environment, capture_output=True, cwd=tree)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds and median ratio of every command, with the smallest and largest ratio."""
    for command in COMMANDS.values():
        milliseconds(command)
    taken = [{name: milliseconds(command) for name, command in COMMANDS.items()} for _ in range(rounds)]
    rows = {}
    for name in COMMANDS:
        ratios = sorted(of_round[name] / of_round[BASELINE] for of_round in taken)
        rows[name] = {
            "milliseconds": round(statistics.median(of_round[name] for of_round in taken), 1),
            "ratio": round(statistics.median(ratios), 2),
            "smallest": round(ratios[0], 2),
            "largest": round(ratios[-1], 2),
        }
    return rows


def compare(before: Path, rounds: int) -> dict[str, dict[str, object]]:
    """Median milliseconds of every command with the files of `before` and with these, and their ratio."""
    rows: dict[str, dict[str, object]] = {}
    for name in (name for name, command in COMMANDS.items() if command[0] == "-m"):
        taken: dict[Path, list[float]] = {before: [], ROOT: []}
        for tree in taken:
            milliseconds(COMMANDS[name], tree)
        for turn in range(rounds):
            for tree in sorted(taken, reverse=bool(turn % 2)):
                taken[tree].append(milliseconds(COMMANDS[name], tree))
        ratio, interval = ratio_with_interval(taken[ROOT], taken[before])
        rows[name] = {
            "before": round(statistics.median(taken[before]), 1),
            "milliseconds": round(statistics.median(taken[ROOT]), 1),
            "ratio": round(ratio, 3),
            "interval": [round(bound, 3) for bound in interval],
        }
        print(f"{name:34} {ratio:6.3f} times before [{interval[0]:.3f} to {interval[1]:.3f}]")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", metavar="COMMIT", help="compare every command with that of this commit")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = measure(options.rounds)
    versions = {name: version(name) for name in LIBRARIES}
    result = {
        "commit": commit_of(ROOT),
        "rounds": options.rounds,
        "python": platform.python_version(),
        "versions": versions,
        "commands": rows,
    }
    if options.against:
        with files_of(options.against) as tree:
            compared = compare(tree, options.rounds)
            result["against"] = {"commit": commit_of(tree), "commands": compared}
    options.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, row in rows.items():
        print(f"{name:34} {row['milliseconds']:7.1f} ms {row['ratio']:6.2f} [{row['smallest']:.2f} to {row['largest']:.2f}]")


if __name__ == "__main__":
    main()
