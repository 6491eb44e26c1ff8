"""Cross-entropy straight from states and the output weight, beside the form that holds all logits: memory and time.

    python benchmarks/linear_cross_entropy.py [--rounds 3]

Three forms of one forward and backward pass: `chunked`, ours, which makes a chunk's gradients while its logits are there;
`again`, which makes the logits again in the backward pass, chunk by chunk, by torch's checkpoints; and `plain`, a linear
layer and torch's cross-entropy over the logits of all tokens. Each runs in a process of its own, at one thread: one pass,
then the mark of the most memory held is set back and one pass more; measured is by how much the mark rises, the gradients
included. Time is the CPU time of a pass, the median of the rounds. First a gate: losses and gradients of all three agree.
The result is printed and written to `benchmarks/results/linear_cross_entropy.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contrast import RETURN_MEMORY
from plan_memory import resident
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops import vocabulary

RESULT = Path(__file__).parent / "results" / "linear_cross_entropy.json"


@dataclass(frozen=True)
class Case:
    """`tokens` states of `width` numbers over a vocabulary of `size`; `share` of the tokens count."""

    name: str
    tokens: int
    width: int
    size: int
    share: float = 1.0


CASES = (
    Case("next tokens", 4096, 512, 49_408),
    Case("masked tokens", 4096, 512, 49_408, share=0.15),
    Case("codes of masked patches", 64 * 196, 768, 8192, share=0.4),
)


def chunked(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return ops.linear_cross_entropy(states, weight, targets)


def plain(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(states @ weight.T, targets, ignore_index=-1)


def again(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The tokens that count, as many at a time as in `chunked`."""
    counted = (targets >= 0).nonzero().squeeze(1)
    total = states.new_zeros(())
    for rows in counted.split(vocabulary.tokens_at_once(weight)):
        part = checkpoint(_sum, states[rows], weight, targets[rows], use_reentrant=False)
        total = total + part
    return total / len(counted)


def _sum(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(states @ weight.T, targets, reduction="sum")


FORMS = {"chunked": chunked, "again": again, "plain": plain}


def leaves(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    states = torch.randn(case.tokens, case.width, requires_grad=True)
    weight = (torch.randn(case.size, case.width) * case.width**-0.5).requires_grad_()
    entries = torch.randint(case.size, (case.tokens,))
    return states, weight, torch.where(torch.rand(case.tokens) < case.share, entries, -1)


def step(form: str, tensors: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The loss and both gradients."""
    loss = FORMS[form](*tensors)
    return (loss.detach(), *torch.autograd.grad(loss, tensors[:2]))


def gate() -> None:
    """SystemExit unless all forms agree at a small size, of several chunks."""
    case, whole = Case("gate", 50, 16, 40, share=0.5), vocabulary.CHUNK_ENTRIES
    vocabulary.CHUNK_ENTRIES = 300
    tensors = leaves(case)
    expected = step("plain", tensors)
    for form in FORMS:
        for gradient, reference in zip(step(form, tensors), expected, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-7)
    vocabulary.CHUNK_ENTRIES = whole


def own(case: Case, form: str, rounds: int) -> dict[str, float]:
    """MiB that one pass needs beyond what is held before it, and its CPU seconds; for a process of its own."""
    torch.set_num_threads(1)
    tensors = leaves(case)
    step(form, tensors)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step(form, tensors)
    peak = (resident("VmHWM") - before) / 1024
    clock = []
    for _ in range(rounds):
        begin = time.process_time()
        step(form, tensors)
        clock.append(time.process_time() - begin)
    return {"peak_mib": round(peak, 1), "seconds": round(statistics.median(clock), 3)}


def measured(case: Case, form: str, rounds: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--own", json.dumps(asdict(case)), "--form", form, "--rounds", str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Every form, and the ratios of ours to the plain one."""
    forms = {form: measured(case, form, rounds) for form in FORMS}
    ratios = {
        kind: round(forms["chunked"][unit] / forms["plain"][unit], 3)
        for kind, unit in {"memory_ratio": "peak_mib", "time_ratio": "seconds"}.items()
    }
    return asdict(case) | forms | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own", help=argparse.SUPPRESS)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own is not None:
        print(json.dumps(own(Case(**json.loads(options.own)), options.form, options.rounds)))
        return
    gate()
    result = {
        "torch": torch.__version__,
        "rounds": options.rounds,
        "cases": [compare(case, options.rounds) for case in CASES],
    }
    text = json.dumps(result, indent=2)
    RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
