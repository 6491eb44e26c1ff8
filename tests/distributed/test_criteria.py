"""Recipes of every criterion and target over one, two and four processes: the loss and every gradient are the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import unit.plugins.kinds  # noqa: F401 - defines the plug-ins
import vlmdsl
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.testing.distributed import run_processes
from vlmdsl.testing.laws import example_features

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 8
HEADER = "vlo 1\nrecipe one(image: Image, text: Text, label: Label, flag: Flag, age: Number)\n"
RECIPES = {
    "sum": 'minimize contrast(image, text, keep=flag, reduction="sum") / samples',
    "nt_xent": "minimize nt_xent(image, text)",
    "restricted": (
        "let z = restrict(unite(similarity(image, text), exclude_pairs(similarity(image, image))) / 0.1, to=flag)\n"
        'minimize mean(cross_entropy(z, targets=same(label), along="rows"), over=flag)'
    ),
    "transport": (
        "let liking = exclude_pairs(similarity(stop(image), stop(image))) + similarity(stop(image), text, by=dot)\n"
        "minimize contrast(image, text, targets=0.4 * paired + 0.6 * transport(liking, epsilon=0.5, iterations=3))"
    ),
    "flipped": "minimize contrast(image, text, targets=0.3 * paired + 0.7 * flipped, keep=flag)",
    "mixed": (
        "let lam = beta(2, 2)\n"
        "minimize contrast(mix(vision(image), by=lam), mix(text, by=1 - lam), targets=lam * paired + (1 - lam) * flipped)"
    ),
    "blocks": (  # of 3: blocks with samples of two processes, and a last one of two samples
        "let lam = beta(2, 2)\n"
        "let mixed = mix(vision(image), by=lam, block=3)\n"
        "minimize contrast(mixed, text, targets=lam * paired + (1 - lam) * flipped(block=3), keep=flag)"
    ),
    "gated": "minimize contrast(gate(image, by=flag), gate(text, by=score(image, text)), sim=cosine(epsilon=1e-8))",
    "hinge": (
        "let z = similarity(image, text)\n"
        "let kept = restrict(z, to=flag)\n"
        'minimize sum(hinge(z, along="rows", negatives="hardest")) + mean(hinge(kept, along="rows", margin=1))'
        ' + sum(hinge(z, along="columns", negatives="hardest")) + mean(hinge(kept, along="columns", margin=1))'
    ),
    "kept_classes": (
        "let soft = 0.5 * smooth(same(label), epsilon=0.2) + 0.2 * paired + 0.3 * flipped\n"
        "minimize contrast(image, text, targets=soft, keep=flag)"
    ),
    "smoothed_each": (
        "let noisy = 1 / (2 + exp(score(image, text)))\n"
        'def soft(target) = smooth(target, epsilon=noisy, over="others")\n'
        "let z = similarity(image, text) / 0.3\n"
        "minimize contrast(image, text, targets=soft(same(label)), keep=flag)"
        ' + mean(kl(z, targets=soft(paired), along="columns"))'
    ),
    "supervised": (
        "let z = unite(similarity(image, text), exclude_pairs(similarity(image, image))) / 0.1\n"
        'def others(z) = cross_entropy(exclude_pairs(z), targets=same(label), along="columns")\n'
        'let rows = cross_entropy(z, targets=unite(same(label), same(label)) / 2, along="rows")\n'
        "minimize mean(rows) + mean(max(others(similarity(image, text)), -9))"
    ),
    "regress": "minimize regress(image, text) + 2 * regress(text, image)",
    "distributions": "minimize align_distributions(image, text, stopped=1)",
    "mlm": "minimize mlm(mask(text, random(15%)))",  # as many chosen tokens as it happens on each process
    "kl": (
        "let soft = smooth(softmax(restrict(similarity(stop(text), image), to=flag)), epsilon=0.1)\n"
        "let z = restrict(similarity(image, text) / learned(0.3), to=flag)\n"
        'minimize mean(kl(z, targets=soft, along="rows")) + mean(kl(z, targets=soft, along="columns"))'
    ),
    "plug_ins": (
        "let z = restrict(similarity(image, text) / learned(0.3), to=flag)\n"
        "minimize mean(token_margin(image, text, margin=0.9)) + mean(squares(z, 0.5 * upwards(age) + 0.5 * paired))"
        " + contrast(image, text, targets=nearby(age), temperature=0.5)"
        " + contrast(image, text, targets=upwards(age), temperature=0.5)"
    ),
    "united_targets": (
        "let z = unite(similarity(image, text), similarity(image, text, by=dot)) / learned(0.1)\n"
        'minimize sum(cross_entropy(z, targets=unite(0.3 * paired, 0.7 * same(label)), along="rows"))'
    ),
}


def value_and_gradients(name: str) -> dict[str, Tensor]:
    """This process's part of everything; gradients are divided by the number of processes, as DDP's mean would."""
    distributed = torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if distributed else 1
    objective = vlmdsl.compile(HEADER + RECIPES[name], compiled=False).double()
    features = {
        key: own_slice(value).clone().requires_grad_(value.is_floating_point() and value.dim() > 1)
        for key, value in example_features(objective, batch=SAMPLES).items()
    }
    out = objective(**features)
    out.loss.backward()
    results = {"loss": out.loss.detach()}
    results |= {f"gradient {key}": value.grad / processes for key, value in features.items() if value.requires_grad}
    return results | {f"parameter {key}": value.grad / processes for key, value in objective.named_parameters()}


def of_all_recipes() -> dict[str, Tensor]:
    return {f"{key} of {name}": value for name in RECIPES for key, value in value_and_gradients(name).items()}


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_one_batch(processes: int) -> None:
    expected = of_all_recipes()
    results = run_processes(of_all_recipes, processes)
    for key, whole in expected.items():
        parts = [part[key] for part in results]
        if key.startswith("gradient"):
            parts = [torch.cat(parts)]
        elif key.startswith("parameter"):
            parts = [torch.stack(parts).sum(dim=0)]
        for value in parts:
            torch.testing.assert_close(value, whole, rtol=1e-10, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")
