"""Negatives are drawn in proportion to their weights and never from what is excluded; what is fetched learns."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops import Similarities, TokenFeatures
from vlmdsl.backends.torch.values import Picks
from vlmdsl.testing.gradients import assert_same_gradients, check_gradients
from vlmdsl.testing.laws import example_features

SAMPLES = 5


def similarities(seed: int = 0, **further: Tensor) -> Similarities:
    rows = torch.randn(SAMPLES, SAMPLES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Similarities(rows, rows, **further)


def grid(count: int) -> Tensor:
    """Numbers in [0, 1) spread evenly."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def frequencies(matrix: Similarities, along: str, floor: float, count: int = 4000) -> Tensor:
    """How often each sample [i] draws each other one, over numbers spread evenly: [5, 5]."""
    drawn = torch.zeros(SAMPLES, SAMPLES, dtype=torch.float64)
    for level in grid(count):
        picks = ops.mine(matrix, level.expand(SAMPLES), along, floor)
        assert picks.real.all()
        drawn[torch.arange(SAMPLES), picks.indices[:, 0]] += 1
    return drawn / count


@pytest.mark.parametrize(("along", "floor"), [("rows", 0.0), ("columns", 0.0), ("rows", 0.1)])
def test_a_negative_is_drawn_as_often_as_its_weight_says(along: str, floor: float) -> None:
    matrix = similarities()
    weights = (matrix.rows if along == "rows" else matrix.rows.T).softmax(dim=1) + floor
    weights.fill_diagonal_(0.0)
    expected = weights / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(frequencies(matrix, along, floor), expected, rtol=0, atol=1e-3)


def allowed_negatives(matrix: Similarities, along: str) -> Tensor:
    """By the words of `Similarities`: what each sample may pick, [5, 5]."""
    kept = torch.ones(SAMPLES, SAMPLES, dtype=torch.bool).fill_diagonal_(fill_value=False)
    if matrix.allowed is not None:
        kept &= matrix.allowed
    if matrix.candidates is not None:
        kept &= matrix.candidates[None, :] if along == "rows" else matrix.candidates[:, None]
    return kept if along == "rows" else kept.T


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1), along=st.sampled_from(["rows", "columns"]), floor=st.sampled_from([0.0, 1e-4])
)
def test_neither_the_pair_nor_what_is_excluded_is_ever_picked(seed: int, along: str, floor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(SAMPLES, SAMPLES, generator=generator) < 0.6
    candidates = torch.rand(SAMPLES, generator=generator) < 0.7
    matrix = similarities(seed, allowed=allowed, candidates=candidates)
    matrix = matrix._replace(rows=matrix.rows * 40)  # weights of very different sizes
    uniform = torch.rand(SAMPLES, 3, generator=generator, dtype=torch.float64)
    uniform[0, 0], uniform[1, 0] = 0.0, 1.0 - 2**-53
    possible = allowed_negatives(matrix, along)
    for picks in (ops.mine(matrix, uniform, along, floor), ops.hardest(matrix, along, k=3)):
        counts = picks.real.sum(dim=1)
        assert torch.equal(ops.picked(picks), possible.any(dim=1))
        assert (counts <= possible.sum(dim=1)).all()
        for sample in range(SAMPLES):
            real = picks.indices[sample][picks.real[sample]]
            assert possible[sample, real].all()
            assert len(set(real.tolist())) == len(real)
            assert (picks.indices[sample][~picks.real[sample]] == sample).all()


def test_hardest_are_the_most_similar_in_order() -> None:
    matrix = similarities()
    for along, values in (("rows", matrix.rows), ("columns", matrix.rows.T)):
        others = values.clone().fill_diagonal_(-torch.inf)
        assert torch.equal(ops.hardest(matrix, along, k=3).indices, others.topk(3, dim=1).indices)


def test_of_equals_the_earlier_is_the_hardest() -> None:
    level = torch.zeros(SAMPLES, SAMPLES)
    assert ops.hardest(Similarities(level, level), "rows").indices.flatten().tolist() == [1, 0, 0, 0, 0]


def test_tiny_negatives_beside_a_sure_pair_are_still_drawn() -> None:
    rows = torch.full((2, 3), -400.0)
    rows[0, 0] = rows[1, 1] = 400.0
    rows[0, 2] = -399.0
    picks = ops.mine(Similarities(rows, rows), torch.tensor([0.5, 0.1]), "rows")
    assert picks.real.all()
    assert picks.indices.flatten().tolist() == [2, 0]


def test_a_row_that_is_not_a_number_picks_nothing() -> None:
    rows = similarities().rows.clone()
    rows[1] = torch.nan
    for picks in (ops.mine(Similarities(rows, rows), grid(SAMPLES), "rows"), ops.hardest(Similarities(rows, rows), "rows")):
        assert ops.picked(picks).tolist() == [True, False, True, True, True]


def test_what_is_fetched_learns() -> None:
    indices = torch.tensor([[2], [2], [0], [4], [2]])
    picks = Picks(indices, torch.ones_like(indices, dtype=torch.bool))
    values, tokens = torch.randn(SAMPLES, 3).double(), torch.randn(SAMPLES, 2, 3).double()
    mask = torch.rand(SAMPLES, 2) < 0.5
    several = Picks(torch.tensor([[1, 2], [0, 2], [2, 4], [3, 3], [1, 0]]), torch.rand(SAMPLES, 2) < 0.7)
    assert torch.equal(ops.fetch(values, picks), values[indices[:, 0]])
    fetched = ops.fetch(TokenFeatures(tokens, mask), picks)
    assert torch.equal(fetched.values, tokens[indices[:, 0]])
    assert torch.equal(fetched.mask, mask[indices[:, 0]])
    of_several = ops.fetch(values, several)
    assert torch.equal(of_several.values, values[several.indices])
    assert torch.equal(of_several.mask, several.real)
    labels = torch.arange(SAMPLES)
    assert torch.equal(ops.fetch(labels, picks), indices[:, 0])

    def loss(values: Tensor, tokens: Tensor) -> Tensor:
        of_tokens = ops.fetch(TokenFeatures(tokens, mask), picks)
        return (ops.fetch(values, picks).square().sum() + ops.fetch(values, several).values.sin().sum()) * (
            of_tokens.values.cos().sum()
        )

    check_gradients(loss, {"values": values, "tokens": tokens})


def test_no_gradient_comes_of_mining() -> None:
    rows = similarities().rows.requires_grad_()
    picks = ops.mine(Similarities(rows, rows), grid(SAMPLES), "columns")
    assert not picks.indices.requires_grad


RECIPE = """
recipe hard(image: Image, text: Text)
let s = similarity(image, text) / learned(0.5)
let wrong = mine(s, along="rows", floor=1%)
let unlike = mine(s, along="columns", choose="hardest")
minimize {
  texts: mean(softplus(score(image, take(text, wrong)) - score(image, text)))
  images: mean(softplus(score(take(image, unlike), text) - score(image, text)))
}
"""


def by_hand(image: Tensor, text: Tensor, wrong_uniform: Tensor) -> Tensor:
    """The same loss, written for one process."""
    x, y = (torch.nn.functional.normalize(features, dim=-1) for features in (image, text))
    own = (x * y).sum(dim=1)
    weights = (x @ y.T / 0.5).softmax(dim=1).detach() + 0.01
    weights.fill_diagonal_(0.0)
    shares = (weights / weights.sum(dim=1, keepdim=True)).cumsum(dim=1)
    wrong = torch.searchsorted(shares, wrong_uniform[:, None]).squeeze(1)
    unlike = (x @ y.T).fill_diagonal_(-torch.inf).argmax(dim=0)
    texts, images = (x * y[wrong]).sum(dim=1), (x[unlike] * y).sum(dim=1)
    return torch.nn.functional.softplus(torch.cat([texts - own, images - own])).sum() / len(x)


def test_a_recipe_mines_and_learns_from_what_it_takes() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False).double()
    assert {name: each.axes for name, each in objective.inputs.items()} == {
        "image": ("B", "D"), "text": ("B", "D"), "wrong_uniform": ("B",),
    }  # fmt: skip
    features = example_features(objective)
    assert_same_gradients(lambda **inputs: objective(**inputs).loss, by_hand, features)


