"""Writing captions with a key/value cache and without: the time of both, and their ratio.

    python benchmarks/decoding.py [--rounds 3]

The text decoder has the sizes of `tiny` and `base` towers (12 blocks, width 768, a vocabulary of 30,522 entries) and attends
to the tokens of an image of 64 and of 197. It writes texts of 20 and of 64 tokens, greedily and with three beams, none of
which ends earlier. Each form writes once in a round, in turns, at one thread; given are the medians over the rounds of the
CPU seconds and of the ratio. First a gate: both write the same tokens with the same log-probability. The result is printed
and written to `benchmarks/results/decoding.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmdsl.ir.modules import TextDecoderSettings
from vlmdsl.runtime.evaluation.generation import Written, write
from vlmdsl.runtime.modules import TextDecoderTower
from vlmdsl.runtime.modules.towers import KeyValueCache
from vlmdsl.runtime.values import TextBatch

RESULT = Path(__file__).parent / "results" / "decoding.json"
LONGEST = 64


@dataclass(frozen=True)
class Size:
    """A decoder, the tokens of an image that it attends to, and how many images it writes of at once."""

    depth: int
    width: int
    vocabulary: int
    context: int
    images: int


SIZES = {"tiny": Size(2, 64, 1024, 64, 32), "base": Size(12, 768, 30_522, 197, 2)}


class Writer:
    """A decoder with random weights and random images; `writer(tokens, beams, cached)` is what it writes of them."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        settings = TextDecoderSettings(depth=size.depth, width=size.width)
        self.tower = TextDecoderTower(settings, size.width, size.vocabulary, LONGEST, size.width, size.width).eval()
        for parameter in self.tower.parameters():  # so that likely tokens differ from text to text
            parameter.data += 0.02 * torch.randn_like(parameter)
        self.images = torch.randn(size.images, size.context, size.width)
        self.first = TextBatch(torch.zeros(size.images, 1, dtype=torch.long), torch.ones(size.images, 1, dtype=torch.bool))

    @torch.no_grad()
    def __call__(self, tokens: int, beams: int, *, cached: bool) -> Written:
        cache = KeyValueCache(tokens) if cached else None
        head = self.tower.vocabulary_head
        assert head is not None

        def following(texts: TextBatch, samples: Tensor) -> Tensor:
            context = self.images if cached else self.images[samples]
            states = self.tower(texts.ids, texts.mask, context=context, cache=cache).states
            assert states is not None
            logits: Tensor = head(states[:, -1])
            return logits

        return write(following, self.first, end=None, longest=tokens, beams=beams, cache=cache)


def measured(writer: Writer, tokens: int, beams: int, rounds: int) -> dict[str, Any]:
    """The seconds of both forms, and how many times as fast the one with a cache is."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        results = {}
        for cached in (True, False):
            start = time.process_time()
            results[cached] = writer(tokens, beams, cached=cached)
            seconds[cached].append(time.process_time() - start)
        if results[True].tokens != results[False].tokens:
            raise SystemExit(f"{tokens} tokens, {beams} beams: the cache changes what is written")
        torch.testing.assert_close(results[True].scores, results[False].scores, rtol=1e-5, atol=1e-4)
    ratios = [without / own for own, without in zip(seconds[True], seconds[False], strict=True)]
    return {
        "with_cache": round(statistics.median(seconds[True]), 4),
        "without": round(statistics.median(seconds[False]), 4),
        "times_as_fast": round(statistics.median(ratios), 2),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, size in SIZES.items():
        writer = Writer(size)
        for tokens in (20, LONGEST):
            for beams in (1, 3):
                row = measured(writer, tokens, beams, options.rounds)
                rows.append({"size": name, "tokens": tokens, "beams": beams, **row})
                print("  ".join(f"{what} {value}" for what, value in rows[-1].items()), flush=True)
    record = {
        "rounds": options.rounds,
        "sizes": {name: asdict(size) for name, size in SIZES.items()},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rows": rows,
    }
    options.result.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
