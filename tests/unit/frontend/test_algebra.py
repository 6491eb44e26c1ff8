"""Sums of features, products and row sums of matrices: what they are, and what an exclusion does to them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.runtime.evaluation.comparison import comparison_of
from vlmdsl.testing.distributed import run_processes

HEADER = "recipe mine(image: Image, text: Text, caption: Text, valid: Flag)\n"


def features(*names: str, samples: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(samples, 5, generator=generator, dtype=torch.float64).requires_grad_() for name in names}


def loss_of(body: str, **inputs: Tensor) -> Tensor:
    objective = vlmdsl.compile(HEADER + body, compiled=False).double()
    loss: Tensor = objective(**inputs).loss
    return loss


def unit(values: Tensor) -> Tensor:
    return F.normalize(values, dim=-1)


@pytest.mark.parametrize("symbol", ["+", "-"])
def test_features_are_added_and_subtracted(symbol: str) -> None:
    inputs = features("image", "text", "caption")
    loss = loss_of(f"minimize mean(score(image, text.pooled {symbol} caption.pooled, by=dot))", **inputs)
    other = inputs["text"] + inputs["caption"] if symbol == "+" else inputs["text"] - inputs["caption"]
    expected = (inputs["image"] * other).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    leaves = list(inputs.values())
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sums_of_features_keep_their_precision_and_need_one_length() -> None:
    objective = vlmdsl.compile(HEADER + "minimize contrast(image, text.pooled + caption.pooled)", compiled=False)
    half = {name: value.detach().bfloat16() for name, value in features("image", "text", "caption").items()}
    assert ops.add_features(half["text"], half["caption"]).dtype is torch.bfloat16
    assert objective(**half).loss.dtype is torch.float32
    with pytest.raises(ValueError, match=r"axis D \(features\): text has 5, caption has 3"):
        objective(**{**half, "caption": half["caption"][:, :3]})


@pytest.mark.parametrize("body", ["image + text", "image.pooled + similarity(image, text)", "image.pooled * text.pooled"])
def test_what_does_not_combine_is_said(body: str) -> None:
    (fault, *_) = vlmdsl.check(HEADER + f"minimize contrast({body}, caption, keep=valid)")
    assert fault.code == "V0302"
    assert (fault.help == ("features are added: `image.pooled + text.pooled`",)) == (body == "image + text")


def test_what_is_added_of_a_stream_are_its_pooled_features() -> None:
    for body in ("image - running_mean(image)", "text.pooled + image"):
        (fault, *_) = vlmdsl.check(HEADER + f"minimize contrast({body}, caption, keep=valid)")
        assert (fault.code, "its `.pooled`" in fault.help[0]) == ("V0302", True)


def test_products_and_row_sums_leave_out_what_is_not_a_candidate() -> None:
    """Of both factors; a row without any candidate is 0, in the sum and in the mean."""
    inputs = features("image", "text", "caption")
    valid = torch.tensor([True, False, True, True, False, True])
    body = (
        "let across = restrict(similarity(image, text), to=valid)\nlet beside = exclude_pairs(similarity(image, caption))\n"
        "minimize mean(row_sum(across * beside)) + 3 * mean(row_mean(square(across) * beside))"
    )
    loss = loss_of(body, **inputs, valid=valid)
    image, text, caption = map(unit, inputs.values())
    across, beside = image @ text.T, image @ caption.T
    counted = valid[None, :] & ~torch.eye(6, dtype=torch.bool)
    products = torch.where(counted, across * beside, 0.0)
    squares = torch.where(counted, across.square() * beside, 0.0)
    expected = products.sum(1).mean() + 3 * (squares.sum(1) / counted.sum(1)).mean()
    torch.testing.assert_close(loss, expected)
    leaves = list(inputs.values())
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)
    nobody = loss_of(body, **inputs, valid=torch.zeros(6, dtype=torch.bool))
    assert nobody.item() == 0.0
    assert all(not gradient.any() for gradient in torch.autograd.grad(nobody, leaves))


def test_of_columns_side_by_side_and_of_a_queue() -> None:
    inputs = features("image", "text", "caption")
    wide = (
        "let wide = unite(similarity(image, text), exclude_pairs(similarity(image, caption)))\nminimize mean(row_mean(wide))"
    )
    image, text, caption = map(unit, inputs.values())
    expected = ((image @ text.T).sum(1) + (image @ caption.T).fill_diagonal_(0.0).sum(1)) / 11
    torch.testing.assert_close(loss_of(wide, **inputs), expected.mean())
    queued = (
        "let earlier = similarity(image, queue(text, size=9))\n"
        "minimize mean(row_mean(square(earlier))) + contrast(image, caption, temperature=1)"
    )
    objective = vlmdsl.compile(HEADER + queued, compiled=False).double()
    inputs = {name: value for name, value in inputs.items() if name in objective.inputs}
    first = objective(**inputs).loss
    second = objective(**inputs).loss
    torch.testing.assert_close(second - first, (image @ text.T).square().mean(dim=1).mean())


def test_the_column_direction_of_two_matrices_stays_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = {name: torch.randn(4, 3, 5, generator=generator, dtype=torch.float64) for name in ("image", "text")}
    body = (
        "let z = similarity(image, text, by=tokenmax)\nminimize mean(row_sum(z * z)) - mean(row_sum(square(transpose(z))))"
    )
    inputs = {f"{name}_tokens": values for name, values in tokens.items()}
    loss = loss_of(body, **inputs, text_mask=torch.ones(4, 3, dtype=torch.bool))
    pairs = torch.einsum("ipd,jld->ijpl", unit(tokens["image"]), unit(tokens["text"]))
    rows, columns = pairs.amax(3).mean(2), pairs.amax(2).mean(2)
    torch.testing.assert_close(loss, rows.square().sum(1).mean() - columns.square().sum(0).mean())


def test_a_product_of_similarities_is_not_a_ranking_of_one() -> None:
    product = 'let z = similarity(image, text)\nminimize mean(cross_entropy(z * z * 9, targets=paired, along="rows"))'
    assert comparison_of(vlmdsl.compile(HEADER + product, compiled=False).program) is None
    added = "minimize contrast(image.pooled + image.pooled, text)"
    comparison = comparison_of(vlmdsl.compile(HEADER + added, compiled=False).program)
    assert comparison is not None
    assert comparison.image_features is not None
    mixed = "minimize contrast(image.pooled + caption.pooled, text)"
    assert comparison_of(vlmdsl.compile(HEADER + mixed, compiled=False).program) is None


CYCLE = (
    "let z = restrict(similarity(image, text), to=valid)\nlet apart = z - transpose(z)\n"
    "let moved = image.pooled - caption.pooled\n"
    "minimize mean(row_sum(square(apart))) + mean(row_mean(transpose(z) * z)) + mean(score(moved, text))"
)


def split_batch(processes: int) -> dict[str, Tensor]:
    """This process's loss, and the gradients of its samples."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    whole = {**features("image", "text", "caption", samples=8), "valid": torch.arange(8) % 3 > 0}
    own = {name: value.detach().chunk(processes)[rank].clone() for name, value in whole.items()}
    leaves = [value.requires_grad_() for value in own.values() if value.is_floating_point()]
    loss = loss_of(CYCLE, **own)
    loss.backward()
    return {"loss": loss.detach(), **{str(place): leaf.grad / processes for place, leaf in enumerate(leaves)}}


@pytest.mark.distributed
def test_two_processes_are_one() -> None:
    expected, results = split_batch(1), run_processes(split_batch, 2, 2)
    for name, whole in expected.items():
        together = [part[name] for part in results] if name == "loss" else [torch.cat([part[name] for part in results])]
        for value in together:
            torch.testing.assert_close(value, whole, rtol=1e-10, atol=1e-12)
