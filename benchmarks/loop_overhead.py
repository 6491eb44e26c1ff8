"""What the training loop adds to a step, beside a loop by hand: CLIP with the same towers, batches and optimiser.

    python benchmarks/loop_overhead.py
    python benchmarks/loop_overhead.py --batch 128 --steps 100 --compile

`vlmdsl train clip` and the loop below train copies of one model on the same batches, which are loaded before, and take turns
at every step; each comes first in half of the steps, since the second one finds the batch in the caches. The loop by hand
has what such loops have: learning rate, loss, gradient, its norm clipped, AdamW, the clamped temperature, a line of log
every ten steps; its loss is that of `hand_written.py`, compiled where the other is. Measured is CPU time of this process; a
ratio is the median over steps of that within the step, ours to theirs, with a 95 % bootstrap interval. The weights of both
must be the same after the first steps, or nothing is reported: each step lets two orders of summation drift further apart.
The result is printed and written to `benchmarks/results/loop_overhead.json`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contrast import ratio_with_interval
from hand_written import usual
from torch import Tensor, nn

import vlmdsl
from vlmdsl.runtime.training import stages
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.schedule import learning_rate_factor
from vlmdsl.runtime.values import Batch
from vlmdsl.schema import RunConfig

RESULT = Path(__file__).parent / "results" / "loop_overhead.json"
WARM_UP = 5
"""Steps that are not counted; with `--compile` the first ones compile."""
DIFFERENT_BATCHES = 16
COMPARED = 20
"""The steps after which the weights of both loops must be the same."""
TOLERANCE = 1e-4
"""Of the weights then, relative to the largest: two orders of summation."""


class Loop:
    """A training loop of CLIP as it is written by hand: a step is `loop(batch)`."""

    def __init__(self, model: Any, config: RunConfig) -> None:
        self.model, self.config, self.done = model, config, 0
        self.optimizer = build_optimizer(model, config.optimizer)
        self.scale: nn.Parameter = model.objective.log_scale
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.loss = torch.compile(self._loss) if config.train.compile else self._loss
        model.train()

    @staticmethod
    def _loss(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
        return usual(F.normalize(image, dim=-1), F.normalize(text, dim=-1), log_scale.exp())

    def __call__(self, batch: Batch) -> None:
        factor = learning_rate_factor(self.done, self.config.train.steps, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        images, (ids, mask) = batch.values["image"][0], batch.values["text"]
        vision, language = self.model.encoders["vision"], self.model.encoders["language"]
        loss = self.loss(vision(images).pooled, language(ids, mask).pooled, self.scale)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.train.clip_gradient_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.scale.clamp_(max=math.log(100))
        self.done += 1
        if self.done % self.config.train.log_every == 0:
            print(f"step {self.done}  loss {loss.item():.3f}  norm {norm.item():.3f}")


def measured(batch: int, steps: int, *, compiled: bool) -> dict[str, Any]:
    """The milliseconds of a step of both loops, and their ratio."""
    original, taken = stages.train_steps, list[tuple[float, float]]()

    def in_turns(model: Any, optimizer: Any, batches: Iterator[Batch], config: RunConfig, world: Any, **options: Any) -> int:
        by_hand = Loop(copy.deepcopy(model), config)
        loaded = list(itertools.islice(batches, DIFFERENT_BATCHES))

        def turns() -> Iterator[Batch]:
            for step, own in enumerate(itertools.islice(itertools.cycle(loaded), config.train.steps)):
                if step == COMPARED:
                    _check_same(model, by_hand.model)
                before = _timed(by_hand, own) if step % 2 else 0.0
                start = time.process_time()
                yield own
                ours = time.process_time() - start
                taken.append((ours, before or _timed(by_hand, own)))
            raise AssertionError("the last step was not the last")

        return original(model, optimizer, turns(), config, world, **options)

    settings = {"train.batch": batch, "train.compile": compiled, "train.device": "cpu", "train.checkpoint_every": 10**6}
    settings |= {"evaluation.limit": 2, "tracking.report": False}
    stages.train_steps = in_turns
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = [f"shapes:samples={DIFFERENT_BATCHES * batch}"]
            vlmdsl.train("clip", data=data, steps=WARM_UP + steps + 1, settings=settings, out=Path(folder) / "run")
    finally:
        stages.train_steps = original
    ours, theirs = ([step[side] for step in taken[WARM_UP:]] for side in (0, 1))
    ratio, interval = ratio_with_interval(ours, theirs)
    return {
        "milliseconds": [round(1e3 * statistics.median(times), 2) for times in (ours, theirs)],
        "ratio": round(ratio, 4),
        "interval": [round(bound, 4) for bound in interval],
    }


def _timed(loop: Loop, batch: Batch) -> float:
    """The CPU time of a step by hand, in seconds."""
    start = time.process_time()
    loop(batch)
    return time.process_time() - start


def _check_same(own: nn.Module, theirs: nn.Module) -> None:
    """Both loops have trained the same model."""
    others = dict(theirs.named_parameters())
    for name, weight in own.named_parameters():
        difference = (weight - others[name]).abs().max() / weight.abs().max().clamp(min=1)
        if not difference < TOLERANCE:
            raise SystemExit(f"the loops do not train the same model: `{name}` differs by {difference:.1e}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--steps", type=int, default=200, help=f"at least {COMPARED}")
    parser.add_argument("--compile", action="store_true", help="compile both losses")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.steps < COMPARED:
        parser.error(f"--steps must be at least {COMPARED}, after which both loops are compared")
    torch.set_num_threads(1)
    rows = {str(batch): measured(batch, options.steps, compiled=options.compile) for batch in options.batch}
    for batch, row in rows.items():
        ours, theirs = row["milliseconds"]
        low, high = row["interval"]
        print(f"batch {batch}: {ours} ms, by hand {theirs} ms, ratio {row['ratio']} ({low} to {high})")
    record = {
        "steps": options.steps,
        "compiled": options.compile,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    options.result.write_text(json.dumps(record | {"batches": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
