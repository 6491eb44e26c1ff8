"""Modules against the authors' code: how kept patches come back to their places, and what a class token attends to."""

from __future__ import annotations

from pathlib import Path

import torch

from vlmdsl.runtime.modules.decoders import restored
from vlmdsl.runtime.modules.sequences import attention_mask
from vlmdsl.testing.oracle import load_oracle

DATA = Path(__file__).parent / "data"


def test_kept_patches_come_back_to_their_places() -> None:
    """The class token, which theirs takes along and drops in the end, has no patch."""
    oracle = load_oracle(DATA, "mae-decoder-assembly")
    latent = oracle.inputs["latent"].clone().requires_grad_()
    mask_token = oracle.inputs["mask_token"].clone().requires_grad_()
    restore = oracle.inputs["ids_restore"]
    keep = restore.argsort(dim=1)[:, : latent.shape[1] - 1]
    tokens = restored(latent[:, 1:], mask_token[0, 0], keep, restore.shape[1]) + oracle.inputs["pos_embed"][:, 1:]
    torch.testing.assert_close(tokens, oracle.outputs["tokens"], rtol=oracle.rtol, atol=0)
    total = (tokens * oracle.inputs["probe"]).sum()
    torch.testing.assert_close(total, oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    total.backward()
    torch.testing.assert_close(latent.grad[:, 1:], oracle.gradients["latent"][:, 1:], rtol=oracle.rtol, atol=0)
    torch.testing.assert_close(mask_token.grad, oracle.gradients["mask_token"], rtol=oracle.rtol, atol=oracle.rtol)


def test_a_class_token_behind_the_text_attends_to_its_tokens_and_itself() -> None:
    """Every other position also attends to itself, padding too, so that none attends to nothing."""
    oracle = load_oracle(DATA, "coca-clsmask")
    real = oracle.inputs["text"] != 0
    seen = attention_mask(
        real.shape[1] + 1, torch.cat([real, torch.ones(len(real), 1, dtype=torch.bool)], dim=1), causal=True
    )
    expected = oracle.outputs["allowed_correct"].bool() | torch.eye(real.shape[1] + 1, dtype=torch.bool)
    assert torch.equal(seen, expected)
