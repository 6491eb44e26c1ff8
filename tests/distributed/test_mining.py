"""Mining and fetching are of the global batch: on several processes the same picks, values and gradients as on one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.collectives import (
    fetch,
    fetch_samples,
    own_slice,
    process_count,
    return_samples,
    transposed,
)
from vlmdsl.backends.torch.ops import TokenFeatures
from vlmdsl.testing.distributed import run_processes
from vlmdsl.testing.laws import example_features

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SAMPLES = 8


def drawn(*shape: int, seed: int) -> Tensor:
    """This process's share of what all processes draw alike."""
    whole = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return own_slice(whole).clone()


def mined() -> dict[str, Tensor]:
    """Picks along both directions and what is fetched by them, with the gradients (mean over processes, as DDP's)."""
    image, text, tokens = (drawn(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(4,), (4,), (3, 4)]))
    mask, excluded = drawn(3, seed=3) > 0, drawn(seed=4) > 0.8
    matrix = ops.exclude(ops.similarity(image, text, by="dot"), excluded)
    uniform = own_slice(torch.rand(SAMPLES, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    results: dict[str, Tensor] = {}
    loss = torch.zeros((), dtype=torch.float64)
    for along in ("rows", "columns"):
        choices = {"two": ops.mine(matrix, uniform, along), "one": ops.mine(matrix, uniform[:, 0], along, floor=0.1)}
        choices["hard"] = ops.hardest(matrix, along)
        for name, picks in choices.items():
            results[f"indices {along} {name}"] = picks.indices
            results[f"picked {along} {name}"] = ops.picked(picks)
            values = ops.fetch(text, picks)
            values = values.values if isinstance(values, TokenFeatures) else values
            results[f"values {along} {name}"] = values.detach()
            loss = loss + values.sin().sum()
        fetched = ops.fetch(TokenFeatures(tokens, mask), choices["one"])
        results[f"mask {along}"] = fetched.mask
        loss = loss + (fetched.values * image[:, None]).square().sum()
        results[f"labels {along}"] = ops.fetch(own_slice(torch.arange(SAMPLES)), choices["hard"])
    loss.backward()
    gradients = {"image": image.grad, "text": text.grad, "tokens": tokens.grad}
    return results | {f"gradient {name}": value for name, value in gradients.items() if value is not None}


def twice() -> dict[str, Tensor]:
    """Second derivatives through what is fetched and what is transposed."""
    local = drawn(3, seed=6).requires_grad_()
    indices = own_slice(torch.tensor([5, 5, 0, 7, 5, 1, 2, 2]))
    matrix = drawn(SAMPLES, seed=7).requires_grad_()
    weights = drawn(3, seed=8)
    value = (fetch(local, indices) ** 3 * weights).sum() + (transposed(matrix) ** 3 * drawn(SAMPLES, seed=9)).sum()
    first = torch.autograd.grad(value, [local, matrix], create_graph=True)
    second = torch.autograd.grad([(gradient**2).sum() for gradient in first], [local, matrix])
    return {"of local": first[0].detach(), "of matrix": first[1].detach(), "twice": second[0], "twice, matrix": second[1]}


def in_one_graph() -> dict[str, Tensor]:
    """Mined and fetched in one graph without breaks, where there are several processes."""

    def loss(text: Tensor, image: Tensor, uniform: Tensor) -> Tensor:
        picks = ops.mine(ops.similarity(image, text, by="dot"), uniform, "columns", floor=1e-4)
        fetched = ops.fetch(text, picks)
        assert isinstance(fetched, Tensor)
        return (fetched * image).sum(dim=1)

    text, image = drawn(4, seed=0).requires_grad_(), drawn(4, seed=1)
    uniform = own_slice(torch.rand(SAMPLES, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    function = torch.compile(loss, fullgraph=True, backend="aot_eager") if process_count() == 2 else loss
    values = function(text, image, uniform)
    values.sum().backward()
    assert text.grad is not None
    return {"values in a graph": values.detach(), "gradient in a graph": text.grad}


RECIPE = """
recipe hard(image: Image, text: Text, kept: Flag)
let s = restrict(similarity(image, text), to=kept) / 0.3
let wrong = mine(s, along="rows", floor=1e-4)
let unlike = mine(s, along="columns", k=2)
minimize {
  texts: mean(softplus(score(image.tokens, take(text.tokens, wrong), by=tokenmax) - score(image, text)), over=picked(wrong))
  images: mean(softplus(score(take(image, unlike), text.tokens, by=tokenmean) - score(image, text)))
}
"""


def recipe() -> dict[str, Tensor]:
    """A recipe that mines, from its text: terms, and gradients over the number of processes, as DDP's mean gives them."""
    objective = vlmdsl.compile(RECIPE, compiled=False).double()
    whole = example_features(objective, batch=SAMPLES)
    own = {name: own_slice(value).clone() for name, value in whole.items()}
    own = {name: value.requires_grad_() if value.is_floating_point() else value for name, value in own.items()}
    out = objective(**own)
    out.loss.backward()
    share = SAMPLES // process_count()
    terms = {f"term {name}": value.detach()[None].expand(share) for name, value in out.terms.items()}
    gradients = {name: value.grad / process_count() for name, value in own.items() if value.grad is not None}
    return terms | {f"of recipe: {name}": value for name, value in gradients.items()}


def operators() -> None:
    """What torch asks of custom operators: among others, that their shapes are those they are said to have."""
    indices = own_slice(torch.tensor([5, 5, 0, 7, 5, 1, 2, 2]))
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(fetch_samples, (drawn(3, seed=0), indices), test_utils=tests)
    torch.library.opcheck(return_samples, (drawn(3, seed=0), indices, len(indices)), test_utils=tests)


def everything() -> dict[str, Tensor]:
    results = mined() | twice() | in_one_graph() | recipe()
    if process_count() > 1:
        operators()
    return results


@pytest.mark.parametrize("processes", [2, 4])
def test_picks_values_and_gradients_are_those_of_one_process(processes: int) -> None:
    expected, parts = everything(), run_processes(everything, processes)
    for name, value in expected.items():
        whole = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(whole, value, rtol=1e-12, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
