"""Masked texts: how many tokens are chosen and what becomes of them, what is never chosen, and on what a draw hangs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlmdsl.runtime.tokenizer import Tokenizer, train_tokenizer
from vlmdsl.runtime.values.mask import NOT_SELECTED, MaskedText, hide_tokens
from vlmdsl.runtime.values.text import TextFormat

TOKENIZER = train_tokenizer(["a large red circle", "a small blue box"], 320).with_mask()
TEXT = "a large red circle and a small blue box " * 3
LENGTH = 80


def masked(
    count: int, share: float = 0.15, hidden: float = 0.8, replaced: float = 0.1, length: int = LENGTH
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Original ids, mask, changed ids and targets of `count` texts."""
    texts = [MaskedText(TEXT, share, hidden, replaced, (0, "view", 0, f"sample {number}")) for number in range(count)]
    form = TextFormat(TOKENIZER, length)
    plain = form.encode([text.text for text in texts])
    changed, targets = hide_tokens(texts, form)
    return *plain, changed.ids, targets


def test_shares_of_what_is_chosen_hidden_and_replaced() -> None:
    ids, mask, changed, targets = masked(400)
    chosen = targets != NOT_SELECTED
    words = int(mask.sum()) - 2 * len(ids)
    assert abs(int(chosen.sum()) / words - 0.15) < 0.01
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(changed[~chosen], ids[~chosen])
    hidden, kept = changed == TOKENIZER.mask, chosen & (changed == ids)
    assert not (hidden & ~chosen).any()
    assert abs(float(hidden[chosen].float().mean()) - 0.8) < 0.03
    assert abs(float(kept[chosen].float().mean()) - 0.1) < 0.03
    assert len(changed[chosen & ~hidden & ~kept].unique()) > 50


def test_marks_and_padding_are_neither_chosen_nor_put_in() -> None:
    ids, mask, changed, targets = masked(50, share=1.0, hidden=0.0, replaced=1.0)
    real = mask & (ids != TOKENIZER.start) & (ids != TOKENIZER.end)
    assert torch.equal(targets != NOT_SELECTED, real)
    assert not np.isin(changed[real], TOKENIZER.marks()).any()
    assert torch.equal(changed[~real], ids[~real])


def test_draws_depend_on_their_key_and_not_on_the_batch_or_its_length() -> None:
    _, _, changed, targets = masked(6)
    alone = MaskedText(TEXT, 0.15, 0.8, 0.1, (0, "view", 0, "sample 4"))
    again, again_targets = hide_tokens([alone], TextFormat(TOKENIZER, LENGTH))
    assert torch.equal(again.ids[0], changed[4])
    assert torch.equal(again_targets[0], targets[4])
    _, _, longer, _ = masked(6, length=LENGTH + 9)
    assert torch.equal(longer[:, :LENGTH], changed)
    elsewhere = replace(alone, purpose=(0, "view", 1, "sample 4"))
    assert not torch.equal(hide_tokens([elsewhere], TextFormat(TOKENIZER, LENGTH))[1], again_targets)


def test_no_mask_token_is_an_error() -> None:
    plain: Tokenizer = train_tokenizer(["a red box"], 300)
    with pytest.raises(ValueError, match="no mask token"):
        hide_tokens([MaskedText("a", 0.5, 0.8, 0.1, ())], TextFormat(plain, 5))
