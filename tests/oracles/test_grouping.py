"""Groups of patches as in the authors' code: how patches are assigned to them, with what gradient, and SegCLIP's terms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.runtime.modules.decoders import restored
from vlmdsl.runtime.modules.towers.grouping import hard_assignment
from vlmdsl.testing.oracle import Oracle, load_oracle

DATA = Path(__file__).parent / "data"


def test_the_hard_assignment_over_groups() -> None:
    tolerances = json.loads((DATA / "groupvit-hard_assign.json").read_text())
    with np.load(DATA / "groupvit-hard_assign.npz") as arrays:
        logits = torch.from_numpy(arrays["raw_attn"]).requires_grad_()
        assignment = hard_assignment(logits)
        # Theirs is the soft value added and taken away again, so a little beside 0 and 1; ours is exact.
        assert set(assignment.unique().tolist()) == {0.0, 1.0}
        (assignment * torch.from_numpy(arrays["cotangent"])).sum().backward()
        for value, name in ((assignment, "out_assign"), (logits.grad, "grad_raw_attn")):
            expected = torch.from_numpy(arrays[name])
            torch.testing.assert_close(value, expected, rtol=tolerances["rtol"], atol=tolerances["atol"], check_dtype=True)


def test_the_assignment_to_centres_that_is_drawn() -> None:
    oracle = load_oracle(DATA, "segclip-assign")
    logits = oracle.inputs["logits"].clone().requires_grad_()
    assignment = hard_assignment(logits, oracle.inputs["gumbel"], oracle.hyperparameters["tau"])
    torch.testing.assert_close(assignment, oracle.outputs["hard"], rtol=0, atol=1e-12)
    shares = assignment / assignment.sum(dim=-1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(shares @ oracle.inputs["values"], oracle.outputs["group_mean"], rtol=oracle.rtol, atol=1e-12)
    (assignment * oracle.inputs["probe"]).sum().backward()
    torch.testing.assert_close(logits.grad, oracle.gradients["logits"], rtol=oracle.rtol, atol=1e-12)


@pytest.mark.parametrize(
    ("contrast", "compiled"),
    [
        ("segclip-contrast", False),
        ("segclip-contrast-clamped", False),
        pytest.param("segclip-contrast", True, marks=pytest.mark.slow),
    ],
    ids=["segclip-contrast", "segclip-contrast-clamped", "compiled"],
)
def test_the_recipe_of_segclip(contrast: str, compiled: bool) -> None:
    """The objective on the inputs of all its terms: each term, and its gradients."""
    names = {"contrast": contrast, "superpixels": "segclip-superpixel-kl", "reconstruction": "segclip-recon"}
    oracles = {term: load_oracle(DATA, name) for term, name in names.items()}
    leaves = {
        (term, name): oracle.inputs[name].clone().requires_grad_()
        for term, oracle in oracles.items()
        for name in oracle.gradients
        if name != "logit_scale"
    }
    objective = vlmdsl.compile("segclip", compiled=compiled).double()
    torch.nn.init.constant_(objective.get_parameter("log_scale"), float(oracles["contrast"].inputs["logit_scale"]))
    hidden, keep, decoder = _decoder(oracles["reconstruction"], leaves["reconstruction", "mask_token"])
    out = objective(
        modules={"decoder": decoder},
        image_crop=leaves["contrast", "image_raw"],
        text=leaves["contrast", "text_raw"],
        image_crop_assignment=leaves["superpixels", "assign"].transpose(1, 2),
        image_crop_segments=oracles["superpixels"].inputs["segments"].flatten(1),
        image_crop_drop_states=leaves["reconstruction", "hidden"],
        image_crop_drop_pixels=oracles["reconstruction"].inputs["imgs"],
        image_crop_drop_dropped=oracles["reconstruction"].inputs["mask"][:, 1:] == 1,
    )
    assert keep.shape[1] + 1 == hidden.shape[1]
    for term, oracle in oracles.items():
        torch.testing.assert_close(out.terms[term], oracle.outputs["total"], rtol=oracle.rtol, atol=1e-14)
    out.loss.backward()
    slopes = {key: leaf.grad for key, leaf in leaves.items()}
    slopes["contrast", "logit_scale"] = objective.get_parameter("log_scale").grad
    for (term, name), slope in slopes.items():
        oracle = oracles[term]
        torch.testing.assert_close(slope, oracle.gradients[name].view_as(slope), rtol=oracle.rtol, atol=1e-14)


def test_superpixels_of_soft_assignments() -> None:
    """Numbers between 0 and 1, and a batch of one: half of both divergences, divided by the groups too."""
    generator = torch.Generator().manual_seed(0)
    for samples in (1, 3):
        assign = torch.rand(samples, 9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        segments = torch.randint(0, 3, (samples, 9), generator=generator)
        loss = ops.assignment_divergence(assign, ops.segment_mean(assign, segments))
        same = (segments[:, :, None] == segments[:, None]).double()
        p, q = (part.softmax(dim=2) for part in (assign, same @ assign / same.sum(dim=2, keepdim=True)))
        expected = ((q * (q / p).log()).sum() + (p * (p / q).log()).sum()) / 2 / p.numel()
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        own, theirs = (torch.autograd.grad(value, assign, retain_graph=True)[0] for value in (loss, expected))
        torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-14)


def _decoder(oracle: Oracle, mask_token: Tensor) -> tuple[Tensor, Tensor, object]:
    """Their states, which patches those after the first are of, and the decoder: identities after the unshuffle."""
    hidden, restore = oracle.inputs["hidden"], oracle.inputs["ids_restore"]
    keep = restore.argsort(dim=1)[:, 1 : hidden.shape[1]] - 1
    positions = oracle.inputs["pos_embed"][:, 1:]
    patches = restore.shape[1] - 1
    return hidden, keep, lambda states: restored(states[:, 1:], mask_token[0, 0], keep, patches) + positions
