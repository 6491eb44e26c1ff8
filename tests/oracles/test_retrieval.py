"""RA-CLIP finds the reference samples of its reconstruction, and gives its loss and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmdsl
from oracles.cases import DATA
from vlmdsl.backends.torch import ops


def load() -> dict[str, Tensor]:
    with np.load(DATA / "raclip-augmented.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def check(*, compiled: bool) -> None:
    arrays = load()
    objective = vlmdsl.compile("ra_clip", compiled=compiled, k=4).double()
    columns = {"image_retriever": "ref_frozen", "image_reference_image": "ref_img", "text_reference_text": "ref_txt"}
    objective.references.fill({name: arrays[key] for name, key in columns.items()}, torch.arange(30))
    with torch.no_grad():
        objective.log_scale.fill_(arrays["log_scale"])
    image, text = arrays["image_x"].requires_grad_(), arrays["text_x"].requires_grad_()
    query = arrays["query_frozen"].requires_grad_()
    loss = objective(image=image, text=text, image_retriever=query, key=torch.arange(100, 108)).loss
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays["out_total"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(image.grad, arrays["grad_image_x"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(text.grad, arrays["grad_text_x"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(objective.log_scale.grad, arrays["grad_log_scale"], rtol=1e-9, atol=1e-12)
    assert query.grad is None


def test_ra_clip() -> None:
    check(compiled=False)


@pytest.mark.slow
def test_ra_clip_compiled() -> None:
    check(compiled=True)


def test_crossed_keys_are_the_second_reading() -> None:
    """Texts weighted by images and images by texts, both added to the image: written out, values and every gradient."""
    arrays = load()
    objective = vlmdsl.compile("ra_clip", compiled=False, k=4, keys="crossed").double()
    columns = {"image_retriever": "ref_frozen", "image_reference_image": "ref_img", "text_reference_text": "ref_txt"}
    objective.references.fill({name: arrays[key] for name, key in columns.items()}, torch.arange(30))
    with torch.no_grad():
        objective.log_scale.fill_(arrays["log_scale"])
    leaves = [arrays["image_x"].clone().requires_grad_(), arrays["text_x"].clone().requires_grad_()]
    features = {
        "image": leaves[0],
        "text": leaves[1],
        "image_retriever": arrays["query_frozen"],
        "key": torch.arange(100, 108),
    }
    loss = objective(**features).loss

    def looked_up(keys: Tensor, values: Tensor) -> Tensor:
        weights = ((keys @ leaves[0][:, :, None]).squeeze(2) / math.sqrt(keys.shape[2])).softmax(dim=1)
        return (weights[:, :, None] * values).sum(dim=1)

    images, texts = (arrays[name][arrays["out_index"]] for name in ("ref_img", "ref_txt"))
    query = leaves[0] + looked_up(images, texts) + looked_up(texts, images)
    logits = F.normalize(query, dim=-1) @ F.normalize(leaves[1], dim=-1).T * arrays["log_scale"].exp()
    positions = torch.arange(8)
    expected = (F.cross_entropy(logits, positions) + F.cross_entropy(logits.T, positions)) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    assert abs(loss.item() - arrays["out_total"].item()) > 1e-3  # it is another reading
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_what_is_found_and_what_the_image_becomes(chunk: int) -> None:
    arrays = load()
    indices, real = ops.best_entries(
        arrays["query_frozen"], arrays["ref_frozen"], torch.full((8,), -1), torch.arange(30), 4, chunk
    )
    assert torch.equal(indices, arrays["out_index"])
    assert real.all()
    images, texts = (ops.TokenFeatures(arrays[name][indices], real) for name in ("ref_img", "ref_txt"))
    attended = ops.attend(arrays["image_x"], images, images, texts)
    torch.testing.assert_close(attended, arrays["out_augmented"], rtol=1e-9, atol=1e-12)
