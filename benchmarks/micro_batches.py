"""A step with the gradient of 1,024 samples in micro-batches of 64, beside the plain step and a hand-written version.

    python benchmarks/micro_batches.py [--rounds 3]

`plain` is `model(batch).loss.backward()`, `cached` is `vlmdsl.CachedStep`, `hand-written` is the same idea for CLIP alone:
features of chunks without a graph, the gradients of the loss with regard to them, then each chunk again with a graph and the
sum of products of its features and their gradients as the loss. The towers are transformers of width 128 and depth 4 (images
of 65 tokens, texts of 32); everything is eager. First a gate: loss and gradients of all three agree. Then rounds in which
every variant runs once, in rotating order; a ratio is the median over rounds of the ratio within the round; time is CPU time
of one thread. `second forward` is the time of the towers over all chunks without a graph, what a step in micro-batches does
beyond the plain one by its nature; the overhead is the rest of the difference, as a share of the plain step.
Peak memory is measured in a process of its own: the largest amount in use during one step, less what was in use before it.
The result is printed and written to `benchmarks/results/micro_batches.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contrast import RETURN_MEMORY, peak_of_step
from torch import Tensor

import vlmdsl
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer
from vlmdsl.runtime.values import Batch, ImageBatch, TextBatch

RESULT = Path(__file__).parent / "results" / "micro_batches.json"
SAMPLES, MICRO, DIM, LENGTH, VOCABULARY = 1024, 64, 128, 32, 1024
VISION = VisionConfig(image_size=32, patch_size=4, width=128, depth=4, heads=4)
TEXT = TextConfig(width=128, depth=4, heads=4, vocabulary_size=VOCABULARY, text_length=LENGTH)
VARIANTS = ("plain", "cached", "hand-written")


def clip_model() -> VisionLanguageModel:
    """CLIP with small towers."""
    torch.manual_seed(0)
    objective = vlmdsl.compile("clip", compiled=False)
    towers = {"vision": VisionTransformer(VISION, DIM, ("pooled",)), "language": TextTransformer(TEXT, DIM, ("pooled",))}
    return VisionLanguageModel(towers, objective).train()


def random_batch(samples: int) -> Batch:
    """Random pixels and token ids."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCABULARY, (samples, LENGTH), generator=generator)
    text = TextBatch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    image = ImageBatch(torch.rand(samples, 3, 32, 32, generator=generator))
    return Batch({"image": image, "text": text}, torch.arange(samples), [str(number) for number in range(samples)])


def chunks(batch: Batch) -> list[tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]]:
    """The arguments of both towers, chunk by chunk."""
    image, text = batch.values["image"], batch.values["text"]
    starts = range(0, len(batch.keys), MICRO)
    return [
        (tuple(part[start : start + MICRO] for part in image), tuple(part[start : start + MICRO] for part in text))
        for start in starts
    ]


def features_of(model: VisionLanguageModel, arguments: tuple[tuple[Any, ...], tuple[Any, ...]]) -> list[Tensor]:
    """The features of both towers for one chunk."""
    towers = zip(("vision", "language"), arguments, strict=True)
    return [F.normalize(model.encoders[name](*values).pooled, dim=1) for name, values in towers]


def plain(model: VisionLanguageModel, batch: Batch) -> Tensor:
    output = model(batch)
    output.loss.backward()
    return output.loss.detach()


def cached(model: VisionLanguageModel, batch: Batch) -> Tensor:
    step = vlmdsl.CachedStep(model, MICRO)
    output = step(batch)
    step.backward(output.loss)
    return output.loss.detach()


def hand_written(model: VisionLanguageModel, batch: Batch) -> Tensor:
    """Gradient caching for CLIP, as one writes it for this loss."""
    (log_scale,) = model.objective.parameters()
    parts = chunks(batch)
    with torch.no_grad():
        features = [features_of(model, arguments) for arguments in parts]
    image, text = (torch.cat(side).requires_grad_() for side in zip(*features, strict=True))
    logits = log_scale.exp() * image @ text.T
    positions = torch.arange(len(image))
    loss = (F.cross_entropy(logits, positions) + F.cross_entropy(logits.T, positions)) / 2
    loss.backward()
    for number, arguments in enumerate(parts):
        samples = slice(number * MICRO, (number + 1) * MICRO)
        again = features_of(model, arguments)
        torch.autograd.backward(again, [image.grad[samples], text.grad[samples]])
    return loss.detach()


