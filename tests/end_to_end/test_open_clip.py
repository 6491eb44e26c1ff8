"""What docs/open_clip.md says is so: its modules give open_clip's losses, and every gradient, the scale's included."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vlmdsl
from oracles.cases import DATA
from vlmdsl.testing.distributed import run_processes

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "open_clip.md").read_text(encoding="utf-8")


def documented() -> dict[str, Callable[[], nn.Module]]:
    """The classes of the page, by name, uncompiled."""
    namespace: dict[str, Any] = {"torch": torch, "vlmdsl": vlmdsl}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block.replace("compile(self.recipe)", "compile(self.recipe, compiled=False)"), namespace)
    return {name: namespace[name] for name in ("ClipLoss", "SigLipLoss")}


def clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """open_clip's ClipLoss on one process."""
    logits = scale * image @ text.T
    positions = torch.arange(len(image))
    return (F.cross_entropy(logits, positions) + F.cross_entropy(logits.T, positions)) / 2


def siglip_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """open_clip's SigLipLoss on one process."""
    logits = scale * image @ text.T + bias
    signs = 2 * torch.eye(len(image), dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum() / len(image)


LOSSES = {"ClipLoss": (clip_loss, (14.3,)), "SigLipLoss": (siglip_loss, (10.0, -10.0))}


def leaves(numbers: tuple[float, ...], samples: int = 6, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = [F.normalize(torch.randn(samples, 5, generator=generator, dtype=dtype), dim=-1) for _ in range(2)]
    return [value.requires_grad_() for value in (*features, *(torch.tensor(number, dtype=dtype) for number in numbers))]


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_open_clips(name: str) -> None:
    reference, numbers = LOSSES[name]
    module, ours, theirs = documented()[name](), leaves(numbers), leaves(numbers)
    losses = module(*ours, output_dict=True)
    assert list(losses) == ["contrastive_loss"]
    assert torch.equal(module(*ours), losses["contrastive_loss"])
    expected = reference(*theirs)
    torch.testing.assert_close(losses["contrastive_loss"], expected, rtol=1e-12, atol=1e-14)
    gradients = torch.autograd.grad(expected, theirs)
    for gradient, other in zip(torch.autograd.grad(losses["contrastive_loss"], ours), gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-12)


def test_the_first_module_is_ten_lines_and_owns_no_number() -> None:
    first, _ = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    assert list(documented()["ClipLoss"]().parameters()) == []


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("ClipLoss", "clip-openclip"),
        ("ClipLoss", "clip-openclip_scale100"),
        ("SigLipLoss", "siglip-openclip"),
        ("SigLipLoss", "siglip-openclip_chunked"),
    ],
)
def test_the_oracles_of_open_clip_with_their_scale_given(name: str, oracle: str) -> None:
    with np.load(DATA / f"{oracle}.npz") as arrays:
        values = {key: torch.from_numpy(arrays[key].astype(np.float64)) for key in arrays.files}
    keys = ["image_features", "text_features", "log_scale", *(["logit_bias"] if name == "SigLipLoss" else [])]
    raw = [values[key].reshape(() if key.startswith("lo") else values[key].shape).requires_grad_() for key in keys]
    unit = [F.normalize(features, dim=-1) for features in raw[:2]]
    loss = documented()[name]()(*unit, raw[2].exp(), *raw[3:])
    torch.testing.assert_close(loss, values["out_total"].reshape(()), rtol=1e-11, atol=1e-13)
    for key, gradient in zip(keys, torch.autograd.grad(loss, raw), strict=True):
        torch.testing.assert_close(gradient, values[f"grad_{key}"].reshape(gradient.shape), rtol=1e-9, atol=1e-12)


def test_a_scale_from_outside_is_still_one_fused_region() -> None:
    for temperature in ("scale", "1 / scale"):
        recipe = (
            f"recipe r(image: Image, text: Text, scale: Scalar)\nminimize contrast(image, text, temperature={temperature})"
        )
        source = vlmdsl.compile(recipe, compiled=False).source
        assert source.count("ops.contrast(") == 1
        assert "ops.similarity" not in source


def of_own_rows(name: str) -> dict[str, Tensor]:
    """This process's loss, and the gradients of its rows and of the numbers that it gives."""
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    image, text, *numbers = leaves(LOSSES[name][1])
    own = [features.detach().chunk(processes)[rank].clone().requires_grad_() for features in (image, text)]
    loss = documented()[name]()(*own, *numbers)
    loss.backward()
    return {"loss": loss.detach(), "image": own[0].grad, "numbers": torch.stack([number.grad for number in numbers])}


@pytest.mark.distributed
@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_processes_is_the_gradient_of_the_scale(name: str) -> None:
    reference, numbers = LOSSES[name]
    theirs = leaves(numbers)
    expected = reference(*theirs)
    gradients = torch.autograd.grad(expected, theirs)
    results = run_processes(of_own_rows, 2, name)
    for part in results:
        torch.testing.assert_close(part["loss"], expected.detach(), rtol=1e-12, atol=1e-14)
    mean = torch.stack([part["numbers"] for part in results]).mean(dim=0)
    torch.testing.assert_close(mean, torch.stack(gradients[2:]), rtol=1e-10, atol=1e-12)
    rows = torch.cat([part["image"] for part in results]) / 2
    torch.testing.assert_close(rows, gradients[0], rtol=1e-10, atol=1e-12)
