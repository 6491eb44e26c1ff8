"""Reads 400 damaged data sets, each to the end or to the diagnostic, in bounded memory; prints one line of JSON per case."""

from __future__ import annotations

import itertools
import json
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import unit.runtime.data.damage.folders
import unit.runtime.data.damage.shards
import unit.runtime.data.damage.tables  # noqa: F401 - they enter their cases
from batches import loaded_values, streams_in_forms
from unit.runtime.data.damage.cases import CASES
from vlmdsl.api.driver import build
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import streams
from vlmdsl.runtime.data import (
    BatchLoader,
    EvaluationLoader,
    Loaded,
    Materials,
    map_fields,
    open_source,
    requirements,
    survey,
    texts_of,
    view_of,
)
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat

SEEDS = 400
SECONDS = 20
MEMORY = 3 * 2**29
PROGRAM = build("clip").planned
NEEDS = requirements(PROGRAM)
FIELDS = {need.field: need.kind for need in NEEDS}
BATCH = 4


def read(spec: str) -> dict[str, object]:
    """What a run does with data before and while it trains."""
    source = open_source(spec)
    mapping = map_fields(source, NEEDS)
    tokenizer = train_tokenizer(texts_of(source, mapping, ["text"]), 300)
    forms = ImageFormat(16), tokenizer, 16
    readings = streams_in_forms(streams(PROGRAM), *forms)
    values = {reading.name: Loaded(view_of(reading.source), reading.form) for reading in readings}
    surveyed = survey(source, mapping, FIELDS, values, materials=Materials(), batch=BATCH, max_bad_share=0.5)
    json.dumps([surveyed.lines(), surveyed.as_dict(), surveyed.lines(training=False)]).encode()
    loader = BatchLoader(source, mapping, readings, batch=BATCH, max_bad_share=0.5)
    for batch in itertools.islice(loader, 2):
        assert len(set(batch.keys)) == len(batch) == BATCH
        assert all(bool(torch.isfinite(part.float()).all()) for value in batch.values.values() for part in value)
    evaluated = EvaluationLoader(source, mapping, loaded_values(FIELDS, *forms), batch=BATCH)
    used = sum(len(batch) for batch in evaluated)
    assert used + len(evaluated.report.samples) == len(source)
    text = evaluated.report.table() + json.dumps(evaluated.report.as_dict(), ensure_ascii=False)
    text.encode()
    assert not any(character in text for character in "\x1b\x07\u202e")
    return {"outcome": "read", "used": used, "skipped": evaluated.report.counts, "remarks": surveyed.remarks}


def error_outcome(error: DiagnosticError) -> dict[str, object]:
    """The code and the message of a diagnostic."""
    first = error.diagnostics[0]
    "\n".join((first.message, *first.notes, *first.help)).encode("utf-8", "surrogatepass")
    return {"outcome": first.code, "message": first.message}


def outcome(name: str, seed: int, folder: Path) -> dict[str, object]:
    """One case."""
    spec = CASES[name].make(np.random.default_rng(seed), folder)
    start = time.process_time()
    signal.alarm(SECONDS)
    try:
        result = read(spec)
    except DiagnosticError as error:
        result = error_outcome(error)
    except BaseException as error:
        result = {"outcome": "crash", "message": f"{type(error).__name__}: {error}"}
    signal.alarm(0)
    return {**result, "case": name, "seed": seed, "legal": CASES[name].legal, "seconds": time.process_time() - start}


def timed_out(_number: int, _frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def main() -> None:
    """All cases, in a process with little memory."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, timed_out)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    names = list(CASES)
    for seed in range(SEEDS):
        folder = Path(tempfile.mkdtemp()) / "data"
        folder.mkdir()
        print(json.dumps(outcome(names[seed % len(names)], seed, folder)), flush=True)
        shutil.rmtree(folder.parent)
    print(json.dumps({"peak": peak(), "cases": len(names)}))


def peak() -> int:
    """The most bytes that this program has held; not `ru_maxrss`, which begins with those of the program that started it."""
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return int(line.group(1)) * 1024


if __name__ == "__main__":
    sys.exit(main())
