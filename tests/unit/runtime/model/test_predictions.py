"""Token losses of a model with logits and without: the same loss, terms and gradients."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vlmdsl
from unit.runtime.test_masked_texts import TOKENIZER, batches
from vlmdsl.backends.torch.cached import CachedStep
from vlmdsl.ir.modules import LinearSettings
from vlmdsl.ir.schedule import Linear
from vlmdsl.planning import linear
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import LinearHead
from vlmdsl.runtime.modules.towers import (
    SharedConfig,
    SharedTransformer,
    TextConfig,
    TextTransformer,
    VisionConfig,
    VisionTransformer,
)
from vlmdsl.runtime.values import Batch, ImageBatch

VISION = VisionConfig(16, 8, 16, 1, 2)
HEADER = "recipe r(image: Image, text: Text)\nlet m = random(20%)\nlet masked = mask(text, m)\n"
RECIPES = {
    "alone": "minimize { words: mlm(masked)\n  pairs: contrast(image, masked) }",
    "all tokens": 'minimize { a: token_loss(linear(text), text, smoothing=10%, reduction="sample")\n'
    "  b: contrast(image, text) }",
    "two texts, one weight": "minimize { words: mlm(masked)\n  others: mlm(mask(text, random(30%)))\n"
    "  b: contrast(image, text) }",
    "joined": "encoder one = shared(vision, language)\nminimize mlm(one(join(image, masked)))",
    "given its image": "minimize { words: mlm(masked | image)\n  own: mlm(masked)\n  b: contrast(image, text) }",
    "after a transform": 'minimize { words: token_loss(linear(masked, transform="gelu"), text, at=m)\n'
    "  given: mlm(masked | image)\n  b: contrast(image, text) }",
    "read twice": "minimize { a: token_loss(linear(masked), text, at=m)\n  b: token_loss(linear(masked), text)\n"
    "  c: contrast(image, text) }",
}


def model_of(recipe: str, lowering: str | Mapping[str, str], **options: bool) -> VisionLanguageModel:
    torch.manual_seed(0)
    objective = vlmdsl.compile(recipe, lowering=lowering, **{"compiled": False, **options})
    size, text = TOKENIZER.vocabulary_size, {"text_length": 24, "width": 16, "depth": 1, "heads": 2}
    if "shared" in recipe:
        towers = {"shared": SharedTransformer(SharedConfig(VISION, size, 24), 8, ("pooled", "vocabulary"))}
    else:
        language = TextTransformer(TextConfig(vocabulary_size=size, **text), 8, ("pooled", "vocabulary", "states"))
        if "transform=" in recipe:
            language.transform_vocabulary("language")
        towers = {"vision": VisionTransformer(VISION, 8, ("pooled", "states")), "language": language}
    return VisionLanguageModel(towers, objective).double()


def precise(batch: Batch) -> Batch:
    values = {
        name: ImageBatch(value.pixels.double()) if isinstance(value, ImageBatch) else value
        for name, value in batch.values.items()
    }
    return Batch(values, batch.index, batch.keys, batch.draws)


def results(model: VisionLanguageModel, batch: Batch, micro: int = 0) -> dict[str, Tensor]:
    """The terms, and the gradient of every weight."""
    if micro:
        step = CachedStep(model, micro)
        output = step(precise(batch))
        step.backward(output.loss)
    else:
        output = model(precise(batch))
        output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {**{name: value.detach() for name, value in output.terms.items()}, **gradients}


def logits_made(model: VisionLanguageModel) -> list[int]:
    """Counts calls of modules that make logits."""
    sizes: list[int] = []
    vocabularies = [tower.vocabulary_head for tower in model.encoders.values() if tower.vocabulary_head is not None]
    for module in [*vocabularies, *model.vocabularies.parts.values()]:
        module.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    return [] if not vocabularies else sizes


@pytest.mark.parametrize("name", RECIPES)
def test_a_product_in_the_loss_changes_nothing(name: str) -> None:
    recipe = HEADER + RECIPES[name]
    (batch,) = batches(recipe, 1)
    dense, chunked = model_of(recipe, "dense"), model_of(recipe, "chunked")
    calls = logits_made(chunked)
    torch.testing.assert_close(results(chunked, batch), results(dense, batch), rtol=1e-10, atol=1e-13)
    assert (TOKENIZER.vocabulary_size in calls) is (name == "read twice")


@pytest.mark.parametrize("name", ["two texts, one weight", "after a transform"])
def test_a_tied_weight_has_the_gradients_of_embedding_and_product(name: str) -> None:
    recipe = HEADER + RECIPES[name]
    (batch,) = batches(recipe, 1)
    gradients = []
    for lowering, micro in (("dense", 0), ("chunked", 0), ("chunked", 3)):
        model = model_of(recipe, lowering)
        language = model.encoders["language"]
        language.tie_vocabulary("language")
        assert language.vocabulary_head.weight is language.embedding.weight
        assert all(unit is not language.vocabulary_head for unit in model.units)
        transform = getattr(language.vocabulary_head, "transform", None)
        assert transform is None or any(unit is transform for unit in model.units)
        gradients.append(results(model, batch, micro))
    for others in gradients[1:]:
        torch.testing.assert_close(others, gradients[0], rtol=1e-10, atol=1e-13)
    assert "encoders.language.vocabulary_head.weight" not in gradients[0]


def test_an_embedding_of_another_width_is_not_tied() -> None:
    tower = TextTransformer(TextConfig(vocabulary_size=9, text_length=4, width=16, depth=1, heads=2), 8, ("vocabulary",))
    tower.embedding = torch.nn.Embedding(9, 8)
    with pytest.raises(vlmdsl.DiagnosticError, match="V0831"):
        tower.tie_vocabulary("transformer:odd")


@pytest.mark.parametrize("name", ["two texts, one weight", "given its image", "after a transform"])
def test_micro_batches_have_the_gradient_of_the_batch(name: str) -> None:
    recipe = HEADER + RECIPES[name]
    (batch,) = batches(recipe, 1)
    expected = results(model_of(recipe, "dense"), batch)
    torch.testing.assert_close(results(model_of(recipe, "chunked"), batch, micro=3), expected, rtol=1e-10, atol=1e-13)


def test_words_are_predicted_after_a_linear_map_a_gelu_and_a_norm() -> None:
    recipe = HEADER + 'minimize token_loss(linear(masked, transform="gelu"), text, at=m) + contrast(image, text)'
    (batch,) = batches(recipe, 1)
    model = model_of(recipe, "dense")
    head = model.encoders["language"].vocabulary_head
    assert isinstance(head, LinearHead)
    calls: list[tuple[Tensor, Tensor]] = []
    head.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    model(precise(batch))
    ((states, logits),) = calls
    first, _, norm = head.transform
    states = functional.layer_norm(functional.gelu(first(states)), (16,), norm.weight, norm.bias, eps=1e-5)
    torch.testing.assert_close(logits, states @ head.weight.T + head.bias, rtol=1e-10, atol=1e-12)


def test_the_head_of_a_tower_is_the_one_that_is_asked_for() -> None:
    recipe = HEADER + RECIPES["after a transform"]
    encoders = dict(model_of(recipe, "dense").encoders.items())
    plain = vlmdsl.compile(HEADER + RECIPES["given its image"], compiled=False)
    with pytest.raises(vlmdsl.DiagnosticError, match="predicts words by one linear map"):
        VisionLanguageModel(encoders, plain)
    size = TOKENIZER.vocabulary_size
    config = TextConfig(vocabulary_size=size, text_length=24, width=16, depth=1, heads=2)
    encoders["language"] = TextTransformer(config, 8, ("pooled", "vocabulary", "states"))
    objective = vlmdsl.compile(recipe, compiled=False)
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        VisionLanguageModel(encoders, objective)
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.help) == ("V0832", ('call `transform_vocabulary("language")` of the encoder',))
    encoders["language"].transform_vocabulary("language")  # as it says
    VisionLanguageModel(encoders, objective)


def test_no_transform_is_put_before_a_head_of_its_own() -> None:
    tower = TextTransformer(TextConfig(vocabulary_size=9, text_length=4, width=16, depth=1, heads=2), 8, ("vocabulary",))
    tower.vocabulary_head = torch.nn.Sequential(torch.nn.Linear(16, 9))
    with pytest.raises(vlmdsl.DiagnosticError, match="V0831"):
        tower.transform_vocabulary("transformer:odd")


def test_logits_that_are_too_large_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = HEADER + RECIPES["two texts, one weight"]
    (batch,) = batches(recipe, 1)
    model = model_of(recipe, "auto")
    expected = results(model, batch)
    sizes = sorted(model.logit_sizes(model.begin(batch)).values())
    for budget, count in ((sizes[1], 2), (sizes[0], 1), (sizes[0] - 1, 0)):
        monkeypatch.setattr(linear, "LOGITS_BUDGET", budget)
        model = model_of(recipe, "auto")
        calls = logits_made(model)
        torch.testing.assert_close(results(copy.deepcopy(model), batch), expected, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(results(model, batch), expected, rtol=1e-10, atol=1e-13)
        assert len(calls) == 2 * count  # of the copy too


def test_a_head_of_several_layers_makes_the_logits_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = HEADER + RECIPES["alone"]
    (batch,) = batches(recipe, 1)
    model = model_of(recipe, "auto")
    layers = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, TOKENIZER.vocabulary_size))
    model.encoders["language"].vocabulary_head = layers.double()
    monkeypatch.setattr(linear, "LOGITS_BUDGET", 0)
    assert results(model, batch)["encoders.language.vocabulary_head.0.weight"].any()
    objective = vlmdsl.compile(recipe, lowering="chunked", compiled=False)
    with pytest.raises(vlmdsl.DiagnosticError, match="more than one linear map"):
        VisionLanguageModel(dict(model.encoders.items()), objective)


def test_one_term_is_asked_for() -> None:
    recipe = HEADER + RECIPES["two texts, one weight"]
    (batch,) = batches(recipe, 1)
    model = model_of(recipe, {"others": "chunked"})
    calls = logits_made(model)
    torch.testing.assert_close(results(model, batch), results(model_of(recipe, "dense"), batch), rtol=1e-10, atol=1e-13)
    assert len(calls) == 1
    with pytest.raises(vlmdsl.DiagnosticError, match="V0605"):
        model_of(HEADER + RECIPES["read twice"], {"a": "chunked"})


def test_a_caller_passes_states_and_a_weight_instead_of_logits() -> None:
    objective = vlmdsl.compile("minimize mlm(mask(text, random(15%)))", compiled=False)
    states, weight, bias = torch.randn(4, 3, 5, requires_grad=True), torch.randn(7, 5), torch.randn(7)
    targets = torch.tensor([[1, -100, 6], [-100] * 3, [0, 2, 3], [-100, -100, 5]])
    loss = objective(text_masked_vocabulary=states @ weight.T + bias, text_masked_targets=targets).loss
    rest = {"language_vocabulary_bias": bias, "language_vocabulary_weight": weight, "text_masked_targets": targets}
    for same in (objective, copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        torch.testing.assert_close(same(**rest, text_masked_predicted=states).loss, loss)
    chunked = vlmdsl.compile("minimize mlm(mask(text, random(15%)))", compiled=False, lowering="chunked")
    torch.testing.assert_close(chunked(**rest, text_masked_predicted=states).loss, loss)
    assert [(name, spec.axes) for name, spec in chunked.inputs.items()] == [
        ("text_masked_predicted", ("B", "L", "W")),
        ("text_masked_targets", ("B", "L")),
        ("language_vocabulary_weight", ("V", "W")),
        ("language_vocabulary_bias", ("V",)),
    ]
    with pytest.raises(ValueError, match="axis W"):
        chunked(**rest, text_masked_predicted=states[:, :, :4])


def test_an_objective_is_given_a_vocabulary_on_fusion_with_its_weight() -> None:
    recipe = "minimize mlm(mask(text, random(15%)) | image)"
    states, context = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    targets, mask = torch.tensor([[1, -100, 6], [-100, 2, 3]]), torch.ones(2, 3, dtype=torch.bool)
    vocabulary = LinearHead(LinearSettings(transform=True), 4, 7).double()
    modules = {
        "fusion": lambda states, mask, context, _: SimpleNamespace(
            pooled=None, tokens=states + context.mean(1, True), mask=mask
        ),
        "vocabulary": vocabulary,
    }
    features = {"text_masked_states": states, "text_masked_mask": mask, "image_states": context}
    losses = [
        vlmdsl.compile(recipe, lowering=lowering, compiled=False)(
            modules, **features, text_masked_fusion_targets=targets
        ).loss
        for lowering in ("dense", "chunked")
    ]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(loss, [*vocabulary.parameters()]) for loss in losses))


def test_the_product_of_a_loss_has_the_precision_of_autocast() -> None:
    recipe = HEADER + RECIPES["alone"]
    (batch,) = batches(recipe, 1)
    losses = []
    for lowering in ("dense", "chunked"):
        model = model_of(recipe, lowering).float()
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model(batch).terms["words"])
            environment = model.begin(batch)
            for call in model.objective.schedule.calls:
                if call.use.module.family == "tower":
                    environment.update(
                        zip(call.outputs, model.call_tower(call, model.inputs(call, environment)), strict=True)
                    )
            takes = model.objective.schedule.steps[-1].takes
            products = [model.linear(value, environment) for value in takes if isinstance(value, Linear)]
    torch.testing.assert_close(*losses, rtol=2e-3, atol=0)
    assert [tokens.values.dtype for tokens, _, _ in products] == [torch.bfloat16]


def test_compiled_losses_make_products_for_every_batch_size() -> None:
    recipe = "minimize mlm(mask(text, random(15%)))"
    compiled, eager = (vlmdsl.compile(recipe, lowering="chunked", compiled=each) for each in (True, False))
    weight, bias = torch.randn(7, 5, requires_grad=True), torch.randn(7, requires_grad=True)
    for samples, length in ((4, 3), (6, 5), (3, 2)):
        states, targets = torch.randn(samples, length, 5, requires_grad=True), torch.randint(-1, 7, (samples, length))
        rest = {"language_vocabulary_weight": weight, "language_vocabulary_bias": bias, "text_masked_targets": targets}
        losses = [objective(**rest, text_masked_predicted=states).loss for objective in (compiled, eager)]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(loss, (states, weight, bias)) for loss in losses))
