"""Attention against its formula, and the switches that objectives will use."""

import math

import pytest
import torch

from vlmdsl.runtime.modules.towers.blocks import Attention, Block, Transformer


def by_hand(attention, x, context, allowed):
    """One head after the other, from the definition."""
    width = x.shape[-1] // attention.heads
    query, (key, value) = attention.query(x), attention.key_value(context).chunk(2, dim=-1)
    heads = []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[..., part] @ key[..., part].mT / math.sqrt(width)
        heads.append(logits.masked_fill(~allowed, -math.inf).softmax(-1) @ value[..., part])
    return attention.output(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("rule", ["none", "keys", "pairs", "causal", "context"])
def test_attention_is_its_formula(rule):
    torch.manual_seed(0)
    attention = Attention(8, 2, context_width=6 if rule == "context" else None).double()
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    context = torch.randn(2, 4, 6, dtype=torch.float64) if rule == "context" else None
    pairs = torch.rand(2, 4, 4) < 0.7
    pairs |= torch.eye(4, dtype=torch.bool)
    keys = torch.tensor([[True, True, False, True], [True, False, False, False]])
    arguments = {
        "keys": {"mask": keys},
        "pairs": {"mask": pairs},
        "causal": {"causal": True},
        "context": {"context": context},
    }
    allowed = {"keys": keys[:, None, :], "pairs": pairs, "causal": torch.ones(4, 4, dtype=torch.bool).tril()}
    every = torch.ones(4, 4, dtype=torch.bool)
    expected = by_hand(attention, x, x if context is None else context, allowed.get(rule, every))
    torch.testing.assert_close(attention(x, **arguments.get(rule, {})), expected)


def test_cross_attention_is_off_without_a_context():
    torch.manual_seed(0)
    block = Block(8, 2, context_width=6)
    plain = Block(8, 2)
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if not name.startswith("cross")})
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    torch.testing.assert_close(block(x), plain(x))
    assert not torch.allclose(block(x, context=context), block(x))
    with pytest.raises(ValueError, match="without cross-attention"):
        plain(x, context=context)


@pytest.mark.parametrize("depth", [1, 12])
def test_a_fresh_stack_keeps_the_scale_of_its_input(depth):
    torch.manual_seed(0)
    transformer = Transformer(64, depth, 4)
    x = torch.randn(8, 16, 64)
    for block in transformer.blocks:
        x = block(x)
    assert 0.8 < x.std().item() < 2.0


def test_a_gate_starts_closed_and_opens():
    torch.manual_seed(0)
    gated, plain = Block(8, 2, context_width=6, gated=True), Block(8, 2, context_width=6)
    gated.load_state_dict(plain.state_dict(), strict=False)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    torch.testing.assert_close(gated(x, context=context), gated(x))
    torch.nn.init.ones_(gated.cross_gate)
    torch.testing.assert_close(gated(x, context=context), plain(x, context=context))


def test_a_stack_in_two_parts_is_the_stack():
    torch.manual_seed(0)
    transformer = Transformer(8, 3, 2, context_width=6, cross_from=1)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    whole = transformer(transformer(x, last=1), context=context, first=1)
    assert [block.cross_attention is None for block in transformer.blocks] == [True, False, False]
    between = transformer(transformer(x, last=1), context=context, first=1, last=2)
    torch.testing.assert_close(transformer(between, context=context, first=2, last=3), whole)
