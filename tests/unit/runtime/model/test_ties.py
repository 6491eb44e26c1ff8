"""A text decoder that shares all but its self-attention with a fusion module, and embeddings with the text tower."""

from __future__ import annotations

import copy

import pytest
import torch

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.backends.plan import make_plan
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir.modules import TextDecoderSettings
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import TextDecoder, TextDecoderTower
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer

RECIPE = """
recipe shared(image: Image, text: Text)
encoder fusion = fuse(depth=2, gate="learned")
encoder captioner = text_decoder(shares=fusion)
minimize {
  words: mlm(mask(text, random(15%)) | image)
  captions: next_token(linear(captioner(text, image)), text)
}
"""
OWN = ("attention", "attention_norm")


def model_of(width: int = 16, vocabulary: int = 11, recipe: str = RECIPE) -> VisionLanguageModel:
    """The recipe on towers of `width` features; its decoder is made for 16, and 11 words."""
    eye = VisionConfig(image_size=8, patch_size=4, width=12, depth=1, heads=1)
    texts = TextConfig(width, 1, 2, vocabulary_size=vocabulary, text_length=6)
    encoders = {
        "vision": VisionTransformer(eye, 8, ("states",)),
        "language": TextTransformer(texts, 8, ("states", "vocabulary")),
        "captioner": TextDecoderTower(TextDecoderSettings(2, shares="fusion"), 16, 11, 6, 8, 12),
    }
    return VisionLanguageModel(encoders, vlmdsl.compile(recipe, compiled=False))


def parts(model: VisionLanguageModel) -> tuple[TextDecoder, torch.nn.Module]:
    tower = model.encoders["captioner"]
    assert isinstance(tower, TextDecoderTower)
    return tower.decoder, model.parts.families["fusion"].parts["fusion"]


def test_all_weights_but_those_of_self_attention_are_shared() -> None:
    model = model_of()
    decoder, fusion = parts(model)
    shared = {id(weight) for weight in (*fusion.parameters(), *model.encoders["language"].parameters())}
    for name, weight in decoder.named_parameters():
        assert (id(weight) in shared) != bool(set(name.split(".")) & set(OWN)), name
    assert model.parts.tied == {"captioner", "language"}


def test_the_plan_counts_them_once() -> None:
    decoder, _ = parts(model_of())
    own = sum(weight.numel() for name, weight in decoder.named_parameters() if set(name.split(".")) & set(OWN))
    plan = make_plan(build(RECIPE).planned, dim=16, vocabulary=11, text_tokens=6)
    (row,) = [part for part in plan.parts if part.name == "captioner" and "decoder" in part.what]
    assert row.parameters == own


def test_a_step_of_the_optimiser_moves_both_and_checkpoints_and_copies_keep_the_tie() -> None:
    model = model_of()
    decoder, fusion = parts(model)
    weight = fusion.transformer.blocks[0].feed_forward.hidden.weight
    before = weight.detach().clone()
    image, ids = torch.randn(2, 3, 12), torch.randint(0, 11, (2, 6))
    decoder(ids, context=image).tokens.square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.equal(before, weight)
    assert decoder.transformer.blocks[0].feed_forward.hidden.weight is weight
    other = model_of()
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model).double().float()):
        decoder_of_twin, fusion_of_twin = parts(twin)
        torch.testing.assert_close(decoder_of_twin(ids, context=image).tokens, decoder(ids, context=image).tokens)
        theirs = decoder_of_twin.transformer.blocks[1].cross_attention.query.weight
        assert theirs is fusion_of_twin.transformer.blocks[1].cross_attention.query.weight


def test_modules_that_share_weights_are_not_sharded_one_by_one() -> None:
    model = model_of()
    separate = model.parts.separate_units
    assert model.encoders["vision"] in separate
    assert not {model.encoders["captioner"], model.encoders["language"], parts(model)[1]} & set(separate)


@pytest.mark.parametrize(
    ("sizes", "problem"), [({"width": 32}, "its states are 16"), ({"vocabulary": 13}, "its words are 11x16")]
)
def test_other_sizes_are_refused(sizes: dict[str, int], problem: str) -> None:
    with pytest.raises(DiagnosticError, match=problem):
        model_of(**sizes)


def test_without_fused_texts_there_is_nothing_to_share() -> None:
    alone = RECIPE.replace("  words: mlm(mask(text, random(15%)) | image)\n", "")
    with pytest.raises(DiagnosticError, match="takes the states of several text towers, or of none"):
        model_of(recipe=alone)


@pytest.mark.parametrize(
    ("fusion", "arguments", "code"),
    [
        ('fuse(attention="merged")', "shares=fusion", "V0301"),
        ("fuse()", "shares=ema(fusion)", "V0301"),
        ("fuse()", "shares=fusion, depth=2", "V0405"),
        ("fuse()", "shares=vision", "V0301"),
    ],
)
def test_what_cannot_be_shared_is_a_diagnostic(fusion: str, arguments: str, code: str) -> None:
    recipe = RECIPE.replace('fuse(depth=2, gate="learned")', fusion).replace("shares=fusion", arguments)
    assert [each.code for each in vlmdsl.check(recipe) if each.severity == "error"] == [code]