def test_several_picks_are_tokens_and_drawn_by_as_many_numbers() -> None:
    recipe = RECIPE.replace("floor=1%", "k=3").replace("take(text, wrong)", "take(text, wrong), by=tokenmean")
    objective = vlmdsl.compile(recipe.replace("score(image, take", "score(image.tokens, take"), compiled=False).double()
    assert objective.inputs["wrong_uniform"].axes == ("B", "K")
    features = example_features(objective)
    assert features["wrong_uniform"].shape == (5, 3)
    check_gradients(lambda **inputs: objective(**inputs).loss, features)


def test_excluded_samples_are_not_picked_and_their_numbers_change_nothing() -> None:
    recipe = RECIPE.replace("recipe hard(image: Image, text: Text)", "recipe hard(image: Image, text: Text, kept: Flag)")
    recipe = recipe.replace("similarity(image, text)", "restrict(similarity(image, text), to=kept)")
    recipe = recipe.replace("score(image, text)))", "score(image, text)), over=kept)")
    objective = vlmdsl.compile(recipe, compiled=False).double()
    features = example_features(objective)
    features["kept"] = torch.tensor([True, False, True, True, False])
    results = []
    for level in (0.0, torch.nan):
        leaves = {name: value.clone() for name, value in features.items()}
        leaves["text"][~features["kept"]] = level
        leaves["image"][~features["kept"]] = level
        leaves["image"].requires_grad_()
        objective(**leaves).loss.backward()
        results.append(leaves["image"].grad)
    assert results[1].isfinite().all()
    torch.testing.assert_close(results[0], results[1])


def test_one_graph_without_breaks_serves_several_sizes() -> None:
    def loss(image: Tensor, text: Tensor, uniform: Tensor) -> Tensor:
        picks = ops.mine(ops.similarity(image, text, by="dot"), uniform, "columns", floor=1e-4)
        hard = ops.hardest(ops.similarity(image, text, by="dot"), "rows", k=2)
        return (ops.fetch(text, picks) * image).sum() + ops.fetch(image, hard).values.square().sum()

    counter = CompileCounterWithBackend("aot_eager")
    function = torch.compile(loss, fullgraph=True, dynamic=True, backend=counter)
    for batch in (5, 7, 9):
        image, text = torch.randn(2, batch, 3, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
        arguments = {"image": image, "text": text, "uniform": grid(batch)}
        assert_same_gradients(function, loss, arguments, tolerance=1e-12)
    assert counter.frame_count == 1
