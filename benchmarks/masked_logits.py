"""Masked language modelling with logits of the chosen tokens only, beside logits of all tokens, forward and backward.

    python benchmarks/masked_logits.py --batch 128 --length 32 --width 256 --vocabulary 16000

Both go from the states of a tower to the loss as `vlmdsl train` does. First a gate: losses and gradients agree. Then, in the
same run, the most memory that torch has in use at one time of a step beyond what it had before (its profiler counts the
tensors), and the CPU time of a step; a ratio is that of the chosen tokens to that of all.
The result is printed and written to `benchmarks/results/masked_logits.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from vlmdsl.backends.torch import ops
from vlmdsl.runtime.values.mask import NOT_SELECTED, MaskedTokens, selected_places

RESULT = Path(__file__).parent / "results" / "masked_logits.json"


def step(head: nn.Linear, states: Tensor, targets: Tensor, places: Tensor | None) -> tuple[Tensor, ...]:
    """Loss and gradients of one forward and backward pass."""
    picked, labels = MaskedTokens(targets, places).selected(states)
    loss = ops.mlm(head(picked), labels)
    return (loss.detach(), *torch.autograd.grad(loss, [states, *head.parameters()]))


def peak(head: nn.Linear, states: Tensor, targets: Tensor, places: Tensor | None) -> int:
    """Most bytes in use at one time of a step, less those in use before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(head, states, targets, places)
    used = most = 0
    for event in profiled.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            used += event.nbytes()
            most = max(most, used)
    return most


def seconds(head: nn.Linear, states: Tensor, targets: Tensor, places: Tensor | None) -> float:
    begin = time.process_time()
    step(head, states, targets, places)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"batch": 128, "length": 32, "width": 256, "vocabulary": 16_000, "rounds": 5, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--share", type=float, default=0.15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    states = torch.randn(options.batch, options.length, options.width, requires_grad=True)
    head = nn.Linear(options.width, options.vocabulary)
    words = torch.randint(options.vocabulary, (options.batch, options.length))
    targets = torch.where(torch.rand(words.shape) < options.share, words, NOT_SELECTED)
    places = selected_places(targets, options.share)
    if places is None:
        raise SystemExit("all places are needed: take a larger batch or a smaller share")
    for packed, whole in zip(step(head, states, targets, places), step(head, states, targets, None), strict=True):
        torch.testing.assert_close(packed, whole, rtol=1e-4, atol=1e-7)
    clock = [(seconds(head, states, targets, places), seconds(head, states, targets, None)) for _ in range(options.rounds)]
    memory = [peak(head, states, targets, chosen) for chosen in (places, None)]
    result = {
        "command": vars(options),
        "torch": torch.__version__,
        "places": places.shape[1],
        "peak_mib": [round(size / 2**20, 1) for size in memory],
        "memory_ratio": round(memory[0] / memory[1], 4),
        "time_ratio": round(statistics.median(chosen / everywhere for chosen, everywhere in clock), 4),
    }
    text = json.dumps(result, indent=2)
    RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
