"""What a data source holds in memory for each of its samples, and how long it takes to open.

    python benchmarks/source_memory.py [--samples 5000000] [--layouts shards table ...] [--name after]

Each case opens its source in a process of its own. Measured is by how much the resident memory has grown once the source
stands and freed memory is given back (`bytes_per_sample`), the most it grew in the meantime (`peak_mib`), the CPU seconds
until it stood (`open_s`), those of one pass over all keys (`keys_s`), and the microseconds of CPU time at random places to
read the columns of a sample without its image and then its key, as a loader does (`read_us`), and the key alone (`key_us`).
Files are in the page cache: they were written just before.

The samples are written under `--folder` and removed again; no image is real. Shards are hard links to one file of 10,000
samples (an image of no bytes and a text of twelve), under as many names as are needed: 20 MB on disk, yet every one is read
as a shard of its own, with keys of its own. Images of a folder are hard links, too. A table is a file of its full size. File
names are numbered, except in layouts that say how they are drawn: `-hex` is 32 hexadecimal digits, `-uuid` the same with
dashes. `shards-scattered` writes all images of a shard before all texts, and `twice` opens the same shards under two
specifications, so that every second key comes again; `joined` is half in shards, the rest in two tables. `order` is not a
source but the order of one epoch, of which the first batch was cut; `stream` reads the shards from front to back
(`data.stream`), 16 at a time, and its time is that to the first batch of 4,096.
Results are printed and added to `benchmarks/results/source_memory.json` under `--name`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "source_memory.json"
SHARD = 10_000
LINKS = 60_000
"""Names that one file may have at most on usual file systems: 65,000."""
PROBES = 2000
BATCH = 4096


def write_shard(path: Path, names: Iterable[str], scattered: bool = False) -> None:
    """An image of no bytes and a short text for each name; `scattered`: all images first."""
    members = [(f"{name}.{ending}", data) for name in names for ending, data in (("jpg", b""), ("txt", b"a photo of 1"))]
    if scattered:
        members.sort(key=lambda member: member[0][-3:])
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


def names_of(kind: str, count: int) -> list[str]:
    """So many file names: drawn as `hex` or `uuid`, or numbered."""
    draw = random.Random(0)
    if kind == "uuid":
        return [str(uuid.UUID(int=draw.getrandbits(128))) for _ in range(count)]
    return [f"{draw.getrandbits(128):032x}" if kind == "hex" else f"{index:09d}" for index in range(count)]


def write_shards(folder: Path, samples: int, kind: str = "", scattered: bool = False) -> list[str]:
    """Shards of 10,000 samples each: one file under many names."""
    write_shard(folder / "first", names_of(kind, min(SHARD, samples)), scattered)
    for number in range(-(-samples // SHARD)):
        os.link(folder / "first", folder / f"p-{number:05d}.tar")
    return [str(folder / "*.tar")]


def write_table(folder: Path, samples: int) -> list[str]:
    with open(folder / "table.csv", "w", encoding="utf-8") as file:
        file.write("image,text,label\n")
        file.writelines(f'images/{row:09d}.jpg,"a photo, number {row}",{row % 1000}\n' for row in range(samples))
    return [str(folder / "table.csv")]


def write_json_lines(folder: Path, samples: int) -> list[str]:
    with open(folder / "table.jsonl", "w", encoding="utf-8") as file:
        file.writelines(f'{{"image": "images/{row:09d}.jpg", "text": "photo {row}"}}\n' for row in range(samples))
    return [str(folder / "table.jsonl")]


def write_images(folder: Path, samples: int, kind: str = "") -> list[str]:
    """A subfolder for each of 500 classes, an image in it for each sample, all empty."""
    seeds, images = folder / "seeds", folder / "images"
    for each in (seeds, images):
        each.mkdir()
    per_class = -(-samples // 500)
    draw = random.Random(0)
    for number in range(samples):
        if number % LINKS == 0:
            file = seeds / str(number)
            file.touch()
        label = number // per_class
        if number % per_class == 0:
            (images / f"n{label:08d}").mkdir()
        name = uuid.UUID(int=draw.getrandbits(128)) if kind == "uuid" else f"n{label:08d}_{number % per_class}"
        os.link(file, images / f"n{label:08d}" / f"{name}.jpg")
    return [str(images)]


def write_joined(folder: Path, samples: int, kind: str = "") -> list[str]:
    """Half of the samples in shards, a quarter in each of two tables."""
    for name in ("shards", "one", "two"):
        (folder / name).mkdir()
    return [
        *write_shards(folder / "shards", samples // 2, kind),
        *write_table(folder / "one", samples // 4),
        *write_json_lines(folder / "two", samples // 4),
    ]


LAYOUTS: dict[str, Callable[[Path, int], list[str]]] = {
    "shards": write_shards,
    "shards-hex": partial(write_shards, kind="hex"),
    "shards-uuid": partial(write_shards, kind="uuid"),
    "shards-scattered": partial(write_shards, scattered=True),
    "table": write_table,
    "json-lines": write_json_lines,
    "folder": write_images,
    "folder-uuid": partial(write_images, kind="uuid"),
    "joined": write_joined,
    "joined-uuid": partial(write_joined, kind="uuid"),
    "twice": lambda folder, samples: 2 * write_shards(folder, samples // 2),
    "order": lambda folder, samples: [],
    "stream": write_shards,
}


def first_of_order(_specs: list[str], samples: int) -> tuple[object, list[int]]:
    """The order of an epoch, and the places of its first batch."""
    from vlmdsl.runtime.data.order import Order

    order = Order(samples, BATCH, 0)
    place = order.place(0, 0)
    return order, [next(order.candidates(place, slot)) for slot in range(BATCH)]


def first_of_stream(specs: list[str], _samples: int) -> tuple[object, list[int]]:
    """The lanes of a stream, and the places of its first batch."""
    from vlmdsl.runtime.data import open_stream
    from vlmdsl.runtime.data.lanes import lanes_of

    stream = open_stream(specs)
    assert len(stream.head)
    turns = lanes_of(stream, batch=BATCH, lanes=16, window=1000, seed=0, rank=0, world=1)
    return turns, [place for lane in turns[0] for place in lane.chunk(0).places]


FIRST_BATCHES = {"order": first_of_order, "stream": first_of_stream}


def resident() -> int:
    """Bytes that this process holds, what is freed given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(layout: str, specs: list[str], samples: int) -> dict[str, Any]:
    """The figures of one case; for a process of its own."""
    from vlmdsl.runtime.data import Limits, open_source
    from vlmdsl.schema import DataConfig

    with tempfile.TemporaryDirectory() as small:  # what is imported on the way, and what any source keeps
        deque(open_source(LAYOUTS[layout](Path(small), SHARD) or "shapes:samples=1").keys, maxlen=0)
    before = resident()
    start = time.process_time()
    if layout in FIRST_BATCHES:
        _kept, places = FIRST_BATCHES[layout](specs, samples)
        elapsed = time.process_time() - start
        assert len(set(places)) == BATCH
        return row(samples, before, elapsed)
    source = open_source(specs, limits=Limits.of(DataConfig(max_table_bytes=2**33)))
    elapsed = time.process_time() - start
    figures = row(len(source), before, elapsed)
    start = time.process_time()
    deque(source.keys, maxlen=0)
    figures["keys_s"] = round(time.process_time() - start, 2)
    draw = random.Random(0)
    places = [[draw.randrange(len(source)) for _ in range(PROBES)] for _ in range(2)]
    start = time.process_time()
    for index in places[0]:
        source[index], source.keys[index]
    figures["read_us"] = round((time.process_time() - start) / PROBES * 1e6, 1)
    start = time.process_time()
    for index in places[1]:
        source.keys[index]
    return figures | {"key_us": round((time.process_time() - start) / PROBES * 1e6, 1)}


def row(samples: int, before: int, elapsed: float) -> dict[str, Any]:
    peak = most_resident() - before
    return {
        "samples": samples,
        "bytes_per_sample": round((resident() - before) / samples, 1),
        "peak_mib": round(peak / 2**20),
        "open_s": round(elapsed, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5_000_000)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), metavar="LAYOUT")
    parser.add_argument("--folder", type=Path, help="where the samples are written; a temporary folder by default")
    parser.add_argument("--name", help="under which name results are kept; without it they are printed only")
    parser.add_argument("--own", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own is not None:
        print(json.dumps(measure(options.own[0], options.own[1:], options.samples)))
        return
    for layout in options.layouts:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            specs = LAYOUTS[layout](folder, options.samples)
            command = [sys.executable, __file__, "--samples", str(options.samples), "--own", layout, *specs]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        finally:
            shutil.rmtree(folder)
        print(f"{layout:<18}" + "  ".join(f"{name} {value:,}" for name, value in figures.items()), flush=True)
        if options.name:
            keep(options.name, layout, figures)


def keep(name: str, layout: str, figures: dict[str, Any]) -> None:
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    results.setdefault(name, {"python": platform.python_version()})[layout] = figures
    RESULT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