STEPS: dict[str, Callable[[VisionLanguageModel, Batch], Tensor]] = {
    "plain": plain,
    "cached": cached,
    "hand-written": hand_written,
}


def check() -> float:
    """The largest relative error of loss and gradients against the plain step, at 160 samples."""
    batch, results = random_batch(160), {}
    for name in VARIANTS:
        model = clip_model()
        loss = STEPS[name](model, batch)
        results[name] = [loss, *(parameter.grad for parameter in model.parameters())]
    error = max(
        ((actual - right).norm() / right.norm()).item()
        for name in VARIANTS[1:]
        for actual, right in zip(results[name], results["plain"], strict=True)
        if right.norm() > 0
    )
    if error > 1e-4:
        raise SystemExit(f"the gate is not passed: relative error {error}")
    return error


def second_forward(model: VisionLanguageModel, batch: Batch) -> Tensor:
    """The towers over all chunks, without a graph."""
    with torch.no_grad():
        return torch.stack([features_of(model, arguments)[0].sum() for arguments in chunks(batch)])


def seconds(function: Callable[[VisionLanguageModel, Batch], Tensor], model: VisionLanguageModel, batch: Batch) -> float:
    """CPU time of one step, gradients not yet allocated."""
    model.zero_grad(set_to_none=True)
    begin = time.process_time()
    function(model, batch)
    return time.process_time() - begin


def times(rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round, after one that does not count."""
    model, batch = clip_model(), random_batch(SAMPLES)
    functions = {**STEPS, "second forward": second_forward}
    names = list(functions)
    clock: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            duration = seconds(functions[name], model, batch)
            if turn >= 0:
                clock[name].append(duration)
    return clock


def own_peak(name: str) -> float:
    """MiB that one step of a variant takes beyond what is in use before it; for a process of its own."""
    model, batch = clip_model(), random_batch(SAMPLES)

    def run(scale: Tensor) -> Tensor:
        # `peak_of_step` differentiates what it is given: the backward pass of the step itself has then run.
        return scale * STEPS[name](model, batch)

    return peak_of_step(run, (torch.ones((), requires_grad=True),))


def peak(name: str) -> float:
    """The same, from here."""
    command = [sys.executable, __file__, "--peak-of", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    return float(done.stdout)


def measure(rounds: int) -> dict[str, Any]:
    """Gate, times and memory."""
    error, clock, peaks = check(), times(rounds), {name: peak(name) for name in VARIANTS}

    def ratio(name: str, other: str) -> float:
        pairs = zip(clock[name], clock[other], strict=True)
        return round(statistics.median(one / two for one, two in pairs), 3)

    pairs = zip(clock["cached"], clock["plain"], clock["second forward"], strict=True)
    overhead = statistics.median((whole - base - forward) / base for whole, base, forward in pairs)
    rows = {
        name: {
            "seconds": round(statistics.median(clock[name]), 2),
            "time_to_plain": ratio(name, "plain"),
            "time_to_hand_written": ratio(name, "hand-written"),
            "peak_mib": round(peaks[name], 1),
            "memory_to_plain": round(peaks[name] / peaks["plain"], 4),
        }
        for name in VARIANTS
    }
    forward = round(statistics.median(clock["second forward"]), 2)
    return {"relative_error": error, "second_forward_seconds": forward, "overhead": round(overhead, 3), "variants": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak_of:
        print(own_peak(options.peak_of))
        return
    result = measure(options.rounds)
    print(f"{'':<14}{'s':>8}{'to plain':>10}{'peak MiB':>10}{'to plain':>10}")
    for name, row in result["variants"].items():
        print(
            f"{name:<14}{row['seconds']:>8.2f}{row['time_to_plain']:>10.2f}{row['peak_mib']:>10.0f}{row['memory_to_plain']:>10.3f}"
        )
    print(f"second forward {result['second_forward_seconds']:.2f} s; overhead beyond it {result['overhead']:.1%}")
    setting = {"torch": torch.__version__, "threads": 1, "rounds": options.rounds, "samples": SAMPLES, "micro": MICRO}
    options.result.write_text(json.dumps({**setting, **result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
