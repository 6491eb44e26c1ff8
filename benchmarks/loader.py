"""What loading costs beside decoding: samples per second of CPU time, against a loop that does nothing else.

    python benchmarks/loader.py [--samples 512] [--batches 72] [--side 224] [--check]

A shard of JPEG images with captions is written: photographs are noise at low frequencies here, of about 90 KB and 500 x 375
pixels, as those of COCO. `bare` reads the shard with `tarfile`, decodes each image with Pillow, cuts out the middle,
resizes it to the side of the tower, and stacks them as levels; it reads no text, checks nothing and shuffles nothing. `ours`
is the loader of a run of CLIP, in random order from the index: limits, draws, captions as tokens, levels standardised in
float32; without a cache of decoded images. Batches of both are made in turn, on one core each, 72 of each by default; the
best of each counts for the samples per second, and `share`, of the bare loop's, is the median over the pairs of batches.
`shares` are its quartiles. `waiting_share_with_workers` is of the wall time of a consumer that computes
a little longer than a batch takes to load: how much of it it waits, with the loader in its own process and in another one.
The last depends on a second core that nothing else uses.

`--check` ends with 1 if the share is below 0.9. Results are written to `benchmarks/results/loader.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # as in a worker process: one core

import numpy as np
import torch
from PIL import Image

from vlmdsl.api.driver import build
from vlmdsl.ir import Reading, streams
from vlmdsl.runtime.data import BatchLoader, map_fields, open_source, requirements
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat, TextFormat

RESULT = Path(__file__).parent / "results" / "loader.json"
LEAST = 0.9
BATCH = 64
SIZE = (500, 375)


def write_shard(path: Path, samples: int) -> None:
    """Images with captions of ten words."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for index in range(samples):
            noise = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize(
                SIZE, Image.Resampling.BICUBIC
            )
            file = io.BytesIO()
            noise.save(file, "JPEG", quality=92)
            caption = " ".join(f"word{number}" for number in random.integers(0, 200, 10))
            for ending, data in (("jpg", file.getvalue()), ("txt", caption.encode())):
                header = tarfile.TarInfo(f"{index:06d}.{ending}")
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))


def bare(path: Path, side: int) -> Iterator[torch.Tensor]:
    """Levels `uint8 [64, 3, S, S]`, over and over."""
    images: list[np.ndarray] = []
    while True:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.name.endswith(".jpg"):
                    continue
                file = archive.extractfile(member)
                assert file is not None
                image = Image.open(io.BytesIO(file.read())).convert("RGB")
                shorter = min(image.size)
                left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
                box = (left, top, left + shorter, top + shorter)
                images.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box)))
                if len(images) == BATCH:
                    yield torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
                    images.clear()


def ours(path: Path, side: int, workers: int) -> BatchLoader:
    """The loader of a run of CLIP."""
    program = build("clip").planned
    source = open_source(str(path))
    mapping = map_fields(source, requirements(program))
    tokenizer = train_tokenizer([f"word{number}" for number in range(200)], 1000)
    forms = {"Image": ImageFormat(side), "Text": TextFormat(tokenizer, 32)}
    readings = [Reading(stream.name, stream.source, forms[stream.encoder.kind]) for stream in streams(program)]
    return BatchLoader(source, mapping, readings, batch=BATCH, workers=workers, cache_bytes=0)


def cpu_seconds(loops: Mapping[str, Iterator[object]], count: int) -> dict[str, list[float]]:
    """CPU time of each batch of each loop, in turn, after two of each that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(count + 2):
        for name, batches in loops.items():
            start = time.process_time()
            next(batches)
            times[name].append(time.process_time() - start)
    return {name: own[2:] for name, own in times.items()}


def waiting_share(loader: BatchLoader, count: int, busy: Callable[[], float]) -> float:
    """The share of the wall time in which a consumer waits that computes as long as a batch takes to load."""
    batches = iter(loader)
    next(batches)
    start, waited = time.perf_counter(), 0.0
    for _ in range(count):
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
        busy()
    return waited / (time.perf_counter() - start)


def computing(seconds: float) -> Callable[[], float]:
    """Work of so many seconds of CPU time."""

    def busy() -> float:
        start, total = time.process_time(), 0.0
        while time.process_time() - start < seconds:
            total += float(np.dot(np.ones(1000), np.ones(1000)))
        return total

    return busy


def main() -> int:
    """Measure, print, write; 1 with `--check` where the loader is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batches", type=int, default=72, help="how many of each are timed")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.tar"
        write_shard(path, options.samples)
        size = path.stat().st_size / options.samples
        loops = {"bare": bare(path, options.side), "ours": iter(ours(path, options.side, 0))}
        times = cpu_seconds(loops, options.batches)
        best = {name: min(own) for name, own in times.items()}
        busy = computing(1.2 * best["ours"])
        waits = {f"{workers}": waiting_share(ours(path, options.side, workers), 8, busy) for workers in (0, 1)}
    shares = statistics.quantiles((one / two for one, two in zip(times["bare"], times["ours"], strict=True)), n=4)
    result = {
        "machine": platform.processor() or platform.machine(),
        "samples": options.samples,
        "bytes_per_sample": round(size),
        "side": options.side,
        "samples_per_second": {name: round(BATCH / seconds, 1) for name, seconds in best.items()},
        "share": round(shares[1], 3),
        "shares": [round(share, 3) for share in shares],
        "waiting_share_with_workers": {name: round(share, 3) for name, share in waits.items()},
    }
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return int(options.check and result["share"] < LEAST)


if __name__ == "__main__":
    sys.exit(main())
