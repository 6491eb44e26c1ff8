"""What a target means where candidates are excluded: a distribution over those that are left (SPEC, section 6)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmdsl

SUPERVISED = """
recipe supervised_contrast(image: Image, text: Text, label: Label)
let z = unite(similarity(image, text), exclude_pairs(similarity(image, image))) / 0.1
minimize mean(cross_entropy(z, targets=unite(same(label), same(label)) / 2, along="rows"))
"""


def inputs(seed: int = 0, samples: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = {name: torch.randn(samples, 5, generator=generator, dtype=torch.float64) for name in ("image", "text")}
    number = torch.randn(samples, generator=generator, dtype=torch.float64)
    return {**features, "label": torch.tensor([0, 1, 0, 2, 1, 0, 3]), "number": number, "flag": number > -0.5}


def value(recipe: str, features: dict[str, Tensor]) -> float:
    objective = vlmdsl.compile(recipe, compiled=False).double()
    return objective(**{name: features[name] for name in objective.inputs}).loss.item()


def test_supervised_contrast_is_that_of_its_paper() -> None:
    """Khosla et al. 2020, equation 2: of each sample, the mean over all others of its class among all others."""
    features = inputs()
    image, text = (F.normalize(features[name], dim=-1) for name in ("image", "text"))
    everybody, labels = torch.cat([text, image]), torch.cat([features["label"], features["label"]])
    losses = []
    for i, anchor in enumerate(image):
        others = [j for j in range(len(everybody)) if j != len(text) + i]
        logits = everybody[others] @ anchor / 0.1
        positive = labels[others] == features["label"][i]
        losses.append(-(logits - logits.logsumexp(0))[positive].mean())
    assert value(SUPERVISED, features) == pytest.approx(torch.stack(losses).mean().item(), rel=1e-12)


@pytest.mark.parametrize("along", ["rows", "columns"])
def test_a_class_is_asked_for_among_the_samples_that_are_kept(along: str) -> None:
    features = inputs()
    image, text = (F.normalize(features[name], dim=-1) for name in ("image", "text"))
    logits = image @ text.T if along == "rows" else text @ image.T
    kept = (features["number"] > 0).nonzero().flatten()
    losses = []
    for i in kept:
        likely = logits[i, kept].log_softmax(0)
        losses.append(-likely[features["label"][kept] == features["label"][i]].mean())
    recipe = f"""
    recipe kept(image: Image, text: Text, label: Label, number: Number)
    minimize contrast(image, text, temperature=1, targets=same(label), keep=number > 0, directions="{along}")
    """
    assert value(recipe, features) == pytest.approx(torch.stack(losses).mean().item(), rel=1e-12)


def test_a_sample_without_any_of_its_class_left_has_no_loss_and_counts_in_the_mean() -> None:
    """As in the code of the paper on supervised contrast: the samples of classes of their own, here 2 of 7."""
    recipe = """
    recipe alone(image: Image, label: Label)
    let z = exclude_pairs(similarity(image, image))
    minimize mean(cross_entropy(z, targets=same(label), along="rows"))
    """
    features = inputs()
    image = F.normalize(features["image"], dim=-1)
    losses = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        likely, positive = (image[others] @ image[i]).log_softmax(0), features["label"][others] == features["label"][i]
        losses.append(-likely[positive].mean() if positive.any() else torch.zeros((), dtype=torch.float64))
    assert value(recipe, features) == pytest.approx(torch.stack(losses).mean().item(), rel=1e-12)


TARGETS = ("same(label)", "smooth(paired, epsilon=0.2)", 'smooth(same(label), epsilon=0.2, over="others")',
           "0.7 * paired + 0.3 * flipped", "softmax(similarity(stop(image), stop(image)))",
           "same(label, missing=0)")  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_the_region_and_the_plain_criterion_agree(target: str, denominator: str) -> None:
    """The larger of a cross-entropy and a number is not linear in it, so that no region is made of it."""
    features = inputs()
    head = "recipe both(image: Image, text: Text, label: Label, flag: Flag)\n"
    criterion = f"""
    let z = restrict(3 * similarity(image, text), to=flag)
    def of(along) = cross_entropy(z, targets={target}, along=along, denominator="{denominator}")
    """
    region = value(f'{head}{criterion}\nminimize mean(of("rows"), over=flag) + mean(of("columns"))', features)
    plain = 'minimize mean(max(of("rows"), -1000), over=flag) + mean(max(of("columns"), -1000))'
    assert "ops.contrast(" not in vlmdsl.compile(f"{head}{criterion}\n{plain}", compiled=False).source
    assert value(f"{head}{criterion}\n{plain}", features) == pytest.approx(region, rel=1e-12)


def test_two_criteria_over_one_restricted_matrix_keep_their_own_targets() -> None:
    """Renormalising is not linear: the sum of two cross-entropies is not that of the sum of their targets."""
    head = "recipe two(image: Image, text: Text, label: Label, flag: Flag)\n"
    one = 'mean(cross_entropy(restrict(similarity(image, text), to=flag), targets={}, along="rows"))'
    first, second = one.format("flipped"), one.format("same(label)")
    features = inputs()
    together = value(f"{head}minimize {first} + {second}", features)
    apart = value(f"{head}minimize {first}", features) + value(f"{head}minimize {second}", features)
    assert together == pytest.approx(apart, rel=1e-12)
