"""What runs before modules are called passes on what the last function needs, and is compiled as that is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.testing import example_features, example_modules

HEAD = """
recipe passing(image: Image, text: Text, label: Label, number: Number)
encoder fusion = fuse(depth=1)
let s = similarity(image, text)
let fused = (text | image).pooled
let wrong = mine(s / 0.07, along="rows")
let itm = matched(text | image, take(text, wrong) | image)
"""
PASSED = {
    "similarity": 'itm + mean(hinge(s + similarity(fused, image), along="rows"))',
    "similarity of tokens": (
        'itm + mean(hinge(similarity(image, text, by=tokenmax) + similarity(fused, image), along="rows"))'
    ),
    "target": 'itm + mean(kl(similarity(fused, image), targets=softmax(stop(s)), along="rows"))',
    "tokens and picks": (
        "itm + mean(score(fused, take(fused, wrong)))"
        " + mean(score(attend(fused, keys=take(text.tokens, wrong), values=take(text.tokens, wrong)), image))"
    ),
    "queue": "itm + memory_contrast(image, fused, queue(text, size=4), weight=1 + number * number)",
}


def results(objective: Objective, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """The loss and every gradient."""
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in features.items()}
    modules = example_modules(objective)
    loss = objective(modules=modules, **leaves).loss
    loss.backward()
    parameters = {f"{name} {part}": value for name, module in modules.items() for part, value in module.named_parameters()}
    gradients = {name: value.grad for name, value in (leaves | parameters).items() if value.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.mark.parametrize("passed", ["similarity of tokens", "target", "tokens and picks", "queue"])
def test_compiled_functions_have_three_graphs_each_whatever_sizes_come(passed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    recipe = f"{HEAD}minimize {PASSED[passed]}"
    eager, compiled = (vlmdsl.compile(recipe, compiled=choice).double().eval() for choice in (False, True))
    assert len(compiled.schedule.computes) == 2
    for batch, tokens in ((5, 4), (3, 6), (1, 4), (7, 1)):
        features = example_features(eager, batch=batch, tokens=tokens)
        if batch == 7:
            features = {name: value for name, value in features.items() if name != "image_mask"}
        expected, actual = results(eager, features), results(compiled, features)
        for name, value in actual.items():
            torch.testing.assert_close(
                value, expected.get(name, torch.zeros_like(value)), msg=lambda text, n=name: f"{n}: {text}"
            )
        assert expected.keys() <= actual.keys()
        with torch.no_grad():
            torch.testing.assert_close(compiled(modules=example_modules(compiled), **features).loss, expected["loss"])
    assert counters["graph_break"] == {}
    assert counters["stats"]["unique_graphs"] == 6


def test_what_both_functions_need_is_what_one_would_compute() -> None:
    """By hand: the similarities that are mined are those that the last function adds to its own."""
    objective = vlmdsl.compile(f"{HEAD}minimize {PASSED['similarity']}", compiled=False).double()
    features = example_features(objective)
    fusion = example_modules(objective)["fusion"]
    image, text = (torch.nn.functional.normalize(features[name], dim=1) for name in ("image", "text"))
    states = [features[name] for name in ("text_states", "text_mask", "image_states", "image_mask")]
    fused = torch.nn.functional.normalize(fusion(*states).pooled, dim=1)
    logits = image @ text.T + fused @ image.T
    margins = (0.2 + logits - logits.diagonal()[:, None]).clamp(min=0)
    others = ~torch.eye(len(logits), dtype=torch.bool)
    expected = torch.stack([row[other].mean() for row, other in zip(margins, others, strict=True)]).mean()
    out = objective(modules=example_modules(objective), **features)
    alone = vlmdsl.compile(f"{HEAD}minimize itm", compiled=False).double()
    matching = alone(modules=example_modules(alone), **{name: features[name] for name in alone.inputs}).loss
    torch.testing.assert_close(out.loss, matching + expected)


def test_mixed_images_are_compiled_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed of pixels and draws, before any tower."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    eager, compiled = (vlmdsl.compile("zerovl", compiled=choice, learns="yes") for choice in (False, True))
    (mixing,) = compiled.schedule.computes[:-1]
    for samples, side in ((4, 8), (6, 8), (1, 8), (2, 8)):
        values = {name: torch.rand(()) for name in ("coin", "lam")} | {"image": torch.rand(samples, 3, side, side)}
        mixed, expected = (objective.before(mixing.name, values) for objective in (compiled, eager))
        assert mixed.keys() == expected.keys()
        torch.testing.assert_close(list(mixed.values()), list(expected.values()))
    assert counters["graph_break"] == {}
    assert counters["stats"]["unique_graphs"] <= 3
