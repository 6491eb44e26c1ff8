"""A fusion module that is the text tower itself, run once more with cross-attention."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.backends.plan import make_plan
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir.modules import TextDecoderSettings
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import Fusion, TextDecoderTower
from vlmdsl.runtime.modules.towers import (
    Encoder,
    TextConfig,
    TextTransformer,
    VisionConfig,
    VisionTransformer,
    build_encoder,
)
from vlmdsl.runtime.values import Batch, ImageBatch, TextBatch

RECIPE = """
recipe shared(image: Image, text: Text)
encoder fusion = fuse(shares=language)
encoder captioner = text_decoder(shares=fusion)
let wrong = mine(similarity(image, text), along="rows", choose="hardest")
minimize {
  pairs: contrast(image, text, temperature=0.1)
  matches: matched(text | image, take(text, wrong) | image)
  captions: next_token(linear(captioner(text, image)), text)
}
"""
TEACHER = """
recipe taught(image: Image, text: Text)
encoder fusion = fuse(shares=language)
encoder elder = ema(fusion, momentum=0.5)
minimize {
  pairs: contrast(image, text, temperature=0.1)
  taught: contrast(text | image, stop(elder(text, image)), temperature=0.1)
}
"""
CROSS = {"cross_attention", "cross_norm", "first_token"}
TEXTS, IMAGES = (4, 6), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def model_of(recipe: str = RECIPE, *, normed: bool = True, **changes: Encoder) -> VisionLanguageModel:
    torch.manual_seed(0)
    objective = vlmdsl.compile(recipe, compiled=False)
    yields = ("pooled", "states", "embedded")
    texts = TextConfig(16, 2, 4, vocabulary_size=11, text_length=6, causal=False, normed=normed)
    encoders = {
        "vision": VisionTransformer(VisionConfig(8, 4, 12, 1, 1), 8, ("pooled", "states")),
        "language": TextTransformer(texts, 8, yields),
        "captioner": TextDecoderTower(TextDecoderSettings(2, heads=4, shares="fusion"), 16, 11, 6, 8, 12),
    }
    needed = {stream.encoder.tower for stream in objective.streams}
    encoders = {name: changes.get(name, encoder) for name, encoder in encoders.items() if name in needed}
    return VisionLanguageModel(encoders, objective, steps=4).double()


def fusion_of(model: VisionLanguageModel) -> Fusion:
    fusion = model.parts.families["fusion"].parts["fusion"]
    assert isinstance(fusion, Fusion)
    return fusion


def texts() -> TextBatch:
    ids = torch.randint(11, TEXTS, generator=torch.Generator().manual_seed(4))
    return TextBatch(ids, torch.arange(6) < torch.tensor([6, 3, 5, 2])[:, None])


def batch() -> Batch:
    values = {"image": ImageBatch(IMAGES.double()), "text": texts()}
    return Batch(values, torch.arange(4), [str(number) for number in range(4)])


def by_hand(model: VisionLanguageModel, context: Tensor) -> Tensor:
    """The tower block by block, with cross-attention between self-attention and the feed-forward layer."""
    tower, fusion, (ids, mask) = model.encoders["language"], fusion_of(model), texts()
    words = torch.cat([fusion.first_token.expand(len(ids), 1, -1), tower.embedding(ids)[:, 1:]], dim=1)
    x = words + tower.positions
    x = x if tower.embedding_norm is None else tower.embedding_norm(x)
    for own, block in zip(fusion.transformer.blocks, tower.transformer.blocks, strict=True):
        x = x + block.attention(block.attention_norm(x), mask=mask)
        x = x + own.cross_attention(own.cross_norm(x), context)
        x = x + block.feed_forward(block.feed_forward_norm(x))
    return tower.transformer.norm(x)


@pytest.mark.parametrize("normed", [False, True])
def test_it_is_the_tower_with_cross_attention_and_a_first_token_of_its_own(normed: bool) -> None:
    model, context = model_of(normed=normed), torch.randn(4, 5, 12, dtype=torch.float64)
    features = model.encoders["language"](*texts())
    output = fusion_of(model)(features.embedded, features.mask, context)
    expected = by_hand(model, context)
    torch.testing.assert_close(output.tokens[texts().mask], expected[texts().mask])
    torch.testing.assert_close(output.pooled, expected[:, 0])


def test_all_but_cross_attention_and_the_first_token_is_shared() -> None:
    model = model_of()
    tower = {id(weight) for weight in model.encoders["language"].parameters()}
    for name, weight in fusion_of(model).named_parameters():
        assert (id(weight) in tower) != bool(set(name.split(".")) & CROSS), name
    decoder = model.encoders["captioner"].decoder
    assert decoder.transformer.blocks[1].feed_forward is model.encoders["language"].transformer.blocks[1].feed_forward
    assert decoder.embedding is model.encoders["language"].embedding
    assert model.parts.tied == {"captioner", "language"}
    assert not {model.encoders["language"], fusion_of(model)} & set(model.parts.separate_units)


def test_the_plan_counts_what_is_its_own() -> None:
    own = [weight for name, weight in fusion_of(model_of()).named_parameters() if set(name.split(".")) & CROSS]
    plan = make_plan(build(RECIPE).planned, dim=16, vocabulary=11, text_tokens=6)
    (row,) = [part for part in plan.parts if part.name == "fusion" and "`language` with cross-attention" in part.what]
    of_block = (sum(weight.numel() for weight in own) - 16) // 2  # without the first token
    wider = 2 * (16 - 12) * 16  # a plan assumes that the image is as wide as the text, and that the tower has 12 blocks
    assert row.parameters == 12 * (of_block + wider) + 16


def test_gradients_of_all_terms_reach_the_tower_once_each() -> None:
    """What the tower learns from each term alone adds up to what it learns from all."""
    model = model_of()
    weight = model.encoders["language"].transformer.blocks[0].attention.query.weight
    output = model(batch())
    parts = [torch.autograd.grad(term, weight, retain_graph=True, allow_unused=True)[0] for term in output.terms.values()]
    (whole,) = torch.autograd.grad(output.loss, weight)
    assert [part is not None and bool(part.any()) for part in parts] == [True, True, False]
    torch.testing.assert_close(sum(part for part in parts if part is not None), whole)


def test_steps_checkpoints_and_copies_keep_the_tie() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(batch()).loss.backward()
    optimizer.step()
    twin = copy.deepcopy(model)
    other = model_of()
    other.load_state_dict(model.state_dict())
    for each in (model, twin, other):
        shared = each.encoders["language"].transformer.blocks[0].attention
        assert fusion_of(each).transformer.blocks[0].attention is shared
        assert torch.equal(shared.query.weight, model.encoders["language"].transformer.blocks[0].attention.query.weight)
    assert not torch.equal(fusion_of(model).first_token, fusion_of(model_of()).first_token)


def test_a_teacher_follows_the_tower_in_it() -> None:
    model = model_of(TEACHER)
    (elder,) = model.teachers.copies.values()
    weight = fusion_of(model).transformer.blocks[0].attention.query.weight
    with torch.no_grad():
        weight.add_(1.0)
    before = elder.transformer.blocks[0].attention.query.weight.clone()
    for order in ("before", "after"):
        model.parts.follow(order)
    torch.testing.assert_close(elder.transformer.blocks[0].attention.query.weight, (before + weight) / 2)
    assert not any(parameter.requires_grad for parameter in elder.parameters())


def test_a_frozen_tower_stays_as_it_is() -> None:
    frozen = RECIPE.replace("encoder fusion", "encoder language = frozen(language)\nencoder fusion")
    frozen = frozen.replace("encoder captioner = text_decoder(shares=fusion)\n", "")
    frozen = frozen.replace("  captions: next_token(linear(captioner(text, image)), text)\n", "")
    model = model_of(frozen)
    model(batch()).loss.backward()
    learned = {name for name, weight in fusion_of(model).named_parameters() if weight.grad is not None}
    assert learned
    assert all(set(name.split(".")) & CROSS for name in learned)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("shares=language", "shares=language, depth=2", "V0405"),
        ("shares=language", 'shares=language, attention="none"', "V0405"),
        ("shares=language", "shares=vision", "V0301"),
        ("shares=language", "shares=ema(language)", "V0301"),
        ("matched(text | image", 'matched(separate(language, name="other")(text) | image', "V0313"),
    ],
)
def test_what_cannot_be_shared_is_a_diagnostic(before: str, after: str, code: str) -> None:
    recipe = RECIPE.replace(before, after)
    assert recipe != RECIPE
    assert [each.code for each in vlmdsl.check(recipe) if each.severity == "error"] == [code]


def test_a_tower_without_built_in_blocks_is_refused() -> None:
    class Other(Encoder):
        vocabulary_size, text_length, states_width = 11, 6, 16

    with pytest.raises(DiagnosticError, match="has none that are built in"):
        model_of(language=Other("Text", 8, ("pooled", "states", "embedded")))
    with pytest.raises(DiagnosticError, match="has no built-in blocks that a fusion module could share"):
        build_encoder("vit:tiny", "Image", 8, ("embedded",))
