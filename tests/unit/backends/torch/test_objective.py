"""The module: what it takes and gives, its parameters, autocast, compilation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vlmdsl
from unit.backends.torch.programs import clip, labelled, tokenwise
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.ir import Direction, Program, TargetPart

# torch's compiler itself uses what torch deprecates.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def features(size: int = 6, width: int = 4, *, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("image", "text")
    return {name: torch.randn(size, width, generator=generator, dtype=dtype).requires_grad_() for name in names}


def token_features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    text = torch.randn(5, 6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    mask = torch.arange(6)[None] < torch.tensor([[6], [4], [1], [2], [0]])
    return {"image_tokens": image, "text_tokens": text, "text_mask": mask}


def label_features() -> dict[str, Tensor]:
    extra = {
        "weight": torch.rand(6, dtype=torch.float64).requires_grad_(),
        "label": torch.tensor([1, 1, 0, 2, -1, -1]),
        "asks": torch.tensor([True, True, False, True, True, True]),
        "kept": torch.tensor([True, False, True, True, True, True]),
    }
    return features() | extra


def usual(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    logits = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T * log_scale.exp()
    positions = torch.arange(len(image))
    return (F.cross_entropy(logits, positions) + F.cross_entropy(logits.T, positions)) / 2


def test_loss_terms_metrics_and_gradients() -> None:
    objective = Objective(clip()).double()
    batch = features()
    out = objective(**batch)
    out.loss.backward()
    expected = usual(batch["image"].detach(), batch["text"].detach(), objective.log_scale.detach())
    torch.testing.assert_close(out.loss.detach(), expected)
    assert out.loss is out.terms["contrast"] or torch.equal(out.loss, out.terms["contrast"])
    assert out.metrics["logit_scale"].item() == pytest.approx(math.exp(2.6593))
    assert out.metrics["contrast.chance"].item() == pytest.approx(math.log(6))
    assert 0 <= out.metrics["contrast.accuracy"].item() <= 1
    assert not any(metric.requires_grad for metric in out.metrics.values())
    assert objective.log_scale.grad is not None


def test_the_chance_level_is_the_loss_of_equal_features() -> None:
    for program in (clip(), tokenwise()):
        objective = Objective(program)
        tokens = {"image_tokens": (8, 2, 4), "text_tokens": (8, 3, 4)}
        width = {"image": (8, 4), "text": (8, 4)} if program.name == "clip" else tokens
        same = {name: torch.ones(shape) for name, shape in width.items()}
        masks = {} if program.name == "clip" else {"text_mask": torch.ones(8, 3, dtype=torch.bool)}
        out = objective(**same, **masks)
        for name, level in out.metrics.items():
            if name.endswith(".chance"):
                assert out.terms[name.removesuffix(".chance")].item() == pytest.approx(level.item(), rel=1e-5)


def test_weights_make_the_chance_level_unknown() -> None:
    assert "contrast.chance" not in Objective(labelled())(**label_features()).metrics


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: {**f, "imgae": f["image"]}, TypeError, "takes no 'imgae': did you mean `image`?"),
        (lambda f: {"image": f["image"]}, TypeError, r"lacks text \[B, D\], pooled features of text"),
        (lambda f: {**f, "text": f["text"].long()}, TypeError, "text must be float, got int64"),
        (lambda f: {**f, "text": [1.0]}, TypeError, r"text must be a tensor \[B, D\], got list"),
        (lambda f: {**f, "text": f["text"][0]}, ValueError, r"text must have the axes \[B, D\], got the shape \[4\]"),
        (lambda f: {**f, "text": f["text"][:3]}, ValueError, r"axis B \(samples\): image has 6, text has 3"),
        (lambda f: {**f, "text": f["text"][:, :3]}, ValueError, r"axis D \(features\): image has 4, text has 3"),
        (lambda f: {name: value[:0] for name, value in f.items()}, ValueError, "image holds no samples"),
        (lambda f: {**f, "text": f["text"].to("meta")}, ValueError, "image is on cpu, text is on meta"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Objective(clip())(**change(features()))


def test_the_mask_of_texts_is_asked_for_and_that_of_images_is_not() -> None:
    objective = Objective(tokenwise()).double()
    batch = token_features()
    objective(**batch)
    with pytest.raises(TypeError, match=r"lacks text_mask \[B, L\], true where text has a token"):
        objective(image_tokens=batch["image_tokens"], text_tokens=batch["text_tokens"])
    with pytest.raises(ValueError, match=r"axis L \(tokens\): text_tokens has 6, text_mask has 5"):
        objective(**batch | {"text_mask": batch["text_mask"][:, :5]})


def test_parameters_are_projected_into_their_bounds() -> None:
    objective = Objective(clip())
    with torch.no_grad():
        objective.log_scale.fill_(7.0)
    objective.after_step()
    assert objective.log_scale.item() == pytest.approx(4.6052)


def test_the_state_goes_round() -> None:
    trained, fresh = Objective(clip()), Objective(clip())
    with torch.no_grad():
        trained.log_scale.fill_(1.5)
    assert set(trained.state_dict()) == {"log_scale"}
    fresh.load_state_dict(trained.state_dict())
    assert fresh.log_scale.item() == 1.5


@pytest.mark.parametrize("name", ["forward", "training", "rows.temperature", "inputs"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    objective = Objective(clip(parameter=name))
    assert len(list(objective.parameters())) == 1
    objective(**features())


def test_a_frozen_encoder_gets_no_gradient() -> None:
    batch = features()
    Objective(clip(frozen=True))(**batch).loss.backward()
    assert batch["image"].grad is None
    assert batch["text"].grad is not None


def test_autocast_changes_nothing() -> None:
    objective, batch = Objective(clip()), features(dtype=torch.float32)
    plain = objective(**batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objective(**batch).loss, plain)
        half = {name: value.bfloat16() for name, value in batch.items()}
        assert objective(**half).loss.dtype is torch.float32


def test_towers_of_different_precision_meet_in_the_wider_one() -> None:
    objective, batch = Objective(clip()), features(dtype=torch.float32)
    mixed = objective(image=batch["image"].bfloat16(), text=batch["text"]).loss
    assert mixed.item() == pytest.approx(objective(**batch).loss.item(), rel=1e-2)


def test_a_bias_of_all_logits_cancels_and_learns_nothing() -> None:
    biased = Direction(0.5, (TargetPart("paired", 1.0),), scale=2, bias=2)
    objective, plain = Objective(clip(rows=biased)), Objective(clip())
    assert torch.equal(objective(**features()).loss, plain(**features()).loss)


def test_formula_and_plan_come_from_who_built_it() -> None:
    objective = Objective(clip(), latex=lambda: r"\mathcal{L}", planner=lambda batch: {"batch": batch})
    assert objective.latex() == r"\mathcal{L}"
    assert objective.plan(batch=8) == {"batch": 8}
    with pytest.raises(RuntimeError, match="without a planner"):
        Objective(clip()).plan()


def gradients(objective: nn.Module, features: dict[str, Tensor]) -> list[Tensor]:
    leaves = [value for value in features.values() if value.requires_grad] + list(objective.parameters())
    loss = objective(**features).loss
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@compiles
@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "make"),
    [(clip(), features), (labelled(), label_features), (tokenwise(), token_features)],
    ids=lambda value: value.name if isinstance(value, Program) else "",
)
def test_compiled_is_eager_in_one_graph_that_is_compiled_once(
    program: Program, make: Callable[[], dict[str, Tensor]]
) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    batch = make()
    expected = gradients(Objective(program).double(), batch)
    compiled = Objective(program, compiled=True).double()
    for _ in range(3):
        for gradient, reference in zip(gradients(compiled, batch), expected, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-12)
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1


@compiles
@pytest.mark.slow
def test_an_outer_module_compiles_around_it() -> None:
    torch._dynamo.reset()
    objective = Objective(clip()).double()
    model = nn.Sequential(nn.Linear(4, 4).double())

    def step(image: Tensor, text: Tensor) -> Tensor:
        return objective(image=model(image), text=text).loss

    batch = features()
    outer = torch.compile(step, fullgraph=True)
    torch.testing.assert_close(outer(**batch), step(**batch), rtol=1e-10, atol=1e-12)


def test_inputs_like_sound_ones_before_are_checked_all_the_same() -> None:
    objective = vlmdsl.compile("clip", compiled=False)
    image, text = torch.randn(2, 4, 3)
    for _ in range(2):
        objective(image=image, text=text)
        for wrong in (text[:3], text.long(), text[0], "text", None):
            with pytest.raises((TypeError, ValueError), match="text"):
                objective(image=image, text=wrong)
    objective(text=text, image=image)
    more = objective(image=torch.randn(7, 3), text=torch.randn(7, 3))
    assert abs(more.metrics["contrast.chance"].item() - math.log(7)) < 1e-6
