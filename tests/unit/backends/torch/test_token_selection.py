"""FILIP's token selection: which tokens may be a best partner, against the definition written out sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.runtime.evaluation.comparison import comparison_of
from vlmdsl.testing.distributed import run_processes

LENGTHS = [7, 3, 1, 5, 8, 4, 8, 2]


def batch(*, image_mask: bool = False, requires_grad: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    image, text = (torch.randn(8, tokens, 5, generator=generator, dtype=torch.float64) for tokens in (6, 8))
    features = {
        "image_tokens": image,
        "text_tokens": text,
        "text_mask": torch.arange(8)[None] < torch.tensor(LENGTHS)[:, None],
    }
    if image_mask:
        features["image_mask"] = torch.arange(6)[None] < torch.tensor([6, 2, 5, 6, 1, 3, 4, 6])[:, None]
    return {name: value.requires_grad_(requires_grad and value.is_floating_point()) for name, value in features.items()}


def kept(similarities: list[Tensor], share: float, count: int) -> list[list[int]]:
    """Of each sample's tokens, whose ranks are given, the numbers of the highest ones."""
    chosen = []
    for ranks in similarities:
        limit = math.ceil(share * len(ranks) - 1e-6)
        limit = min(limit, count) if count else limit
        chosen.append(sorted(range(len(ranks)), key=lambda token: (-ranks[token].item(), token))[:limit])
    return chosen


def reference(features: dict[str, Tensor], share: float = 1.0, count: int = 0, rank: str = "best") -> tuple[Tensor, Tensor]:
    """Both matrices [B, B], one entry after the other: rows over the images' tokens, columns over the texts'."""
    masks = features.get("image_mask", torch.ones(8, 6, dtype=torch.bool)), features["text_mask"]
    x, y = (
        [F.normalize(values, dim=-1)[real] for values, real in zip(features[f"{name}_tokens"], mask, strict=True)]
        for name, mask in zip(("image", "text"), masks, strict=True)
    )
    if rank == "best":
        x_ranks = [torch.cat([one @ other.T for other in y], dim=1).amax(dim=1) for one in x]
        y_ranks = [torch.cat([one @ other.T for other in x], dim=1).amax(dim=1) for one in y]
    else:
        x_ranks = [(one @ other.T).sum(dim=1) for one, other in zip(x, y, strict=True)]
        y_ranks = [(one @ other.T).sum(dim=0) for one, other in zip(x, y, strict=True)]
    x_kept, y_kept = kept(x_ranks, share, count), kept(y_ranks, share, count)
    rows = [[(x[i] @ y[j][y_kept[j]].T).amax(dim=1).mean() for j in range(8)] for i in range(8)]
    columns = [[(y[j] @ x[i][x_kept[i]].T).amax(dim=1).mean() for j in range(8)] for i in range(8)]
    return (torch.stack([torch.stack(row) for row in matrix]) for matrix in (rows, columns))  # type: ignore[return-value]


def loss_of(rows: Tensor, columns: Tensor) -> Tensor:
    positions = torch.arange(8)
    return (F.cross_entropy(rows / 0.07, positions) + F.cross_entropy(columns.T / 0.07, positions)) / 2


def objective(arguments: str) -> vlmdsl.Objective:
    recipe = (
        f"recipe r(image: Image, text: Text)\nminimize contrast(image, text, sim=tokenmax({arguments}), temperature=0.07)"
    )
    return vlmdsl.compile(recipe, compiled=False).double()


@pytest.mark.parametrize("image_mask", [False, True])
@pytest.mark.parametrize(
    ("arguments", "selection"),
    [
        ("share=25%", {"share": 0.25}),
        ("share=0.5", {"share": 0.5}),
        ("count=2", {"count": 2}),
        ('count=3, rank="partner"', {"count": 3, "rank": "partner"}),
        ('share=40%, count=2, rank="partner"', {"share": 0.4, "count": 2, "rank": "partner"}),
        ("share=100%", {}),
        ('count=99, rank="partner"', {}),
    ],
)
def test_value_and_gradients(arguments: str, selection: dict[str, object], image_mask: bool) -> None:
    ours, theirs = batch(image_mask=image_mask), batch(image_mask=image_mask)
    loss, expected = objective(arguments)(**ours).loss, loss_of(*reference(theirs, **selection))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    names = ("image_tokens", "text_tokens")
    for name, gradient, reference_gradient in zip(
        names,
        torch.autograd.grad(loss, [ours[name] for name in names]),
        torch.autograd.grad(expected, [theirs[name] for name in names]),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference_gradient, rtol=1e-8, atol=1e-11)
        if name == "text_tokens":
            assert not gradient[~ours["text_mask"]].any()


def test_a_quarter_is_another_objective_than_all_and_the_recipe_has_the_hyper_parameter() -> None:
    features = batch(requires_grad=False)
    losses = {
        share: vlmdsl.compile("filip", compiled=False, share=share).double()(**features).loss.item() for share in (1.0, 0.25)
    }
    whole, quarter = (loss_of(*reference(features, share)).item() for share in (1.0, 0.25))
    assert losses[1.0] == pytest.approx(whole, rel=1e-6)
    assert losses[0.25] == pytest.approx(quarter, rel=1e-6)
    assert abs(whole - quarter) > 1e-3


