"""A masked text from the loader through its tower to the criterion."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import vlmdsl
from batches import streams_in_forms
from vlmdsl.backends.torch.cached import CachedStep
from vlmdsl.ir import readings
from vlmdsl.runtime.data import BatchLoader, Requirement, map_fields, open_source
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import SharedConfig, SharedTransformer, TextConfig, TextTransformer, VisionConfig
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.values import NOT_SELECTED, Batch, ImageFormat, MaskedTokens, TextBatch, port
from vlmdsl.runtime.values.mask import selected_places
from vlmdsl.schema import OptimizerConfig

RECIPE = """
recipe masked(text: Text)
let hidden = mask(text, random(40%))
minimize {
  words: mlm(hidden)
  agree: contrast(hidden, text, temperature=0.1)
}
"""
TOKENIZER = train_tokenizer(["a large red circle", "two blue boxes"], 300).with_mask()


def batches(recipe: str, count: int, **options: int) -> list[Batch]:
    source = open_source("shapes:samples=40,size=20")
    objective = vlmdsl.compile(recipe, compiled=False)
    mapping = map_fields(source, [Requirement("text", "Text"), Requirement("image", "Image")])
    options = {"batch": 8, "seed": 3, **options}
    taken = streams_in_forms(readings(objective.streams), ImageFormat(16), TOKENIZER, 24)
    loader = BatchLoader(source, mapping, taken, **options)  # type: ignore[arg-type]
    return list(itertools.islice(loader, count))


def masked_text(batch: Batch, name: str = "text_masked") -> tuple[TextBatch, MaskedTokens]:
    text, masked = batch.values[name], batch.values[port(name, "masked")]
    assert isinstance(text, TextBatch)
    assert isinstance(masked, MaskedTokens)
    return text, masked


def tower(yields: tuple[str, ...]) -> TextTransformer:
    torch.manual_seed(0)
    config = TextConfig(width=16, depth=1, heads=2, vocabulary_size=TOKENIZER.vocabulary_size, text_length=24)
    return TextTransformer(config, 8, yields)


def test_only_the_masked_stream_has_targets_and_both_processes_share_its_draws() -> None:
    (whole,) = batches(RECIPE, 1)
    assert port("text", "masked") not in whole.values
    (text, masked), plain = masked_text(whole), whole.values["text"]
    assert isinstance(plain, TextBatch)
    selected = masked.targets != NOT_SELECTED
    assert 0.2 < selected.float().sum() / text.mask.sum() < 0.6
    assert torch.equal(masked.targets[selected], plain.ids[selected])
    shares = [masked_text(batches(RECIPE, 1, rank=rank, world=2)[0]) for rank in (0, 1)]
    assert torch.equal(torch.cat([share.ids for share, _ in shares]), text.ids)
    assert torch.equal(torch.cat([share.targets for _, share in shares]), masked.targets)
    _, later = masked_text(batches(RECIPE, 2)[1].to("cpu"))
    assert not torch.equal(later.targets, masked.targets)


def test_a_named_mask_is_one_draw_and_two_inline_masks_are_two() -> None:
    terms = "minimize mlm(mask(text, {0})) + contrast(mask(text, {1}), text)"
    named = f"recipe r(text: Text)\nlet m = random(40%)\n{terms.format('m', 'm')}"
    (batch,) = batches(named, 1)
    assert {name for name in batch.values if "masked" in name} == {"text_masked", port("text_masked", "masked")}
    (batch,) = batches(f"recipe r(text: Text)\n{terms.format('random(40%)', 'random(40%)')}", 1)
    (_, first), (_, second) = masked_text(batch), masked_text(batch, "text_masked_2")
    assert not torch.equal(first.targets, second.targets)
    # Whatever becomes of the selected tokens, they are the same ones.
    (batch,) = batches(named.replace("contrast(mask(text, m)", "contrast(mask(text, m, hidden=50%, replaced=50%)"), 1)
    (text, first), (changed, second) = masked_text(batch), masked_text(batch, "text_masked_2")
    assert torch.equal(first.targets, second.targets)
    assert not torch.equal(text.ids, changed.ids)


def test_the_masked_text_of_a_pair_is_predicted_in_the_light_of_its_image() -> None:
    recipe = (
        "recipe pairs(image: Image, text: Text)\nencoder one = shared(vision, language)\n"
        "minimize mlm(one(join(image, mask(text, random(10%)))))\n"
    )
    (batch,) = batches(recipe, 1)
    text, masked = masked_text(batch)
    assert masked.places is not None
    torch.manual_seed(0)
    config = SharedConfig(VisionConfig(16, 8, 16, 1, 2), TOKENIZER.vocabulary_size, 24)
    trunk = SharedTransformer(config, 8, ("vocabulary",))
    out = VisionLanguageModel({"shared": trunk}, vlmdsl.compile(recipe, compiled=False))(batch)
    (pixels,) = batch.values["image"]
    states = trunk(pixels, text.mask, text.ids).states[:, 4:]  # after the four patches
    logits = trunk.vocabulary_head(states)
    expected = functional.cross_entropy(logits.flatten(0, 1), masked.targets.flatten(), ignore_index=NOT_SELECTED)
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert trunk.stem.weight.grad is not None
    assert trunk.stem.weight.grad.abs().sum() > 0, "the image has no part in it"


def test_the_tower_is_asked_for_the_hidden_tokens() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    language = tower(("pooled", "vocabulary"))
    model = VisionLanguageModel({"language": language}, objective)
    (batch,) = batches(RECIPE, 1)
    out = model(batch)
    text, masked = masked_text(batch)
    logits = language.vocabulary_head(language(*text).states)
    expected = functional.cross_entropy(logits.flatten(0, 1), masked.targets.flatten(), ignore_index=NOT_SELECTED)
    torch.testing.assert_close(out.terms["words"], expected)
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in language.parameters())


def test_all_tokens_are_predicted_as_they_were_before_some_were_masked() -> None:
    recipe = "recipe r(text: Text)\nlet m = random(40%)\nminimize token_loss(linear(mask(text, m)), text)"
    language = tower(("vocabulary",))
    model = VisionLanguageModel({"language": language}, vlmdsl.compile(recipe, compiled=False))
    (batch,), (plain,) = batches(recipe, 1), batches(RECIPE, 1)
    text, original = masked_text(batch)[0], plain.values["text"]
    assert isinstance(original, TextBatch)
    assert not torch.equal(text.ids, original.ids)
    logits = language.vocabulary_head(language(*text).states)
    expected = functional.cross_entropy(logits[original.mask], original.ids[original.mask])
    torch.testing.assert_close(model(batch).loss, expected)


@pytest.mark.parametrize("micro", [0, 3])
@pytest.mark.parametrize("share", [10, 40])
def test_a_teacher_of_the_unmasked_text_is_compared_at_the_masked_tokens(share: int, micro: int) -> None:
    """Of 10 % the selected tokens would be packed, which a text without a mask has no places for."""
    recipe = (
        f"recipe r(text: Text)\nencoder elder = ema(language)\nlet m = random({share}%)\n"
        "minimize distill(linear(mask(text, m)), linear(elder(text)), at=m, temperature=2, teacher_temperature=0.5)"
    )
    objective = vlmdsl.compile(recipe, compiled=False).double()
    language = tower(("vocabulary",)).double()
    model = VisionLanguageModel({"language": language}, objective)
    (batch,) = batches(recipe, 1)
    (text, masked), plain = masked_text(batch), batch.values["text"]
    assert isinstance(plain, TextBatch)
    own, teacher = (language.vocabulary_head(language(*each).states) for each in (text, plain))
    counted = masked.targets != NOT_SELECTED
    soft = (teacher.detach()[counted] / 0.5).softmax(dim=-1)  # the elder begins with the weights of the tower
    expected = -(soft * (own[counted] / 2).log_softmax(dim=-1)).sum(dim=-1).mean()
    gradients = torch.autograd.grad(expected, [*language.parameters()])
    step = CachedStep(model, micro) if micro else None
    loss = (model if step is None else step)(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    loss.backward() if step is None else step.backward(loss)
    torch.testing.assert_close([weight.grad for weight in language.parameters()], [*gradients], rtol=1e-9, atol=1e-13)


def test_a_teacher_may_read_the_unmasked_text_with_its_image() -> None:
    recipe = (
        "recipe r(image: Image, text: Text)\nencoder one = shared(vision, language)\nencoder elder = ema(one)\n"
        "let m = random(10%)\nminimize distill(linear(one(join(image, mask(text, m)))), linear(elder({})), at=m)"
    )
    config = SharedConfig(VisionConfig(16, 8, 16, 1, 2), TOKENIZER.vocabulary_size, 24)
    for read, patches in (("join(image, text)", 4), ("text", 0)):
        torch.manual_seed(0)
        trunk, objective = SharedTransformer(config, 8, ("vocabulary",)), vlmdsl.compile(recipe.format(read), compiled=False)
        (batch,) = batches(recipe.format(read), 1)
        (text, masked), plain = masked_text(batch), batch.values["text"]
        assert isinstance(plain, TextBatch)
        (pixels,) = batch.values["image"]
        counted = masked.targets != NOT_SELECTED
        own = trunk.vocabulary_head(trunk(pixels, text.mask, text.ids).states[:, 4:])[counted]
        states = trunk(pixels, plain.mask, plain.ids).states if patches else trunk(plain.ids, plain.mask).states
        teacher = trunk.vocabulary_head(states[:, states.shape[1] - 24 :])[counted]
        expected = functional.cross_entropy(own, teacher.softmax(dim=-1))
        torch.testing.assert_close(VisionLanguageModel({"shared": trunk}, objective)(batch).loss, expected)


def test_only_the_chosen_tokens_get_logits_with_the_same_loss_and_gradients() -> None:
    (batch,) = batches(RECIPE.replace("40%", "10%"), 1)
    _, masked = masked_text(batch)
    places = masked.places
    assert places is not None
    assert places.shape[1] < 24, "as many places as tokens"
    by_form: dict[bool, list[torch.Tensor]] = {}
    for packed in (True, False):
        objective = vlmdsl.compile(RECIPE, compiled=False)
        language = tower(("pooled", "vocabulary")).double()
        model = VisionLanguageModel({"language": language}, objective.double())
        rows: list[int] = []
        language.vocabulary_head.register_forward_hook(lambda *call, rows=rows: rows.append(call[2][..., 0].numel()))
        if not packed:
            batch = replace(batch, values={**batch.values, port("text_masked", "masked"): masked._replace(places=None)})
        loss = model(batch).loss
        loss.backward()
        assert rows == [places.numel() if packed else 8 * 24]
        by_form[packed] = [loss.detach(), *(parameter.grad for parameter in language.parameters())]
    torch.testing.assert_close(by_form[True], by_form[False], rtol=1e-12, atol=1e-14)


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 40), share=st.floats(0.01, 1.0))
def test_the_places_are_those_of_the_chosen_tokens_and_as_many_for_every_batch(
    seed: int, samples: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    targets = torch.from_numpy(
        np.where(random.random((samples, 32)) < share, random.integers(0, 9, (samples, 32)), NOT_SELECTED)
    )
    places, nobody = selected_places(targets, share), selected_places(torch.full_like(targets, NOT_SELECTED), share)
    if places is None or nobody is None:
        assert places is nobody
        return
    assert places.shape == nobody.shape
    chosen = (targets.flatten() != NOT_SELECTED).nonzero().flatten()
    assert torch.equal(places[places != NOT_SELECTED], chosen)
    states = torch.arange(samples * 32.0).view(samples, 32, 1)
    picked, labels = MaskedTokens(targets, places).selected(states)
    assert torch.equal(picked[places != NOT_SELECTED].flatten(), chosen.float())
    assert torch.equal(labels[places != NOT_SELECTED], targets.flatten()[chosen])
    assert (labels[places == NOT_SELECTED] == NOT_SELECTED).all()


def test_a_batch_with_more_chosen_tokens_than_expected_gets_more_places() -> None:
    targets = torch.zeros(64, 32, dtype=torch.int64)
    targets[:, 20:] = NOT_SELECTED
    expected, places = selected_places(torch.full_like(targets, NOT_SELECTED), 0.15), selected_places(targets, 0.15)
    assert expected is not None
    assert places is not None
    assert expected.shape[1] < places.shape[1] == 20
    assert (places != NOT_SELECTED).all()
    targets[:, :] = 0
    assert selected_places(targets, 0.15) is None


def test_a_vocabulary_changes_no_other_weight_of_a_tower() -> None:
    plain, predicting = tower(("pooled",)).state_dict(), tower(("pooled", "vocabulary")).state_dict()
    assert set(predicting) - set(plain) == {"vocabulary_head.weight", "vocabulary_head.bias"}
    assert all(torch.equal(predicting[name], value) for name, value in plain.items())


@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_a_resumed_run_goes_on_bit_for_bit(lowering: str, tmp_path: Path) -> None:
    recipe = """
recipe queued(text: Text)
let masked = mask(text, random(40%))
let earlier = queue((text, masked), size=20)
minimize contrast(masked, nearest(each((text, masked)), earlier), directions="rows") + mlm(masked)
"""
    steps = batches(recipe, 4)

    def model_and_optimizer() -> tuple[VisionLanguageModel, torch.optim.AdamW]:
        objective = vlmdsl.compile(recipe, compiled=False, lowering={"*": "auto", "loss": lowering})
        model = VisionLanguageModel({"language": tower(("pooled", "vocabulary"))}, objective)
        return model, build_optimizer(model, OptimizerConfig(learning_rate=1e-2))

    def train(model: VisionLanguageModel, optimizer: torch.optim.AdamW, part: list[Batch]) -> list[float]:
        losses = []
        for batch in part:
            loss = model(batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    whole = train(*model_and_optimizer(), steps)
    half = model_and_optimizer()
    first = train(*half, steps[:2])
    folder = save_checkpoint(tmp_path, *half, Position(2, 0, 2, seed=0))
    resumed = model_and_optimizer()
    load_checkpoint(folder, *resumed)
    assert first + train(*resumed, steps[2:]) == whole
