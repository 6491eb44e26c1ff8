"""Poolers and linear heads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vlmdsl.backends.torch import ops
from vlmdsl.ir.modules import LinearSettings, PoolerSettings, TextDecoderSettings
from vlmdsl.runtime.modules import AttentionalPooler, LinearHead, TextDecoder


def pooler() -> AttentionalPooler:
    torch.manual_seed(0)
    return AttentionalPooler(PoolerSettings(queries=3, width=8, heads=1), context_width=10).double()


def test_a_pooler_is_its_formula() -> None:
    module, context = pooler(), torch.randn(2, 5, 10, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    attention = module.attention
    query = attention.query(functional.layer_norm(module.queries, (8,)))
    key, value = attention.key_value(functional.layer_norm(context, (10,))).chunk(2, dim=-1)
    weights = (query @ key.mT / math.sqrt(8)).masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)
    expected = functional.layer_norm(attention.output(weights @ value), (8,))
    torch.testing.assert_close(module(context, mask), expected)


def test_a_pooler_reads_no_padding() -> None:
    module, context = pooler(), torch.randn(2, 5, 10, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([3, 0])[:, None]
    poisoned = context.masked_fill(~mask[:, :, None], torch.nan).requires_grad_()
    features = module(poisoned, mask)
    features.square().sum().backward()
    torch.testing.assert_close(features[:1], module(context[:1, :3]))
    assert features.isfinite().all()
    assert poisoned.grad.isfinite().all()
    assert not poisoned.grad[~mask].any()


def test_gradients_of_a_pooler() -> None:
    context = torch.randn(2, 3, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pooler(), context, fast_mode=True)


def test_first_queries_are_of_variance_1() -> None:
    """As open_clip's `AttentionalPooler` draws them."""
    queries = AttentionalPooler(PoolerSettings(queries=200), context_width=64).queries
    assert 0.95 < queries.std().item() < 1.05


@pytest.mark.parametrize("width", [64, 512])
def test_first_queries_read_different_things(width: int) -> None:
    """With weights of BERT's standard deviation, for 768 features, attention over 64 is even, and the cosine is .999."""
    torch.manual_seed(0)
    features = AttentionalPooler(PoolerSettings(queries=8), width)(torch.randn(4, 50, width))
    cosines = functional.normalize(features, dim=-1) @ functional.normalize(features, dim=-1).transpose(1, 2)
    assert cosines.triu(1).sum() / (4 * 28) < 0.8


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_cross_entropy_of_a_head_needs_no_logits(transform: bool, bias: bool) -> None:
    torch.manual_seed(0)
    head = LinearHead(LinearSettings(bias=bias, transform=transform), states_width=6, size=9).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    states, targets = torch.randn(2, 4, 6, dtype=torch.float64), torch.randint(9, (2, 4))
    plain = functional.cross_entropy(head(states).flatten(0, 1), targets.flatten())
    chunked = ops.linear_cross_entropy(head(states, product=False), head.weight, targets, head.bias)
    torch.testing.assert_close(chunked, plain)


def test_a_tied_head_has_the_weight_of_the_embedding() -> None:
    decoder = TextDecoder(TextDecoderSettings(depth=1), vocabulary_size=9, text_length=4, context_width=6)
    head = LinearHead(LinearSettings(tied=True), 6, 9, embedding=decoder.embedding.weight)
    assert head.weight is decoder.embedding.weight
    both = nn.ModuleList([decoder, head])
    assert sum(parameter is head.weight for parameter in both.parameters()) == 1
    with pytest.raises(ValueError, match="no weight in"):
        LinearHead(LinearSettings(tied=True), 6, 10, embedding=decoder.embedding.weight)
    with pytest.raises(ValueError, match="no weight in"):
        LinearHead(LinearSettings(tied=True), 6, 9)


def test_first_weights_of_a_head_are_berts() -> None:
    torch.manual_seed(0)
    head = LinearHead(LinearSettings(transform=True), states_width=64, size=200)
    assert isinstance(head.transform, nn.Sequential)
    for weight in (head.weight, head.transform[0].weight):
        assert 0.95 * 0.02 < weight.std().item() < 1.05 * 0.02
    assert not head.bias.any()
