"""What is excluded changes no bit: not of the loss, a term or a metric, and not of a gradient; its own gradient is zero.

Whatever stands in padding, in slots of a queue that are not written, in tokens that no mask chose and in samples that a
recipe leaves out (NaN, infinity, numbers that overflow) the results are the same as with ordinary numbers there.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import ALBEF_CORE, hyper_parameters_of
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.primitives import Primitive, all_primitives
from vlmdsl.testing import example_features, example_modules, excluded_entries
from vlmdsl.testing.distributed import run_processes
from vlmdsl.testing.laws import example_objective

PRIMITIVES = [primitive for primitive in all_primitives().values() if primitive.origin == "vlmdsl"]
HEAD = "recipe some(image: Image, text: Text, caption: Text, label: Label, valid: Flag, other: Flag, number: Number)\n"
KEPT = "let z = restrict(3 * similarity(image, text), to=valid)\n"
SAMPLES_LEFT_OUT = {
    "contrast": "minimize contrast(image, text, keep=valid)",
    "one_direction": 'minimize contrast(image, text, keep=valid, directions="rows", weight=number)',
    "classes": "minimize contrast(image, text, keep=valid, targets=smooth(same(label), epsilon=0.2))",
    "flipped": "minimize contrast(image, text, keep=valid, targets=0.4 * paired + 0.6 * flipped, temperature=learned(1))",
    "decoupled": 'minimize contrast(image, text, keep=valid, denominator="negatives", bias=learned(1, form="direct"))',
    "tokens": "minimize contrast(image, text, keep=valid, sim=0.5 * tokenmax + 0.5 * tokenmean)",
    "euclidean": "minimize contrast(image, text, keep=valid, sim=euclidean, weight=1 / (number * number))",
    "two_terms": (
        "minimize {\n  all: contrast(image, text, keep=valid)\n"
        "  fewer: contrast(image, caption, keep=not_both)\n}\nlet not_both = where(valid, where(other, 1, 0), 0) > 0.5"
    ),
    "columns": KEPT + 'minimize mean(cross_entropy(z, targets=same(label), along="columns"), over=valid)',
    "plain": KEPT + 'minimize mean(max(cross_entropy(z, targets=same(label), along="columns"), -9), over=valid)',
    "transposed": KEPT + 'minimize mean(max(cross_entropy(transpose(z), targets=paired, along="columns"), -9), over=valid)',
    "united": (
        KEPT + "let wide = unite(z, exclude_pairs(restrict(similarity(image, image), to=valid))) / learned(0.3)\n"
        'minimize mean(cross_entropy(wide, targets=unite(same(label), same(label)) / 2, along="rows"), over=valid)'
    ),
    "hinge": KEPT + 'minimize sum(hinge(z, along="rows"), over=valid) + mean(hinge(z, along="columns"), over=valid)',
    "sigmoid": KEPT + "minimize mean(sigmoid_loss(z, targets=same(label)), over=valid)",
    "row_sums": KEPT + "minimize mean(row_sum(square(z)) + row_mean(z * similarity(image, caption)), over=valid)",
    "cycle": KEPT + "let apart = z - transpose(z)\nminimize mean(row_sum(apart * apart), over=valid)",
    "added": "minimize contrast(image.pooled - text.pooled, caption.pooled + text.pooled, keep=valid)",
    "logsumexp": KEPT + "minimize mean(softplus(logsumexp(z) - score(image, text)), over=valid)",
    "divergence": (
        KEPT + "let soft = softmax(restrict(4 * similarity(stop(text), stop(caption)), to=valid))\n"
        'minimize mean(kl(z, targets=soft, along="rows"), over=valid)'
    ),
    "scores": "minimize mean(log(1 + exp(-score(image, text))) / (2 + number), over=valid)",
    "logarithm": "minimize mean(log(score(image, text) * score(image, text)), over=valid)",
    "chosen": "minimize mean(where(valid, number * score(image, text), 1))",
    "gated": "minimize contrast(gate(image, by=number), text, keep=valid)",
    "mixed": "minimize mean(score(mix(image, by=1), text), over=valid)",
    "distributions": "minimize mean(entropy(distribution(image), distribution(text)), over=valid)",
    "attended": "minimize contrast(attend(image, keys=text.tokens, values=text.tokens), text, keep=valid)",
    "queue": "minimize memory_contrast(image, text, queue(caption, size=9), queries=valid)",
    "asking": 'minimize contrast(image, caption, queries=valid, directions="rows")',
    "fewer_ask": (
        "let both = where(valid, where(other, 1, 0), 0) > 0.5\nminimize contrast(image, text, keep=valid, queries=both)"
    ),
}
POISON = (float("nan"), float("inf"), -1e30)


def excluded_places(objective: Objective, features: dict[str, Tensor], *, samples: bool) -> dict[str, Tensor]:
    """Which entries of each input take part in nothing."""
    places = excluded_entries(objective, features)
    if samples:
        for name in places.keys() - {"caption"}:
            places[name][~features["valid"]] = True
    return places


def results(
    objective: Objective, features: dict[str, Tensor], places: dict[str, Tensor], fill: float | None
) -> dict[str, Tensor]:
    """Everything an objective gives, with `fill` in the excluded places."""
    leaves = {}
    for name, value in features.items():
        filled = value if fill is None or name not in places else value.masked_fill(places[name], fill)
        leaves[name] = filled.clone().requires_grad_(name in places)
    buffers = dict(objective.state.named_buffers())
    for name, buffer in buffers.items():
        if buffer.dim() and fill is not None and f"{name}_written" in buffers:  # a queue
            with torch.no_grad():
                # Keys are whole numbers, any of which would do harm if it were compared.
                buffer[int(buffers[f"{name}_written"]) :] = fill if buffer.is_floating_point() else 1
    objective.zero_grad()
    modules = example_modules(objective, padding=0.0 if fill is None else 1e3)
    out = objective({name: module.float() for name, module in modules.items()}, **leaves)
    out.loss.backward()
    results = {"loss": out.loss, **{f"term {name}": term for name, term in out.terms.items()}}
    results |= {f"metric {name}": value for name, value in out.metrics.items()}
    results |= {f"gradient {name}": leaves[name].grad for name in places if leaves[name].grad is not None}
    learning = [(f"module {name} {part}", value) for name, own in modules.items() for part, value in own.named_parameters()]
    results |= {name: value.grad for name, value in learning if value.grad is not None}
    return results | {
        f"parameter {name}": value.grad for name, value in objective.named_parameters() if value.grad is not None
    }


def check(objective: Objective, *, samples: bool = False) -> None:
    objective.eval()
    example = example_features(objective)
    features = {name: value.float() if value.is_floating_point() else value for name, value in example.items()}
    if samples:
        features["valid"] = torch.tensor([True, False, True, True, False])
    places = excluded_places(objective, features, samples=samples)
    expected = results(objective, features, places, None)
    for fill in POISON:
        for name, value in results(objective, features, places, fill).items():
            assert torch.equal(value, expected[name]), f"{name} with {fill}: {value} is not {expected[name]}"
            assert torch.isfinite(value).all()
    for name, excluded in places.items():
        if f"gradient {name}" in expected:
            assert not expected[f"gradient {name}"][excluded].any()


@pytest.mark.parametrize("recipe", OBJECTIVES.values(), ids=OBJECTIVES)
def test_of_every_recipe(recipe: str) -> None:
    check(vlmdsl.compile(recipe, compiled=False, **hyper_parameters_of(recipe)))


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=lambda primitive: primitive.name)
def test_of_every_primitive(primitive: Primitive) -> None:
    check(example_objective(primitive))


@pytest.mark.parametrize("recipe", [ALBEF_CORE, "mae"], ids=["albef", "mae"])
def test_of_recipes_that_apply_modules(recipe: str) -> None:
    check(vlmdsl.compile(recipe, compiled=False))


def test_of_samples_that_a_compiled_objective_leaves_out() -> None:
    check(vlmdsl.compile(HEAD + SAMPLES_LEFT_OUT["classes"], compiled=True), samples=True)


def of_one_process() -> dict[str, Tensor]:
    """This process's loss and gradients with its share of a batch, the excluded samples of which are not numbers."""
    objective = vlmdsl.compile(HEAD + SAMPLES_LEFT_OUT["united"], compiled=False).double().eval()
    features = example_features(objective, batch=8)
    features["valid"] = torch.tensor([True, False, True, True, False, False, False, True])
    places = excluded_places(objective, features, samples=True)
    own = {name: {key: own_slice(value) for key, value in of.items()} for name, of in (("f", features), ("p", places))}
    expected = results(objective, own["f"], own["p"], None)
    values = results(objective, own["f"], own["p"], float("nan"))
    return {name: torch.stack([expected[name], value]) for name, value in values.items()}


@pytest.mark.distributed
@pytest.mark.slow
def test_of_samples_that_two_processes_leave_out() -> None:
    for part in run_processes(of_one_process, 2):
        for name, (expected, value) in part.items():
            assert torch.equal(expected, value), name


@pytest.mark.parametrize("recipe", SAMPLES_LEFT_OUT)
def test_of_samples_that_a_recipe_leaves_out(recipe: str) -> None:
    check(vlmdsl.compile(HEAD + SAMPLES_LEFT_OUT[recipe], compiled=False), samples=True)