def test_the_score_of_a_pair_is_the_rows_entry() -> None:
    features = batch(requires_grad=False)
    recipe = "recipe r(image: Image, text: Text)\nminimize mean(score(image, text, by=tokenmax(share=25%)))"
    rows, _ = reference(features, 0.25)
    loss = vlmdsl.compile(recipe, compiled=False).double()(**features).loss
    torch.testing.assert_close(loss, rows.diagonal().mean())


def test_equal_tokens_are_kept_in_their_order_and_samples_without_tokens_score_nothing() -> None:
    x = ops.TokenFeatures(torch.eye(3, dtype=torch.float64).repeat(2, 1, 1))
    y = ops.TokenFeatures(x.values[:, [0, 0, 1]], torch.tensor([[True, True, True], [False, False, False]]))
    matrices = ops.similarity(x, y, by="tokenmax", count=1)
    assert matrices.rows.tolist() == [[1 / 3, 0.0], [1 / 3, 0.0]]
    torch.testing.assert_close(matrices.columns, torch.tensor([[2 / 3, 0.0], [2 / 3, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("rank", ["best", "partner"])
def test_which_stream_comes_first_changes_nothing(rank: str) -> None:
    features = batch(requires_grad=False)
    x = ops.normalize(ops.TokenFeatures(features["image_tokens"]))
    y = ops.normalize(ops.TokenFeatures(features["text_tokens"], features["text_mask"]))
    one, other = (ops.similarity(*pair, by="tokenmax", share=0.4, rank=rank) for pair in ((x, y), (y, x)))
    torch.testing.assert_close(one.rows, other.columns.T)
    torch.testing.assert_close(one.columns, other.rows.T)


def test_bfloat16_does_not_decide_between_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (ops.TokenFeatures(torch.randn(6, 9, 16, generator=generator).bfloat16()) for _ in range(2))
    wide = (ops.TokenFeatures(side.values.float()) for side in (x, y))
    narrow, exact = ops.similarity(x, y, by="tokenmax", share=0.25), ops.similarity(*wide, by="tokenmax", share=0.25)
    torch.testing.assert_close(narrow.rows, exact.rows, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(narrow.columns, exact.columns, rtol=2e-2, atol=2e-2)


def test_samples_that_are_left_out_choose_nothing() -> None:
    """Neither their values nor their being there: the loss of the others alone."""
    head = "recipe r(image: Image, text: Text, valid: Flag)\n"
    recipe = f"{head}minimize contrast(image, text, sim=tokenmax(share=40%), keep=valid)"
    features, valid = batch(requires_grad=False), torch.tensor([True, True, False, True, False, True, True, True])
    run = vlmdsl.compile(recipe, compiled=False).double()
    expected = run(**{name: value[valid] for name, value in features.items()}, valid=valid[valid]).loss
    for poison in (float("nan"), 1e30, 0.0):
        poisoned = {name: value.clone() for name, value in features.items()}
        for name in ("image_tokens", "text_tokens"):
            poisoned[name][~valid] = poison
        torch.testing.assert_close(run(**poisoned, valid=valid).loss, expected, rtol=1e-12, atol=1e-14)


def test_evaluation_compares_all_tokens() -> None:
    comparison = comparison_of(objective("share=25%").program)
    assert comparison is not None
    x, y = (
        ops.TokenFeatures(F.normalize(batch(requires_grad=False)[f"{name}_tokens"], dim=-1)) for name in ("image", "text")
    )
    part = comparison.parts[0]
    from vlmdsl.backends.torch.ops.similarities import similarity_to  # the function that an evaluation calls

    chosen, every = similarity_to(x, y, part.by, **dict(part.arguments)), similarity_to(x, y, "tokenmax")
    assert torch.equal(chosen.rows, every.rows)


@pytest.mark.parametrize(("arguments", "code"), [("share=0", "V0405"), ("share=2", "V0405"), ("count=-1", "V0405")])
def test_what_cannot_be_kept_is_a_diagnostic(arguments: str, code: str) -> None:
    assert [fault.code for fault in vlmdsl.check(f"contrast(image, text, sim=tokenmax({arguments}))")] == [code]


def split_batch(processes: int) -> dict[str, Tensor]:
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    results = {}
    for arguments in ("share=25%", 'count=2, rank="partner"'):
        whole = batch(requires_grad=False)
        own = {name: value.chunk(processes)[rank].clone() for name, value in whole.items()}
        leaves = [own[name].requires_grad_() for name in ("image_tokens", "text_tokens")]
        loss = objective(arguments)(**own).loss
        loss.backward()
        results |= {f"loss {arguments}": loss.detach()}
        results |= {f"{place} {arguments}": leaf.grad / processes for place, leaf in enumerate(leaves)}
    return results


@pytest.mark.distributed
def test_two_processes_choose_the_same_tokens_as_one() -> None:
    expected, results = split_batch(1), run_processes(split_batch, 2, 2)
    for name, whole in expected.items():
        parts = [part[name] for part in results]
        for value in parts if name.startswith("loss") else [torch.cat(parts)]:
            torch.testing.assert_close(value, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_compiled_with_any_length() -> None:
    run = vlmdsl.compile(
        "recipe r(image: Image, text: Text)\nminimize contrast(image, text, sim=tokenmax(share=25%), temperature=0.07)"
    ).double()
    plain = objective("share=25%")
    for length in (8, 6, 7, 5):
        features = {name: value[:, :length] if name.startswith("text") else value for name, value in batch().items()}
        torch.testing.assert_close(run(**features).loss, plain(**features).loss, rtol=1e-9, atol=1e-11)
