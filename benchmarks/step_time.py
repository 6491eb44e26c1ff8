"""The time of a training step and of a loaded batch at two commits, which take turns step by step.

    python benchmarks/step_time.py e556962                    # a commit and the working tree
    python benchmarks/step_time.py e556962 main --recipes clip filip --steps 40

Each side trains in a process of its own, from its own files, with the tiny towers on JPEG images in tar shards. Measured is
CPU time: that of the loader (reading, decoding, views, tokens, collating), in the same process, and that of the rest of the
step. The sides take turns at every step, so that a busy machine disturbs both alike; a ratio is the median over steps of
the ratio within the step, after to before, with a 95 % bootstrap interval. `columns_us` is what reading a sample without its
image and its key takes, at random places of the shards.
The result is printed and added to `benchmarks/results/step_time.json`, unless that is of other commits.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from compare_commits import files_of
from contrast import ratio_with_interval
from PIL import Image

RESULT = Path(__file__).parent / "results" / "step_time.json"
SIDE = """
import json, os, random, sys, time

import vlmdsl
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.data.loader import BatchLoader

recipe, data, out, settings = json.loads(sys.argv[1])
results = os.fdopen(int(sys.argv[2]), "w", buffering=1)
source, draw = open_source(data), random.Random(0)
for places in ([draw.randrange(len(source)) for _ in range(2000)] for _ in range(2)):
    start = time.process_time()
    for place in places:
        source[place], source.keys[place]
    columns = (time.process_time() - start) / len(places)
print(json.dumps(columns), file=results)

original = BatchLoader.__iter__

def in_turns(self):
    batches = original(self)
    while sys.stdin.readline():
        start = time.process_time()
        batch = next(batches)
        loaded = time.process_time()
        yield batch
        print(json.dumps([loaded - start, time.process_time() - loaded]), file=results)
    os._exit(0)

BatchLoader.__iter__ = in_turns
vlmdsl.train(recipe, data=[data], steps=10**6, settings=settings, out=out)
"""
"""What each side executes: a line on its standard input is its turn."""

SETTINGS: dict[str, object] = {
    "train.compile": False,
    "train.device": "cpu",
    "train.log_every": 10,
    "train.checkpoint_every": 10**6,
    "model.image_size": 64,
    "model.text_length": 32,
}
SHARD, SHARDS = 400, 40
WORDS = ("a", "the", "dog", "cat", "on", "red", "table", "near", "house", "photo", "of", "two", "small", "bicycles", "with")


def write_shards(folder: Path) -> str:
    """Shards of JPEG images with a side of 256 and captions of 4 to 15 words; one file under many names."""
    draw, noise = random.Random(0), np.random.default_rng(0)
    with tarfile.open(folder / "s-000.tar", "w") as archive:
        for index in range(SHARD):
            file = io.BytesIO()
            small = Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            small.resize((256, 256), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            caption = " ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 15)))
            for ending, data in (("jpg", file.getvalue()), ("txt", caption.encode())):
                header = tarfile.TarInfo(f"{index:06d}.{ending}")
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    for number in range(1, SHARDS):
        os.link(folder / "s-000.tar", folder / f"s-{number:03d}.tar")
    return str(folder / "*.tar")


class Side:
    """The training process of one side."""

    def __init__(self, tree: Path, recipe: str, data: str, out: Path, settings: dict[str, object]) -> None:
        paths = os.pathsep.join(str(tree / part) for part in ("", "cli"))
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        read, write = os.pipe()
        arguments = json.dumps([recipe, data, str(out), settings])
        command = [sys.executable, "-c", SIDE, arguments, str(write)]
        self._log = open(out.with_suffix(".log"), "w+", encoding="utf-8")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
            pass_fds=(write,), text=True,
        )  # fmt: skip
        os.close(write)
        self._results = os.fdopen(read)
        self.columns: float = self._next()

    def step(self) -> tuple[float, float]:
        """The CPU seconds of the loader and of the rest of one step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        loader, rest = self._next()
        return loader, rest

    def _next(self) -> Any:
        line = self._results.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"training failed:\n{self._log.read()[-4000:]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process, which waits for its turn."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()
        self._results.close()


def measure(trees: list[Path], recipe: str, data: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of one recipe: milliseconds of both sides, and ratios."""
    settings = SETTINGS | {"train.batch": options.batch, "train.compile": options.compile}
    with ExitStack() as stack:
        sides = []
        for name, tree in zip(("before", "after"), trees, strict=True):
            sides.append(Side(tree, recipe, data, folder / f"{recipe}-{name}", settings))
            stack.callback(sides[-1].close)
        turns = []
        for turn in range(options.warmup + options.steps):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            taken = {number: sides[number].step() for number in order}
            turns.append((taken[0], taken[1]))
        columns = [round(1e6 * side.columns, 1) for side in sides]
    figures: dict[str, Any] = {"steps": options.steps, "columns_us": columns}
    for place, name in enumerate(("loader", "step")):
        before, after = ([turn[side][place] for turn in turns[options.warmup :]] for side in (0, 1))
        ratio, interval = ratio_with_interval(after, before)
        figures[name] = {
            "milliseconds": [round(1e3 * statistics.median(times), 2) for times in (before, after)],
            "ratio": round(ratio, 3),
            "interval": [round(bound, 3) for bound in interval],
        }
    return figures


def commit_of(tree: Path) -> str:
    """The commit that a work tree has checked out."""
    command = ["git", "rev-parse", "--short=9", "HEAD"]
    return subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", help="another one; the working tree if it is left out")
    parser.add_argument("--recipes", nargs="+", default=["clip", "siglip", "filip", "declip"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trees = [stack.enter_context(files_of(commit)) for commit in (options.before, options.after)]
        (folder / "data").mkdir()
        data = write_shards(folder / "data")
        rows = {}
        for recipe in options.recipes:
            rows[recipe] = measure(trees, recipe, data, options, folder)
            print(f"{recipe}: {json.dumps(rows[recipe])}", flush=True)
        commits = [commit_of(tree) for tree in trees]
    setting = {"commits": commits, "batch": options.batch, "compiled": options.compile, "settings": SETTINGS}
    setting |= {"python": platform.python_version()}
    stored = json.loads(options.result.read_text("utf-8")) if options.result.exists() else {}
    if all(stored.get(name) == value for name, value in setting.items()):
        rows = stored["recipes"] | rows
    options.result.write_text(json.dumps({**setting, "recipes": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
