"""A training step of a recipe that predicts tokens, with the logits of all predicted tokens and without: memory and time.

    python benchmarks/predicted_tokens.py [--rounds 3]

The recipe's text tower (one block, width 256, a vocabulary of 30,522 entries, as BERT's) encodes texts of 128 tokens; its
loss is the token loss of those that a mask selects, or of all. `dense` makes their logits, `chunked` those of a chunk at a
time (ADR 0014). A step is the forward pass of the whole model and the backward pass to every weight. Each form runs in a
process of its own, at one thread: one step, then the mark of the most memory held is set back and one step more; measured is
by how much the mark rises, gradients of weights included. Time is the CPU time of a step, the median of the rounds. First a
gate: losses and gradients of both agree. The result is printed and written to `benchmarks/results/predicted_tokens.json`.
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
from contrast import RETURN_MEMORY
from plan_memory import resident
from torch import Tensor

import vlmdsl
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer
from vlmdsl.runtime.values import NOT_SELECTED, Batch, MaskedTokens, TextBatch, port
from vlmdsl.runtime.values.mask import selected_places

RESULT = Path(__file__).parent / "results" / "predicted_tokens.json"
VOCABULARY, LENGTH, WIDTH, SHARE = 30_522, 128, 256, 0.15
RECIPES = {
    "selected": "recipe words(text: Text)\nminimize mlm(mask(text, random(15%)))",
    "all": "recipe words(text: Text)\nminimize token_loss(linear(text), text)",
}
FORMS = ("dense", "chunked")


@dataclass(frozen=True)
class Case:
    """`texts` of which `predicted` tokens count."""

    texts: int
    predicted: str
    compiled: bool = False

    @property
    def logits_mib(self) -> float:
        """The size of all logits."""
        _, masked = texts_of(self)
        tokens = self.texts * LENGTH if masked.places is None else masked.places.numel()
        return tokens * VOCABULARY * 4 / 2**20


CASES = (
    Case(2, "selected"),
    Case(8, "selected"),
    Case(32, "selected"),
    Case(128, "selected"),
    Case(512, "selected"),
    Case(64, "all"),
    Case(64, "all", compiled=True),
)


def texts_of(case: Case) -> tuple[TextBatch, MaskedTokens]:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (case.texts, LENGTH), generator=random)
    text = TextBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    if case.predicted == "all":
        return text, MaskedTokens(ids)
    targets = torch.where(torch.rand(ids.shape, generator=random) < SHARE, ids, NOT_SELECTED)
    return text, MaskedTokens(targets, selected_places(targets, SHARE))


def model_and_batch(case: Case, form: str) -> tuple[VisionLanguageModel, Batch]:
    torch.manual_seed(0)
    objective = vlmdsl.compile(RECIPES[case.predicted], lowering=form, compiled=case.compiled)
    config = TextConfig(width=WIDTH, depth=1, heads=4, vocabulary_size=VOCABULARY, text_length=LENGTH)
    model = VisionLanguageModel({"language": TextTransformer(config, WIDTH, ("vocabulary",))}, objective)
    text, masked = texts_of(case)
    values = {"text": text} if case.predicted == "all" else {"text_masked": text, port("text_masked", "masked"): masked}
    return model, Batch(values, torch.arange(case.texts), [str(number) for number in range(case.texts)])


def step(model: VisionLanguageModel, batch: Batch) -> Tensor:
    model.zero_grad()
    loss = model(batch).loss
    loss.backward()
    return loss.detach()


def gate() -> None:
    """SystemExit unless both forms agree."""
    for predicted in RECIPES:
        results = []
        for form in FORMS:
            model, batch = model_and_batch(Case(2, predicted), form)
            results.append([step(model, batch), *(weight.grad for weight in model.parameters())])
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-6)


def own(case: Case, form: str, rounds: int) -> dict[str, float]:
    """MiB that one step needs beyond what is held before it, and its CPU seconds; for a process of its own."""
    torch.set_num_threads(1)
    model, batch = model_and_batch(case, form)
    step(model, batch)
    model.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step(model, batch)
    peak = (resident("VmHWM") - before) / 1024
    clock = []
    for _ in range(rounds):
        begin = time.process_time()
        step(model, batch)
        clock.append(time.process_time() - begin)
    return {"peak_mib": round(peak, 1), "seconds": round(statistics.median(clock), 3)}


def measured(case: Case, form: str, rounds: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--own", json.dumps(asdict(case)), "--form", form, "--rounds", str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURN_MEMORY)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """Both forms, and the ratios of the chunked one to the other."""
    forms = {form: measured(case, form, rounds) for form in FORMS}
    ratios = {
        kind: round(forms["chunked"][unit] / forms["dense"][unit], 3)
        for kind, unit in {"memory_ratio": "peak_mib", "time_ratio": "seconds"}.items()
    }
    row = asdict(case) | {"logits_mib": round(case.logits_mib, 1)} | forms | ratios
    print(json.dumps(row), flush=True)
    return row


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
    sizes = {"vocabulary": VOCABULARY, "length": LENGTH, "width": WIDTH, "share": SHARE}
    cases = [compare(case, options.rounds) for case in CASES]
    result = {"torch": torch.__version__, "rounds": options.rounds, **sizes, "cases": cases}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
